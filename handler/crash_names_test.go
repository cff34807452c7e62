package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/signup"
)

// Boundaries that take something else than two people who sign up.
const (
	contactMade    = "newsletter: contact made"
	contactChanged = "newsletter: contact changed"
	crmAlone       = "crm: record written alone"
	crmLinked      = "crm: record linked"
	memberAdded    = "members: member added"
)

// effect is a kind of request that changes something.
type effect struct {
	method string
	path   *regexp.Regexp
	name   string
}

// effects are those in the tenant and at the destinations of local.yaml, but for the database's.
var effects = []effect{
	{"POST", regexp.MustCompile(`^/v1/customers$`), "billing: customer created"},
	{"POST", regexp.MustCompile(`^/3\.0/lists/\w+/members$`), contactMade},
	{"PUT", regexp.MustCompile(`^/3\.0/lists/\w+/members/\w+$`), contactChanged},
	{"POST", regexp.MustCompile(`^/3\.0/lists/\w+/members/\w+/tags$`), "newsletter: contact tagged"},
	{"PATCH", regexp.MustCompile(`^/services/data/[^/]+/composite/sobjects/`), "crm: records written"},
	{"PATCH", regexp.MustCompile(`^/services/data/[^/]+/sobjects/\w+/\w+/[^/]+$`), crmAlone},
	{"PATCH", regexp.MustCompile(`^/services/data/[^/]+/sobjects/\w+/\w+$`), crmLinked},
	{"POST", regexp.MustCompile(`^/webhook$`), "welcome: event delivered"},
	{"POST", regexp.MustCompile(`^/devstoreaccount1/signups/messages$`), "queue: message put"},
	{"POST", regexp.MustCompile(`^/signups/messages$`), "bus: messages sent"},
	{"POST", regexp.MustCompile(`^/api/events$`), "topic: events published"},
	{"POST", regexp.MustCompile(`^/v1\.0/groups/[^/]+/members/\$ref$`), memberAdded},
	{"PATCH", regexp.MustCompile(`^/v1\.0/groups/[^/]+$`), "members: members added"},
	{"POST", regexp.MustCompile(`^/v1\.0/identityGovernance/entitlementManagement/assignmentRequests$`), "starter: assignment requested"},
	{"PATCH", regexp.MustCompile(`^/v1\.0/users/[^/]+$`), "profile: record patched"},
	{"POST", regexp.MustCompile(`/oauth2/(v2\.0/)?token$`), ""}, // changes nothing
}

var objectID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// nameEffect names a request to a simulated system. Whoever it is for must have a durable intent by then; that is looked
// up where a kill may have made a difference.
func (w *crashWorld) nameEffect(r *http.Request, body []byte) string {
	name := w.edge.effect(r)
	if name != "" && w.edge.killing() {
		for _, id := range objectID.FindAllString(r.URL.Path+" "+string(body), -1) {
			if _, ok := w.Tenant.User(signup.UserID(id)); !ok {
				continue
			}
			if rows, err := w.ledger.Get(context.WithoutCancel(r.Context()), []signup.UserID{signup.UserID(id)}); err != nil || len(rows) == 0 || rows[0].Intent.IsZero() {
				w.t.Errorf("%s, for user %s: there is no durable intent (%v)", name, id, err)
			}
		}
	}
	return name
}

// effect is the name of a request to a simulated system.
func (e *edge) effect(r *http.Request) string {
	if r.Method == http.MethodGet {
		return ""
	}
	for _, x := range effects {
		if r.Method == x.method && x.path.MatchString(r.URL.Path) {
			return x.name
		}
	}
	e.nameless(r.Method + " " + r.URL.Path)
	return ""
}

// nameWrite names a request to the table service by what it changes in the ledger, which current reads as it is.
func (e *edge) nameWrite(current *ledger.Ledger) func(r *http.Request, body []byte) string {
	return func(r *http.Request, body []byte) string {
		if r.Method == http.MethodGet {
			return ""
		}
		// Also of a request whose sender is dead by now: it may have its effect.
		name := nameOperations(r.WithContext(context.WithoutCancel(r.Context())), body, current)
		if strings.HasPrefix(name, "?") {
			e.nameless(fmt.Sprintf("%s %s: %s", r.Method, r.URL.Path, name))
		}
		return name
	}
}

// entityWrite is one of a transaction.
type entityWrite struct {
	method, table, key string
	body               []byte // of the row or note; nil of an index entry
}

var operationLine = regexp.MustCompile(`(?m)^(POST|PUT|DELETE|PATCH|MERGE) \S+?/(\w+)(\([^ ]*\))?(?:\?\S*)? HTTP/1\.1\r?$`)

// operations takes a transaction apart.
func entityWrites(body []byte) (all []entityWrite) {
	at := operationLine.FindAllSubmatchIndex(body, -1)
	for i, m := range at {
		end := len(body)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		o := entityWrite{method: string(body[m[2]:m[3]]), table: string(body[m[4]:m[5]])}
		var entity struct{ RowKey, Body string }
		if from := bytes.IndexByte(body[m[1]:end], '{'); from >= 0 && o.method != http.MethodDelete {
			_ = json.NewDecoder(bytes.NewReader(body[m[1]+from : end])).Decode(&entity) // what follows is the next part's border
			o.key, o.body = entity.RowKey, []byte(entity.Body)
		} else if m[6] >= 0 {
			key, _ := url.PathUnescape(string(body[m[6]:m[7]]))
			_, key, _ = strings.Cut(key, "RowKey='")
			o.key, _, _ = strings.Cut(key, "'")
		}
		all = append(all, o)
	}
	return all
}

// nameOperations is the boundary at which a write of the ledger is, or "?" and why it is at none.
func nameOperations(r *http.Request, body []byte, current *ledger.Ledger) string {
	if strings.HasSuffix(r.URL.Path, "/Tables") {
		var table struct{ TableName string }
		_ = json.Unmarshal(body, &table) // what cannot be read has no name
		switch table.TableName {
		case "state":
			return "table of notes made"
		case "signups":
			return "table of rows made"
		}
		return "? the table " + table.TableName
	}
	if !strings.HasSuffix(r.URL.Path, "/$batch") {
		return "? not a transaction"
	}
	names, all := map[string]bool{}, entityWrites(body)
	was, err := replaced(r.Context(), all, current)
	if err != nil {
		return "? " + err.Error()
	}
	for _, o := range all {
		switch {
		case o.table == "state":
			names[nameNote(r, o, current)] = true
		case o.table == "signups" && strings.HasPrefix(o.key, "user|"):
			names[nameRow(o, was)] = true
		case o.table == "signups" && strings.HasPrefix(o.key, "due|"): // goes with its row
		default:
			names["? "+o.method+" "+o.table+" "+o.key] = true
		}
	}
	if len(names) == 2 && names[rowInserted] && names[rowWaiting] {
		return rowWaiting
	}
	if len(names) != 1 {
		return "? " + strings.Join(slices.Sorted(maps.Keys(names)), " and ")
	}
	return slices.Collect(maps.Keys(names))[0]
}

const (
	rowInserted = "row inserted with its intent"
	rowWaiting  = "row inserted to wait"
)

// replaced is the row that the first of the operations replaces, if one does; the others go the same way.
func replaced(ctx context.Context, all []entityWrite, current *ledger.Ledger) (was signup.Row, err error) {
	if i := slices.IndexFunc(all, func(o entityWrite) bool { return strings.HasPrefix(o.key, "user|") }); i >= 0 && all[i].method == http.MethodPut {
		rows, err := current.Get(ctx, []signup.UserID{signup.UserID(strings.TrimPrefix(all[i].key, "user|"))})
		if err != nil || len(rows) == 0 {
			return was, errors.Join(err, errors.New("a row that is not there"))
		}
		was = rows[0]
	}
	return was, nil
}

// nameRow names the transition of one row; was is the first of its transaction as it stands.
func nameRow(o entityWrite, was signup.Row) string {
	var next signup.Row
	if err := json.Unmarshal(o.body, &next); err != nil {
		return "? a row: " + err.Error()
	}
	switch {
	case o.method == http.MethodPost && !next.Intent.IsZero():
		return rowInserted
	case o.method == http.MethodPost:
		return rowWaiting
	case !next.Intent.IsZero():
		return "intent written"
	}
	for _, a := range next.Associations {
		if a.Reason == "crash" {
			return "row given up"
		}
	}
	if was.Intent.IsZero() {
		return "row reopened"
	}
	return "row settled"
}

// nameNote names the transition of one note.
func nameNote(r *http.Request, o entityWrite, current *ledger.Ledger) string {
	stored, err := current.Note(r.Context(), o.key)
	if err != nil {
		return "? a note: " + err.Error()
	}
	type note struct {
		Owner     string
		Breakers  json.RawMessage
		Gaps      []signup.Window
		Slice     time.Duration
		Watermark time.Time
		Since     time.Time
	}
	var was, is note
	if len(stored.Body) > 0 {
		err = json.Unmarshal(stored.Body, &was)
	}
	if err := errors.Join(err, json.Unmarshal(o.body, &is)); err != nil {
		return "? the note " + o.key + ": " + err.Error()
	}
	width := func(n note) (all time.Duration) {
		for _, g := range n.Gaps {
			all += g.To.Sub(g.From)
		}
		return all
	}
	read := func(watermark time.Time) time.Time { // how far the detector was read before
		if watermark.IsZero() {
			var state note
			if n, err := current.Note(r.Context(), "state"); err == nil && json.Unmarshal(n.Body, &state) == nil {
				return state.Since
			}
		}
		return watermark
	}
	switch {
	case o.key == "run" && is.Owner == "":
		return "lease freed"
	case o.key == "run" && is.Owner == was.Owner:
		return "lease renewed"
	case o.key == "run":
		return "lease taken"
	case o.key == "state" && !bytes.Equal(is.Breakers, was.Breakers):
		return "breakers saved"
	case o.key == "state":
		return "state written"
	case o.key == "census":
		return "census moved"
	case o.key == "certificate":
		return "certificate stored"
	case o.key == "history":
		return "history kept"
	case !strings.HasPrefix(o.key, "watermark|"):
		return "? the note " + o.key
	case width(is) > width(was):
		return "gap stored"
	case is.Watermark.Sub(read(was.Watermark)) > 90*time.Minute:
		return "? the note " + o.key + " moves over more than a slice, and no gap is stored"
	case width(is) < width(was):
		return "gap narrowed"
	case is.Slice != 0 && (was.Slice == 0 || is.Slice < was.Slice):
		return "slice halved"
	}
	return "watermark moved"
}
