package connector_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// matching is an org with a duplicate rule and a policy for it.
func matching(t *testing.T, rule, by, policy string) org {
	return salesforceOrg(t, sim.SalesforceOptions{Duplicates: rule, MatchBy: by}, map[string]any{"duplicates": policy}, nil)
}

func there(email, last, user string) sim.SalesforceRecord {
	fields := map[string]any{"Email": email, "LastName": last}
	if user != "" {
		fields["Entra_Object_Id__c"] = user
	}
	return sim.SalesforceRecord{Object: "Contact", Fields: fields}
}

func TestSalesforceDuplicatesByPolicy(t *testing.T) {
	me := person(1)
	unverified := me
	unverified.EmailVerified = false
	unmapped := me
	unmapped.Record = map[string]any{"LastName": "User 1"}
	tests := []struct {
		name, rule, by, policy string
		there                  []sim.SalesforceRecord
		req                    signup.Request
		linked                 bool
		detail                 string // of the refusal, "" if it goes well
	}{
		{"fail", "alert", "", "fail", []sim.SalesforceRecord{there("USER1@example.com", "X", "")}, me, false, "salesforce: DUPLICATES_DETECTED"},
		{"allow", "alert", "", "allow", []sim.SalesforceRecord{there("user1@example.com", "X", "")}, me, false, ""},
		{"allow, and the rule blocks", "block", "", "allow", []sim.SalesforceRecord{there("user1@example.com", "X", "")}, me, false, "salesforce: DUPLICATES_DETECTED"},
		{"link", "block", "", "link", []sim.SalesforceRecord{there("USER1@example.com", "X", "")}, me, true, ""},
		{"link, nobody matches", "block", "", "link", []sim.SalesforceRecord{there("user2@example.com", "X", "")}, me, false, ""},
		{"link, unverified", "block", "", "link", []sim.SalesforceRecord{there("user1@example.com", "X", "")}, unverified, false, "the user has no verified e-mail address in the record"},
		{"link, address not mapped", "block", "LastName", "link", []sim.SalesforceRecord{there("user1@example.com", "User 1", "")}, unmapped, false, "the user has no verified e-mail address in the record"},
		{"link, two match", "block", "", "link", []sim.SalesforceRecord{there("user1@example.com", "X", ""), there("user1@example.com", "Y", "")}, me, false, "2 records match"},
		{"link, somebody else's", "block", "", "link", []sim.SalesforceRecord{there("user1@example.com", "X", string(person(9).User))}, me, false, "the record that matches is linked to another user"},
		{"link, another address", "block", "LastName", "link", []sim.SalesforceRecord{there("other@example.com", "User 1", "")}, me, false, "the record that matches has another Email"},
		{"link, no address", "block", "LastName", "link", []sim.SalesforceRecord{there("", "User 1", "")}, me, false, "the record that matches has another Email"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := matching(t, tt.rule, tt.by, tt.policy)
			var ids []string
			for _, r := range tt.there {
				ids = append(ids, o.there.Add(r))
			}
			before := asJSON(o.there.Records())
			r := o.all(t, person(7), tt.req)[1]
			if tt.detail != "" {
				e := wantErr(t, r.Err, signup.Permanent, "duplicate")
				if !strings.Contains(e.Detail, tt.detail) || len(e.Detail) > 200 {
					t.Errorf("got %v, want %q", e, tt.detail)
				}
				if after := asJSON(o.there.Records()[:len(ids)]); after != before {
					t.Errorf("the records are now\n%s\nand were\n%s", after, before)
				}
				return
			}
			if r.Err != nil || o.holder(r.Account.ID) != tt.req.User || slices.Contains(ids, r.Account.ID) != tt.linked || r.Account.Created == tt.linked {
				t.Errorf("got %+v of %s; linked: %v", r, o.holder(r.Account.ID), ids)
			}
		})
	}
}

func TestSalesforceLinkIsMadeOnceWhateverGetsLost(t *testing.T) {
	for name, fault := range map[string]sim.Fault{
		"the upsert alone":     {Method: "PATCH", Path: "/sobjects/Contact/Entra", Status: 503, Body: "{}"},
		"the look":             {Method: "GET", Path: "/sobjects/Contact/003", Status: 503, Body: "{}"},
		"the look is HTML":     {Method: "GET", Path: "/sobjects/Contact/003", Status: 200, Body: "<html>"},
		"the look at oneself":  {Method: "GET", Path: "/sobjects/Contact/Entra", Status: 503, Body: "{}"},
		"oneself is HTML":      {Method: "GET", Path: "/sobjects/Contact/Entra", Status: 200, Body: "<html>"},
		"oneself is nothing":   {Method: "GET", Path: "/sobjects/Contact/Entra", Status: 200, Body: "{}"},
		"oneself is no path":   {Method: "GET", Path: "/sobjects/Contact/Entra", Status: 502, Body: "no such page"},
		"the look is another":  {Method: "GET", Path: "/sobjects/Contact/003", Status: 200, Body: `{"Id":"0035f0000000009AAA","Email":"user1@example.com","Entra_Object_Id__c":null}`},
		"the look says less":   {Method: "GET", Path: "/sobjects/Contact/003", Status: 200, Body: `{"Id":"0035f0000000001AAA","Email":"user1@example.com"}`},
		"the link":             {Method: "PATCH", Path: "/sobjects/Contact/003", Status: 503},
		"the answer to a link": {Method: "PATCH", Path: "/sobjects/Contact/003", After: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := matching(t, "block", "", "link")
			id := o.there.Add(there("user1@example.com", "X", ""))
			o.there.Faults.Add(fault)
			if err := o.all(t, person(1))[0].Err; signup.ClassOf(err) != signup.Transient || err == nil {
				t.Errorf("got %v, want a transient outcome", err)
			}
			if r := o.all(t, unsure(person(1)))[0]; r.Err != nil || r.Account.ID != id || o.holder(id) != person(1).User || o.count() != 1 {
				t.Errorf("got %+v and %d records", r, o.count())
			}
		})
	}
}

// The rule can refuse a change of the user's own record because of another one that has come since.
func TestSalesforceUserWhoHasARecordIsNotLinkedToAnother(t *testing.T) {
	for name, more := range map[string][]sim.SalesforceRecord{
		"one matches": {there("user1@example.com", "X", "")}, "two match": {there("user1@example.com", "X", ""), there("user1@example.com", "Y", "")},
	} {
		o := matching(t, "block", "", "link")
		own := o.all(t, person(1))[0].Account.ID
		for _, r := range more {
			o.there.Add(r)
		}
		before := asJSON(o.there.Records())
		if r := o.all(t, unsure(person(1)))[0]; r.Err != nil || r.Account.ID != own || r.Account.Created {
			t.Errorf("%s: got %+v, want the user's own record", name, r)
		}
		if after := asJSON(o.there.Records()); after != before {
			t.Errorf("%s: the records are now\n%s\nand were\n%s", name, after, before)
		}
	}
}

func TestSalesforceTwoUsersDoNotLinkTheSameRecord(t *testing.T) {
	o := matching(t, "block", "", "link")
	id := o.there.Add(there("user1@example.com", "X", ""))
	twin := person(2)
	twin.Email, twin.Record = person(1).Email, person(1).Record
	results := o.all(t, person(1), twin)
	if results[0].Err != nil || results[0].Account.ID != id {
		t.Errorf("got %+v", results[0])
	}
	wantErr(t, results[1].Err, signup.Permanent, "duplicate")
}

func TestSalesforceTwoUsersAtTheSameTimeDoNotLinkTheSameRecord(t *testing.T) {
	for range 20 {
		o := matching(t, "block", "", "link")
		id := o.there.Add(there("user1@example.com", "X", ""))
		twin := person(2)
		twin.Email, twin.Record = person(1).Email, person(1).Record
		var wg sync.WaitGroup
		var linked atomic.Int32
		for _, req := range []signup.Request{person(1), twin} {
			wg.Go(func() {
				if a, err := o.Associate(t.Context(), req); err == nil && a.ID == id {
					linked.Add(1)
				}
			})
		}
		wg.Wait()
		if linked.Load() != 1 {
			t.Fatalf("%d users were linked to one record", linked.Load())
		}
	}
}

func TestSalesforceMatchThatCannotBeSeenIsNotLinked(t *testing.T) {
	o := matching(t, "block", "", "link")
	o.there.Add(there("user1@example.com", "X", ""))
	o.there.Faults.Add(sim.Fault{Method: "GET", Path: "/sobjects/Contact/003", Status: 404,
		Body: `[{"errorCode":"NOT_FOUND","message":"The requested resource does not exist"}]`})
	wantErr(t, o.all(t, person(1))[0].Err, signup.Permanent, "duplicate")
	o.there.Faults.Add(sim.Fault{Method: "GET", Path: "/sobjects/Contact/003", Status: 404, Body: "no such page"})
	wantErr(t, o.all(t, person(1))[0].Err, signup.Systemic, "not-found")
	o.there.Faults.Add(sim.Fault{Method: "GET", Path: "/sobjects/Contact/Entra", Status: 404, Body: "no such page"})
	wantErr(t, o.all(t, person(1))[0].Err, signup.Systemic, "not-found")
}

func TestSalesforceReadsTheMatchesInEitherSpelling(t *testing.T) {
	for _, spelling := range []string{"duplicateResut", "duplicateResult"} {
		c := salesforceAt(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.Contains(r.URL.Path, "/composite/"):
				_, _ = w.Write([]byte(`[{"success":false,"errors":[{"statusCode":"DUPLICATES_DETECTED","message":"Use one of these records?","fields":[]}]}]`))
			case r.Method == "PATCH" && strings.Contains(r.URL.Path, "/Entra_Object_Id__c/"):
				w.WriteHeader(400)
				_, _ = w.Write([]byte(`[{"` + spelling + `":{"matchResults":[{"matchRecords":[{"record":{"attributes":{"type":"Contact"},"Id":"0038M0000016Wv8QAE"}}]}]},
					"errorCode":"DUPLICATES_DETECTED","message":"Use one of these records?"}]`))
			case r.Method == "GET" && strings.Contains(r.URL.Path, "/Entra_Object_Id__c/"):
				w.WriteHeader(404)
				_, _ = w.Write([]byte(`[{"errorCode":"NOT_FOUND","message":"The requested resource does not exist"}]`))
			case r.Method == "GET":
				_, _ = w.Write([]byte(`{"Id":"0038M0000016Wv8QAE","Email":"user1@example.com","Entra_Object_Id__c":null}`))
			default:
				w.WriteHeader(204)
			}
		}, map[string]any{"duplicates": "link"})
		if a, err := c.Associate(t.Context(), person(1)); err != nil || a.ID != "0038M0000016Wv8QAE" {
			t.Errorf("%s: got %+v, %v", spelling, a, err)
		}
	}
}
