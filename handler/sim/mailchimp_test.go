package sim_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

const chimpKey = "0123456789abcdef0123456789abcdef-us1"

// chimpDo calls a path below the audience and returns the status and the answer.
func chimpDo(t *testing.T, there http.Handler, method, path, body string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, "/3.0/lists/1a2b3c4d5e"+path, strings.NewReader(body))
	r.SetBasicAuth("anystring", chimpKey)
	w := httptest.NewRecorder()
	there.ServeHTTP(w, r)
	var answer map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%s %s: %s", method, path, w.Body)
		}
	}
	return w.Code, answer
}

// uristHash is the example of Mailchimp's reference: the hash of urist.mcvankab@freddiesjokes.com.
const uristHash = "62eeb292278cc15f5817cb78f7790b08"

func TestMailchimpPutMakesAndChanges(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: sim.NewClock(start)})
	const body = `{"email_address":"Urist.McVankab@freddiesjokes.com","status_if_new":"subscribed","tags":["app"],"merge_fields":{"FNAME":"Urist","NONE":"x"}}`
	_, made := chimpDo(t, there, "PUT", "/members/"+uristHash, body)
	id, _ := made["contact_id"].(string)
	if made["id"] != uristHash || id == "" || id == uristHash || made["status"] != "subscribed" {
		t.Fatalf("got %v", made)
	}
	if diff := cmp.Diff(made["merge_fields"], map[string]any{"FNAME": "Urist", "LNAME": ""}); diff != "" || len(made["tags"].([]any)) != 0 {
		t.Errorf("what a PUT does not take was not dropped: %s%v", diff, made["tags"])
	}
	for _, key := range []string{uristHash, id, "URIST.mcvankab@freddiesjokes.com"} {
		status, got := chimpDo(t, there, "PUT", "/members/"+key, `{"status_if_new":"pending","merge_fields":{"LNAME":"M"}}`)
		if status != 200 || got["contact_id"] != id || got["status"] != "subscribed" {
			t.Errorf("by %s: %d %v", key, status, got)
		}
	}
	if n := len(there.Members()); n != 1 {
		t.Errorf("there are %d contacts", n)
	}
}

// A PUT with a status is the trap: it subscribes again who was unsubscribed, but for those that left by themselves.
func TestMailchimpStatusOfAContactThatIsThere(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: sim.NewClock(start)})
	there.Add(sim.MailchimpMember{Email: "a@example.com", Status: "unsubscribed"})
	there.Add(sim.MailchimpMember{Email: "b@example.com"})
	there.Unsubscribe("b@example.com")
	put := func(email, states string) (int, string) {
		status, got := chimpDo(t, there, "PUT", "/members/"+email, `{"email_address":"`+email+`",`+states+`}`)
		word, _ := got["status"].(string)
		if status != 200 {
			word, _ = got["title"].(string)
		}
		return status, word
	}
	for _, tt := range []struct {
		email, states, want string
	}{
		{"a@example.com", `"status_if_new":"subscribed"`, "unsubscribed"},
		{"b@example.com", `"status_if_new":"subscribed"`, "unsubscribed"},
		{"b@example.com", `"status_if_new":"subscribed","status":"subscribed"`, "Member In Compliance State"},
		{"b@example.com", `"status_if_new":"subscribed","status":"pending"`, "pending"},
		{"a@example.com", `"status_if_new":"subscribed","status":"subscribed"`, "subscribed"},
		{"a@example.com", `"status_if_new":"subscribed","status":"archived"`, "Invalid Resource"},
	} {
		if _, got := put(tt.email, tt.states); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.email, tt.states, got, tt.want)
		}
	}
	if m := there.Members()[1]; m.Asked != 1 {
		t.Errorf("asked %d times", m.Asked)
	}
}

func TestMailchimpRefusals(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: sim.NewClock(start), Fields: []sim.MailchimpField{{Tag: "LNAME", Required: true}, {Tag: "SEATS", Type: "number"}}})
	there.Add(sim.MailchimpMember{Email: "there@example.com"})
	there.Forget("gone@example.com")
	there.Suppress("kept@example.com")
	tests := []struct {
		path, body    string
		title, detail string
	}{
		{"x@example.com?skip_merge_validation=true", `{"email_address":"x@example.com","status_if_new":"subscribed"}`, "", ""},
		{"y@example.com", `{"email_address":"y@example.com","status_if_new":"subscribed"}`, "Invalid Resource", "Your merge fields were invalid."},
		{"y@example.com", `{"email_address":"y@example.com","status_if_new":"subscribed","merge_fields":{"LNAME":"Y","SEATS":"many"}}`, "Invalid Resource", "Your merge fields were invalid."},
		{"y@example.com?skip_merge_validation=true", `{"email_address":"y@example.com"}`, "Invalid Resource", "The resource submitted"},
		{"y@example.com?skip_merge_validation=true", `{"status_if_new":"pending"}`, "Invalid Resource", "The resource submitted"},
		{"y@example.com", `{`, "JSON Parse Error", ""},
		{"y?skip_merge_validation=true", `{"email_address":"y at example","status_if_new":"pending"}`, "Invalid Resource", "Please provide a valid email address."},
		{"y?skip_merge_validation=true", `{"email_address":"y@example.invalid","status_if_new":"pending"}`, "Invalid Resource", "y@example.invalid looks fake or invalid"},
		{"y?skip_merge_validation=true", `{"email_address":"busy@example.com","status_if_new":"pending"}`, "Invalid Resource", "busy@example.com has signed up to a lot of lists"},
		{"y?skip_merge_validation=true", `{"email_address":"gone@example.com","status_if_new":"pending"}`, "Forgotten Email Not Subscribed", "gone@example.com was"},
		{"y?skip_merge_validation=true", `{"email_address":"kept@example.com","status_if_new":"pending"}`, "Member In Compliance State", "kept@example.com is"},
		{"y?skip_merge_validation=true", `{"email_address":"there@example.com","status_if_new":"pending"}`, "Member Exists", "there@example.com is"},
	}
	for _, tt := range tests {
		status, got := chimpDo(t, there, "PUT", "/members/"+tt.path, tt.body)
		title, _ := got["title"].(string)
		detail, _ := got["detail"].(string)
		if title != tt.title || !strings.HasPrefix(detail, tt.detail) || (status == 200) != (tt.title == "") {
			t.Errorf("%s %s: got %d %s: %s", tt.path, tt.body, status, title, detail)
		}
	}
	if status, got := chimpDo(t, there, "GET", "/members/nobody@example.com", ""); status != 404 || got["title"] != "Resource Not Found" {
		t.Errorf("got %d %v", status, got)
	}
	if n := len(there.Members()); n != 2 {
		t.Errorf("there are %d contacts, want the two that were taken", n)
	}
}

func TestMailchimpTagsWelcomeOnce(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: sim.NewClock(start)})
	there.Add(sim.MailchimpMember{Email: "in@example.com"})
	there.Add(sim.MailchimpMember{Email: "out@example.com", Status: "unsubscribed"})
	for _, email := range []string{"in@example.com", "out@example.com"} {
		for _, body := range []string{
			`{"tags":[{"name":"app","status":"active"}]}`, `{"tags":[{"name":"app","status":"active"}]}`,
			`{"tags":[{"name":"quiet","status":"active"}],"is_syncing":true}`, `{"tags":[{"name":"quiet","status":"inactive"}]}`,
		} {
			if status, got := chimpDo(t, there, "POST", "/members/"+email+"/tags", body); status != 204 || got != nil {
				t.Errorf("got %d %v", status, got)
			}
		}
	}
	all := there.Members()
	if all[0].Welcomes != 1 || all[1].Welcomes != 0 || !slices.Equal(all[0].Tags, []string{"app"}) || !slices.Equal(all[1].Tags, []string{"app"}) {
		t.Errorf("got %+v", all)
	}
	if status, _ := chimpDo(t, there, "POST", "/members/nobody@example.com/tags", `{"tags":[]}`); status != 404 {
		t.Errorf("got %d", status)
	}
}

func TestMailchimpLists(t *testing.T) {
	clock := sim.NewClock(start)
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: clock})
	for i, email := range []string{"a@x.org", "b@x.org", "c@x.org", "d@x.org"} {
		there.Add(sim.MailchimpMember{Email: email, SignedUpAt: start.Add(-time.Duration(i) * time.Hour)})
		clock.Advance(time.Minute)
	}
	there.Edit("b@x.org", func(m *sim.MailchimpMember) { m.Status = "archived" })
	since := "since_last_changed=" + start.Format("2006-01-02T15:04:05") + "%2B00:00"
	for query, want := range map[string]string{
		"": "a@x.org c@x.org d@x.org of 3", since: "c@x.org d@x.org of 2", "status=archived": "b@x.org of 1", "count=1&offset=1": "c@x.org of 3",
		"offset=9": " of 3", "sort_field=timestamp_signup&sort_dir=ASC": "d@x.org c@x.org a@x.org of 3",
		"sort_field=last_changed&sort_dir=DESC": "d@x.org c@x.org a@x.org of 3",
		"count=1001":                            "400", "unsubscribed_since=x": "400", "since_last_changed=yesterday": "400",
	} {
		status, got := chimpDo(t, there, "GET", "/members?fields=members.email_address,total_items&"+query, "")
		if status != 200 {
			if want != "400" || status != 400 {
				t.Errorf("%s: %d", query, status)
			}
			continue
		}
		var emails []string
		for _, m := range got["members"].([]any) {
			m := m.(map[string]any)
			emails = append(emails, m["email_address"].(string))
			if len(m) != 1 {
				t.Errorf("%s: more fields than were asked for: %v", query, m)
			}
		}
		total, _ := json.Marshal(got["total_items"])
		if text := strings.Join(emails, " ") + " of " + string(total); text != want {
			t.Errorf("%s: got %s, want %s", query, text, want)
		}
	}
}

func TestMailchimpAccess(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{})
	for auth, want := range map[string]int{"": 401, "Bearer other": 401, "Bearer " + chimpKey: 200} {
		for path, found := range map[string]int{"/3.0/ping": 200, "/3.0/lists/1a2b3c4d5e": 200, "/3.0/lists/other": 404, "/3.0/lists/other/members/x": 404, "/2.0/ping": 404} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", auth)
			w := httptest.NewRecorder()
			there.ServeHTTP(w, r)
			if want == 200 && w.Code != found || want != 200 && w.Code != want {
				t.Errorf("%q %s: %d", auth, path, w.Code)
			}
		}
	}
}

func TestMailchimpTakesTenConnections(t *testing.T) {
	arrived, leave := make(chan struct{}, 10), make(chan struct{})
	there := sim.NewMailchimp(sim.MailchimpOptions{During: func() { arrived <- struct{}{}; <-leave }})
	server := httptest.NewServer(there)
	defer server.Close()
	ping := func() (int, int) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/3.0/ping", nil)
		if err != nil {
			t.Error(err)
			return 0, 0
		}
		r.SetBasicAuth("x", chimpKey)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return 0, 0
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, _ = io.Copy(&b, resp.Body)
		return resp.StatusCode, b.Len()
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if status, _ := ping(); status != 200 {
				t.Errorf("got %d", status)
			}
		})
	}
	for range 10 {
		<-arrived
	}
	for _, empty := range []bool{true, false} {
		if status, n := ping(); status != 429 || (n == 0) != empty {
			t.Errorf("the eleventh: %d with %d bytes", status, n)
		}
	}
	close(leave)
	wg.Wait()
}

// A POST makes a contact and never changes one.
func TestMailchimpPostMakesOnce(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: sim.NewClock(start)})
	const body = `{"email_address":"a@example.com","status":"subscribed","merge_fields":{"FNAME":"Ada"}}`
	if status, got := chimpDo(t, there, "POST", "/members", body); status != 200 || got["status"] != "subscribed" {
		t.Errorf("got %d %v", status, got)
	}
	for _, status := range []string{"pending", "unsubscribed", "cleaned", "transactional", "archived"} {
		there.Edit("a@example.com", func(m *sim.MailchimpMember) { m.Status = status })
		for _, body := range []string{body, `{"email_address":"A@example.com","status":"pending","merge_fields":{"FNAME":"Eve"}}`} {
			if code, got := chimpDo(t, there, "POST", "/members", body); code != 400 || got["title"] != "Member Exists" {
				t.Errorf("%s: got %d %v", status, code, got)
			}
		}
	}
	if status, got := chimpDo(t, there, "POST", "/members", `{"email_address":"b@example.com","status_if_new":"subscribed"}`); status != 400 {
		t.Errorf("without a status: got %d %v", status, got)
	}
	if all := there.Members(); len(all) != 1 || all[0].Status != "archived" || all[0].Merge["FNAME"] != "Ada" {
		t.Errorf("got %v", all)
	}
}

// A POST of an address that is kept off is refused as that, or asks.
func TestMailchimpPostOfAnAddressThatIsKeptOff(t *testing.T) {
	there := sim.NewMailchimp(sim.MailchimpOptions{Clock: sim.NewClock(start)})
	there.Add(sim.MailchimpMember{Email: "left@example.com"})
	there.Unsubscribe("left@example.com")
	there.Suppress("kept@example.com")
	for _, tt := range []struct{ address, status, title string }{
		{"left@example.com", "subscribed", "Member In Compliance State"},
		{"left@example.com", "pending", "Member Exists"},
		{"kept@example.com", "subscribed", "Member In Compliance State"},
		{"kept@example.com", "pending", ""},
	} {
		_, got := chimpDo(t, there, "POST", "/members", `{"email_address":"`+tt.address+`","status":"`+tt.status+`"}`)
		if title, _ := got["title"].(string); title != tt.title {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
	if all := there.Members(); len(all) != 2 || all[0].Status != "unsubscribed" || all[1].Status != "pending" || all[1].Asked != 1 {
		t.Errorf("got %+v", all)
	}
}
