package entra_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	staff   = "02bd9fd6-8f93-4758-87c3-1fb73740a315"
	readers = "02bd9fd6-8f93-4758-87c3-1fb73740a316"
)

var forbidden = refusal(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")

var groupRoles = []string{"User.ReadWrite.All", "GroupMember.ReadWrite.All"}

func groups(t *testing.T, tenant *entra.Tenant, ids ...string) *entra.Groups {
	t.Helper()
	g, errs := entra.NewGroups(tenant, ids)
	for _, err := range errs {
		t.Fatal(err)
	}
	return g
}

func requests(ids ...signup.UserID) []signup.Request {
	var all []signup.Request
	for _, id := range ids {
		all = append(all, signup.Request{User: id, Created: start})
	}
	return all
}

// codes are the outcomes, "" for who is associated.
func codes(results []signup.Result) []string {
	out := []string{}
	for _, r := range results {
		out = append(out, codeOf(r.Err))
	}
	return out
}

func codeOf(err error) string {
	e, ok := errors.AsType[*signup.Error](err)
	switch {
	case err == nil:
		return ""
	case !ok:
		return "no outcome"
	}
	return e.Class.String() + " " + e.Code
}

// people sign up and are known everywhere.
func (s simulated) people(n int) []signup.UserID {
	none := time.Duration(0)
	ids := make([]signup.UserID, n)
	for i := range ids {
		ids[i] = s.graph.SignUp(sim.Person{Email: fmt.Sprintf("p%d@fabrikam.com", i), ReplicaLag: &none})
	}
	return ids
}

func sorted(ids []signup.UserID) []signup.UserID { return slices.Sorted(slices.Values(ids)) }

func TestOneWriteAddsAllUsersToAGroup(t *testing.T) {
	s := simulate(t, sim.TenantOptions{Groups: []sim.Group{{ID: staff}, {ID: readers}}}, groupRoles...)
	ids := s.people(15)
	results := groups(t, s.tenant, staff, strings.ToUpper(readers)).AssociateAll(t.Context(), requests(ids...))
	for i, r := range results {
		if want := (signup.Account{ID: string(ids[i]), Created: true}); r.Err != nil || r.Account != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
	for _, group := range []string{staff, readers} {
		if diff := cmp.Diff(sorted(s.graph.Members(group)), sorted(ids)); diff != "" {
			t.Errorf("%s: got, want:\n%s", group, diff)
		}
	}
	if got := s.tenant.Counts().Members; got != 2 {
		t.Errorf("got %d calls, want one a group", got)
	}
}

func TestOneUserDoesNotKeepTheOthersOutOfAGroup(t *testing.T) {
	s := simulate(t, sim.TenantOptions{Groups: []sim.Group{{ID: staff}, {ID: readers}}}, groupRoles...)
	ids, late := s.people(3), time.Hour
	ids = append(ids, s.graph.SignUp(sim.Person{Email: "late@fabrikam.com", ReplicaLag: &late}))
	g := groups(t, s.tenant, staff, readers)
	if _, err := groups(t, s.tenant, staff).Associate(t.Context(), requests(ids[0])[0]); err != nil { // who is a member already
		t.Fatal(err)
	}
	results := g.AssociateAll(t.Context(), requests(ids...))
	if diff := cmp.Diff(codes(results), []string{"", "", "", "transient not-found"}); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	if e, _ := errors.AsType[*signup.Error](results[3].Err); e == nil || e.Status != 404 {
		t.Errorf("got %v, want a 404, which does not count against the destination", results[3].Err)
	}
	_ = s.clock.Sleep(t.Context(), late)
	results = g.AssociateAll(t.Context(), requests(ids...))
	if diff := cmp.Diff(codes(results), []string{"", "", "", ""}); diff != "" {
		t.Errorf("an hour later: got, want:\n%s", diff)
	}
	if results[0].Account.Created || !results[3].Account.Created {
		t.Errorf("got %+v", results)
	}
	for _, group := range []string{staff, readers} {
		if diff := cmp.Diff(sorted(s.graph.Members(group)), sorted(ids)); diff != "" {
			t.Errorf("%s: got, want:\n%s", group, diff)
		}
	}
}

func TestALostAnswerAddsNobodyTwice(t *testing.T) {
	for _, f := range []sim.Fault{{After: true}, {After: true, Status: 503}, {After: true, Status: 429, Header: http.Header{"Retry-After": {"1"}}}} {
		s := simulate(t, sim.TenantOptions{Groups: []sim.Group{{ID: staff}}}, groupRoles...)
		ids := s.people(2)
		for _, part := range [][]signup.UserID{ids, ids[:1]} {
			s.graph.Faults.Add(f)
			if got := codes(groups(t, s.tenant, staff).AssociateAll(t.Context(), requests(part...))); slices.Max(got) != "" {
				t.Errorf("%+v: got %q", f, got)
			}
		}
		if got := len(s.graph.Members(staff)); got != 2 {
			t.Errorf("%+v: got %d members", f, got)
		}
	}
}

func TestGroupsThatTakeNoMembers(t *testing.T) {
	for kind, why := range map[sim.GroupKind]string{
		sim.DynamicGroup: "rule", sim.SyncedGroup: "premises", sim.MailEnabledGroup: "mail-enabled", sim.RoleAssignableGroup: "directory roles",
	} {
		s := simulate(t, sim.TenantOptions{Groups: []sim.Group{{ID: staff}, {ID: readers, Kind: kind}}}, groupRoles...)
		ids := s.people(3)
		g := groups(t, s.tenant, staff, readers)
		for _, err := range []error{g.Check(t.Context()), g.AssociateAll(t.Context(), requests(ids...))[2].Err} {
			if codeOf(err) != "systemic group-unsuitable" || !strings.Contains(err.Error(), readers) || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: got %v", kind, err)
			}
		}
		_, err := g.Associate(t.Context(), requests(ids[0])[0])
		if codeOf(err) != "systemic group-unsuitable" {
			t.Errorf("%s: got %v", kind, err)
		}
	}
	s := simulate(t, sim.TenantOptions{Groups: []sim.Group{{ID: staff, Kind: sim.UnifiedGroup}}}, groupRoles...)
	g := groups(t, s.tenant, staff)
	if err := g.Check(t.Context()); err != nil {
		t.Errorf("a Microsoft 365 group: %v", err)
	}
	if _, err := g.Associate(t.Context(), requests(s.people(1)[0])[0]); err != nil {
		t.Errorf("a Microsoft 365 group: %v", err)
	}
}

func TestAMissingGroupIsNotAMissingUser(t *testing.T) {
	s := simulate(t, sim.TenantOptions{Groups: []sim.Group{{ID: staff}}}, groupRoles...)
	g, ids := groups(t, s.tenant, staff, readers), s.people(3)
	if diff := cmp.Diff(codes(g.AssociateAll(t.Context(), requests(ids...))), slices.Repeat([]string{"systemic group-missing"}, 3)); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	_, err := g.Associate(t.Context(), requests(ids[0])[0])
	for _, err := range []error{err, g.Check(t.Context())} {
		if codeOf(err) != "systemic group-missing" || !strings.Contains(err.Error(), "settings.groups") || !strings.Contains(err.Error(), readers) {
			t.Errorf("got %v", err)
		}
	}
	calls := s.tenant.Calls()
	g.AssociateAll(t.Context(), requests(ids...))
	if got := s.tenant.Calls() - calls; got > 7 {
		t.Errorf("got %d calls; after what is true of everyone nobody else is tried", got)
	}
}

// Who is missing from one group is not done because the others were filled, and is not everybody.
func TestOneUsersRefusalIsKeptAndIsNotEverybodys(t *testing.T) {
	group, added, many := answer(200, `{"id":"`+staff+`","groupTypes":[]}`), answer(204, ""), refusal(400, "Request_BadRequest", "x")
	for name, c := range map[string]struct {
		groups  []string
		users   []signup.UserID
		answers []http.HandlerFunc
		want    []string
	}{
		"one group of two":        {[]string{staff, readers}, []signup.UserID{jane}, []http.HandlerFunc{gone, group, added}, []string{"transient not-found"}},
		"two unknown users":       {[]string{staff}, []signup.UserID{jane, joan}, []http.HandlerFunc{gone, gone, group, gone, many}, []string{"transient not-found", "transient not-found"}},
		"one is refused for good": {[]string{staff}, []signup.UserID{jane, joan}, []http.HandlerFunc{many, many, answer(200, `{"value":[]}`), group, added}, []string{"permanent rejected", ""}},
		"throttled is everybody":  {[]string{staff}, []signup.UserID{jane, joan}, []http.HandlerFunc{many, answer(429, "", "Retry-After", "90"), added}, []string{"throttled throttled", "throttled throttled"}},
	} {
		t.Run(name, func(t *testing.T) {
			results := groups(t, newGraph(t, c.answers...).open(), c.groups...).AssociateAll(t.Context(), requests(c.users...))
			if diff := cmp.Diff(codes(results), c.want); diff != "" {
				t.Errorf("got, want:\n%s", diff)
			}
		})
	}
}

// Wording is not contractual: what the message does not say, the membership does.
func TestAMemberIsRecognisedWithoutWords(t *testing.T) {
	refused := refusal(400, "Request_BadRequest", "Die Verknüpfung gibt es schon.")
	group := answer(200, `{"id":"`+staff+`","groupTypes":[],"onPremisesSyncEnabled":null,"mailEnabled":false,"isAssignableToRole":null}`)
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		want    string
	}{
		"member":               {[]http.HandlerFunc{refused, answer(200, `{"value":["`+strings.ToUpper(staff)+`"]}`)}, ""},
		"not a member":         {[]http.HandlerFunc{refused, answer(200, `{"value":[]}`), group}, "permanent rejected"},
		"nobody can tell":      {[]http.HandlerFunc{refused, answer(503, html)}, "transient unavailable"},
		"another answer":       {[]http.HandlerFunc{refused, answer(200, `{}`)}, "transient bad-answer"},
		"not known everywhere": {[]http.HandlerFunc{refused, gone, group}, "transient not-found"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGraph(t, c.answers...)
			_, err := groups(t, g.open(), staff).Associate(t.Context(), requests(jane)[0])
			if got := codeOf(err); got != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestGroupRequestsAndRefusals(t *testing.T) {
	group := answer(200, `{"id":"`+staff+`","groupTypes":[],"mailEnabled":false}`)
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		want    string
	}{
		"added":               {[]http.HandlerFunc{answer(204, "")}, ""},
		"forbidden":           {[]http.HandlerFunc{forbidden, group}, "systemic forbidden"},
		"forbidden to look":   {[]http.HandlerFunc{forbidden, forbidden}, "systemic forbidden"},
		"unauthorized":        {[]http.HandlerFunc{answer(401, "")}, "systemic unauthorized"},
		"throttled":           {[]http.HandlerFunc{answer(429, "", "Retry-After", "90")}, "throttled throttled"},
		"a 404 of a proxy":    {[]http.HandlerFunc{answer(404, html)}, "transient rejected"},
		"a 404, group unread": {[]http.HandlerFunc{gone, answer(503, "")}, "transient unavailable"},
		"another group":       {[]http.HandlerFunc{gone, answer(200, `{"id":"`+readers+`"}`)}, "transient bad-answer"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGraph(t, c.answers...)
			_, err := groups(t, g.open(), staff).Associate(t.Context(), requests(jane)[0])
			if got := codeOf(err); got != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if e, ok := errors.AsType[*signup.Error](err); ok && e.Code == "forbidden" && (e.Status != 0 || !strings.Contains(e.Detail, "GroupMember.ReadWrite.All")) {
				t.Errorf("got %v, want the permission, and no status that stands for one user", err)
			}
			r := g.asked()[0]
			if want := `{"@odata.id":"` + g.URL + `/v1.0/directoryObjects/` + string(jane) + `"}`; r.Method != "POST" ||
				r.Path != "/v1.0/groups/"+staff+"/members/$ref" || r.Body != want || r.Header.Get("Content-Type") != "application/json" || r.Chunked {
				t.Errorf("got %+v", r)
			}
		})
	}
	g := newGraph(t, answer(204, ""))
	groups(t, g.open(), staff).AssociateAll(t.Context(), requests(jane, joan))
	want := fmt.Sprintf(`{"members@odata.bind":["%[1]s/v1.0/directoryObjects/%[2]s","%[1]s/v1.0/directoryObjects/%[3]s"]}`, g.URL, jane, joan)
	if r := g.asked()[0]; r.Method != "PATCH" || r.Path != "/v1.0/groups/"+staff || r.Body != want {
		t.Errorf("got %+v", r)
	}
}

// A token's refusal is not Graph's: by a status the engine would take it for one user's.
func TestATokenThatIsRefusedIsEverybodys(t *testing.T) {
	for _, status := range []int{400, 403, 404} {
		g := newGraph(t, answer(204, ""))
		g.credential.err = &signup.Error{Class: signup.Systemic, Code: "no-token", Status: status}
		tenant := g.open()
		for _, r := range groups(t, tenant, staff).AssociateAll(t.Context(), requests(jane, joan)) {
			if e, ok := errors.AsType[*signup.Error](r.Err); !ok || e.Class != signup.Systemic || e.Code != "no-token" || e.Status != 0 {
				t.Errorf("%d: got %v", status, r.Err)
			}
		}
		err := tenant.Update(t.Context(), jane, signup.Patch{DisplayName: "x"})
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Systemic || e.Status != 0 {
			t.Errorf("%d: the patch: got %v", status, err)
		}
		if asked := len(g.credential.asked); asked != 2 {
			t.Errorf("%d: a token was asked for %d times, want once a call", status, asked)
		}
	}
}

// Memberships and patches are writes of one app to one tenant.
func TestMembershipsShareThePaceOfWrites(t *testing.T) {
	g := newGraph(t, answer(204, ""))
	tenant := g.open()
	destination := groups(t, tenant, staff)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			var err error
			if i%2 == 0 {
				err = tenant.Update(t.Context(), jane, signup.Patch{DisplayName: "x"})
			} else {
				_, err = destination.Associate(t.Context(), requests(jane)[0])
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(g.clock.slept) == 0 {
		t.Error("40 writes were made within a second, want at most 20")
	}
}

func TestACancelledCallIsNoOutcome(t *testing.T) {
	g := newGraph(t, answer(204, ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range groups(t, g.open(), staff).AssociateAll(ctx, requests(jane, joan)) {
		if !errors.Is(r.Err, context.Canceled) || codeOf(r.Err) != "no outcome" {
			t.Errorf("got %v", r.Err)
		}
	}
}

func TestSettingsOfGroups(t *testing.T) {
	_, errs := entra.NewGroups(nil, append(slices.Repeat([]string{staff}, 20), "all staff"))
	if text := errors.Join(errs...).Error(); !strings.Contains(text, "at most 20, has 21") || !strings.Contains(text, "number 2 is there twice") ||
		!strings.Contains(text, "number 21 is not an object id") || strings.Contains(text, "all staff") {
		t.Errorf("got %s", text)
	}
}
