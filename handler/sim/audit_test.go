package sim_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const audits = "/v1.0/auditLogs/directoryAudits"

func TestAuditFilter(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{Email: "o'brien@example.com"})
	tests := []struct {
		name, filter string
		strict       bool
		status, rows int
	}{
		{"activity", "activityDisplayName eq 'Add user'", true, 200, 1},
		{"activity in another letter case", "activityDisplayName eq 'add user'", true, 200, 0},
		{"startswith", "startswith(activityDisplayName,'Add')", true, 200, 1},
		{"startswith with a blank", "startswith(activityDisplayName, 'Up')", true, 200, 0},
		{"window", "activityDateTime ge 2026-01-02T03:04:05Z and activityDateTime le 2026-01-02T03:04:05.0000000Z", true, 200, 1},
		{"window with an offset", "activityDateTime ge 2026-01-02T04:04:05+01:00", true, 200, 1},
		{"100 ns later", "activityDateTime ge 2026-01-02T03:04:05.0000001Z", true, 200, 0},
		{"target", "targetResources/any(t:t/id eq '" + string(id) + "')", true, 200, 1},
		{"target with a blank", "targetResources/any(t: t/id eq 'x')", true, 200, 0},
		{"service", "loggedByService eq 'Core Directory'", true, 200, 1},
		{"category, undocumented", "category eq 'UserManagement' and result eq 'success'", false, 200, 1},
		{"category, strict", "category eq 'UserManagement'", true, 400, 0},
		{"gt, undocumented", "activityDateTime gt 2026-01-02T03:04:05Z", false, 200, 0},
		{"gt, strict", "activityDateTime gt 2026-01-02T03:04:05Z", true, 400, 0},
		{"quoted date", "activityDateTime ge '2026-01-02T03:04:05Z'", false, 400, 0},
		{"no date", "activityDateTime ge yesterday", false, 400, 0},
		{"other property", "createdDateTime ge 2026-01-02T03:04:05Z", false, 400, 0},
		{"or", "activityDisplayName eq 'a' or activityDisplayName eq 'b'", false, 400, 0},
		{"not", "not activityDisplayName eq 'a'", false, 400, 0},
		{"ne", "activityDisplayName ne 'a'", false, 400, 0},
		{"contains", "contains(activityDisplayName,'a')", false, 400, 0},
		{"open string", "activityDisplayName eq 'a", false, 400, 0},
		{"bare string", "activityDisplayName eq a", false, 400, 0},
		{"escaped quote", "activityDisplayName eq 'a''b'", false, 200, 0},
		{"nothing after and", "activityDisplayName eq 'a' and", false, 400, 0},
	}
	strict := calm()
	strict.StrictAuditFilter = true
	s := serve(t, strict)
	s.tenant.SignUp(sim.Person{Email: "o'brien@example.com"}) // the same seed, the same id
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := r
			if tt.strict {
				from = s
			}
			a := from.get(audits, "$filter", tt.filter)
			if a.status != tt.status || len(a.rows()) != tt.rows {
				t.Errorf("got %d with %d rows: %s, want %d with %d", a.status, len(a.rows()), a.raw, tt.status, tt.rows)
			}
			if tt.status == 400 && a.message() != "Invalid filter clause" {
				t.Errorf("got message %q", a.message())
			}
		})
	}
	a := r.get(audits + "?$filter=activityDateTime%20ge%202026-01-02T04:04:05+01:00")
	r.want(a, 400, "BadRequest") // the plus sign is a blank
}

func TestAuditOptions(t *testing.T) {
	o := calm()
	o.AuditMaxTop = 2
	r := serve(t, o)
	for range 3 {
		r.tenant.SignUp(sim.Person{Email: "a@example.com"})
		r.clock.Advance(time.Second)
	}
	a := r.get(audits, "$top", "1000")
	times := column(a.rows(), "activityDateTime")
	if diff := cmp.Diff(times, []string{"2026-01-02T03:04:07.0000000Z", "2026-01-02T03:04:06.0000000Z"}); diff != "" {
		t.Errorf("a larger $top is cut, newest first (-got +want):\n%s", diff)
	}
	if a.body["@microsoft.graph.tips"] == nil {
		t.Error("no tip to use $select")
	}
	a = r.get(audits, "$orderby", "activityDateTime", "$top", "1", "$select", "id,activityDateTime")
	if got := a.rows()[0]; len(got) != 2 || got["activityDateTime"] != "2026-01-02T03:04:05.0000000Z" || a.body["@microsoft.graph.tips"] != nil {
		t.Errorf("got %v", a.body)
	}
	for _, q := range [][2]string{{"$top", "0"}, {"$top", "-1"}, {"$top", "x"}, {"$count", "true"}, {"$search", "x"}, {"$skip", "1"}, {"$orderby", "id"}} {
		r.want(r.get(audits, q[0], q[1]), 400, "BadRequest")
	}
	r.want(r.get(audits, "$orderby", " "), 400, "BadRequest")
	o.StrictAuditFilter, o.RefuseLargeTop = true, true
	r = serve(t, o)
	r.want(r.get(audits, "$orderby", "activityDateTime"), 400, "BadRequest")
	r.want(r.get(audits, "$top", "3"), 400, "BadRequest")
}

func TestAuditOrder(t *testing.T) {
	order := func(o sim.Order) []string {
		opt := calm()
		opt.AuditOrder = o
		r := serve(t, opt)
		for i := range 12 { // four seconds with three rows each
			r.tenant.SignUp(sim.Person{Email: fmt.Sprintf("u%d@example.com", i)})
			r.clock.Advance(time.Second / 3)
		}
		return column(r.get(audits).rows(), "activityDateTime")
	}
	seconds := func(times []string) []string {
		var out []string
		for _, s := range times {
			out = append(out, s[:19])
		}
		return out
	}
	newest, oldest, shuffled := order(sim.NewestFirst), order(sim.OldestFirst), order(sim.ShuffledWithinSecond)
	if !slices.IsSorted(oldest) {
		t.Errorf("oldest first: %v", oldest)
	}
	slices.Reverse(oldest)
	if diff := cmp.Diff(newest, oldest); diff != "" {
		t.Errorf("newest first is the reverse of oldest first:\n%s", diff)
	}
	up, down := 0, 0
	for i := range len(shuffled) - 1 {
		if shuffled[i][:19] != shuffled[i+1][:19] {
			continue
		}
		if shuffled[i] < shuffled[i+1] {
			up++
		} else {
			down++
		}
	}
	if up == 0 || down == 0 || !cmp.Equal(seconds(shuffled), seconds(newest)) {
		t.Errorf("shuffled within the second: %v", shuffled)
	}
}

func TestAuditTail(t *testing.T) {
	o := calm()
	o.InstantAudit, o.AuditTail = false, true
	r := serve(t, o)
	const n = 2500
	for range n {
		r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	}
	r.clock.Advance(15 * time.Minute)
	rows, _ := r.pages(10, audits, "$select", "id")
	if late := n - len(rows); late < 1 || late > 8 {
		t.Errorf("%d of %d rows are later than 15 min, want about one in a thousand", late, n)
	}
	r.clock.Advance(30 * time.Minute)
	if rows, _ := r.pages(10, audits, "$select", "id"); len(rows) != n {
		t.Errorf("after 45 min: %d of %d", len(rows), n)
	}
}

func TestAuditByID(t *testing.T) {
	r := serve(t, calm())
	r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	row := r.get(audits).rows()[0]
	id, _ := row["id"].(string)
	if diff := cmp.Diff(r.get(audits+"/"+id).body, row); diff != "" {
		t.Errorf("by id (-got +want):\n%s", diff)
	}
	r.want(r.get(audits+"/Directory_x"), 404, "Request_ResourceNotFound")
}

func TestAuditPaging(t *testing.T) {
	o := calm()
	o.EmptyPages, o.ShortPages = 3, true
	r := serve(t, o)
	want := map[string]bool{}
	for i := range 50 {
		want[string(r.tenant.SignUp(sim.Person{Email: fmt.Sprintf("u%d@example.com", i)}))] = true
		r.clock.Advance(time.Millisecond)
	}
	a := r.get(audits, "$top", "10")
	seen, pages, empty, short := map[string]int{}, 0, 0, 0
	for {
		pages++
		switch n := len(a.rows()); {
		case n == 0:
			empty++
		case n < 10:
			short++
		}
		for _, row := range a.rows() {
			seen[target(row)]++
		}
		next, more := a.body["@odata.nextLink"].(string)
		if !more {
			break
		}
		if !strings.HasPrefix(next, r.server.URL+audits+"?") {
			t.Fatalf("next link %s leaves the simulation", next)
		}
		r.tenant.SignUp(sim.Person{Email: "new@example.com"}) // arrives in front
		a = r.get(next)
	}
	twice := 0
	for id := range want {
		if seen[id] == 0 {
			t.Errorf("%s was passed over", id)
		}
		if seen[id] > 1 {
			twice++
		}
	}
	if twice == 0 || empty == 0 || short < 3 || pages < 9 {
		t.Errorf("got %d rows twice, %d empty and %d short pages of %d; want some of each", twice, empty, short, pages)
	}
}

func TestSkipTokenIsBoundAndExpires(t *testing.T) {
	r := serve(t, calm())
	for range 3 {
		r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	}
	next, _ := r.get(audits, "$top", "1").body["@odata.nextLink"].(string)
	second := r.get(next)
	if len(second.rows()) != 1 || !strings.Contains(next, "?$skiptoken=") {
		t.Fatalf("got %d %s from %s", second.status, second.raw, next)
	}
	if diff := cmp.Diff(r.get(strings.Replace(next, "$skiptoken", "skiptoken", 1)).rows(), second.rows()); diff != "" {
		t.Errorf("the documented spelling without a dollar sign (-got +want):\n%s", diff)
	}
	other := r.get(strings.Replace(next, "top=1", "top=2", 1))
	r.want(other, 400, "BadRequest")
	r.clock.Advance(10*time.Minute + time.Second)
	a := r.get(next)
	r.want(a, 400, "BadRequest")
	if a.message() != "Invalid Skip Token, skip token is null" {
		t.Errorf("got %q", a.message())
	}
}

func TestAuditRetention(t *testing.T) {
	r := serve(t, calm())
	r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	r.clock.Advance(7 * 24 * time.Hour)
	if n := len(r.get(audits).rows()); n != 1 {
		t.Errorf("after 7 days: got %d rows, want 1", n)
	}
	r.clock.Advance(time.Second)
	a := r.get(audits, "$filter", "activityDateTime ge 2020-01-01T00:00:00Z")
	if a.status != 200 || len(a.rows()) != 0 {
		t.Errorf("later: got %d with %d rows, want an empty page", a.status, len(a.rows()))
	}
}

// The published numbers: half within a minute, 95 % within 2, 99 % within 5, the rest within 15.
func TestAuditLag(t *testing.T) {
	o := calm()
	o.InstantAudit = false
	r := serve(t, o)
	const n = 1000
	r.tenant.SignUp(sim.Person{Email: "scripted@example.com", AuditLag: new(25 * time.Minute)})
	for range n {
		r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	}
	visible := func() int {
		rows, _ := r.pages(10, audits, "$select", "id")
		return len(rows)
	}
	at := time.Duration(0)
	for _, step := range []struct {
		after    time.Duration
		min, max float64
	}{{time.Minute, 0.46, 0.54}, {2 * time.Minute, 0.93, 0.97}, {5 * time.Minute, 0.98, 0.998}, {15 * time.Minute, 1, 1}} {
		r.clock.Advance(step.after - at)
		at = step.after
		if got := float64(visible()) / n; got < step.min || got > step.max {
			t.Errorf("after %v: %.3f, want %.3f to %.3f", step.after, got, step.min, step.max)
		}
	}
	r.clock.Advance(10*time.Minute - time.Nanosecond)
	if got := visible(); got != n {
		t.Errorf("just before 25 min: got %d", got)
	}
	r.clock.Advance(time.Nanosecond)
	rows, _ := r.pages(10, audits)
	if len(rows) != n+1 || rows[0]["activityDateTime"] != rows[n]["activityDateTime"] {
		t.Errorf("the scripted row shows late, with its old time: got %d rows", len(rows))
	}
}

func TestAuditDuplicates(t *testing.T) {
	o := calm()
	o.Duplicates = 0
	r := serve(t, o)
	for range 1000 {
		r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	}
	rows, _ := r.pages(10, audits, "$select", "id,targetResources")
	sameID, sameUser := map[string]int{}, map[string]int{}
	for _, row := range rows {
		sameID[row["id"].(string)]++
		sameUser[target(row)]++
	}
	twice, otherID := len(rows)-len(sameUser), len(sameID)-len(sameUser)
	if twice < 2 || twice > 12 || otherID == 0 || otherID == twice {
		t.Errorf("got %d doubled rows, %d of them under another id, want about 5 and both kinds", twice, otherID)
	}
	o.Duplicates = -1
	r = serve(t, o)
	id := r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	r.tenant.Republish(id, false)
	r.tenant.Republish(id, true)
	ids := column(r.get(audits).rows(), "id")
	slices.Sort(ids)
	if len(ids) != 4 || len(slices.Compact(ids)) >= 4 {
		t.Errorf("got ids %v", ids)
	}
}

func TestAddAuditIsVerbatim(t *testing.T) {
	r := serve(t, calm())
	good := `{"id":"x1",  "activityDateTime":"2026-01-02T03:04:04Z","activityDisplayName":"Add user","Extra":[1.50,"é\u00e9<&>"]}`
	odd := `{"id":7,"activityDateTime":"soon","activityDisplayName":["Add user"]}`
	r.tenant.AddAudit(json.RawMessage(good))
	r.tenant.AddAudit(json.RawMessage(odd))
	a := r.get(audits, "$filter", "activityDisplayName eq 'Add user' and activityDateTime ge 2026-01-02T03:00:00Z")
	if !strings.Contains(string(a.raw), `"value":[`+odd+","+good+"]") {
		t.Errorf("got %s", a.raw)
	}
	if n := len(r.get(audits, "$filter", "activityDisplayName eq 'Delete user'").rows()); n != 1 {
		t.Errorf("a row that cannot be read passes every filter: got %d rows", n)
	}
	r.tenant.AddAudit(json.RawMessage(`{"id":"x2","broken`))
	if a := r.get(audits); a.status != 200 || json.Valid(a.raw) {
		t.Errorf("a row that is not JSON breaks its page: got %d %s", a.status, a.raw)
	}
}

func TestAuditRowsByOrigin(t *testing.T) {
	type brief struct{ Activity, Service, Result string }
	add := brief{"Add user", "Core Directory", "success"}
	tests := []struct {
		how  sim.How
		want []brief
	}{
		{sim.Email, []brief{add}},
		{sim.Social, []brief{add}},
		{sim.Native, []brief{add}},
		{sim.Admin, []brief{add}},
		{sim.Migration, []brief{add}},
		{sim.EmailVerified, []brief{add}},
		{sim.Failed, []brief{{"Add user", "Core Directory", "failure"}}},
		{sim.Guest, []brief{{"Add user sponsor", "Core Directory", "success"}, {"Invite external user", "Invited Users", "success"}, add}},
	}
	for _, tt := range tests {
		t.Run(string(tt.how), func(t *testing.T) {
			r := serve(t, calm())
			id := r.tenant.SignUp(sim.Person{How: tt.how, Email: "jane@example.com", DisplayName: "Jane"})
			if (id == "") != (tt.how == sim.Failed) {
				t.Errorf("got id %q", id)
			}
			r.clock.Advance(time.Second)
			var got []brief
			for _, row := range r.get(audits).rows() {
				got = append(got, brief{row["activityDisplayName"].(string), row["loggedByService"].(string), row["result"].(string)})
				if id != "" && target(row) != string(id) {
					t.Errorf("%v is about %s", row["activityDisplayName"], target(row))
				}
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("rows (-got +want):\n%s", diff)
			}
		})
	}
}

func TestSelfServiceActorVaries(t *testing.T) {
	r := serve(t, calm())
	actors := map[string]int{}
	for range 60 {
		r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	}
	for _, row := range r.get(audits).rows() {
		by := row["initiatedBy"].(map[string]any)
		switch {
		case by["app"] != nil:
			actors["app"]++
		case by["user"] != nil:
			actors["user"]++
		default:
			actors["nobody"]++
		}
	}
	if len(actors) != 3 {
		t.Errorf("got %v, want all three", actors)
	}
}

func TestLaterAuditRows(t *testing.T) {
	o := calm()
	o.RedeemedBy = "Invited Users"
	r := serve(t, o)
	guest := r.tenant.SignUp(sim.Person{How: sim.Guest, Email: "jane@example.com"})
	r.clock.Advance(time.Minute)
	r.tenant.Redeem(guest)
	r.clock.Advance(time.Minute)
	r.tenant.Delete(guest)
	r.clock.Advance(time.Minute)
	r.tenant.Restore(guest)
	r.clock.Advance(time.Minute)
	if a := r.patch(guest, `{"displayName":"Jane"}`); a.status != 204 {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	rows := r.get(audits, "$filter", "activityDateTime gt 2026-01-02T03:04:10Z").rows()
	got := column(rows, "activityDisplayName")
	want := []string{"Update user", "Restore user", "Delete user", "Redeem external user invite", "Update user"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("rows (-got +want):\n%s", diff)
	}
	if by := rows[0]["initiatedBy"].(map[string]any)["app"].(map[string]any)["appId"]; by != client {
		t.Errorf("the reader's own patch is logged as %v", by)
	}
	if s := rows[3]["loggedByService"]; s != "Invited Users" {
		t.Errorf("redemption logged by %v", s)
	}
	text, _ := json.Marshal(rows[3]["targetResources"])
	if !strings.Contains(string(text), "UPN: jane_example.com#EXT#@contoso.onmicrosoft.com, Email: jane@example.com, InvitationId: ") {
		t.Errorf("got %s", text)
	}
	changed, _ := json.Marshal(rows[0]["targetResources"])
	if !strings.Contains(string(changed), `"newValue":"[\"Jane\"]"`) {
		t.Errorf("values are JSON inside of strings, got %s", changed)
	}
}

func TestSignUpLog(t *testing.T) {
	o := calm()
	r := serve(t, o)
	const path = "/beta/auditLogs/signUps"
	id := r.tenant.SignUp(sim.Person{Email: "jane@example.com"})
	social := r.tenant.SignUp(sim.Person{How: sim.Social, Email: "joan@example.com"})
	for _, how := range []sim.How{sim.Native, sim.Migration, sim.Admin, sim.Guest, sim.Failed, sim.EmailVerified} {
		r.tenant.SignUp(sim.Person{How: how, Email: "x@example.com"})
	}
	done := r.get(path, "$filter", "signUpStage eq 'userCreation' and status/errorCode eq 0 and createdDateTime ge 2026-01-02T03:00:00Z").rows()
	got := column(done, "userId")
	want := []string{string(id), string(social)}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("users created (-got +want):\n%s", diff)
	}
	mine := r.get(path, "$filter", fmt.Sprintf("correlationId eq '%v'", done[1]["correlationId"])).rows()
	if diff := cmp.Diff(len(mine), 4-boolInt(done[1]["signUpIdentityProvider"] == "Google")); diff != "" {
		t.Errorf("stages of one attempt (-got +want):\n%s", diff)
	}
	if n := len(r.get(path, "$filter", "status/errorCode eq 399279").rows()); n != 1 {
		t.Errorf("failed sign-ups: got %d", n)
	}
	r.want(r.get("/v1.0/auditLogs/signUps"), 400, "BadRequest")
	r.want(r.get(path, "$filter", "createdDateTime gt 2026-01-02T03:00:00Z"), 400, "BadRequest")
	r.as("Directory.Read.All")
	r.want(r.get(path), 403, "Authorization_RequestDenied")
	o.NativeSignUps = true
	r = serve(t, o)
	r.tenant.SignUp(sim.Person{How: sim.Native, Email: "x@example.com"})
	if n := len(r.get(path).rows()); n != 4 {
		t.Errorf("a native sign-up leaves %d rows where it is logged, want 4", n)
	}
	o.NoSignUpLog = 403
	r = serve(t, o)
	r.want(r.get(path), 403, "Authorization_RequestDenied")
	o.NoSignUpLog = 404
	r = serve(t, o)
	r.want(r.get(path), 404, "Request_ResourceNotFound")
	o.NoSignUpLog, o.Duplicates = 0, 1
	r = serve(t, o)
	r.tenant.SignUp(sim.Person{Email: "jane@example.com"})
	if n := len(r.get(path, "$filter", "signUpStage eq 'userCreation'").rows()); n != 2 {
		t.Errorf("where every row is published twice one is there %d times", n)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSameSeedSameTenant(t *testing.T) {
	tell := func() ([]byte, []sim.DirectoryUser) {
		r := serve(t, sim.TenantOptions{Seed: 7, Attributes: []string{"marketingOptIn"}})
		for _, p := range sim.Crowd(80, 7) {
			r.tenant.SignUp(p)
			r.clock.Advance(time.Second)
		}
		r.clock.Advance(time.Hour)
		return r.get(audits, "$top", "999").raw, r.tenant.Users()
	}
	logA, usersA := tell()
	logB, usersB := tell()
	strip := func(b []byte) string { return string(b[strings.Index(string(b), `"value"`):]) }
	if diff := cmp.Diff(strip(logA), strip(logB)); diff != "" {
		t.Errorf("log differs:\n%s", diff)
	}
	if diff := cmp.Diff(usersA, usersB); diff != "" {
		t.Errorf("users differ:\n%s", diff)
	}
	if _, err := signup.ParseUserID(string(usersA[0].ID)); err != nil {
		t.Error(err)
	}
}
