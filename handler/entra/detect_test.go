package entra_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

func created(u signup.UserID, at time.Time) signup.Event {
	return signup.Event{User: u, Kind: signup.Created, At: at}
}

func TestAuditAsksForTwoActivities(t *testing.T) {
	g := newGraph(t, page(""))
	w := signup.Window{From: start.Add(123456700).In(time.FixedZone("", -3600)), To: start.Add(time.Hour).In(time.FixedZone("", 36000))}
	if _, err := events(t, g.open().Audit(), w); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range g.asked() {
		got = append(got, r.Path+" top="+r.Query.Get("$top")+" "+r.Query.Get("$filter"))
		if strings.ContainsAny(r.RawQuery, "+ ") {
			t.Errorf("%q has a space that is not %%20", r.RawQuery)
		}
	}
	const between = "activityDateTime ge 2026-01-02T03:00:00.1234567Z and activityDateTime le 2026-01-02T04:00:00Z"
	want := []string{
		"/v1.0/auditLogs/directoryAudits top=999 activityDisplayName eq 'Add user' and " + between,
		"/v1.0/auditLogs/directoryAudits top=999 activityDisplayName eq 'Redeem external user invite' and " + between,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
}

func TestAuditRecords(t *testing.T) {
	at := start.Add(4*time.Minute + 5*time.Second + 123456700)
	record := addUser("a1", at, jane)
	tests := []struct {
		name   string
		record string
		want   []signup.Event
		bad    int64
	}{
		{"a sign-up", record, []signup.Event{created(jane, at)}, 0},
		{"a duplicate in the page", record + "," + record, []signup.Event{created(jane, at), created(jane, at)}, 0},
		{"capital Type", strings.ReplaceAll(record, `"type"`, `"Type"`), []signup.Event{created(jane, at)}, 0},
		{"lower-case user", strings.ReplaceAll(record, `"User"`, `"user"`), []signup.Event{created(jane, at)}, 0},
		{"capital id", strings.ReplaceAll(record, string(jane), strings.ToUpper(string(jane))), []signup.Event{created(jane, at)}, 0},
		{"several targets", strings.Replace(record, `"targetResources":[`, `"targetResources":[{"id":"`+string(joan)+`","type":"User"},{"id":"x","type":"Group"},`, 1),
			[]signup.Event{created(joan, at), created(jane, at)}, 0},
		{"a failure", strings.Replace(record, `"success"`, `"failure"`, 1), nil, 0},
		{"a result nobody knows", strings.Replace(record, `"success"`, `"unknownFutureValue"`, 1), nil, 0},
		{"another activity", strings.Replace(record, `"Add user"`, `"Delete user"`, 1), nil, 0},
		{"before the window", addUser("a1", start.Add(-2*time.Second), jane), nil, 0},
		{"after the window", addUser("a1", start.Add(time.Hour+2*time.Second), jane), nil, 0},
		{"at the window's first instant", addUser("a1", start, jane), []signup.Event{created(jane, start)}, 0},
		{"a number for a time", strings.Replace(record, `"activityDateTime":"2026-01-02T03:04:05.1234567Z"`, `"activityDateTime":7`, 1) + "," + record,
			[]signup.Event{created(jane, at)}, 1},
		{"a time that is none", addUser("a1", at, jane)[:0] + strings.Replace(record, "2026-01-02T03", "yesterday", 1) + "," + record,
			[]signup.Event{created(jane, at)}, 1},
		{"an object for the targets", `{"id":"a2","activityDisplayName":"Add user","result":"success","targetResources":{}},` + record,
			[]signup.Event{created(jane, at)}, 1},
		{"an id that is none", strings.Replace(record, string(jane), "jane@fabrikam.com", 1), nil, 1},
		{"no target at all", `{"id":"a2","activityDisplayName":"Add user","result":"success","activityDateTime":"2026-01-02T03:04:05Z"}`, nil, 1},
		{"a target of the record before is not taken", record + `,{"id":"a2","activityDisplayName":"Add user","result":"success","activityDateTime":"2026-01-02T03:04:05Z","targetResources":[{"type":"User"}]}`,
			[]signup.Event{created(jane, at)}, 1},
		{"null", `null,` + record, []signup.Event{created(jane, at)}, 0},
		{"both actors null", strings.Replace(record, `"result"`, `"initiatedBy":{"user":null,"app":null},"result"`, 1), []signup.Event{created(jane, at)}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, page("", test.record), page(""))
			tenant := g.open()
			got, err := events(t, tenant.Audit(), window)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("got, want:\n%s", diff)
			}
			if n := tenant.Counts().Undecodable; n != test.bad {
				t.Errorf("got %d undecodable records, want %d", n, test.bad)
			}
			if logged := strings.Count(g.log.String(), "record cannot be decoded"); int64(logged) != test.bad {
				t.Errorf("%d are in the log, want %d: %s", logged, test.bad, &g.log)
			}
			if strings.Contains(g.log.String(), "@") || test.bad > 0 && !strings.Contains(g.log.String(), "record=a") {
				t.Errorf("the log names a person, or not the record: %s", &g.log)
			}
		})
	}
}

func TestARedeemedInvitationIsRedeemed(t *testing.T) {
	record := strings.Replace(addUser("a1", start, jane), "Add user", "Redeem external user invite", 1)
	g := newGraph(t, page(""), page("", record))
	got, err := events(t, g.open().Audit(), window)
	if want := []signup.Event{{User: jane, Kind: signup.Redeemed, At: start}}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// What is wrong with a page is an error of the read: nothing may be taken for read to its end.
func TestPagesThatAreNotWhole(t *testing.T) {
	first, second := addUser("a1", start, jane), addUser("a2", start, joan)
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		code    string
		calls   int64
	}{
		{"empty 200", []http.HandlerFunc{answer(200, ``)}, "bad-answer", 1},
		{"cut off between records", []http.HandlerFunc{answer(200, `{"value":[`+first+`,`)}, "bad-answer", 3},
		{"cut off behind the array", []http.HandlerFunc{answer(200, `{"value":[`+first+`]`)}, "bad-answer", 3},
		{"the connection breaks in each try", []http.HandlerFunc{cut(`{"value":[` + first)}, "bad-answer", 3},
		{"no value", []http.HandlerFunc{answer(200, `{"@odata.context":"x"}`)}, "bad-answer", 1},
		{"value is null", []http.HandlerFunc{answer(200, `{"value":null}`)}, "bad-answer", 1},
		{"an error written into the array", []http.HandlerFunc{answer(200, `{"value":[`+first+`,{"error":{"code":"UnknownError","message":""}}]}`)}, "bad-answer", 1},
		{"an error written into the middle of a record", []http.HandlerFunc{answer(200, `{"value":[`+first+`,{"id":"a2","act{"error":{"code":"x"}}`)}, "bad-answer", 1},
		{"an error behind the array", []http.HandlerFunc{answer(200, `{"value":[`+first+`],"error":{"code":"x"}}`)}, "bad-answer", 1},
		{"something behind the end", []http.HandlerFunc{answer(200, `{"value":[]}{"error":{}}`)}, "bad-answer", 1},
		{"a link to another host", []http.HandlerFunc{page("https://evil.example/v1.0/auditLogs/directoryAudits?$skiptoken=1", first)}, "bad-answer", 1},
		{"a link without TLS", []http.HandlerFunc{page("http://127.0.0.1/v1.0/auditLogs/directoryAudits?$skiptoken=1", first)}, "bad-answer", 1},
		{"a link to the same host without TLS", []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			page("http://"+r.Host+"/v1.0/auditLogs/directoryAudits?$skiptoken=1", first)(w, r)
		}}, "bad-answer", 1},
		{"a relative link", []http.HandlerFunc{page("v1.0/auditLogs/directoryAudits?$skiptoken=1", first)}, "bad-answer", 1},
		{"a loop", []http.HandlerFunc{page("/v1.0/a?$skiptoken=1", first), page("/v1.0/a?$skiptoken=2", second), page("/v1.0/a?$skiptoken=1", first)}, "bad-answer", 3},
		{"the skip token expires", []http.HandlerFunc{page("/v1.0/a?$skiptoken=1", first), refusal(400, "BadRequest", "Invalid Skip Token, skip token is null")}, "page-expired", 2},
		{"the second page is throttled", []http.HandlerFunc{page("/v1.0/a?$skiptoken=1", first), answer(429, `{}`)}, "throttled", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answers...)
			tenant := g.open()
			got, err := events(t, tenant.Audit(), window)
			if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != test.code || signup.ClassOf(err) == signup.Permanent {
				t.Errorf("got %v, want code %s and no permanent class", err, test.code)
			}
			if tenant.Calls() != test.calls {
				t.Errorf("got %d calls, want %d", tenant.Calls(), test.calls)
			}
			if len(got) > int(test.calls) {
				t.Errorf("got %d events", len(got))
			}
			for _, text := range []string{g.log.String(), errorText(err)} {
				for _, secret := range []string{"jane@", "Jane", "evil", "skiptoken"} {
					if strings.Contains(text, secret) {
						t.Errorf("%q is in %q", secret, text)
					}
				}
			}
		})
	}
}

func TestPagesAreFollowedToTheLast(t *testing.T) {
	link := "/v1.0/auditLogs/directoryAudits?$filter=activityDisplayName+eq+%27Add+user%27&$skiptoken=01fa__1"
	g := newGraph(t, page(link, addUser("a1", start, jane)), page("/v1.0/auditLogs/directoryAudits?$skiptoken=a b"),
		cut(`{"value":[`+addUser("a2", start, joan)), page("", addUser("a2", start, joan)), page(""))
	got, err := events(t, g.open().Audit(), window)
	if want := []signup.Event{created(jane, start), created(joan, start)}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, want := g.asked()[1].Path+"?"+g.asked()[1].RawQuery, link; got != want {
		t.Errorf("got %s, want the link unchanged: %s", got, want)
	}
	for i, r := range g.asked() {
		if r.Header.Get("Authorization") == "" {
			t.Errorf("request %d has no token", i)
		}
	}
}

func TestAReadThatIsNotWantedAnyMoreEnds(t *testing.T) {
	g := newGraph(t, page("/v1.0/a?$skiptoken=1", addUser("a1", start, jane), addUser("a2", start, joan)))
	tenant := g.open()
	for range tenant.Audit().Events(t.Context(), window) {
		break
	}
	if tenant.Calls() != 1 {
		t.Errorf("got %d calls, want 1", tenant.Calls())
	}
}

func TestARefusedFilterIsAppliedHereAndThatIsRemembered(t *testing.T) {
	noise := strings.Replace(addUser("a0", start, joan), "Add user", "Update user", 1)
	redeemed := strings.Replace(addUser("a2", start, joan), "Add user", "Redeem external user invite", 1)
	bad := refusal(400, "BadRequest", "Invalid filter clause")
	all := page("", noise, addUser("a1", start, jane), redeemed)
	want := []signup.Event{created(jane, start), {User: joan, Kind: signup.Redeemed, At: start}}

	g := newGraph(t, bad, all)
	tenant := g.open()
	for round, calls := range []int64{2, 3} {
		got, err := events(t, tenant.Audit(), window)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("round %d: got %v, %v, want %v", round, got, err, want)
		}
		if tenant.Calls() != calls {
			t.Errorf("round %d: got %d calls, want %d", round, tenant.Calls(), calls)
		}
	}
	if got := g.asked()[2].Query.Get("$filter"); strings.Contains(got, "activityDisplayName") {
		t.Errorf("asked for %q again", got)
	}

	t.Run("only the second activity is refused", func(t *testing.T) {
		g := newGraph(t, page("", addUser("a1", start, jane)), bad, all)
		got, err := events(t, g.open().Audit(), window)
		if err != nil || !cmp.Equal(got, append([]signup.Event{created(jane, start)}, want...)) {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("everything is refused", func(t *testing.T) {
		g := newGraph(t, bad)
		tenant := g.open()
		for range 2 {
			if _, err := events(t, tenant.Audit(), window); err == nil {
				t.Error("got no error")
			}
		}
		if tenant.Calls() != 4 {
			t.Errorf("got %d calls, want 4: what was not seen to work is not remembered", tenant.Calls())
		}
	})
}

// Five requests in ten seconds is Graph's limit for reports; every window of ten seconds stays below it.
func TestAuditCallsKeepTheirPace(t *testing.T) {
	var g *graph
	var at []time.Time
	g = newGraph(t, func(w http.ResponseWriter, r *http.Request) {
		at = append(at, g.clock.Now())
		page(fmt.Sprintf("/v1.0/a?$skiptoken=%d", len(at)))(w, r)
		if len(at) == 30 {
			g.answers[0] = page("")
		}
	})
	if _, err := events(t, g.open().Audit(), window); err != nil {
		t.Fatal(err)
	}
	for i := 4; i < len(at); i++ {
		if d := at[i].Sub(at[i-4]); d < 10*time.Second {
			t.Errorf("calls %d to %d are within %v", i-4, i, d)
		}
	}
	if d := at[len(at)-1].Sub(at[0]); d > 75*time.Second {
		t.Errorf("30 calls took %v, which is slower than 4 in 10 s", d)
	}
}

func TestServedIsTheFirstDateOfTheLatestRead(t *testing.T) {
	date := func(s string) http.HandlerFunc { return answer(200, `{"value":[]}`, "Date", s) }
	g := newGraph(t, date("Fri, 02 Jan 2026 03:59:58 GMT"), date("Fri, 02 Jan 2026 04:00:10 GMT"))
	d := g.open().Audit()
	if !d.Served().IsZero() {
		t.Errorf("got %v before any answer", d.Served())
	}
	for _, want := range []time.Time{start.Add(time.Hour - 2*time.Second), start.Add(time.Hour + 10*time.Second)} {
		if _, err := events(t, d, window); err != nil || !d.Served().Equal(want) {
			t.Errorf("got %v, %v, want %v", d.Served(), err, want)
		}
	}
}

func TestDirectoryReadsUsersByCreation(t *testing.T) {
	user := func(id signup.UserID, at string) string { return fmt.Sprintf(`{"id":%q,"createdDateTime":%q}`, id, at) }
	g := newGraph(t, page("/v1.0/users?$skiptoken=1", user(jane, "2026-01-02T03:00:00Z")),
		page("", user(joan, "2026-01-02T03:59:59Z"), `{"id":"x","createdDateTime":null}`))
	tenant := g.open()
	w := signup.Window{From: start.Add(time.Millisecond), To: start.Add(time.Hour - time.Millisecond)}
	got, err := events(t, tenant.Directory(), w)
	if want := []signup.Event{created(jane, start), created(joan, start.Add(time.Hour-time.Second))}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	q := g.asked()[0].Query
	gotQuery := []string{g.asked()[0].Path, q.Get("$filter"), q.Get("$select"), q.Get("$top")}
	wantQuery := []string{"/v1.0/users", "createdDateTime ge 2026-01-02T03:00:00Z and createdDateTime le 2026-01-02T04:00:00Z", "id,createdDateTime", "999"}
	if diff := cmp.Diff(gotQuery, wantQuery); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	if tenant.Counts() != (entra.Counts{Directory: 2, Undecodable: 1}) {
		t.Errorf("got %+v", tenant.Counts())
	}
	if d := tenant.Directory().(interface{ PassedOver() int64 }); d.PassedOver() != 1 {
		t.Errorf("got %d records passed over, want 1", d.PassedOver())
	}
}

func TestNamesAndRetention(t *testing.T) {
	g := newGraph(t, page(""))
	tenant := g.open()
	if tenant.Audit().Name() != "audit" || tenant.Directory().Name() != "directory" {
		t.Error("the names have changed, which are in the ledger")
	}
	if tenant.Audit().Retention() != 168*time.Hour || tenant.Directory().Retention() != 0 {
		t.Errorf("got %v and %v, want 168h and 0", tenant.Audit().Retention(), tenant.Directory().Retention())
	}
	if got, err := events(t, tenant.Audit(), signup.Window{From: start, To: start}); got != nil || err != nil || tenant.Calls() != 0 {
		t.Errorf("an empty window gives %v, %v, in %d calls", got, err, tenant.Calls())
	}
}
