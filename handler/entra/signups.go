package entra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	abstractions "github.com/microsoft/kiota-abstractions-go"

	"signup-sync/handler/signup"
)

// signUps reads the sign-up log of user flows (selfServiceSignUp, beta; a preview, in the global cloud only). It has a
// few rows for each attempt to sign up, and none for users who are made by others. It has the audit log's retention and
// shares its limit of requests.
type signUps struct {
	served
	tenant    *Tenant
	retention time.Duration
	plain     atomic.Bool // the service refuses the clauses about stage and status: they are applied here
}

var _ signup.Detector = (*signUps)(nil)

func (*signUps) Name() string { return "signUps" }

func (s *signUps) Retention() time.Duration { return s.retention }

// Events implements signup.Detector. Of the rows of an attempt it asks for the last, in which the user comes into
// being; once the service has refused to filter by that it asks for all of them, and remembers it while the process
// lives if that is not refused as well.
func (s *signUps) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		s.reset()
		if w.Empty() {
			return
		}
		between := fmt.Sprintf("createdDateTime ge %s and createdDateTime le %s", w.From.UTC().Format(instant), w.To.UTC().Format(instant))
		goOn, err := true, error(nil)
		if !s.plain.Load() {
			goOn, err = s.read(ctx, w, between+" and signUpStage eq 'userCreation' and status/errorCode eq 0", yield)
		}
		if s.plain.Load() || refused(err) {
			goOn, err = s.read(ctx, w, between, yield)
			if err == nil && !s.plain.Swap(true) {
				s.tenant.client.log.WarnContext(ctx, "the sign-up log does not filter by stage; it is done here from now on")
			}
		}
		if err != nil && goOn {
			yield(signup.Event{}, fmt.Errorf("read the sign-up log: %w", err))
		}
	}
}

// read yields the events of one query; goOn is false once yield wants no more.
func (s *signUps) read(ctx context.Context, w signup.Window, filter string, yield func(signup.Event, error) bool) (goOn bool, err error) {
	c, take := s.tenant.client, newSieve(s.tenant, s.Name(), w)
	link := c.linkTo("beta", "/auditLogs/signUps", "$filter", filter, "$top", fmt.Sprint(pageSize))
	return take.read(ctx, collection{
		request: request{kind: signUpCall, served: s.set, info: c.direct(abstractions.GET, link, nil), refine: noSignUpLog},
		next: func(ctx context.Context, link string) (*abstractions.RequestInformation, error) {
			return c.direct(abstractions.GET, link, nil)(ctx)
		},
		under: "/beta/",
		each:  take.signUpRecord,
	}, yield)
}

// noSignUpLog says of a refusal what it most likely is. It is everybody's trouble, whatever the status.
func noSignUpLog(e *signup.Error, _ graphError) {
	const gone = "the sign-up log is a preview that not every tenant and cloud has: without it take signUps out of sync.detectors"
	switch e.Status {
	case http.StatusForbidden:
		e.Detail += "; " + gone
	case http.StatusNotFound:
		e.Class, e.Code, e.Detail = signup.Systemic, "not-found", strings.TrimSuffix(gone+"; "+e.Detail, "; ")
	}
}

// signUpRecord takes the user out of the row in which one came into being. The rows hold addresses, which are not
// decoded.
func (s *sieve) signUpRecord(d *decoder) error {
	var r struct {
		ID     string `json:"id"`
		At     string `json:"createdDateTime"`
		Stage  string `json:"signUpStage"`
		User   string `json:"userId"`
		Status struct {
			Code *int `json:"errorCode"`
		} `json:"status"`
		Error json.RawMessage `json:"error"`
	}
	err := d.value(&r)
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
	if !strings.EqualFold(r.Stage, "userCreation") || r.Status.Code != nil && *r.Status.Code != 0 {
		return nil
	}
	id, invalid := signup.ParseUserID(r.User)
	at, bad := time.Parse(time.RFC3339, r.At)
	if r.Status.Code == nil || invalid != nil || bad != nil {
		s.bad = append(s.bad, recordID(r.ID)) // somebody came into being, and nobody can tell who, when, or whether
		return nil
	}
	s.add(signup.Event{User: id, Kind: signup.Created, At: at.UTC()})
	return nil
}
