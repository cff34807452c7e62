package entra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/auditlogs"
	"github.com/microsoftgraph/msgraph-sdk-go/users"

	"signup-sync/handler/signup"
)

const (
	// instant is an OData literal: UTC, unquoted, at most the 100 ns that Graph keeps. An offset is never sent.
	instant = "2006-01-02T15:04:05.9999999Z"
	second  = "2006-01-02T15:04:05Z"
	// pageSize is asked for; the documented maximum for users, and below the one seen for logs.
	pageSize = int32(999)
	// slack is how far outside of the window an event may lie: the literals are inclusive, and coarser than our times.
	slack = time.Second
	// maxNamed is how many undecodable records one read logs by id; the others are counted.
	maxNamed = 5
)

// activities are the audit log's names for what is a sign-up (reference-audit-activities).
var activities = []struct {
	name string
	kind signup.Kind
}{
	{"Add user", signup.Created},
	{"Redeem external user invite", signup.Redeemed},
}

func kindOf(activity string) (signup.Kind, bool) {
	for _, a := range activities {
		if a.name == activity {
			return a.kind, true
		}
	}
	return "", false
}

// served remembers the Date of the first answer since reset.
type served struct{ at atomic.Pointer[time.Time] }

func (s *served) reset() { s.at.Store(nil) }

func (s *served) set(t time.Time) { s.at.CompareAndSwap(nil, &t) }

func (s *served) Served() time.Time {
	if t := s.at.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// audit reads the v1.0 directory audit log, at most 4 requests in 10 s.
type audit struct {
	served
	tenant    *Tenant
	retention time.Duration
	plain     atomic.Bool // the service refuses the clause about the activity: it is applied here
}

var _ signup.Detector = (*audit)(nil)

func (*audit) Name() string { return "audit" }

func (a *audit) Retention() time.Duration { return a.retention }

// Events implements signup.Detector. It makes one query an activity, or a single one for all activities once the
// service has refused to filter by them; what it then does not refuse is remembered while the process lives.
func (a *audit) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		a.reset()
		if w.Empty() {
			return
		}
		between := fmt.Sprintf("activityDateTime ge %s and activityDateTime le %s",
			w.From.UTC().Format(instant), w.To.UTC().Format(instant))
		if !a.plain.Load() {
			goOn, err := true, error(nil)
			for _, activity := range activities {
				goOn, err = a.read(ctx, w, "activityDisplayName eq '"+activity.name+"' and "+between, yield)
				if err != nil || !goOn {
					break
				}
			}
			if !refused(err) {
				if err != nil && goOn {
					yield(signup.Event{}, fmt.Errorf("read the audit log: %w", err))
				}
				return
			}
		}
		goOn, err := a.read(ctx, w, between, yield)
		if err == nil && !a.plain.Swap(true) {
			a.tenant.client.log.WarnContext(ctx, "the audit log does not filter by activity; it is done here from now on")
		}
		if err != nil && goOn {
			yield(signup.Event{}, fmt.Errorf("read the audit log: %w", err))
		}
	}
}

// refused reports that a query's first page was answered 400.
func refused(err error) bool {
	e, ok := errors.AsType[*signup.Error](err)
	return ok && e.Status == 400 && e.Code != "page-expired"
}

// read yields the events of one query; goOn is false once yield wants no more.
func (a *audit) read(ctx context.Context, w signup.Window, filter string, yield func(signup.Event, error) bool) (goOn bool, err error) {
	top := pageSize
	s := newSieve(a.tenant, "audit", w)
	return s.read(ctx, collection{
		request: request{kind: auditCall, served: a.set, info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return a.tenant.client.audits().ToGetRequestInformation(ctx, &auditlogs.DirectoryAuditsRequestBuilderGetRequestConfiguration{
				QueryParameters: &auditlogs.DirectoryAuditsRequestBuilderGetQueryParameters{Filter: &filter, Top: &top},
			})
		}},
		next: func(ctx context.Context, link string) (*abstractions.RequestInformation, error) {
			return a.tenant.client.audits().WithUrl(link).ToGetRequestInformation(ctx, nil)
		},
		each: s.auditRecord,
	}, yield)
}

// directory reads the users by createdDateTime, which goes back without limit.
type directory struct {
	served
	tenant   *Tenant
	name     string
	redeemed bool // tell who has accepted an invitation, and when
	passed   atomic.Int64
}

var _ signup.Detector = (*directory)(nil)

func (d *directory) Name() string { return d.name }

func (*directory) Retention() time.Duration { return 0 }

// PassedOver is how many records of users could not be decoded since Open. A census counts them.
func (d *directory) PassedOver() int64 { return d.passed.Load() }

// Events implements signup.Detector. The property has whole seconds, so the window is read from second to second.
func (d *directory) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		d.reset()
		if w.Empty() {
			return
		}
		top := pageSize
		filter := fmt.Sprintf("createdDateTime ge %s and createdDateTime le %s",
			w.From.UTC().Format(second), w.To.Add(time.Second-1).UTC().Format(second))
		properties := []string{"id", "createdDateTime"}
		if d.redeemed {
			properties = append(properties, "externalUserState", "externalUserStateChangeDateTime")
		}
		s := newSieve(d.tenant, d.name, w)
		goOn, err := s.read(ctx, collection{
			request: request{kind: directoryCall, served: d.set, info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
				return d.tenant.client.users().ToGetRequestInformation(ctx, &users.UsersRequestBuilderGetRequestConfiguration{
					QueryParameters: &users.UsersRequestBuilderGetQueryParameters{
						Filter: &filter, Select: properties, Top: &top,
					},
				})
			}},
			next: func(ctx context.Context, link string) (*abstractions.RequestInformation, error) {
				return d.tenant.client.users().WithUrl(link).ToGetRequestInformation(ctx, nil)
			},
			each: s.userRecord,
		}, yield)
		d.passed.Add(int64(s.named))
		if err != nil && goOn {
			yield(signup.Event{}, fmt.Errorf("read the users by creation: %w", err))
		}
	}
}

// sieve takes the events out of pages of records.
type sieve struct {
	tenant   *Tenant
	detector string
	window   signup.Window
	events   []signup.Event // of the page that is being read
	bad      []string       // ids of records in it that cannot be decoded
	named    int
	record   auditRecord
}

func newSieve(t *Tenant, detector string, w signup.Window) *sieve {
	return &sieve{tenant: t, detector: detector, window: signup.Window{From: w.From.Add(-slack), To: w.To.Add(slack)}}
}

// read yields each page's events once the page is known to be whole.
func (s *sieve) read(ctx context.Context, col collection, yield func(signup.Event, error) bool) (goOn bool, err error) {
	goOn = true
	col.page = func(start bool) bool {
		if start {
			s.events, s.bad = s.events[:0], s.bad[:0]
			return true
		}
		s.report(ctx)
		for _, e := range s.events {
			if goOn = yield(e, nil); !goOn {
				return false
			}
		}
		return true
	}
	err = s.tenant.client.read(ctx, col)
	return goOn, err
}

func (s *sieve) report(ctx context.Context) {
	s.tenant.undecodable.Add(int64(len(s.bad)))
	for _, id := range s.bad {
		if s.named++; s.named <= maxNamed {
			s.tenant.client.log.ErrorContext(ctx, "record cannot be decoded and is passed over", "detector", s.detector, "record", id)
		}
	}
}

// auditRecord is what is needed of a directoryAudit. Property names are matched in any letter case: the documentation
// itself has records with "Type".
type auditRecord struct {
	ID       string          `json:"id"`
	Activity string          `json:"activityDisplayName"`
	At       string          `json:"activityDateTime"`
	Result   string          `json:"result"`
	Targets  []auditTarget   `json:"targetResources"`
	Error    json.RawMessage `json:"error"`
}

type auditTarget struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

func (s *sieve) auditRecord(d *decoder) error {
	r := &s.record
	clear(r.Targets[:cap(r.Targets)])
	*r = auditRecord{Targets: r.Targets[:0]}
	err := d.value(r)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		s.bad = append(s.bad, recordID(r.ID))
		return nil
	}
	if err != nil {
		return err
	}
	if r.ID == "" && len(r.Error) > 0 {
		return badPage("the answer has an error written into it")
	}
	kind, wanted := kindOf(r.Activity)
	if !wanted || !strings.EqualFold(r.Result, "success") {
		return nil
	}
	at, err := time.Parse(time.RFC3339, r.At)
	found := false
	for _, target := range r.Targets {
		if err != nil || !strings.EqualFold(target.Type, "User") {
			continue
		}
		if id, invalid := signup.ParseUserID(target.ID); invalid == nil {
			found = true
			s.add(signup.Event{User: id, Kind: kind, At: at.UTC()})
		}
	}
	if !found {
		s.bad = append(s.bad, recordID(r.ID))
	}
	return nil
}

func (s *sieve) userRecord(d *decoder) error {
	var r struct {
		ID      string          `json:"id"`
		Created string          `json:"createdDateTime"`
		State   any             `json:"externalUserState"` // these two are there for the backstop only
		Changed any             `json:"externalUserStateChangeDateTime"`
		Error   json.RawMessage `json:"error"`
	}
	err := d.value(&r)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !ok {
		return err
	}
	if r.ID == "" && len(r.Error) > 0 {
		return badPage("the answer has an error written into it")
	}
	id, invalid := signup.ParseUserID(r.ID)
	at, bad := time.Parse(time.RFC3339, r.Created)
	if err != nil || invalid != nil || bad != nil {
		if exact := (signup.Window{From: s.window.From.Add(slack), To: s.window.To.Add(-slack)}); bad == nil && (at.Before(exact.From) || !at.Before(exact.To)) {
			return nil // the window beside this one counts it
		}
		s.bad = append(s.bad, recordID(r.ID))
		return nil
	}
	if !s.within(at) {
		return nil
	}
	e := signup.Event{User: id, Kind: signup.Created, At: at.UTC()}
	if changed, ok := accepted(r.State, r.Changed, e.At); ok {
		e.Kind, e.At, e.Created = signup.Redeemed, changed, e.At
	}
	s.events = append(s.events, e)
	return nil
}

func (s *sieve) add(e signup.Event) {
	if s.within(e.At) {
		s.events = append(s.events, e)
	}
}

func (s *sieve) within(at time.Time) bool { return !at.Before(s.window.From) && at.Before(s.window.To) }

// recordID is a record's id as far as it can be logged: audit ids are opaque, with spaces in some.
func recordID(s string) string {
	if id := word(strings.ReplaceAll(s[:min(len(s), 100)], " ", "_")); id != "" {
		return id
	}
	if len(s) > 64 {
		return word(strings.ReplaceAll(s[:64], " ", "_")) + "…"
	}
	return "unreadable"
}
