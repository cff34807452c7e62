package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// post is an office that invites from a file.
type post struct {
	office
	file string
}

func openPost(t *testing.T, o sim.TenantOptions, lines ...string) post {
	t.Helper()
	if o.Type == "" {
		o.Type = sim.Workforce
	}
	p := post{openOffice(t, o), filepath.Join(t.TempDir(), "partners.csv")}
	p.write("email,name,message,redirect", lines...)
	return p
}

func (p post) write(header string, lines ...string) {
	p.t.Helper()
	if err := os.WriteFile(p.file, []byte(strings.Join(append([]string{header}, lines...), "\n")+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// args invite from the file.
func (p post) args(more ...string) []string {
	return append([]string{"invite", "--csv", p.file, "--redirect", "https://app.example.com"}, more...)
}

// results are the last lines of the result file, by address.
func (p post) results() map[string]inviteLine {
	p.t.Helper()
	r, err := readResult(p.file+".result.jsonl", simTenant)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.before
}

// mailed is how many mails each address got.
func (p post) mailed() map[string]int {
	all := map[string]int{}
	for _, m := range p.Tenant.Mails() {
		all[strings.ToLower(m.To)]++
	}
	return all
}

// everyone demands that each of some addresses was invited, with that many mails, and stands in the result.
func (p post) everyone(mails int, addresses ...string) {
	p.t.Helper()
	got, results := p.mailed(), p.results()
	for _, a := range addresses {
		if got[a] != mails || p.Tenant.Invited(a) == "" || results[a].State != inviteInvited || results[a].User != p.Tenant.Invited(a) {
			p.t.Errorf("%s: %d mails, want %d; is %q, and the result says %+v", a, got[a], mails, p.Tenant.Invited(a), results[a])
		}
	}
}

var three = []string{"ann@fabrikam.com,Ann", "bob@fabrikam.com", "cid@fabrikam.com"}

var threeAddresses = []string{"ann@fabrikam.com", "bob@fabrikam.com", "cid@fabrikam.com"}

func TestInvitationsArePlannedFirst(t *testing.T) {
	p := openPost(t, sim.TenantOptions{InstantReplicas: true}, append(slices.Clone(three), "BOB@Fabrikam.com", "boss@contoso.onmicrosoft.com", "eve@rival.example", "mia@mail.example", "joe@mail.example")...)
	p.Tenant.SignUp(sim.Person{How: sim.Admin, Email: "Mia@mail.example"})
	p.Tenant.SignUp(sim.Person{How: sim.Guest, Email: "joe@mail.example"})
	out, errs := p.demand(1, p.args("--deny-domain=rival.example"), "line 2      planned    ann@fabrikam.com", "line 5      duplicate  BOB@Fabrikam.com  of line 3",
		"line 6      failed     boss@contoso.onmicrosoft.com  own-domain", "line 7      failed     eve@rival.example  domain", "line 8      exists     mia@mail.example",
		"joe@mail.example  invited before, and not accepted yet", "planned 3, exists 2, duplicate 1, failed 2. Nobody was invited: add --yes", "2 of 8 were not invited")
	if len(p.Tenant.Mails()) > 0 || strings.Contains(out+errs, "Log in") {
		t.Errorf("the plan did something:\n%s%s", out, errs)
	}
	if _, err := os.Stat(p.file + ".result.jsonl"); !os.IsNotExist(err) {
		t.Errorf("the plan made a result file: %v", err)
	}
	out, _ = p.demand(1, p.args("--allow-domain=fabrikam.com", "--json"))
	if strings.Contains(out, "@") || !strings.Contains(out, `"planned":3`) {
		t.Errorf("got %s", out)
	}
}

func TestInvitationsGoOut(t *testing.T) {
	p := openPost(t, sim.TenantOptions{}, three[0]+`,"Hello, ""Ann"",`+"\n"+`welcome",https://ann.example.com`, three[1], three[2])
	_, errs := p.demand(0, p.args("--yes", "--message=Welcome"), "for User.Invite.All.", "invited 3.", "stands in "+p.file+".result.jsonl")
	p.everyone(1, threeAddresses...)
	if strings.Contains(errs, "@") {
		t.Errorf("stderr names somebody: %s", errs)
	}
	mails := p.Tenant.Mails()
	if mails[0].Body != "Hello, \"Ann\",\nwelcome" || mails[1].Body != "Welcome" {
		t.Errorf("got %+v", mails)
	}
	if info, err := os.Stat(p.file + ".result.jsonl"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the result file is %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(p.file + ".result.jsonl")
	if err != nil || bytes.Contains(data, []byte("redeem")) || bytes.Count(data, []byte("\n")) != 6 {
		t.Errorf("the result file: %s, %v", data, err)
	}
	p.demand(0, p.args("--yes"), "invited 3.") // a second start has nothing to do, and nobody logs in
	p.everyone(1, threeAddresses...)
	if n := p.Entra.Counts()["POST /{tenant}/oauth2/v2.0/devicecode"]; n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestInvitationsWithoutMicrosoftsMail(t *testing.T) {
	p := openPost(t, sim.TenantOptions{InstantReplicas: true}, three...)
	p.demand(0, p.args("--yes", "--no-mail"), "invited 3.")
	p.everyone(0, threeAddresses...)
	for a, r := range p.results() {
		if !strings.HasPrefix(r.Redeem, "https://login.microsoftonline.com/redeem?") {
			t.Errorf("%s: got %+v", a, r)
		}
	}
	out, _ := p.demand(0, []string{"invite", "dan@fabrikam.com", "--redirect=https://app.example.com", "--no-mail", "--yes"}, "invited    dan@fabrikam.com", "/redeem?")
	if strings.Contains(out, "line ") {
		t.Errorf("got %s", out)
	}
	p.demand(0, []string{"invite", "dan@fabrikam.com", "--redirect=https://app.example.com", "--yes"}, "exists")
}

func TestWhatIsWrongWithAFileIsSaidAtOnce(t *testing.T) {
	p := openPost(t, sim.TenantOptions{})
	long := "email,name\nann+x@fabrikam.com,Ann\nbob@fabrikam.com,Bob, Dr.\n@x,Nobody\n\"cid\"@fabrikam.com,Cid\n,Dan\neve@fabrikam,Eve\n"
	tests := []struct {
		name, text string
		says       []string
	}{
		{"many", long, []string{"line 2: the e-mail address has a character", "line 3: has more fields than the header", "line 4: the e-mail address is not one", "line 5:", "line 6: the e-mail address is missing", "line 7: the e-mail address is not one"}},
		{"no header", "ann@fabrikam.com\n", []string{"line 1: column 1 of the header is none of email"}},
		{"nothing", "", []string{"line 1: wants a header"}},
		{"nobody", "email\n", []string{"names nobody"}},
		{"twice a column", "email,Email\n", []string{"is there twice"}},
		{"no addresses", "name\nAnn\n", []string{"the column email is missing"}},
		{"not UTF-8", "email,name\nann@fabrikam.com,J\xfcrgen\n", []string{"line 2: the file is not UTF-8"}},
		{"UTF-16", "\xff\xfee\x00m\x00", []string{"line 1: the file is not UTF-8"}},
		{"a redirection", "email,redirect\nann@fabrikam.com,http://app.example.com\n", []string{"line 2: the address to go to after accepting is no https:// URL"}},
	}
	for _, test := range tests {
		if err := os.WriteFile(p.file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs := p.demand(2, p.args("--yes"), test.says...)
		if strings.Contains(errs, "@fabrikam") {
			t.Errorf("%s: names somebody: %s", test.name, errs)
		}
	}
	p.write("email", "ann@fabrikam.com")
	p.demand(2, []string{"invite", "--csv", p.file}, "line 2: where the guest goes after accepting is missing")
	p.demand(2, []string{"invite", "--csv", p.file, "ann@fabrikam.com"}, "say whom to invite")
	p.demand(2, []string{"invite"}, "say whom to invite")
	p.demand(2, p.args("--no-mail", "--message=x", "--deny-domain=a b"), "--no-mail wants none", "is not a domain")
	p.demand(2, []string{"invite", "--csv", p.file + ".no", "--redirect=https://app.example.com"}, "read the file")
	if len(p.Tenant.Users()) > 0 {
		t.Error("somebody was invited")
	}
}

func TestAFileAsSpreadsheetsWriteIt(t *testing.T) {
	got, errs := readInvitees([]byte("\xef\xbb\xbfEmail;Name\r\n ann@fabrikam.com ;\"Ann; Dr.\"\r\n\r\nbob@fabrikam.com;\r\n"), invitee{Redirect: "https://app.example.com", Message: "Hi"})
	want := []invitee{{Line: 2, Address: "ann@fabrikam.com", Name: "Ann; Dr.", Message: "Hi", Redirect: "https://app.example.com"}, {Line: 4, Address: "bob@fabrikam.com", Message: "Hi", Redirect: "https://app.example.com"}}
	if diff := cmp.Diff(got, want); diff != "" || len(errs) > 0 {
		t.Errorf("got, want:\n%s\n%v", diff, errs)
	}
}

// The answer to an invitation is lost: nobody gets a second mail because of that.
func TestAnInvitationWhoseAnswerIsLost(t *testing.T) {
	tests := []struct {
		name  string
		fault sim.Fault
		more  []string
		code  int
		mails int
	}{
		{"after the effect", sim.Fault{After: true}, nil, 0, 1},
		{"after the effect, by an error", sim.Fault{After: true, Status: 503}, nil, 0, 1},
		{"after the effect, of all", sim.Fault{After: true, Times: -1}, nil, 0, 1},
		{"before the effect", sim.Fault{}, nil, 0, 1},
		{"after the effect, without Microsoft's mail", sim.Fault{After: true, Times: 2}, []string{"--no-mail"}, 0, 0},
		{"throttled for five minutes", sim.Fault{Status: 429, Header: http.Header{"Retry-After": {"300"}}}, nil, 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := openPost(t, sim.TenantOptions{}, three...)
			test.fault.Path = "/invitations"
			p.Tenant.Faults.Add(test.fault)
			begun := p.clock.Now()
			p.demand(test.code, p.args(append(test.more, "--yes")...), "invited 3.")
			p.everyone(test.mails, threeAddresses...)
			for a, r := range p.results() {
				if (r.Redeem == "") != (test.mails > 0) {
					t.Errorf("%s: got %+v", a, r)
				}
			}
			if took := p.clock.Now().Sub(begun); test.fault.Status == 429 && took.Minutes() < 5 {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Graph never answers: it ends, and a second start finds what has gone out.
func TestInvitationsThatGetNoAnswer(t *testing.T) {
	p := openPost(t, sim.TenantOptions{}, three...)
	p.Tenant.Faults.Add(sim.Fault{Path: "/invitations", Times: -1})
	p.demand(1, p.args("--yes"), "invitations get no answer", "run it again to finish")
	p.Tenant.Faults.Clear()
	p.demand(0, p.args("--yes"), "invited 3.")
	p.everyone(1, threeAddresses...)
}

// The command is killed at some point, its file perhaps torn, and started again.
func TestInvitationsGoOnAfterTheCommandWasKilled(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := range 3 {
			for _, torn := range []bool{false, true} {
				t.Run(fmt.Sprintf("at %d, after the effect %v, torn %v", at, after, torn), func(t *testing.T) {
					t.Parallel()
					p := openPost(t, sim.TenantOptions{InstantReplicas: torn}, three...)
					ctx, kill := context.WithCancel(t.Context())
					defer kill()
					p.Tenant.Faults.Add(sim.Fault{Path: "/invitations", Skip: at, After: after, Then: kill})
					var out bytes.Buffer
					if code := run(ctx, system{args: p.args("--yes"), getenv: p.getenv, stdout: &out, stderr: &out}); code != 1 {
						t.Fatalf("got %d, %s", code, out.String())
					}
					if torn {
						p.append(`{"tenant":"` + simTenant + `","line":2,"ema`)
					}
					p.demand(0, p.args("--yes"), "invited 3.")
					p.everyone(1, threeAddresses...)
					p.demand(0, p.args(), "invited 3.")
				})
			}
		}
	}
}

func (p post) append(text string) {
	p.t.Helper()
	f, err := os.OpenFile(p.file+".result.jsonl", os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	_ = f.Close()
}

// A file that says what cannot be is not guessed about: somebody could be invited twice.
func TestAResultFileThatIsDamaged(t *testing.T) {
	good := `{"tenant":"` + simTenant + `","email":"ann@fabrikam.com","state":"invited","at":"2026-01-02T03:04:05Z"}`
	tests := []struct {
		name, text string
		code       int
		says       string
	}{
		{"whole", good + "\n", 0, "invited 3."},
		{"without the last line's end", good, 0, "invited 3."},
		{"a half last line", good + "\n" + good[:40], 0, "invited 3."},
		{"a half line alone", good[:40], 0, "invited 3."},
		{"damaged in the middle", good[:40] + "\n" + good + "\n", 2, "line 1 is not one of a result file"},
		{"zeros", strings.Repeat("\x00", 100) + "\n", 2, "line 1 is not one"},
		{"another kind of file", "email\nann@fabrikam.com\n", 2, "line 1 is not one"},
		{"another tenant's", strings.ReplaceAll(good, simTenant, simGroup) + "\n", 2, "is about the tenant " + simGroup},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := openPost(t, sim.TenantOptions{}, three...)
			p.append(test.text)
			p.demand(test.code, p.args("--yes"), test.says)
			want := 3 - strings.Count(test.text+"\n", good+"\n")
			if test.code != 0 {
				want = 0
			}
			if got := len(p.Tenant.Mails()); got != want {
				t.Errorf("%d mails, want %d", got, want)
			}
			if test.code == 0 {
				p.demand(0, p.args(), "invited 3.") // what was written can be read
			}
		})
	}
}

func TestInvitationsThatAreNotAllowed(t *testing.T) {
	as := func(change func(*sim.Login)) func(post) {
		return func(p post) {
			l := simAdministrator
			change(&l)
			p.Entra.SetLogin(l)
		}
	}
	tests := []struct {
		name string
		o    sim.TenantOptions
		is   func(post)
		says string
	}{
		{"no consent", sim.TenantOptions{}, as(func(l *sim.Login) { l.Consent = nil }), "no-login"},
		{"another tenant's login", sim.TenantOptions{}, as(func(l *sim.Login) { l.Tenant = simGroup }), "the login is for the tenant " + simGroup},
		{"nobody may invite", sim.TenantOptions{InvitesFrom: "none"}, func(post) {}, "allowInvitesFrom"},
		{"no administrator of an external tenant", sim.TenantOptions{Type: sim.External}, as(func(l *sim.Login) { l.Roles = nil }), "Guest Inviter"},
		{"forbidden midway", sim.TenantOptions{}, func(p post) { p.Tenant.Faults.Add(sim.Fault{Path: "/invitations", Skip: 1, Status: 403}) }, "Guest Inviter"},
		{"the login ends midway", sim.TenantOptions{}, func(p post) {
			p.Tenant.Faults.Add(sim.Fault{Path: "/invitations", Skip: 1, Status: 401, Body: `{"error":{"code":"InvalidAuthenticationToken"}}`})
		}, "unauthorized"},
		{"the look-up fails", sim.TenantOptions{}, func(p post) { p.Tenant.Faults.Add(sim.Fault{Path: "/users", Skip: 2, Times: -1, Status: 403}) }, "forbidden"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := openPost(t, test.o, three...)
			test.is(p)
			p.demand(1, p.args("--yes"), test.says, "run it again to finish")
			if n := len(p.Tenant.Mails()); n > 1 {
				t.Errorf("%d mails", n)
			}
			p.Tenant.Faults.Clear()
			p.Entra.SetLogin(simAdministrator)
			if test.o.InvitesFrom == "" {
				p.demand(0, p.args("--yes"), "invited 3.")
				p.everyone(1, threeAddresses...)
			}
		})
	}
}

// Some addresses are refused by the service: the others are invited, and each that is not has a line.
func TestSomeInvitationsFail(t *testing.T) {
	p := openPost(t, sim.TenantOptions{BlockedDomains: []string{"rival.example"}}, three[0], "eve@rival.example", three[1], three[2])
	p.demand(1, p.args("--yes"), "line 3      failed     eve@rival.example  domain-blocked", "invited 3, failed 1.", "1 of 4 were not invited")
	p.everyone(1, threeAddresses...)
	out, _ := p.demand(1, p.args("--yes", "--json"))
	var got struct {
		Acted  bool
		Counts map[string]int
		Lines  []inviteOutcome
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || !got.Acted || got.Counts["invited"] != 3 || got.Counts["failed"] != 1 || len(got.Lines) != 4 || strings.Contains(out, "@") {
		t.Errorf("got %s, %v", out, err)
	}
}

// Who accepts an invitation goes the way of every sign-up.
func TestAnInvitedGuestIsBroughtToTheDestinations(t *testing.T) {
	p := openPost(t, sim.TenantOptions{InstantAudit: true, InstantReplicas: true, Attributes: []string{"stripeCustomerId", "salesforceId", "welcomeId", "marketingOptIn"}}, three[0])
	config, err := os.ReadFile("../signup-sync.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "signup-sync.yaml")
	if err := os.WriteFile(path, bytes.Replace(config, []byte("[selfService, emailVerified]"), []byte("[invitation]"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	p.demand(0, p.args(), "signups.origins has no invitation: who accepts is skipped.") // as the example's is
	p.settings["SIGNUP_SYNC_CONFIG"] = path
	if out, _ := p.demand(0, p.args("--yes"), "invited 1."); strings.Contains(out, "signups.origins") {
		t.Errorf("got %s", out)
	}
	id := p.Tenant.Invited("ann@fabrikam.com")
	p.Tenant.Redeem(id)
	a, err := openCommand(system{getenv: p.getenv, stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer a.ledger.Close()
	if _, err := a.syncNewUsers(t.Context(), functions.Invocation{}); err != nil {
		t.Fatal(err)
	}
	rows, err := a.ledger.Get(t.Context(), []signup.UserID{id})
	if err != nil || len(rows) != 1 || rows[0].Origin != signup.Invitation {
		t.Fatalf("got %+v, %v", rows, err)
	}
	if one, ok := rows[0].Association("billing"); !ok || one.State != signup.Associated {
		t.Errorf("got %+v", rows[0].Associations)
	}
	for _, suffix := range []string{"", "-wal"} {
		ledger, err := os.ReadFile(strings.TrimPrefix(p.settings["LEDGER"], "file:") + suffix)
		if err != nil && suffix == "" || bytes.Contains(ledger, []byte("fabrikam")) || bytes.Contains(ledger, []byte("ann")) {
			t.Errorf("the ledger%s names somebody, or cannot be read: %v", suffix, err)
		}
	}
}

// Two starts at once: what the second has not read it would take away, and invite anew.
func TestASecondStartWithTheSameFileIsRefused(t *testing.T) {
	p := openPost(t, sim.TenantOptions{}, three...)
	lock, err := lockResult(p.file + ".result.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	_, errs := p.demand(1, p.args("--yes"), "another invite is at work")
	if strings.Contains(errs, "Log in") || len(p.Tenant.Mails()) > 0 {
		t.Errorf("it began:\n%s", errs)
	}
	p.demand(0, p.args(), "planned 3.") // which writes nothing
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	held := false
	p.Tenant.Faults.Add(sim.Fault{Path: "/invitations", Skip: 2, After: true, Then: func() {
		again, err := lockResult(p.file + ".result.jsonl")
		if held = err != nil; !held {
			_ = again.Close()
		}
	}})
	p.demand(0, p.args("--yes"), "invited 3.")
	if !held {
		t.Error("the file is not locked while the last invitation goes out")
	}
	p.everyone(1, threeAddresses...)
	p.demand(0, p.args("--yes"), "invited 3.")
}

// Whose answer was lost by a process that died may have to be waited for; the others are not.
func TestWhoMayHaveToBeWaitedForComesLast(t *testing.T) {
	p := openPost(t, sim.TenantOptions{}, three...)
	p.append(`{"tenant":"` + simTenant + `","line":2,"email":"ann@fabrikam.com","state":"sending","at":"` + p.clock.Now().Format(time.RFC3339) + `"}` + "\n")
	p.demand(0, p.args("--yes"), "invited 3.")
	var order []string
	for _, m := range p.Tenant.Mails() {
		order = append(order, m.To)
	}
	if diff := cmp.Diff(order, []string{"bob@fabrikam.com", "cid@fabrikam.com", "ann@fabrikam.com"}); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
}

// What a file costs: two look-ups for each address and one for fifteen, and one call for each invitation.
func TestWhatInvitationsCost(t *testing.T) {
	var lines []string
	for i := range 150 {
		lines = append(lines, fmt.Sprintf("guest%d@fabrikam.com", i))
	}
	p := openPost(t, sim.TenantOptions{}, lines...)
	p.demand(0, p.args("--yes"), "invited 150.")
	want := map[string]int{"GET /v1.0/organization": 2, "GET /v1.0/users": 150/15 + 2*150, "POST /v1.0/invitations": 150}
	if diff := cmp.Diff(p.Tenant.Counts(), want); diff != "" {
		t.Errorf("calls (-got +want):\n%s", diff)
	}
}
