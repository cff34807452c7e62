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
	"signup-sync/handler/sim"
)

func signUpRow(id string, at time.Time, user signup.UserID) string {
	return fmt.Sprintf(`{"appDisplayName":null,"id":%q,"createdDateTime":%q,"signUpStage":"userCreation","signUpIdentityProvider":"Email OTP",`+
		`"status":{"errorCode":0,"failureReason":null},"signUpIdentity":{"signUpIdentifier":"jane@fabrikam.com","signUpIdentifierType":"emailAddress"},"userId":%q}`,
		id, at.Format("2006-01-02T15:04:05.000000Z"), user)
}

func TestSignUpsAsksBetaForUsersThatCameIntoBeing(t *testing.T) {
	g := newGraph(t, page("/beta/auditLogs/signUps?$skiptoken=1", signUpRow("s1", start, jane)), page("", signUpRow("s2", start, joan)))
	tenant := g.open()
	w := signup.Window{From: start.Add(-100), To: start.Add(time.Hour)}
	got, err := events(t, tenant.SignUps(), w)
	if want := []signup.Event{created(jane, start), created(joan, start)}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	q := g.asked()[0]
	want := "/beta/auditLogs/signUps 999 createdDateTime ge 2026-01-02T02:59:59.9999999Z and createdDateTime le 2026-01-02T04:00:00Z" +
		" and signUpStage eq 'userCreation' and status/errorCode eq 0"
	if got := q.Path + " " + q.Query.Get("$top") + " " + q.Query.Get("$filter"); got != want || strings.ContainsAny(q.RawQuery, "+ ") {
		t.Errorf("got %s (%s), want %s", got, q.RawQuery, want)
	}
	if d := tenant.SignUps(); d.Name() != "signUps" || d.Retention() != 168*time.Hour || d.Served().IsZero() {
		t.Errorf("got %s, %v, %v", d.Name(), d.Retention(), d.Served())
	}
	if tenant.Counts() != (entra.Counts{SignUps: 2}) {
		t.Errorf("got %+v", tenant.Counts())
	}
}

func TestSignUpRows(t *testing.T) {
	at := start.Add(123456 * time.Microsecond)
	row := signUpRow("s1", at, jane)
	change := func(old, new string) string { return strings.Replace(row, old, new, 1) }
	tests := []struct {
		name string
		row  string
		want []signup.Event
		bad  int
	}{
		{"a sign-up", row, []signup.Event{created(jane, at)}, 0},
		{"twice", row + "," + row, []signup.Event{created(jane, at), created(jane, at)}, 0},
		{"an earlier stage", change("userCreation", "credentialValidation"), nil, 0},
		{"an earlier stage without a user", strings.Replace(change("userCreation", "credentialCollection"), `"`+string(jane)+`"`, "null", 1), nil, 0},
		{"a failure", strings.Replace(change(`"errorCode":0`, `"errorCode":399279`), `"`+string(jane)+`"`, "null", 1), nil, 0},
		{"a capital id", change(string(jane), strings.ToUpper(string(jane))), []signup.Event{created(jane, at)}, 0},
		{"outside of the window", signUpRow("s1", start.Add(2*time.Hour), jane), nil, 0},
		{"a stage of tomorrow", change("userCreation", "unknownFutureValue"), nil, 0},
		{"no user", change(`"`+string(jane)+`"`, "null"), nil, 1},
		{"a user that is none", change(string(jane), "jane@fabrikam.com"), nil, 1},
		{"no status", change(`"errorCode":0,`, ""), nil, 1},
		{"a text for the status", change(`"errorCode":0`, `"errorCode":"0"`) + "," + signUpRow("s2", at, joan), []signup.Event{created(joan, at)}, 1},
		{"a time that is none", change("2026-01-02T", "yesterday"), nil, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, page("", test.row))
			tenant := g.open()
			got, err := events(t, tenant.SignUps(), window)
			if err != nil || !cmp.Equal(got, test.want) {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
			logged := strings.Count(g.log.String(), "record cannot be decoded")
			if n := tenant.Counts().Undecodable; int(n) != test.bad || logged != test.bad {
				t.Errorf("%d are counted and %d logged, want %d", n, logged, test.bad)
			}
			if strings.Contains(g.log.String(), "@") || test.bad > 0 && !strings.Contains(g.log.String(), "record=s1") {
				t.Errorf("the log names a person, or not the record: %s", &g.log)
			}
		})
	}
}

func TestSignUpsPagesThatAreNotWhole(t *testing.T) {
	first := signUpRow("s1", start, jane)
	const link = "/beta/auditLogs/signUps?$skiptoken=1"
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		code    string
		calls   int64
	}{
		{"an error written into the array", []http.HandlerFunc{answer(200, `{"value":[`+first+`,{"error":{"code":"UnknownError"}}]}`)}, "bad-answer", 1},
		{"half a page", []http.HandlerFunc{answer(200, `{"value":[`+first+`,`)}, "bad-answer", 3},
		{"a link to another host", []http.HandlerFunc{page("https://evil.example/beta/auditLogs/signUps?$skiptoken=1", first)}, "bad-answer", 1},
		{"a link that leaves beta", []http.HandlerFunc{page("/v1.0/auditLogs/signUps?$skiptoken=1", first)}, "bad-answer", 1},
		{"a link without TLS", []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { page("http://"+r.Host+link, first)(w, r) }}, "bad-answer", 1},
		{"the skip token expires", []http.HandlerFunc{page(link, first), refusal(400, "BadRequest", "Invalid Skip Token, skip token is null")}, "page-expired", 2},
		{"the second page is throttled", []http.HandlerFunc{page(link, first), answer(429, `{}`)}, "throttled", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tenant := newGraph(t, test.answers...).open()
			_, err := events(t, tenant.SignUps(), window)
			if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != test.code || tenant.Calls() != test.calls {
				t.Errorf("got %v after %d calls, want code %s after %d", err, tenant.Calls(), test.code, test.calls)
			}
		})
	}
}

func TestSignUpsFiltersHereWhereTheServiceDoesNot(t *testing.T) {
	noise := strings.Replace(signUpRow("s0", start, joan), "userCreation", "credentialCollection", 1)
	g := newGraph(t, refusal(400, "BadRequest", "Invalid filter clause"), page("", noise, signUpRow("s1", start, jane)))
	tenant := g.open()
	for round, calls := range []int64{2, 3} {
		got, err := events(t, tenant.SignUps(), window)
		if err != nil || !cmp.Equal(got, []signup.Event{created(jane, start)}) || tenant.Calls() != calls {
			t.Errorf("round %d: got %v, %v after %d calls, want one user after %d", round, got, err, tenant.Calls(), calls)
		}
	}
	if got := g.asked()[2].Query.Get("$filter"); strings.Contains(got, "signUpStage") || strings.Count(g.log.String(), "does not filter by stage") != 1 {
		t.Errorf("asked for %q again; %s", got, &g.log)
	}
	tenant = newGraph(t, refusal(400, "BadRequest", "Resource not found for the segment 'signUps'.")).open()
	for range 2 {
		if _, err := events(t, tenant.SignUps(), window); err == nil {
			t.Error("got no error")
		}
	}
	if tenant.Calls() != 4 {
		t.Errorf("got %d calls, want 4: what was not seen to work is not remembered", tenant.Calls())
	}
}

func TestReportsShareOnePace(t *testing.T) {
	var g *graph
	var at []time.Time
	g = newGraph(t, func(w http.ResponseWriter, r *http.Request) { at = append(at, g.clock.Now()); page("")(w, r) })
	tenant := g.open()
	for range 10 { // three calls each
		for _, d := range []signup.Detector{tenant.Audit(), tenant.SignUps()} {
			if _, err := events(t, d, window); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := 4; i < len(at); i++ {
		if d := at[i].Sub(at[i-4]); d < 10*time.Second {
			t.Errorf("calls %d to %d are within %v", i-4, i, d)
		}
	}
}

func TestATenantWithoutASignUpLog(t *testing.T) {
	for _, status := range []int{403, 404} {
		s := simulate(t, sim.TenantOptions{InstantAudit: true, InstantReplicas: true, NoSignUpLog: status}, allRoles...)
		_, err := events(t, s.tenant.SignUps(), window)
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Systemic || !strings.Contains(e.Detail, "take signUps out of sync.detectors") {
			t.Errorf("%d: got %v, want a systemic error that says what to do", status, err)
		}
		if _, err := events(t, s.tenant.Audit(), window); err != nil {
			t.Errorf("%d: the audit log: %v", status, err)
		}
	}
}

func TestSimulatedSignUps(t *testing.T) {
	for _, o := range []sim.TenantOptions{
		{NativeSignUps: true},
		{ShortPages: true, EmptyPages: 2, Duplicates: 0.3, AuditMaxTop: 40, NativeSignUps: true},
	} {
		o.InstantAudit, o.InstantReplicas = true, true
		s := simulate(t, o, allRoles...)
		want := map[signup.UserID]int{}
		for i := range 300 {
			how := []sim.How{sim.Email, sim.Social, sim.Native, sim.Migration, sim.Admin, sim.Guest, sim.Failed}[i%7]
			id := s.graph.SignUp(sim.Person{How: how, Email: fmt.Sprintf("p%d@fabrikam.com", i)})
			if how == sim.Email || how == sim.Social || how == sim.Native {
				want[id] = 1
			}
			_ = s.clock.Sleep(t.Context(), time.Second)
		}
		if diff := cmp.Diff(s.seen(t, s.tenant.SignUps()), want); diff != "" {
			t.Errorf("got, want:\n%s", diff)
		}
		if n := s.graph.MaxAuditCallsIn10s(); n > 5 {
			t.Errorf("%d calls for reports in 10 s", n)
		}
		if n := s.tenant.Counts().Undecodable; n != 0 {
			t.Errorf("%d rows could not be decoded", n)
		}
	}
}

func TestSimulatedSkipTokenExpires(t *testing.T) {
	s := simulate(t, sim.TenantOptions{InstantAudit: true, InstantReplicas: true, AuditMaxTop: 2, PagingLife: time.Second}, allRoles...)
	for i := range 20 {
		s.graph.SignUp(sim.Person{Email: fmt.Sprintf("p%d@fabrikam.com", i)})
	}
	_, err := events(t, s.tenant.SignUps(), window)
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != "page-expired" {
		t.Errorf("got %v, want the read to fail: the pace lets the token grow old", err)
	}
}
