package connector_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const noSuchContact = `{"type":"x","title":"Resource Not Found","status":404,"detail":"The requested resource could not be found.","instance":"x"}`

// hideContacts answers so many reads of a contact as if there were none.
func (b chimp) hideContacts(times int) {
	b.there.Faults.Add(sim.Fault{Method: "GET", Path: "/members/", Times: times, Status: 404, Body: noSuchContact})
}

// A contact that Mailchimp refuses to make again and does not show is nobody's to change: it may be one that somebody else
// has made just now. A later call that finds it neither does what Mailchimp's refusal says, and its state stays.
func TestMailchimpContactThatIsThereAndNotToBeSeen(t *testing.T) {
	other := consenting("subscribed")
	other.User = "00000002-5eed-4000-8000-00000000beef"
	other.Record["mergeFields"] = map[string]any{"FNAME": "Byron"}
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	b.associate(t, consenting("subscribed"))
	before := b.only(t)
	b.hideContacts(1)
	if e := call(t, b, other); e.Class != signup.Transient || e.Code != "conflict" || e.Status != 409 { // 409 is the one user's trouble
		t.Errorf("got %s, %v", e.Class, e)
	}
	if diff := cmp.Diff(b.only(t), before); diff != "" {
		t.Errorf("the contact of the first user was changed (-got +want):\n%s", diff)
	}
	if e := call(t, b, unsure(other)); e.Class != signup.Permanent || e.Code != "taken" {
		t.Errorf("got %s, %v", e.Class, e)
	}

	hidden := mailchimpBench(t, nil, sim.MailchimpOptions{})
	id := hidden.there.Add(sim.MailchimpMember{Email: ada.Email, Status: "unsubscribed"})
	hidden.hideContacts(-1)
	if a := hidden.associate(t, unsure(consenting("subscribed"))); a.ID != id {
		t.Errorf("got %+v, want %s", a, id)
	}
	if m := hidden.only(t); m.Status != "unsubscribed" {
		t.Errorf("who has left is %s", m.Status)
	}
}

// Two users come with one address, and somebody has tried for both before: the contact is the first one's, and the second is
// told so, although neither look-up has found it.
func TestMailchimpOneOfTwoUnsureCallsMakesTheContact(t *testing.T) {
	b := mailchimpBench(t, map[string]any{"idField": idField}, sim.MailchimpOptions{})
	first, second := unsure(consenting("subscribed")), unsure(consenting("subscribed"))
	second.User = "00000002-5eed-4000-8000-00000000beef"
	done := make(chan error, 1)
	b.there.Faults.Add(sim.Fault{Method: "GET", Path: "/members/", Status: 404, Body: noSuchContact, Then: func() {
		_, err := b.Associate(t.Context(), first)
		done <- err
	}})
	_, err := b.Associate(t.Context(), second)
	wantErr(t, err, signup.Permanent, "taken")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if m := b.only(t); m.Merge[idField] != string(first.User) {
		t.Errorf("the contact of the first user was changed: %+v", m)
	}
}

// What becomes of an address that Mailchimp keeps off does not depend on whether a call before has failed.
func TestMailchimpAddressThatIsKeptOff(t *testing.T) {
	tests := []struct {
		status, resubscribe string
		asked               int
		calls               map[string]int // of a sure call
	}{
		{"subscribed", "never", 0, map[string]int{"post": 1, "get": 1}},
		{"subscribed", "pending", 1, map[string]int{"post": 1, "get": 1, "put": 2}},
		{"pending", "never", 1, map[string]int{"post": 1}},
		{"pending", "pending", 1, map[string]int{"post": 1}},
	}
	for _, tt := range tests {
		for _, sure := range []bool{true, false} {
			b := mailchimpBench(t, map[string]any{"resubscribe": tt.resubscribe}, sim.MailchimpOptions{})
			b.there.Suppress(ada.Email)
			req := consenting(tt.status)
			req.Unsure = !sure
			_, err := b.Associate(t.Context(), req)
			if diff := cmp.Diff(b.there.Calls(), tt.calls); sure && diff != "" {
				t.Errorf("%+v: calls (-got +want):\n%s", tt, diff)
			}
			if tt.asked == 0 {
				wantErr(t, err, signup.Permanent, "compliance")
				if n := len(b.there.Members()); n != 0 {
					t.Errorf("%+v: a contact was made", tt)
				}
				continue
			}
			if err != nil {
				t.Errorf("%+v, sure %t: %v", tt, sure, err)
				continue
			}
			if m := b.only(t); m.Status != "pending" || m.Asked != tt.asked || !m.OptedInAt.IsZero() {
				t.Errorf("%+v: got %+v", tt, m)
			}
		}
	}
}

// Also where Mailchimp says that there is a contact, does not show it, and may not subscribe it, only who is to be asked is.
func TestMailchimpAddressThatIsKeptOffAndNotToBeSeen(t *testing.T) {
	for resubscribe, want := range map[string]int{"never": 0, "pending": 1} {
		b := mailchimpBench(t, map[string]any{"resubscribe": resubscribe}, sim.MailchimpOptions{})
		b.there.Suppress(ada.Email)
		b.there.Faults.Add(sim.Fault{Method: "POST", Status: 400, Body: `{"type":"x","title":"Member Exists","status":400,"detail":"x","instance":"x"}`})
		_, err := b.Associate(t.Context(), unsure(consenting("subscribed")))
		if want == 0 {
			wantErr(t, err, signup.Permanent, "compliance")
		} else if err != nil {
			t.Error(err)
		}
		if all := b.there.Members(); len(all) != want || want > 0 && all[0].Status != "pending" {
			t.Errorf("%s: got %+v", resubscribe, all)
		}
	}
}

// The answer to a change is lost, or it is refused: as with a contact that is made.
func TestMailchimpChangesThatFail(t *testing.T) {
	fields := []sim.MailchimpField{{Tag: "FNAME"}, {Tag: "SEATS", Type: "number"}}
	tests := []struct {
		name   string
		merge  map[string]any
		more   map[string]any
		fault  sim.Fault
		class  signup.Class
		code   string
		status int
	}{
		{"the answer is lost", nil, nil, sim.Fault{After: true}, signup.Transient, "cut", 0},
		{"unavailable", nil, nil, sim.Fault{Status: 503}, signup.Transient, "unavailable", 503},
		{"throttled", nil, nil, sim.Fault{Status: 429}, signup.Throttled, "throttled", 429},
		{"the audience has gone", nil, nil, sim.Fault{Status: 404, Body: noSuchContact}, signup.Systemic, "not-found", 404},
		{"a value of another type", map[string]any{"SEATS": "three"}, nil, sim.Fault{Method: "none"}, signup.Permanent, "data", 400},
		{"no merge field of the user", nil, map[string]any{"idField": idField}, sim.Fault{Method: "none"}, signup.Systemic, "not-found", 0},
	}
	for _, tt := range tests {
		b := mailchimpBench(t, tt.more, sim.MailchimpOptions{Fields: fields})
		id := b.there.Add(sim.MailchimpMember{Email: ada.Email, Status: "unsubscribed", LastChanged: ada.Created.Add(-1)})
		if tt.fault.Method == "" {
			tt.fault.Method = "PUT"
		}
		b.there.Faults.Add(tt.fault)
		req := consenting("subscribed")
		if tt.merge != nil {
			req.Record["mergeFields"] = tt.merge
		}
		if e := call(t, b, req); e.Class != tt.class || e.Code != tt.code || e.Status != tt.status {
			t.Errorf("%s: got %s, %v", tt.name, e.Class, e)
		}
		if tt.fault.Method == "PUT" {
			if a := b.associate(t, unsure(req)); a.ID != id || a.Created {
				t.Errorf("%s: got %+v, want %s", tt.name, a, id)
			}
		}
		if m := b.only(t); m.Status != "unsubscribed" || !m.OptedInAt.IsZero() {
			t.Errorf("%s: got %+v", tt.name, m)
		}
	}
}
