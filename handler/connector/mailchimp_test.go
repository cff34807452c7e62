package connector_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// chimp is a connector with its simulated audience.
type chimp struct {
	signup.Connector
	there *sim.Mailchimp
	clock *sim.Clock
}

func mailchimpBench(t *testing.T, more map[string]any, o sim.MailchimpOptions) chimp {
	t.Helper()
	b := chimp{clock: sim.NewClock(start)}
	o.Clock, o.APIKey, o.Audience = b.clock, mailchimpKey, audience
	if o.Fields == nil {
		o.Fields = []sim.MailchimpField{{Tag: "FNAME"}, {Tag: "SEATS", Type: "number"}, {Tag: "COMPANY", Required: true}, {Tag: idField}}
	}
	b.there = sim.NewMailchimp(o)
	b.Connector = mailchimpAt(t, published(t, b.there), more)
	return b
}

// mailchimpAt opens a connector to a server with this handler.
func mailchimpAt(t *testing.T, h http.Handler, more map[string]any) signup.Connector {
	t.Helper()
	root, client := serve(t, h)
	settings := map[string]any{"apiKey": mailchimpKey, "url": root, "audience": audience}
	maps.Copy(settings, more)
	return open(t, "mailchimp", settings, connector.Env{HTTP: client, Clock: sim.NewClock(start)})
}

// only is the one contact of the audience.
func (b chimp) only(t *testing.T) sim.MailchimpMember {
	t.Helper()
	all := b.there.Members()
	if len(all) != 1 {
		t.Fatalf("there are %d contacts, want 1", len(all))
	}
	return all[0]
}

func (b chimp) associate(t *testing.T, req signup.Request) signup.Account {
	t.Helper()
	a, err := b.Associate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// consenting is a sign-up with this record.status; nil leaves it out.
func consenting(status any) signup.Request {
	req := ada
	req.Record = map[string]any{"mergeFields": map[string]any{"FNAME": "Ada"}}
	if status != nil {
		req.Record["status"] = status
	}
	return req
}

func TestMailchimpRequests(t *testing.T) {
	var said strings.Builder
	there := sim.NewMailchimp(sim.MailchimpOptions{APIKey: mailchimpKey, Audience: audience, Clock: sim.NewClock(start),
		Fields: []sim.MailchimpField{{Tag: "FNAME"}, {Tag: "SEATS", Type: "number"}, {Tag: idField}}})
	c := mailchimpAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said.WriteString(r.Method + " " + r.URL.String() + "\n")
		for _, name := range []string{"Authorization", "Content-Type"} {
			if v := r.Header.Get(name); v != "" {
				said.WriteString(name + ": " + v + "\n")
			}
		}
		body, _ := io.ReadAll(r.Body)
		said.Write(append(body, '\n'))
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		there.ServeHTTP(w, r)
	}), map[string]any{"tags": []any{"signed up", "app"}, "idField": idField})
	req := ada
	req.Email = "Urist.McVankab@freddiesjokes.com" // the address whose hash Mailchimp's reference gives
	req.Record = map[string]any{
		"status": "subscribed", "language": "fr-CA", "ipSignup": "203.0.113.7",
		"mergeFields": map[string]any{"FNAME": "Urist", "SEATS": 3}, "marketingPermissions": map[string]any{"d7ce21601c": true, "75e893aca0": false},
	}
	there.Faults.Add(sim.Fault{Path: "/members", Status: 503}) // the first call has no effect, and nobody knows
	call(t, c, req)
	if _, err := c.Associate(t.Context(), unsure(req)); err != nil {
		t.Fatal(err)
	}
	golden(t, "mailchimp-requests.txt", said.String())
}

// A sure call takes one call of Mailchimp, which makes a contact or changes nothing; only who has one is looked up.
func TestMailchimpMakesAContactInOneCall(t *testing.T) {
	tests := []struct {
		name   string
		there  *sim.MailchimpMember
		unsure bool
		known  string
		calls  map[string]int
	}{
		{"nobody there", nil, false, "", map[string]int{"post": 1}},
		{"nobody there, but it was tried before", nil, true, "", map[string]int{"get": 1, "post": 1}},
		{"an account is known", nil, false, "c1", map[string]int{"get": 2, "post": 1}},
		{"subscribed", &sim.MailchimpMember{Status: "subscribed"}, false, "", map[string]int{"post": 1, "get": 1, "put": 1}},
		{"archived", &sim.MailchimpMember{Status: "archived"}, false, "", map[string]int{"post": 1, "get": 1, "put": 1}},
		{"has left by itself", &sim.MailchimpMember{Status: "unsubscribed", Compliance: true}, false, "", map[string]int{"post": 1, "get": 1, "put": 1}},
	}
	for _, tt := range tests {
		b := mailchimpBench(t, nil, sim.MailchimpOptions{})
		status, id := "subscribed", ""
		if tt.there != nil {
			tt.there.Email, status = ada.Email, tt.there.Status
			id = b.there.Add(*tt.there)
		}
		req := consenting("subscribed")
		req.Unsure, req.Known = tt.unsure, tt.known
		a := b.associate(t, req)
		if m := b.only(t); a.Created != (tt.there == nil) || id != "" && a.ID != id || m.Status != status || m.Merge["FNAME"] != "Ada" {
			t.Errorf("%s: got %+v, %+v", tt.name, a, m)
		}
		if diff := cmp.Diff(b.there.Calls(), tt.calls); diff != "" {
			t.Errorf("%s: calls (-got +want):\n%s", tt.name, diff)
		}
	}
}

// Two users come with one address at the same moment: the contact is the first one's, and the second is told so.
func TestMailchimpOneOfTwoMakesTheContact(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	second := consenting("subscribed")
	second.User = "00000002-5eed-4000-8000-00000000beef"
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i, req := range []signup.Request{consenting("subscribed"), second} {
		all.Go(func() { _, errs[i] = b.Associate(t.Context(), req) })
	}
	all.Wait()
	b.only(t)
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("got %v and %v", errs[0], errs[1])
	}
	wantErr(t, errors.Join(errs...), signup.Permanent, "taken")
}

func TestMailchimpConsent(t *testing.T) {
	tests := []struct {
		name   string
		status any
		want   string
		asked  int
		code   string
	}{
		{"in a word", "subscribed", "subscribed", 0, ""},
		{"to be confirmed", "pending", "pending", 1, ""},
		{"nothing said is never a yes", nil, "pending", 1, ""},
		{"an expression that says nothing", "", "", 0, "no-consent"},
		{"a bare yes is to be confirmed", true, "pending", 1, ""},
		{"a bare no", false, "", 0, "no-consent"},
		{"skip", "skip", "", 0, "no-consent"},
		{"a word that is none", "Subscribed", "", 0, "invalid-record"},
		{"a state that nobody consents to", "unsubscribed", "", 0, "invalid-record"},
		{"a number", 1, "", 0, "invalid-record"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := mailchimpBench(t, nil, sim.MailchimpOptions{})
			if tt.code != "" {
				e := call(t, b, consenting(tt.status))
				if class := map[string]signup.Class{"no-consent": signup.Skip, "invalid-record": signup.Permanent}[tt.code]; e.Code != tt.code || e.Class != class {
					t.Errorf("got %s, %v; want %s", e.Class, e, tt.code)
				}
				if n := len(b.there.Calls()); n != 0 {
					t.Errorf("%d calls were made", n)
				}
				return
			}
			if a := b.associate(t, consenting(tt.status)); !a.Created {
				t.Error("the account is not said to be new")
			}
			m := b.only(t)
			if m.Status != tt.want || m.Asked != tt.asked {
				t.Errorf("got %s, asked %d times; want %s and %d", m.Status, m.Asked, tt.want, tt.asked)
			}
			if optedIn := tt.want == "subscribed"; !m.SignedUpAt.Equal(ada.Created) || m.OptedInAt.Equal(ada.Created) != optedIn {
				t.Errorf("signed up at %s and opted in at %s, for %s", m.SignedUpAt, m.OptedInAt, m.Status)
			}
		})
	}
}

// An expression that has nothing to say for a user is left out of the record, and is no consent; where no consent is
// mapped at all, everyone is asked.
func TestMailchimpConsentThatIsMappedAndAbsent(t *testing.T) {
	for mapped, want := range map[bool]int{true: 0, false: 1} {
		there := sim.NewMailchimp(sim.MailchimpOptions{APIKey: mailchimpKey, Audience: audience})
		root, client := serve(t, published(t, there))
		shape := map[string]any{"mergeFields": map[string]any{"FNAME": nil}}
		if mapped {
			shape["status"] = nil
		}
		c := open(t, "mailchimp", map[string]any{"apiKey": mailchimpKey, "url": root, "audience": audience}, connector.Env{HTTP: client, Shape: shape})
		_, err := c.Associate(t.Context(), consenting(nil))
		if got := len(there.Members()); got != want || mapped == (err == nil) {
			t.Errorf("mapped: %t: %d contacts, %v", mapped, got, err)
		}
		if mapped {
			wantErr(t, err, signup.Skip, "no-consent")
		}
	}
}

// Who has not consented is passed over, whatever is wrong with the rest of the record.
func TestMailchimpConsentComesFirst(t *testing.T) {
	b := mailchimpBench(t, nil, sim.MailchimpOptions{})
	req := consenting("skip")
	req.Email, req.Record["ipSignup"], req.Record["mergeFields"] = "", "nowhere", "x"
	if e := call(t, b, req); e.Class != signup.Skip || e.Code != "no-consent" {
		t.Errorf("got %s, %v", e.Class, e)
	}
}

// Whatever state a contact is in, it stays in it; only those get the tags to whom mail may be sent.
func TestMailchimpLeavesWhoIsThereAsTheyAre(t *testing.T) {
	for status, welcomes := range map[string]int{"subscribed": 1, "pending": 0, "unsubscribed": 0, "cleaned": 0, "archived": 0, "transactional": 0} {
		t.Run(status, func(t *testing.T) {
			b := mailchimpBench(t, map[string]any{"tags": "app"}, sim.MailchimpOptions{})
			before := start.AddDate(-1, 0, 0)
			id := b.there.Add(sim.MailchimpMember{Email: "Ada@Example.com", Status: status, Language: "it", SignedUpAt: before, OptedInAt: before, LastChanged: before})
			req := consenting("subscribed")
			req.Record["language"], req.Record["marketingPermissions"] = "de", map[string]any{"d7ce21601c": true}
			for range 3 {
				if a := b.associate(t, req); a.ID != id || a.Created {
					t.Errorf("got %+v, want the contact that was there", a)
				}
			}
			m := b.only(t)
			if tagged := status == "subscribed" || status == "pending"; m.Status != status || m.Asked != 0 || m.Welcomes != welcomes || len(m.Tags) > 0 != tagged {
				t.Errorf("got %s, asked %d times, tags %v, %d welcomes", m.Status, m.Asked, m.Tags, m.Welcomes)
			}
			if m.Language != "it" || !m.SignedUpAt.Equal(before) || !m.OptedInAt.Equal(before) || m.Permissions != nil || m.Merge["FNAME"] != "Ada" {
				t.Errorf("the consent of before was changed, or the name was not: %+v", m)
			}
		})
	}
}

func TestMailchimpAsksAgainOnlyWhoHadLeftBefore(t *testing.T) {
	tests := []struct {
		status string
		left   time.Time
		want   string
		asked  int
	}{
		{"unsubscribed", ada.Created.Add(-time.Second), "pending", 1},
		{"archived", ada.Created.Add(-time.Hour), "pending", 1},
		{"transactional", ada.Created.Add(-time.Hour), "pending", 1},
		{"unsubscribed", ada.Created, "unsubscribed", 0},
		{"unsubscribed", ada.Created.Add(time.Second), "unsubscribed", 0},
		{"cleaned", ada.Created.Add(-time.Hour), "cleaned", 0},
		{"subscribed", ada.Created.Add(-time.Hour), "subscribed", 0},
		{"pending", ada.Created.Add(-time.Hour), "pending", 0},
	}
	for _, tt := range tests {
		b := mailchimpBench(t, map[string]any{"resubscribe": "pending"}, sim.MailchimpOptions{})
		b.there.Add(sim.MailchimpMember{Email: ada.Email, Status: tt.status, Compliance: true, LastChanged: tt.left})
		for range 3 {
			b.associate(t, unsure(consenting("subscribed")))
			b.clock.Advance(time.Minute)
		}
		m := b.only(t)
		if m.Status != tt.want || m.Asked != tt.asked || !m.OptedInAt.IsZero() {
			t.Errorf("%s since %s: got %s, asked %d times, opted in at %s; want %s and %d", tt.status, tt.left, m.Status, m.Asked, m.OptedInAt, tt.want, tt.asked)
		}
		if proven := m.SignedUpAt.Equal(ada.Created); proven != (tt.asked > 0) {
			t.Errorf("%s since %s: asked %d times, by a sign-up at %s", tt.status, tt.left, m.Asked, m.SignedUpAt)
		}
		// Who leaves after that is left alone, also by a replay.
		b.there.Unsubscribe(ada.Email)
		b.associate(t, unsure(consenting("subscribed")))
		if m := b.only(t); m.Status != "unsubscribed" || m.Asked != tt.asked {
			t.Errorf("%s: asked again after having left: %s, %d times", tt.status, m.Status, m.Asked)
		}
	}
}

// Who asks need not be verified: the mail shows whose the address is.
func TestMailchimpAsksByAnAddressThatNobodyVerified(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"resubscribe": "pending"}, sim.MailchimpOptions{})
	b.there.Add(sim.MailchimpMember{Email: ada.Email, Status: "unsubscribed", LastChanged: ada.Created.Add(-time.Hour), Merge: map[string]any{"FNAME": "Augusta"}})
	req := consenting("subscribed")
	req.EmailVerified = false
	b.associate(t, req)
	if m := b.only(t); m.Status != "pending" || m.Asked != 1 || m.Merge["FNAME"] != "Augusta" {
		t.Errorf("got %+v", m)
	}
}

func TestMailchimpComplianceAndForgottenAddresses(t *testing.T) {
	b := mailchimpBench(t, nil, sim.MailchimpOptions{})
	b.there.Suppress(ada.Email)
	if e := call(t, b, consenting("subscribed")); e.Class != signup.Permanent || e.Code != "compliance" {
		t.Errorf("got %s, %v", e.Class, e)
	}
	asking := mailchimpBench(t, map[string]any{"resubscribe": "pending"}, sim.MailchimpOptions{})
	asking.there.Suppress(ada.Email)
	asking.associate(t, consenting("subscribed"))
	asking.associate(t, unsure(consenting("subscribed")))
	if m := asking.only(t); m.Status != "pending" || m.Asked != 1 || !m.OptedInAt.IsZero() {
		t.Errorf("got %+v, want it asked once, with no proof of an opt-in", m)
	}
	b.there.Forget("gone@example.com")
	req := consenting("subscribed")
	req.Email = "Gone@example.com"
	if e := call(t, b, req); e.Class != signup.Permanent || e.Code != "forgotten" {
		t.Errorf("got %s, %v", e.Class, e)
	}
}

func TestMailchimpRefusals(t *testing.T) {
	tests := []struct {
		email string
		merge map[string]any
		want  signup.Error
	}{
		{"ada@example.invalid", nil, signup.Error{Class: signup.Permanent, Code: "invalid-address", Detail: "Mailchimp takes the address for a fake or invalid one"}},
		{"busy.ada@example.com", nil, signup.Error{Class: signup.Transient, Code: "too-many-lists", RetryAfter: 24 * time.Hour, Detail: "the address has joined many lists of late, and Mailchimp wants it to wait"}},
		{"ada at example.com", nil, signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "mailchimp: Invalid Resource"}},
		{"ada@example.com", map[string]any{"SEATS": "three"}, signup.Error{Class: signup.Permanent, Code: "data", Detail: "Mailchimp refuses the value of the merge field SEATS"}},
	}
	for _, tt := range tests {
		b := mailchimpBench(t, nil, sim.MailchimpOptions{})
		req := ada
		req.Record = map[string]any{"email": tt.email, "mergeFields": tt.merge}
		e := *call(t, b, req)
		if want := map[string]int{"too-many-lists": 409}[tt.want.Code]; e.Status != max(want, 400) { // 409 is the one user's trouble
			t.Errorf("%s: status %d", tt.email, e.Status)
		}
		if e.Status = 0; e != tt.want {
			t.Errorf("%s: got %s, %+v", tt.email, e.Class, e)
		}
	}
}

func TestMailchimpOutcomes(t *testing.T) {
	document := func(status, title, more string) string {
		return `{"type":"x","title":"` + title + `","status":` + status + `,"detail":"about ada@example.com","instance":"x"` + more + `}`
	}
	tests := []struct {
		status int
		body   string
		want   signup.Error
	}{
		{401, document("401", "API Key Invalid", ""), signup.Error{Class: signup.Systemic, Code: "unauthorized", Detail: "mailchimp: API Key Invalid"}},
		{401, "<html>", signup.Error{Class: signup.Systemic, Code: "unauthorized"}},
		{403, document("403", "User Disabled", ""), signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "mailchimp: User Disabled"}},
		{403, document("403", "WrongDatacenter", ""), signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "mailchimp: WrongDatacenter"}},
		{403, "", signup.Error{Class: signup.Throttled, Code: "throttled"}},
		{403, "<html>Access Denied", signup.Error{Class: signup.Throttled, Code: "throttled"}},
		{404, "no such page", signup.Error{Class: signup.Systemic, Code: "not-found"}},
		{404, "", signup.Error{Class: signup.Systemic, Code: "not-found"}},
		{404, "{}", signup.Error{Class: signup.Systemic, Code: "not-found"}},
		{404, document("400", "Resource Not Found", ""), signup.Error{Class: signup.Systemic, Code: "not-found"}},
		{400, document("400", "Ada@Example", ""), signup.Error{Class: signup.Permanent, Code: "rejected"}},
		{400, document("400", "Member Exists", ""), signup.Error{Class: signup.Transient, Code: "conflict", Detail: "mailchimp: Member Exists"}},
		{400, document("400", "Invalid Resource", `,"errors":[{"field":"ada@example.com"},{"field":"merge_fields.FNAME"}]`), signup.Error{Class: signup.Permanent, Code: "data", Detail: "Mailchimp refuses the value of the merge field FNAME"}},
		{400, document("400", "Invalid Resource", `,"errors":[{"field":""}]`), signup.Error{Class: signup.Permanent, Code: "data", Detail: "mailchimp: Invalid Resource"}},
		{429, "", signup.Error{Class: signup.Throttled, Code: "throttled"}},
		{429, document("429", "Too Many Requests", ""), signup.Error{Class: signup.Throttled, Code: "throttled", Detail: "mailchimp: Too Many Requests"}},
		{500, document("500", "Internal Server Error", ""), signup.Error{Class: signup.Transient, Code: "unavailable", Detail: "mailchimp: Internal Server Error"}},
		{302, "{}", signup.Error{Class: signup.Systemic, Code: "redirected"}},
		{200, "", signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, "{}", signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, "null", signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, "<html>ada@example.com", signup.Error{Class: signup.Transient, Code: "not-understood"}},
	}
	for i := range 2 * len(tests) {
		tt, calls, sure := tests[i/2], 0, i%2 == 0
		c := mailchimpAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		}), nil)
		req := consenting("subscribed")
		req.Unsure = !sure
		e := *call(t, c, req)
		if want := map[string]int{"conflict": 409}[tt.want.Code]; tt.status != 200 && e.Status != max(want, tt.status) {
			t.Errorf("%d %s: status %d", tt.status, tt.body, e.Status)
		}
		if e.Status = 0; e.Code == "not-understood" {
			e.Detail = ""
		}
		if looked := sure && tt.want.Code == "conflict"; e != tt.want || calls > 1 != looked {
			t.Errorf("%d %s: got %s, %+v in %d calls", tt.status, tt.body, e.Class, e, calls)
		}
	}
}

// An answer is believed only if it is the contact that was asked for, with an id that may be kept.
func TestMailchimpTakesNoOtherAnswerForAContact(t *testing.T) {
	const hash = "3e3417d7ef77d5932a6734b916515ed5" // of ada@example.com
	for body, good := range map[string]bool{
		`{"id":"` + hash + `","contact_id":"c1","status":"subscribed"}`:                                       true,
		`{"id":"` + hash + `","contact_id":"","status":"subscribed"}`:                                         false,
		`{"id":"` + hash + `","status":"subscribed"}`:                                                         false,
		`{"id":"` + hash + `","contact_id":"c1"}`:                                                             false,
		`{"id":"` + hash + `","contact_id":"` + hash + `","status":"subscribed"}`:                             false,
		`{"id":"` + hash + `","contact_id":"ada@example.com","status":"subscribed"}`:                          false,
		`{"id":"000017d7ef77d5932a6734b916515ed5","contact_id":"c1","status":"a"}`:                            false,
		`{"contact_id":"c1","status":"subscribed"}`:                                                           false,
		`{"id":"000017d7ef77d5932a6734b916515ed5","contact_id":"` + strings.ToUpper(hash) + `","status":"a"}`: false,
		`{"id":"000017d7ef77d5932a6734b916515ed5","contact_id":"` + hash + `","status":"a"}`:                  false,
		`[]`: false,
	} {
		for _, method := range []string{"POST", "PUT", "GET"} {
			var asked []string
			c := mailchimpAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" && method == "PUT" {
					_, _ = w.Write([]byte(`{"id":"` + hash + `","contact_id":"c1","status":"subscribed"}`))
					return
				}
				asked = append(asked, r.Method)
				_, _ = w.Write([]byte(body))
			}), nil)
			req := consenting("subscribed")
			req.Unsure = method != "POST"
			a, err := c.Associate(t.Context(), req)
			if good && (err != nil || a.ID != "c1") || !good && (err == nil || signup.ClassOf(err) != signup.Transient) {
				t.Errorf("%s %s: got %+v, %v", method, body, a, err)
			}
			if len(asked) == 0 || asked[0] != method {
				t.Errorf("%s %s: it was the answer to %v", method, body, asked)
			}
		}
	}
}

func TestMailchimpWithoutAddress(t *testing.T) {
	b := mailchimpBench(t, nil, sim.MailchimpOptions{})
	req := consenting("subscribed")
	req.Email = " "
	if e := call(t, b, req); e.Class != signup.Skip || e.Code != "no-email" {
		t.Errorf("got %s, %v", e.Class, e)
	}
	// The record's address goes before the user's own.
	req.Record["email"] = "countess@example.com"
	b.associate(t, req)
	if m := b.only(t); m.Email != "countess@example.com" {
		t.Errorf("got %s", m.Email)
	}
}

func TestMailchimpRecordOfWrongTypes(t *testing.T) {
	b := mailchimpBench(t, nil, sim.MailchimpOptions{})
	for field, v := range map[string]any{
		"email": 1, "language": true, "ipSignup": "ada", "mergeFields": "x", "marketingPermissions": []any{}, "shipping": "x", "status": []any{"x"},
	} {
		req := ada
		req.Record = map[string]any{field: v}
		if e := call(t, b, req); e.Class != signup.Permanent || e.Code != "invalid-record" || !strings.Contains(e.Detail, "record."+field) {
			t.Errorf("%s: got %s, %v", field, e.Class, e)
		}
	}
	for field, v := range map[string]any{"mergeFields": map[string]any{"FNAME": []any{}}, "marketingPermissions": map[string]any{"p": "yes"}} {
		req := ada
		req.Record = map[string]any{field: v}
		if e := call(t, b, req); e.Code != "invalid-record" || !strings.Contains(e.Detail, "record."+field+".") {
			t.Errorf("%s: got %v", field, e)
		}
	}
	if n := len(b.there.Calls()); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

// The first call makes the contact and loses the answer of the tags, or of both.
func TestMailchimpTagsAreMadeUpFor(t *testing.T) {
	for _, after := range []bool{false, true} {
		b := mailchimpBench(t, map[string]any{"tags": []any{"app"}, "idField": idField}, sim.MailchimpOptions{})
		b.there.Faults.Add(sim.Fault{Path: "/tags", Status: 503, After: after})
		if e := call(t, b, consenting("subscribed")); e.Class != signup.Transient {
			t.Fatalf("got %s, %v", e.Class, e)
		}
		b.there.Edit(ada.Email, func(m *sim.MailchimpMember) { m.Email = "moved@example.com" })
		for range 2 {
			if a := b.associate(t, unsure(consenting("subscribed"))); a.Created {
				t.Error("a second contact was made")
			}
		}
		if m := b.only(t); m.Welcomes != 1 || len(m.Tags) != 1 || m.Email != "moved@example.com" {
			t.Errorf("after %v: got %+v, want one welcome", after, m)
		}
	}
}

func TestMailchimpTagsOfAContactThatWentAway(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"tags": "app"}, sim.MailchimpOptions{})
	b.there.Faults.Add(sim.Fault{Path: "/members", Method: "POST", After: true, Status: 200,
		Body: `{"id":"3e3417d7ef77d5932a6734b916515ed5","contact_id":"c1","status":"subscribed"}`, Then: func() { b.there.Forget(ada.Email) }})
	if e := call(t, b, consenting("subscribed")); e.Class != signup.Transient || e.Code != "conflict" {
		t.Errorf("got %s, %v", e.Class, e)
	}
	b.there.Faults.Add(sim.Fault{Path: "/tags", Status: 200, Body: "<html>"})
	req := consenting("subscribed")
	req.Email = "other@example.com"
	if e := call(t, b, req); e.Class != signup.Transient || e.Code != "not-understood" {
		t.Errorf("got %s, %v", e.Class, e)
	}
}

func TestMailchimpContactOfAnotherUser(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	first := b.associate(t, consenting("subscribed"))
	second := consenting("subscribed")
	second.User = "00000002-5eed-4000-8000-00000000beef"
	second.Record["mergeFields"] = map[string]any{"FNAME": "Byron"}
	for _, uncertain := range []bool{false, true} {
		second.Unsure = uncertain
		if e := call(t, b, second); e.Class != signup.Permanent || e.Code != "taken" {
			t.Fatalf("got %s, %v", e.Class, e)
		}
	}
	second.Known = first.ID
	if e := call(t, b, second); e.Code != "taken" {
		t.Fatalf("got %v", e)
	}
	if m := b.only(t); m.Merge[idField] != string(ada.User) || m.Merge["FNAME"] != "Ada" {
		t.Errorf("the contact of the first user was changed: %+v", m)
	}
	// A person sets the contact free, and then it is the second user's.
	b.there.Edit(ada.Email, func(m *sim.MailchimpMember) { m.Merge[idField] = "" })
	if a := b.associate(t, second); a.ID != first.ID || a.Created {
		t.Errorf("got %+v", a)
	}
	if m := b.only(t); m.Merge[idField] != string(second.User) {
		t.Errorf("the contact does not carry the second user: %+v", m)
	}
}

// Without idField a contact is its address, and two users with one address have one contact.
func TestMailchimpSharedAddress(t *testing.T) {
	b := mailchimpBench(t, nil, sim.MailchimpOptions{})
	first := b.associate(t, consenting("subscribed"))
	second := consenting("subscribed")
	second.User, second.Email = "00000002-5eed-4000-8000-00000000beef", "ADA@example.com"
	if a := b.associate(t, second); a.ID != first.ID || a.Created {
		t.Errorf("got %+v, want %+v", a, first)
	}
}

func TestMailchimpChangesNoContactByAnAddressThatNobodyVerified(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	added := ada.Created.AddDate(-1, 0, 0)
	id := b.there.Add(sim.MailchimpMember{Email: ada.Email, Merge: map[string]any{"FNAME": "Augusta"}, LastChanged: added})
	byRecord := consenting("subscribed")
	byRecord.Email, byRecord.Record["email"] = "other@example.com", ada.Email
	unverified := consenting("subscribed")
	unverified.EmailVerified = false
	for _, req := range []signup.Request{byRecord, unverified} {
		if a := b.associate(t, req); a.ID != id {
			t.Errorf("got %+v", a)
		}
	}
	if m := b.only(t); m.Merge["FNAME"] != "Augusta" || m.Merge[idField] != nil || m.LastChanged != added || b.there.Calls()["put"] != 0 {
		t.Errorf("got %+v after %v", m, b.there.Calls())
	}
	// What it has made itself it goes on with.
	fresh := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	fresh.associate(t, unverified)
	unverified.Record["mergeFields"] = map[string]any{"FNAME": "Ada King"}
	fresh.associate(t, unsure(unverified))
	if m := fresh.only(t); m.Merge["FNAME"] != "Ada King" {
		t.Errorf("got %+v", m)
	}
}

// strangers fills the audience.
func strangers(b chimp, n int, changed time.Time) {
	for i := range n {
		b.there.Add(sim.MailchimpMember{Email: "stranger" + strings.Repeat("x", i%40) + time.Duration(i).String() + "@example.com", LastChanged: changed, SignedUpAt: changed})
	}
}

func TestMailchimpFindsTheUserOnALaterPage(t *testing.T) {
	for _, status := range []string{"subscribed", "archived"} {
		b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
		strangers(b, 1200, ada.Created)
		id := b.there.Add(sim.MailchimpMember{Email: "moved@example.com", Status: status, Merge: map[string]any{idField: strings.ToUpper(string(ada.User))}, SignedUpAt: start})
		if a := b.associate(t, unsure(consenting("subscribed"))); a.ID != id || a.Created {
			t.Errorf("%s: got %+v, want %s", status, a, id)
		}
	}
}

func TestMailchimpSearchReadsContactsWithMuchInThem(t *testing.T) {
	fields := []sim.MailchimpField{{Tag: idField}}
	merge := map[string]any{}
	for i := range 30 {
		tag := "LONG" + strconv.Itoa(i)
		fields = append(fields, sim.MailchimpField{Tag: tag})
		merge[tag] = strings.Repeat("x", 255)
	}
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{Fields: fields})
	for i := range 500 {
		b.there.Add(sim.MailchimpMember{Email: "stranger" + strconv.Itoa(i) + "@example.com", Merge: merge})
	}
	b.associate(t, unsure(consenting("subscribed")))
}

// The user's own contact goes before one that somebody else has made at the user's address since.
func TestMailchimpFindsTheUserBehindAnotherContact(t *testing.T) {
	for _, other := range []string{"", "00000002-5eed-4000-8000-00000000beef"} {
		b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
		made := b.associate(t, consenting("subscribed"))
		b.there.Edit(ada.Email, func(m *sim.MailchimpMember) { m.Email = "moved@example.com" })
		b.there.Add(sim.MailchimpMember{Email: ada.Email, Merge: map[string]any{idField: other}})
		if a := b.associate(t, unsure(consenting("subscribed"))); a.ID != made.ID || a.Created {
			t.Errorf("got %+v, want %s", a, made.ID)
		}
	}
}

// Who signed up long ago is looked for among all that has changed since; those who have not are not read.
func TestMailchimpSearchIsBounded(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	strangers(b, 10_000, ada.Created.Add(-time.Hour+time.Minute))
	strangers(b, 500, ada.Created.Add(-time.Hour-time.Minute))
	b.associate(t, unsure(consenting("subscribed")))
	if got := b.there.Calls()["list"]; got != 21 {
		t.Errorf("read %d pages, want 20 and one of the archived", got)
	}
	strangers(b, 1, start)
	req := unsure(consenting("subscribed"))
	req.User, req.Email = "00000002-5eed-4000-8000-00000000beef", "byron@example.com"
	if e := call(t, b, req); e.Class != signup.Permanent || e.Code != "not-searchable" {
		t.Errorf("got %s, %v", e.Class, e)
	}
	if got := b.there.Calls()["list"]; got != 22 {
		t.Errorf("read %d pages, want one more", got)
	}
}

// A page that is cut, or a list that shrinks, does not show that there is no contact.
func TestMailchimpSearchTakesNoOtherAnswerForNone(t *testing.T) {
	for body, code := range map[string]string{
		"": "not-understood", "{}": "not-understood", "null": "not-understood", "<html>": "not-understood",
		`{"members":[]}`: "not-understood", `{"total_items":0}`: "not-understood", `{"members":null,"total_items":0}`: "not-understood",
		`{"members":[],"total_items":3}`:                                 "not-understood",
		`{"members":[{}],"total_items":1}`:                               "not-understood",
		`{"members":[{"id":"h","status":"subscribed"}],"total_items":1}`: "not-understood",
	} {
		b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
		b.Connector = mailchimpAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/members") {
				_, _ = w.Write([]byte(body))
				return
			}
			b.there.ServeHTTP(w, r)
		}), map[string]any{"idField": idField})
		if e := call(t, b, unsure(consenting("subscribed"))); e.Class != signup.Transient || e.Code != code {
			t.Errorf("%s: got %s, %v", body, e.Class, e)
		}
		if n := len(b.there.Members()); n != 0 {
			t.Errorf("%s: a contact was made", body)
		}
	}
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	strangers(b, 700, start)
	b.there.Faults.Add(sim.Fault{Path: "/members", Method: "GET", Skip: 2, Times: -1, After: true, Status: 200, Body: `{"members":[],"total_items":500}`})
	if e := call(t, b, unsure(consenting("subscribed"))); e.Class != signup.Transient || e.Code != "conflict" {
		t.Errorf("got %s, %v", e.Class, e)
	}
}

func TestMailchimpWithoutTheMergeFieldOfTheUser(t *testing.T) {
	for _, fields := range [][]sim.MailchimpField{{{Tag: "FNAME"}}, {{Tag: idField, Type: "number"}}} {
		b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{Fields: fields})
		if fields[0].Tag == "FNAME" {
			if e := call(t, b, consenting("subscribed")); e.Class != signup.Systemic || e.Code != "not-found" {
				t.Errorf("got %s, %v", e.Class, e)
			}
		}
		if err := b.Check(t.Context()); signup.ClassOf(err) != signup.Systemic || !strings.Contains(err.Error(), idField) {
			t.Errorf("check: got %v", err)
		}
	}
}

func TestMailchimpCheck(t *testing.T) {
	shape := map[string]any{"mergeFields": map[string]any{"FNAME": nil, "LASTNAME": nil, "TITLE": nil}, "status": nil}
	there := sim.NewMailchimp(sim.MailchimpOptions{APIKey: mailchimpKey, Audience: audience, Fields: []sim.MailchimpField{{Tag: "FNAME"}}})
	root, client := serve(t, published(t, there))
	check := func(env connector.Env, more map[string]any) error {
		settings := map[string]any{"apiKey": mailchimpKey, "url": root, "audience": audience}
		maps.Copy(settings, more)
		env.HTTP = client
		return open(t, "mailchimp", settings, env).Check(t.Context())
	}
	if err := check(connector.Env{}, nil); err != nil {
		t.Error(err)
	}
	if err := check(connector.Env{Shape: shape}, nil); signup.ClassOf(err) != signup.Systemic || !strings.HasSuffix(err.Error(), "no merge field LASTNAME, TITLE") {
		t.Errorf("got %v", err)
	}
	if err := check(connector.Env{}, map[string]any{"audience": "ffffffffff"}); signup.ClassOf(err) != signup.Systemic || !strings.Contains(err.Error(), "there is no such audience") {
		t.Errorf("got %v", err)
	}
	for _, body := range []string{"", "{}", "<html>", `{"health_status":""}`, `{"health_status":"x","id":"other"}`, `{"health_status":"x","id":"` + audience + `"}`} {
		c := mailchimpAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }), map[string]any{"idField": idField})
		if err := c.Check(t.Context()); err == nil || signup.ClassOf(err) != signup.Transient {
			t.Errorf("%s: got %v", body, err)
		}
	}
	for _, body := range []string{`{"id":"` + audience + `"}`, `{"health_status":"x","id":"other"}`} {
		c := mailchimpAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }), nil)
		if err := c.Check(t.Context()); err == nil || signup.ClassOf(err) != signup.Transient {
			t.Errorf("%s, and no merge field to look at: got %v", body, err)
		}
	}
}

// An audience that is not there refuses everybody; a contact that is not there refuses nobody.
func TestMailchimpWithoutAudience(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{APIKey: mailchimpKey, Audience: "ffffffffff"})
	for _, req := range []signup.Request{consenting("subscribed"), unsure(consenting("subscribed"))} {
		for _, field := range []string{"", idField} {
			c := mailchimpAt(t, there, map[string]any{"idField": field})
			if e := call(t, c, req); e.Class != signup.Systemic || e.Code != "not-found" {
				t.Errorf("got %s, %v", e.Class, e)
			}
		}
	}
}

func TestMailchimpKnownContact(t *testing.T) {
	b := mailchimpBench(t, nil, sim.MailchimpOptions{})
	made := b.associate(t, consenting("subscribed"))
	moved := consenting("subscribed")
	moved.Known, moved.Email = made.ID, "countess@example.com"
	if a := b.associate(t, moved); a.ID == made.ID {
		t.Error("without idField a contact with another address was taken for the user's")
	}
	// The hash of an address is no account, and is not taken for one.
	hashed := consenting("subscribed")
	hashed.Known = b.there.Members()[0].Hash()
	if a := b.associate(t, hashed); a.ID != made.ID {
		t.Errorf("got %+v", a)
	}
	// What cannot be a contact's id is not asked for: it would be another path.
	for _, known := range []string{"../ping", "a/b", "a?b", ada.Email} {
		before := b.there.Calls()["get"]
		odd := consenting("subscribed")
		odd.Known = known
		if a := b.associate(t, odd); a.ID != made.ID || b.there.Calls()["get"] != before+1 {
			t.Errorf("%s: got %+v in %d look-ups", known, a, b.there.Calls()["get"]-before)
		}
	}
	by := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	made = by.associate(t, consenting("subscribed"))
	moved.Known = made.ID
	if a := by.associate(t, moved); a.ID != made.ID || a.Created {
		t.Errorf("got %+v", a)
	}
	if m := by.only(t); m.Email != ada.Email {
		t.Errorf("the contact's address was changed to %s", m.Email)
	}
}

func TestMailchimpLanguages(t *testing.T) {
	var got []string
	for _, tag := range []string{"de-AT", "en", "fr-ca", "fr_FR", "pt-PT", "pt-BR", "es-ES", "zh-Hant-TW"} {
		b := mailchimpBench(t, nil, sim.MailchimpOptions{})
		req := consenting("subscribed")
		req.Record["language"] = tag
		b.associate(t, req)
		got = append(got, b.only(t).Language)
	}
	if diff := cmp.Diff(got, []string{"de", "en", "fr_CA", "fr", "pt_PT", "pt", "es_ES", "zh"}); diff != "" {
		t.Errorf("languages (-got +want):\n%s", diff)
	}
}
