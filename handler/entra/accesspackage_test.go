package entra_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	pack   = "a914b616-e04e-476b-aa37-91038f0b165b"
	direct = "2264bf65-76ba-417b-a27d-54d291f0cbc8"
	spare  = "2264bf65-76ba-417b-a27d-54d291f0cbc9"
)

var packageRoles = []string{"User.ReadWrite.All", "EntitlementManagement.ReadWrite.All"}

func withPackages() sim.TenantOptions {
	return sim.TenantOptions{EntitlementManagement: true, DeliveryTime: 3 * time.Minute, InstantReplicas: true,
		AccessPackages: []sim.AccessPackage{{ID: pack, Policies: []string{direct}}, {ID: staff, Policies: []string{spare}}}}
}

func accessPackage(t *testing.T, tenant *entra.Tenant, id, policy string) *entra.AccessPackage {
	t.Helper()
	p, errs := entra.NewAccessPackage(tenant, id, policy)
	for _, err := range errs {
		t.Fatal(err)
	}
	return p
}

// follow asks after each pause until the user is associated or cannot be.
func (s simulated) follow(t *testing.T, p *entra.AccessPackage, req signup.Request) (account signup.Account, outcomes []string, err error) {
	t.Helper()
	for range 40 {
		account, err = p.Associate(t.Context(), req)
		outcomes = append(outcomes, codeOf(err))
		e, ok := errors.AsType[*signup.Error](err)
		if !ok || e.Class != signup.Transient {
			return account, outcomes, err
		}
		if e.Code == "in-progress" && e.RetryAfter < time.Minute {
			t.Errorf("got %v to be asked again after %v", err, e.RetryAfter)
		}
		req.Unsure = true
		_ = s.clock.Sleep(t.Context(), max(e.RetryAfter, time.Minute))
	}
	return account, outcomes, err
}

func TestAnAssignmentIsFollowedUntilItIsDelivered(t *testing.T) {
	s := simulate(t, withPackages(), packageRoles...)
	p, id := accessPackage(t, s.tenant, strings.ToUpper(pack), direct), s.people(1)[0]
	account, outcomes, err := s.follow(t, p, requests(id)[0])
	if err != nil || len(outcomes) != 4 {
		t.Fatalf("got %v, %v, %q", account, err, outcomes)
	}
	all := s.graph.Assignments()
	if len(all) != 1 || all[0].ID != account.ID || all[0].User != id || all[0].AccessPackage != pack || all[0].Policy != direct {
		t.Errorf("got %+v, account %s", all, account.ID)
	}
	posts := s.graph.Counts()["POST /v1.0/identityGovernance/entitlementManagement/assignmentRequests"]
	if again, err := p.Associate(t.Context(), requests(id)[0]); err != nil || again.ID != account.ID || posts != 1 {
		t.Errorf("got %v, %v after %d requests", again, err, posts)
	}
	s.graph.EndAssignments(id, "expired")
	_ = s.clock.Sleep(t.Context(), 24*time.Hour)
	if renewed, outcomes, err := s.follow(t, p, requests(id)[0]); err != nil || renewed.ID == account.ID {
		t.Errorf("after it has expired: got %v, %v, %q", renewed, err, outcomes)
	}
}

// A lost answer, calls at the same time, and lists that are late make one assignment in the end.
func TestOneAssignmentWhateverIsLost(t *testing.T) {
	const path = "assignmentRequests"
	for _, f := range []sim.Fault{
		{Method: "POST", Path: path, After: true}, {Method: "POST", Path: path, After: true, Status: 503}, {Method: "POST", Path: path, Status: 503},
		{Method: "POST", Path: path, Status: 429, Header: http.Header{"Retry-After": {"2"}}}, {Method: "POST", Path: path, After: true, Status: 200, Body: `{}`},
		{Method: "POST", Path: path, After: true, Status: 200, Body: html}, {Method: "GET", Path: path, Status: 503, Times: 4}, {Method: "GET", Path: "/assignments", Status: 200, Body: `{}`},
	} {
		o := withPackages()
		o.InstantReplicas = false
		s := simulate(t, o, packageRoles...)
		s.graph.Faults.Add(f)
		p, req := accessPackage(t, s.tenant, pack, direct), requests(s.people(1)[0])[0]
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := p.Associate(t.Context(), req); signup.ClassOf(err) != signup.Transient {
					t.Errorf("%+v: got %v", f, err)
				}
			})
		}
		wg.Wait()
		account, outcomes, err := s.follow(t, p, req)
		if all := s.graph.Assignments(); err != nil || len(all) != 1 || all[0].ID != account.ID {
			t.Errorf("%+v: got %v, %v, %q, %+v", f, account, err, outcomes, all)
		}
	}
}

// Entitlement management should have known a user who signed up yesterday for long, so that its refusal is final; but for
// the request whose answer was lost a moment ago, and which it does not show yet.
func TestALostAnswerIsNotTheEndOfAnOldUser(t *testing.T) {
	for _, f := range []sim.Fault{{After: true}, {After: true, Status: 503}, {After: true, Status: 200, Body: html}} {
		o := withPackages()
		o.InstantReplicas = false
		s := simulate(t, o, packageRoles...)
		f.Method, f.Path = "POST", "assignmentRequests"
		s.graph.Faults.Add(f)
		p := accessPackage(t, s.tenant, pack, direct)
		for _, id := range s.people(5) {
			req := requests(id)[0]
			req.Created, req.Unsure = start.AddDate(0, 0, -1), true
			_, err := p.Associate(t.Context(), req)
			e, ok := errors.AsType[*signup.Error](err)
			if !ok || e.Class != signup.Transient {
				t.Fatalf("got %v", err)
			}
			_ = s.clock.Sleep(t.Context(), max(e.RetryAfter, 3*time.Second)) // as the engine does
			if _, err := p.Associate(t.Context(), req); codeOf(err) != "transient in-progress" {
				t.Errorf("%+v: after %v: got %v", f, e.RetryAfter, err)
			}
		}
	}
}

func TestARequestIsNotRepeatedOfItself(t *testing.T) {
	none := page("")
	g := newGraph(t, none, none, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := accessPackage(t, g.open(), pack, direct).Associate(t.Context(), requests(jane)[0])
	if got := codeOf(err); got != "transient unreachable" || len(g.asked()) != 3 {
		t.Errorf("got %v after %d calls, want 3", err, len(g.asked()))
	}
	r := g.asked()[2]
	want := `{"assignment":{"accessPackageId":"` + pack + `","assignmentPolicyId":"` + direct + `","targetId":"` + string(jane) + `"},"requestType":"adminAdd"}`
	if r.Method != "POST" || r.Path != "/v1.0/identityGovernance/entitlementManagement/assignmentRequests" || r.Body != want {
		t.Errorf("got %+v", r)
	}
	if got := g.asked()[0].Query.Get("$filter"); got != "accessPackage/id eq '"+pack+"' and target/objectId eq '"+string(jane)+"'" {
		t.Errorf("got filter %q", got)
	}
}

func TestAnAssignmentThatIsNotDelivered(t *testing.T) {
	for state, c := range map[string]struct {
		code string
		end  func(s simulated, id signup.UserID)
	}{
		"deliveryFailed": {"not-delivered", func(s simulated, _ signup.UserID) { _ = s.clock.Sleep(t.Context(), 4*time.Minute) }},
		"denied":         {"denied", func(s simulated, id signup.UserID) { s.graph.EndAssignments(id, "denied") }},
		"canceled":       {"canceled", func(s simulated, id signup.UserID) { s.graph.EndAssignments(id, "canceled") }},
		"expired": {"expired", func(s simulated, id signup.UserID) { // before anybody has looked again
			_ = s.clock.Sleep(t.Context(), 4*time.Minute)
			s.graph.EndAssignments(id, "expired")
		}},
	} {
		s := simulate(t, withPackages(), packageRoles...)
		if state == "deliveryFailed" {
			s.graph.FailDeliveries(1)
		}
		p, req := accessPackage(t, s.tenant, pack, direct), requests(s.people(1)[0])[0]
		if _, err := p.Associate(t.Context(), req); codeOf(err) != "transient in-progress" {
			t.Fatal(err)
		}
		c.end(s, req.User)
		again := req
		again.Unsure = true
		_, err := p.Associate(t.Context(), again)
		if codeOf(err) != "permanent "+c.code || !strings.Contains(err.Error(), state) {
			t.Errorf("%s: got %v", state, err)
		}
		_ = s.clock.Sleep(t.Context(), 3*time.Hour) // a person has mended the cause and replays the user
		if account, outcomes, err := s.follow(t, p, again); err != nil || account.ID == "" {
			t.Errorf("%s: after the replay: got %v, %q", state, err, outcomes)
		}
	}
}

func TestSomebodyElsesRefusedRequestIsNotOurs(t *testing.T) {
	s := simulate(t, withPackages(), packageRoles...)
	p, req := accessPackage(t, s.tenant, pack, direct), requests(s.people(1)[0])[0]
	_, _ = p.Associate(t.Context(), req)
	s.graph.EndAssignments(req.User, "denied")
	if _, err := p.Associate(t.Context(), req); codeOf(err) != "transient in-progress" || len(s.graph.Assignments()) != 2 {
		t.Errorf("got %v, %+v; want a request of this first try", err, s.graph.Assignments())
	}
}

// Entitlement management refuses everything by the same answer.
func TestARefusedRequest(t *testing.T) {
	hour := time.Hour
	s := simulate(t, sim.TenantOptions{EntitlementManagement: true, AccessPackages: withPackages().AccessPackages}, packageRoles...)
	id := s.graph.SignUp(sim.Person{Email: "late@fabrikam.com", ReplicaLag: &hour})
	req := requests(id)[0]
	p := accessPackage(t, s.tenant, pack, direct)
	if _, err := p.Associate(t.Context(), req); codeOf(err) != "transient in-progress" {
		t.Errorf("a user who is not known yet: got %v", err)
	}
	req.Created = start.Add(-2 * time.Hour)
	if _, err := p.Associate(t.Context(), req); codeOf(err) != "permanent rejected" {
		t.Errorf("a user who should be known: got %v", err)
	}
	_ = s.clock.Sleep(t.Context(), hour)
	if _, outcomes, err := s.follow(t, p, req); err != nil {
		t.Errorf("got %v, %q", err, outcomes)
	}
	for setting, p := range map[string]*entra.AccessPackage{
		"settings.accessPackage": accessPackage(t, s.tenant, readers, direct), "settings.policy": accessPackage(t, s.tenant, staff, readers),
		"another access package": accessPackage(t, s.tenant, staff, direct),
	} {
		_, err := p.Associate(t.Context(), req)
		for _, err := range []error{err, p.Check(t.Context())} {
			if codeOf(err) != "systemic package-missing" || !strings.Contains(err.Error(), setting) {
				t.Errorf("%s: got %v", setting, err)
			}
		}
	}
	if err := p.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnExternalTenantHasNoEntitlementManagement(t *testing.T) {
	s := simulate(t, sim.TenantOptions{}, append([]string{"Organization.Read.All"}, packageRoles...)...)
	p := accessPackage(t, s.tenant, pack, direct)
	_, err := p.Associate(t.Context(), requests(s.people(1)[0])[0])
	for _, err := range []error{err, p.Check(t.Context())} {
		if codeOf(err) != "systemic no-entitlement-management" || !strings.Contains(err.Error(), "CIAM") {
			t.Errorf("got %v", err)
		}
	}
	// An app that is not shown what the tenant is for is told what the refusal may mean.
	p = accessPackage(t, newGraph(t, page("", `{"id":"`+tenantID+`","tenantType":null}`), refusal(403, "UnAuthorized", "User is not authorized to perform the operation.")).open(), pack, direct)
	if err := p.Check(t.Context()); codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), "only workforce tenants have entitlement management") {
		t.Errorf("got %v", err)
	}
	s = simulate(t, withPackages(), "User.ReadWrite.All")
	p = accessPackage(t, s.tenant, pack, direct)
	_, err = p.Associate(t.Context(), requests(s.people(1)[0])[0])
	for _, err := range []error{err, p.Check(t.Context())} {
		if codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), "EntitlementManagement.ReadWrite.All") {
			t.Errorf("got %v", err)
		}
	}
	if e, _ := errors.AsType[*signup.Error](err); e.Status != 0 {
		t.Errorf("got %v with a status that stands for one user", err)
	}
}

func TestStatesOfRequestsAndAssignments(t *testing.T) {
	const none = ""
	assigned := func(state string) string {
		return fmt.Sprintf(`{"id":"2a353749-3749-2a35-4937-352a4937352a","state":%q,"target":{"objectId":%q},"accessPackage":{"id":%q}}`, state, jane, pack)
	}
	ended := func(at string) string {
		return strings.Replace(assigned("expired"), `"state"`, `"expiredDateTime":`+at+`,"state"`, 1)
	}
	asked := func(kind, state, completed string) string {
		return fmt.Sprintf(`{"id":"7999249e-249e-7999-9e24-99799e249979","requestType":%q,"state":%q,"createdDateTime":"2026-01-01T00:00:00.12Z","completedDateTime":%s,
			"assignment":{"target":{"objectId":%q}},"accessPackage":{"id":%q}}`, kind, state, completed, jane, pack)
	}
	const just, old = `"2026-01-02T02:30:00Z"`, `"2026-01-01T02:30:00Z"`
	stranger := strings.ReplaceAll(assigned("delivered"), string(jane), string(joan))
	post, refused := answer(201, `{"id":"7a6ab703-0780-4b37-8445-81f679b2d75c","requestState":"Submitted"}`), refusal(400, "InvalidRequest", "x")
	for name, c := range map[string]struct {
		assignments, requests string
		want                  string
		calls                 int
	}{
		"delivered":                       {assigned("Delivered"), none, "", 1},
		"delivered, and one before it":    {assigned("expired") + "," + assigned("delivered"), none, "", 1},
		"delivering":                      {assigned("delivering"), none, "transient in-progress", 1},
		"a state that is yet to come":     {assigned("warming"), none, "transient in-progress", 1},
		"somebody else's assignment":      {stranger, none, "transient bad-answer", 1},
		"expired":                         {assigned("expired"), asked("adminAdd", "delivered", old), "transient in-progress", 3},
		"waiting for approval":            {none, asked("userAdd", "PendingApproval", "null"), "transient in-progress", 2},
		"scheduled":                       {none, asked("adminAdd", "scheduled", "null"), "transient in-progress", 2},
		"delivered, and not shown yet":    {none, asked("adminAdd", "delivered", just), "transient in-progress", 2},
		"partly delivered":                {assigned("partiallyDelivered"), asked("adminAdd", "partiallyDelivered", just), "permanent not-delivered", 2},
		"failed just now":                 {assigned("deliveryFailed"), asked("adminAdd", "deliveryFailed", just), "permanent not-delivered", 2},
		"failed long ago":                 {none, asked("adminAdd", "denied", old), "transient in-progress", 3},
		"failed just now, asked for anew": {none, asked("adminAdd", "denied", just) + "," + asked("adminAdd", "submitted", "null"), "transient in-progress", 2},
		"failed just now, and long ago":   {none, asked("adminAdd", "denied", just) + "," + strings.Replace(asked("adminAdd", "denied", old), "2026-01-01T00", "2025-01-01T00", 1), "permanent denied", 2},
		"expired just now":                {ended(just), asked("adminAdd", "delivered", old), "permanent expired", 2},
		"expired long ago":                {ended(old), asked("adminAdd", "delivered", old), "transient in-progress", 3},
		"expired, and asked for anew":     {ended(just), asked("adminAdd", "submitted", "null"), "transient in-progress", 2},
		"expired, and delivered anew":     {ended(`"2026-01-02T02:00:00Z"`), asked("adminAdd", "delivered", just), "transient in-progress", 2},
		"a removal that has failed":       {none, asked("adminRemove", "deliveryFailed", just), "transient in-progress", 3},
		"somebody else's request":         {none, strings.ReplaceAll(asked("adminAdd", "denied", just), string(jane), string(joan)), "transient bad-answer", 2},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGraph(t, page("", c.assignments), page("", c.requests), post)
			req := requests(jane)[0]
			req.Unsure = true
			_, err := accessPackage(t, g.open(), pack, direct).Associate(t.Context(), req)
			if got := codeOf(err); got != c.want || len(g.asked()) != c.calls {
				t.Errorf("got %v after %d calls, want %q after %d", err, len(g.asked()), c.want, c.calls)
			}
		})
	}
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		want    string
	}{
		"the look-up is refused":    {[]http.HandlerFunc{refused}, "systemic rejected"},
		"the look-up fails":         {[]http.HandlerFunc{answer(503, html)}, "transient unavailable"},
		"the second look-up fails":  {[]http.HandlerFunc{page(""), answer(503, html)}, "transient unavailable"},
		"refused, and look-up lost": {[]http.HandlerFunc{page(""), page(""), refused, answer(503, html)}, "transient unavailable"},
		"refused, and there it is":  {[]http.HandlerFunc{page(""), page(""), refused, page("", assigned("delivering"))}, "transient in-progress"},
		"not as published":          {[]http.HandlerFunc{page(""), page(""), answer(200, `{}`)}, "transient bad-answer"},
		"throttled":                 {[]http.HandlerFunc{answer(429, "", "Retry-After", "90")}, "throttled throttled"},
	} {
		t.Run(name, func(t *testing.T) {
			req := requests(jane)[0]
			req.Created = start.AddDate(-1, 0, 0)
			_, err := accessPackage(t, newGraph(t, c.answers...).open(), pack, direct).Associate(t.Context(), req)
			if got := codeOf(err); got != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSettingsOfAccessPackages(t *testing.T) {
	_, errs := entra.NewAccessPackage(nil, "Birthright", "none")
	if text := errors.Join(errs...).Error(); !strings.Contains(text, "settings.accessPackage") || !strings.Contains(text, "settings.policy") || strings.Contains(text, "Birthright") {
		t.Errorf("got %s", text)
	}
}
