package connector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// person is the nth user, with an address of their own.
func person(n int) signup.Request {
	req := ada
	req.User = signup.UserID(fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", n))
	req.Email = fmt.Sprintf("user%d@example.com", n)
	req.Record = map[string]any{"LastName": fmt.Sprintf("User %d", n), "Email": req.Email}
	return req
}

func people(n int) (reqs []signup.Request) {
	for i := range n {
		reqs = append(reqs, person(i))
	}
	return reqs
}

func having(req signup.Request, field string, v any) signup.Request {
	req.Record = maps.Clone(req.Record)
	req.Record[field] = v
	return req
}

// holder is the external id of the record with this id, "" if there is none.
func (o org) holder(id string) signup.UserID {
	for _, r := range o.there.Records() {
		if r.ID == id && !r.Deleted {
			user, _ := r.Fields["Entra_Object_Id__c"].(string)
			return signup.UserID(user)
		}
	}
	return ""
}

// count is how many live records there are.
func (o org) count() (n int) {
	for _, r := range o.there.Records() {
		if !r.Deleted {
			n++
		}
	}
	return n
}

// salesforceAt opens a connector to a server that gives out tokens and answers all else with this handler.
func salesforceAt(t *testing.T, h http.HandlerFunc, more map[string]any) signup.Connector {
	t.Helper()
	_, key := appKey()
	root, client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/services/oauth2/token" {
			_, _ = w.Write([]byte(`{"access_token":"00D1!token","token_type":"Bearer","instance_url":"https://instance.invalid"}`))
			return
		}
		h(w, r)
	}))
	settings := map[string]any{"url": root, "clientId": consumerKey, "privateKey": key, "username": "sync@example.org"}
	maps.Copy(settings, more)
	return open(t, "salesforce", settings, connector.Env{HTTP: client, Clock: sim.NewClock(start)})
}

// wantErr demands an outcome with this class and code.
func wantErr(t *testing.T, err error, class signup.Class, code string) *signup.Error {
	t.Helper()
	e, ok := errors.AsType[*signup.Error](err)
	if !ok || e.Class != class || e.Code != code {
		t.Fatalf("got %v (%s), want %s, %q", err, signup.ClassOf(err), class, code)
	}
	return e
}

func TestSalesforceRequest(t *testing.T) {
	var got strings.Builder
	c := salesforceAt(t, func(w http.ResponseWriter, r *http.Request) {
		got.WriteString(r.Method + " " + r.URL.String() + "\n")
		for _, name := range []string{"Authorization", "Content-Type", "Sforce-Duplicate-Rule-Header"} {
			got.WriteString(name + ": " + r.Header.Get(name) + "\n")
		}
		body, _ := io.ReadAll(r.Body)
		got.WriteString("\n" + strings.ReplaceAll(string(body), "},{", "},\n{") + "\n")
		_, _ = w.Write([]byte(`[{"id":"0035f0000000001AAA","success":true,"created":true,"errors":[]},{"id":"0035f0000000002AAA","success":true,"created":false,"errors":[]}]`))
	}, map[string]any{"duplicates": "allow"})
	first := having(having(having(person(1), "Seats__c", 3), "VIP__c", true), "Phone", "")
	results := c.(signup.Batcher).AssociateAll(t.Context(), []signup.Request{first, having(person(2), "Score__c", 0.25)})
	want := []signup.Result{{Account: signup.Account{ID: "0035f0000000001AAA", Created: true}}, {Account: signup.Account{ID: "0035f0000000002AAA"}}}
	if diff := cmp.Diff(results, want); diff != "" {
		t.Errorf("results (-got +want):\n%s", diff)
	}
	golden(t, "salesforce-upsert.txt", got.String())
}

func TestSalesforceFifteenUsersAreOneCall(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	reqs := people(15)
	for round, created := range []bool{true, false} {
		for i, r := range o.all(t, reqs...) {
			if r.Err != nil || r.Account.Created != created || o.holder(r.Account.ID) != reqs[i].User {
				t.Errorf("round %d, user %d: %+v, which is %s's", round, i, r, o.holder(r.Account.ID))
			}
		}
		if got := o.there.Calls()["collection"]; got != round+1 {
			t.Errorf("%d calls after %d rounds", got, round+1)
		}
	}
	if o.count() != 15 {
		t.Errorf("%d records, want 15", o.count())
	}
}

func TestSalesforceResultsAreEachUsersOwn(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	reqs := people(15)
	for i := range reqs {
		switch {
		case i%4 == 1:
			reqs[i] = having(reqs[i], "Email", "not an address")
		case i%4 == 3:
			reqs[i].Record = map[string]any{"Email": reqs[i].Email}
		case i == 6:
			reqs[i] = having(reqs[i], "Tags__c", []any{"a"})
		}
	}
	for i, r := range o.all(t, reqs...) {
		switch {
		case i%4 == 1:
			if e := wantErr(t, r.Err, signup.Permanent, "rejected"); e.Detail != "salesforce: INVALID_EMAIL_ADDRESS (Email)" {
				t.Errorf("user %d: %v", i, e)
			}
		case i%4 == 3:
			if e := wantErr(t, r.Err, signup.Permanent, "rejected"); e.Detail != "salesforce: REQUIRED_FIELD_MISSING (LastName)" {
				t.Errorf("user %d: %v", i, e)
			}
		case i == 6:
			wantErr(t, r.Err, signup.Permanent, "invalid-record")
		case r.Err != nil || o.holder(r.Account.ID) != reqs[i].User:
			t.Errorf("user %d: %+v, which is %s's", i, r, o.holder(r.Account.ID))
		}
	}
	if got := o.there.Calls()["collection"]; got != 1 || o.count() != 7 {
		t.Errorf("%d calls and %d records, want 1 and 7", got, o.count())
	}
}

func TestSalesforceCallThatIsLostAfterItsEffectIsRepeated(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	o.there.Faults.Add(sim.Fault{Method: "PATCH", After: true})
	for _, r := range o.all(t, people(15)...) {
		wantErr(t, r.Err, signup.Transient, "cut")
	}
	for i, r := range o.all(t, people(15)...) {
		if r.Err != nil || o.holder(r.Account.ID) != person(i).User {
			t.Errorf("user %d: %+v", i, r)
		}
	}
	if o.count() != 15 {
		t.Errorf("%d records, want 15", o.count())
	}
}

func TestSalesforceFieldThatDoesNotExistIsEverybodysTrouble(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	reqs := people(15)
	reqs[3] = having(reqs[3], "Shoe_Size__c", "38")
	for _, r := range o.all(t, reqs...) {
		wantErr(t, r.Err, signup.Systemic, "schema")
	}
	if got := o.there.Calls()["collection"]; got != 1 || o.count() != 0 {
		t.Errorf("%d calls and %d records, want 1 and 0", got, o.count())
	}
}

func TestSalesforceValueThatBreaksTheCallIsOneUsersTrouble(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	reqs := people(15)
	reqs[3] = having(reqs[3], "Seats__c", "three")
	for i, r := range o.all(t, reqs...) {
		switch {
		case i == 3:
			wantErr(t, r.Err, signup.Permanent, "rejected")
		case r.Err != nil || o.holder(r.Account.ID) != reqs[i].User:
			t.Errorf("user %d: %+v", i, r)
		}
	}
	if got := o.there.Calls()["collection"]; got != 16 || o.count() != 14 {
		t.Errorf("%d calls and %d records, want 16 and 14", got, o.count())
	}
}

func TestSalesforceUserWhoComesTwiceIsWrittenOnce(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	results := o.all(t, person(1), person(2), person(1))
	if results[0].Err != nil || results[2].Err != nil || results[0].Account.ID != results[2].Account.ID || results[2].Account.Created || o.count() != 2 {
		t.Errorf("got %+v and %d records", results, o.count())
	}
}

func TestSalesforceEmptyValuesAreLeftAlone(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	o.all(t, having(person(1), "Phone", "+44 20 7946 0000"))
	o.all(t, having(having(person(1), "Phone", ""), "FirstName", nil))
	if got := o.there.Records()[0].Fields["Phone"]; got != "+44 20 7946 0000" {
		t.Errorf("phone %v", got)
	}
}

func TestSalesforceDeletedRecordIsMadeAnew(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	old := o.all(t, person(1))[0].Account.ID
	o.there.Edit(old, func(r *sim.SalesforceRecord) { r.Deleted = true })
	req := unsure(person(1))
	req.Known = old
	if r := o.all(t, req)[0]; r.Err != nil || r.Account.ID == old || o.count() != 1 {
		t.Errorf("got %+v and %d records", r, o.count())
	}
}

func TestSalesforceCreationsAtTheSameTimeConflict(t *testing.T) {
	var o org
	racing := false
	o = salesforceOrg(t, sim.SalesforceOptions{During: func() {
		if !racing {
			racing = true
			if r := o.all(t, person(1))[0]; r.Err != nil {
				t.Errorf("the faster one: %+v", r)
			}
		}
	}}, nil, nil)
	if e := wantErr(t, o.all(t, person(1))[0].Err, signup.Transient, "conflict"); e.Status != 409 {
		t.Errorf("status %d, want 409: it is the one user's trouble", e.Status)
	}
	if r := o.all(t, person(1))[0]; r.Err != nil || r.Account.Created || o.count() != 1 {
		t.Errorf("got %+v and %d records", r, o.count())
	}
}

func TestSalesforceLockedRowIsOneUsersTrouble(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	o.there.RefuseRecords(1, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
	results := o.all(t, people(2)...)
	wantErr(t, results[0].Err, signup.Transient, "conflict")
	if results[1].Err != nil || o.holder(results[1].Account.ID) != person(1).User {
		t.Errorf("got %+v", results[1])
	}
}

func TestSalesforceClashOnAnotherFieldIsPermanent(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	o.all(t, having(person(1), "Badge__c", "B-1"))
	e := wantErr(t, o.all(t, having(person(2), "Badge__c", "b-1"))[0].Err, signup.Permanent, "clash")
	if e.Detail != "salesforce: DUPLICATE_VALUE (Badge__c)" {
		t.Errorf("got %v", e)
	}
}

func TestSalesforceExternalIDsThatAreNotUniqueAreAmbiguous(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, map[string]any{"externalId": "Legacy_Id__c"}, nil)
	for range 2 {
		o.there.Add(sim.SalesforceRecord{Object: "Contact", Fields: map[string]any{"Legacy_Id__c": string(person(1).User)}})
	}
	wantErr(t, o.all(t, person(1))[0].Err, signup.Permanent, "ambiguous")
}

func TestSalesforceLeavesTheLastCallsToOthers(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{DailyCalls: 1000}, map[string]any{"apiUsageLimit": 90}, nil)
	o.there.UseUp(899)
	for i := range 2 { // the 900th is 90 percent, the next one more
		if r := o.all(t, person(i))[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	e := wantErr(t, o.all(t, person(3))[0].Err, signup.Throttled, "throttled")
	if e.RetryAfter != 15*time.Minute || o.there.Calls()["collection"] != 2 {
		t.Errorf("got %v after %s in %d calls", e, e.RetryAfter, o.there.Calls()["collection"])
	}
	o.clock.Advance(15 * time.Minute)
	if r := o.all(t, person(3))[0]; r.Err != nil {
		t.Error(r.Err)
	}
	wantErr(t, o.all(t, person(4))[0].Err, signup.Throttled, "throttled")
}

func TestSalesforceOrgWithoutCallsIsLeftAlone(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{DailyCalls: 10}, map[string]any{"apiUsageLimit": 100}, nil)
	o.there.UseUp(10)
	if e := wantErr(t, o.all(t, person(1))[0].Err, signup.Throttled, "throttled"); e.RetryAfter != 15*time.Minute {
		t.Errorf("retry after %s", e.RetryAfter)
	}
}

func TestSalesforceOutcomes(t *testing.T) {
	problem := func(code string, fields ...string) string {
		return `[{"errorCode":"` + code + `","message":"about ada@example.com","fields":["` + strings.Join(fields, `","`) + `"]}]`
	}
	item := func(code, message string) string {
		return `[{"success":false,"created":false,"errors":[{"statusCode":"` + code + `","message":"` + message + `","fields":[]}]}]`
	}
	odd := signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Salesforce's"}
	tests := []struct {
		status int
		body   string
		want   signup.Error
	}{
		{400, problem("JSON_PARSER_ERROR"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "salesforce: JSON_PARSER_ERROR", Status: 400}},
		{400, problem("REQUIRED_FIELD_MISSING", "LastName", "ada@example.com"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "salesforce: REQUIRED_FIELD_MISSING (LastName)", Status: 400}},
		{400, problem("INVALID_FIELD"), signup.Error{Class: signup.Systemic, Code: "schema", Detail: "salesforce: INVALID_FIELD", Status: 400}},
		{400, problem("ada@example.com"), signup.Error{Class: signup.Permanent, Code: "rejected", Status: 400}},
		{400, "<html>", signup.Error{Class: signup.Permanent, Code: "rejected", Status: 400}},
		{403, problem("REQUEST_LIMIT_EXCEEDED"), signup.Error{Class: signup.Throttled, Code: "throttled", Detail: "salesforce: REQUEST_LIMIT_EXCEEDED", Status: 403, RetryAfter: 15 * time.Minute}},
		{403, problem("INSUFFICIENT_ACCESS"), signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "salesforce: INSUFFICIENT_ACCESS", Status: 403}},
		{403, problem("FUNCTIONALITY_NOT_ENABLED"), signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "salesforce: FUNCTIONALITY_NOT_ENABLED", Status: 403}},
		{403, problem("API_CURRENTLY_DISABLED"), signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "salesforce: API_CURRENTLY_DISABLED"}}, // without a status: it is about everybody
		{404, problem("NOT_FOUND"), signup.Error{Class: signup.Systemic, Code: "schema", Detail: "salesforce: NOT_FOUND", Status: 404}},
		{410, problem("UNSUPPORTED_API_VERSION"), signup.Error{Class: signup.Systemic, Code: "schema", Detail: "salesforce: UNSUPPORTED_API_VERSION", Status: 410}},
		{404, "no such page", signup.Error{Class: signup.Systemic, Code: "not-found", Detail: "settings.url is not an org's", Status: 404}},
		{302, "", signup.Error{Class: signup.Systemic, Code: "redirected", Detail: "the org has moved or is closed; settings.url wants its present My Domain", Status: 302}},
		{300, `["/services/data/v62.0/sobjects/Contact/0035f0000000001AAA"]`, signup.Error{Class: signup.Permanent, Code: "ambiguous", Detail: "more than one record has this external id", Status: 300}},
		{429, "", signup.Error{Class: signup.Throttled, Code: "throttled", Status: 429}},
		{500, problem("UNKNOWN_EXCEPTION"), signup.Error{Class: signup.Transient, Code: "unavailable", Detail: "salesforce: UNKNOWN_EXCEPTION", Status: 500}},
		{500, problem("APEX_ERROR"), signup.Error{Class: signup.Transient, Code: "unavailable", Detail: "salesforce: APEX_ERROR", Status: 500}},
		{503, problem("SERVER_UNAVAILABLE"), signup.Error{Class: signup.Transient, Code: "unavailable", Detail: "salesforce: SERVER_UNAVAILABLE", Status: 503}},
		{200, item("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access"), signup.Error{Class: signup.Transient, Code: "conflict", Detail: "salesforce: UNABLE_TO_LOCK_ROW", Status: 409}},
		{200, item("DUPLICATE_VALUE", "duplicate value found: <unknown> duplicates value on record with id: <unknown>"), signup.Error{Class: signup.Transient, Code: "conflict", Detail: "salesforce: DUPLICATE_VALUE", Status: 409}},
		{200, item("DUPLICATE_VALUE", "duplicate value found: entra_object_id__c duplicates value on record with id: 0035f0000000001"), signup.Error{Class: signup.Transient, Code: "conflict", Detail: "salesforce: DUPLICATE_VALUE (entra_object_id__c)", Status: 409}},
		{200, item("INSUFFICIENT_ACCESS_OR_READONLY", "x"), signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "salesforce: INSUFFICIENT_ACCESS_OR_READONLY", Status: 403}},
		{200, item("FIELD_CUSTOM_VALIDATION_EXCEPTION", "ada@example.com is no customer"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "salesforce: FIELD_CUSTOM_VALIDATION_EXCEPTION"}},
		{200, item("MIXED_DML_OPERATION", "x"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "salesforce: MIXED_DML_OPERATION"}},
		{200, item("REQUEST_LIMIT_EXCEEDED", "x"), signup.Error{Class: signup.Throttled, Code: "throttled", Detail: "salesforce: REQUEST_LIMIT_EXCEEDED", RetryAfter: 15 * time.Minute}},
		{200, item("ada@example.com", "x"), odd},
		{200, "", odd}, {200, "{}", odd}, {200, "[]", odd}, {200, "null", odd}, {200, "<html>ada@example.com", odd}, {204, "", odd},
		{200, `[{}]`, odd}, {200, `[{"success":true,"id":"ada@example.com","errors":[]}]`, odd}, {200, `[{"success":true,"errors":[]}]`, odd},
		{200, `[{"success":true,"id":"0035f0000000001AAA","errors":[{"statusCode":"X_Y"}]}]`, odd},
		{200, `[{"success":false,"id":"0035f0000000001AAA","errors":[]}]`, odd},
		{200, `[{"success":true,"id":"0035f0000000001AAA","errors":[]},{"success":true,"id":"0035f0000000002AAA","errors":[]}]`, odd},
	}
	for _, tt := range tests {
		calls := 0
		c := salesforceAt(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		}, nil)
		if e := *call(t, c, person(1)); e != tt.want || calls != 1 {
			t.Errorf("%d %s: got %s, %v after %s in %d calls; want %s, %v", tt.status, tt.body, e.Class, &e, e.RetryAfter, calls, tt.want.Class, &tt.want)
		}
	}
}

func TestSalesforceHalfAListIsNobodysAnswer(t *testing.T) {
	const ok = `{"id":"0035f0000000001AAA","success":true,"errors":[]}`
	c := salesforceAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("[" + ok + "," + ok + "]")) }, nil)
	for _, r := range c.(signup.Batcher).AssociateAll(t.Context(), people(3)) {
		wantErr(t, r.Err, signup.Transient, "not-understood")
	}
}

func TestSalesforceRecordOfWrongFields(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	for field, v := range map[string]any{
		"ID": "003", "attributes": "x", "ENTRA_OBJECT_ID__C": "x", "Account.Ext__c": "x", "Account": map[string]any{"Ext__c": "x"}, "Tags__c": []any{"x"},
	} {
		if e := call(t, o, having(person(1), field, v)); e.Class != signup.Permanent || e.Code != "invalid-record" {
			t.Errorf("%s: got %s, %v", field, e.Class, e)
		}
	}
	if got := o.there.Calls(); len(got) != 0 {
		t.Errorf("calls were made: %v", got)
	}
}

func TestSalesforceFieldsAreChecked(t *testing.T) {
	var got []string
	for _, err := range kindOf(t, "salesforce").CheckRecord(map[string]any{
		"LastName": nil, "Loyalty__c": nil, "id": nil, "Attributes": nil, "Account": map[string]any{"Ext__c": nil}, "Account.Name": nil,
	}) {
		got = append(got, err.Error())
	}
	want := []string{
		"record.Account: wants a value, not fields below it", "record.Account.Name: a field is an API name of letters, digits and _",
		"record.Attributes: is set by the connector itself", "record.id: is set by the connector itself",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("errors (-got +want):\n%s", diff)
	}
}

// brokenCall is a batch that one value has refused as a whole, to an org of which the nth call after that goes wrong.
func brokenCall(t *testing.T, fault sim.Fault) (org, []signup.Request) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	reqs := people(15)
	reqs[0] = having(reqs[0], "Seats__c", "three")
	o.there.Faults.Add(fault)
	return o, reqs
}

// What goes wrong with the org while the records are sent one by one is not asked again for each of the others.
func TestSalesforceTroubleWhileRecordsAreSentAloneIsOneFailure(t *testing.T) {
	tests := []struct {
		name  string
		fault sim.Fault
		class signup.Class
	}{
		{"unavailable", sim.Fault{Status: 503}, signup.Transient},
		{"cut", sim.Fault{}, signup.Transient},
		{"not Salesforce", sim.Fault{Status: 200, Body: "<html>"}, signup.Transient},
		{"throttled", sim.Fault{Status: 403, Body: `[{"errorCode":"REQUEST_LIMIT_EXCEEDED","message":"x"}]`}, signup.Throttled},
		{"forbidden", sim.Fault{Status: 403, Body: `[{"errorCode":"API_CURRENTLY_DISABLED","message":"x"}]`}, signup.Systemic},
	}
	for _, tt := range tests {
		tt.fault.Method, tt.fault.Skip, tt.fault.Times = "PATCH", 3, -1
		o, reqs := brokenCall(t, tt.fault)
		results := o.all(t, reqs...)
		wantErr(t, results[0].Err, signup.Permanent, "rejected")
		if results[1].Err != nil || o.holder(results[1].Account.ID) != reqs[1].User {
			t.Errorf("%s: before it began: %+v", tt.name, results[1])
		}
		for i, r := range results[2:] {
			if r.Err == nil || r.Err != results[2].Err || signup.ClassOf(r.Err) != tt.class {
				t.Errorf("%s: user %d: got %v, want the one failure of all, %v", tt.name, i+2, r.Err, results[2].Err)
			}
		}
		if got := o.there.Calls()["collection"]; got != 3 || o.there.Faults.Hits != 1 {
			t.Errorf("%s: %d calls went well and %d did not, want 3 and 1", tt.name, got, o.there.Faults.Hits)
		}
	}
}

// The run's deadline cuts a batch: who is written by then is so, and nothing is known of the others.
func TestSalesforceCancelledWhileRecordsAreSentAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o, reqs := brokenCall(t, sim.Fault{Method: "PATCH", Skip: 3, Times: -1, After: true, Then: cancel})
	for i, r := range o.Connector.(signup.Batcher).AssociateAll(ctx, reqs) {
		_, isOutcome := errors.AsType[*signup.Error](r.Err)
		switch {
		case i == 0:
			wantErr(t, r.Err, signup.Permanent, "rejected")
		case i == 1 && (r.Err != nil || o.holder(r.Account.ID) != reqs[i].User):
			t.Errorf("user %d: %+v", i, r)
		case i > 1 && (isOutcome || !errors.Is(r.Err, context.Canceled)):
			t.Errorf("user %d: got %v, want the context's error", i, r.Err)
		}
	}
}

func TestSalesforcePersonAccounts(t *testing.T) {
	shape := map[string]any{"FirstName": nil, "LastName": nil, "PersonEmail": nil, "RecordTypeId": nil}
	o := salesforceOrg(t, sim.SalesforceOptions{Duplicates: "block", MatchBy: "PersonEmail"}, map[string]any{"object": "Account", "duplicates": "link"}, shape)
	if err := o.Check(t.Context()); err != nil {
		t.Error(err)
	}
	of := func(n int) signup.Request {
		req := person(n)
		req.Record = map[string]any{"FirstName": "Ada", "LastName": "Lovelace", "PersonEmail": req.Email, "RecordTypeId": "0125f0000000001AAA"}
		return req
	}
	id := o.there.Add(sim.SalesforceRecord{Object: "Account", Fields: map[string]any{"LastName": "X", "PersonEmail": of(1).Email}})
	for round := range 2 {
		for i, r := range o.all(t, of(0), of(1)) {
			if r.Err != nil || o.holder(r.Account.ID) != of(i).User || (r.Account.ID == id) != (i == 1) || r.Account.Created != (i == 0 && round == 0) {
				t.Errorf("round %d, user %d: %+v", round, i, r)
			}
		}
	}
	if o.count() != 2 {
		t.Errorf("%d accounts, want 2", o.count())
	}
}
