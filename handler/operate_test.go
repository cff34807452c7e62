package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// played is a simulated world in which people have signed up, and whose program commands may be run.
type played struct {
	*simulation
	t        *testing.T
	clock    signup.ScaledClock
	settings map[string]string
	crowd    []sim.Person
}

// openPlayed is such a world with the app's own signup-sync.yaml.
func openPlayed(t *testing.T, people int) *played {
	t.Helper()
	p := &played{t: t, clock: signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: 100}, crowd: sim.Crowd(people, 1)}
	dir := t.TempDir()
	var err error
	if p.simulation, err = openSimulation(t.Context(), dir, "127.0.0.1:0", 1, p.clock, sim.External); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.server.Close)
	p.settings = p.simulation.settings()
	p.settings["LEDGER"], p.settings["SIGNUP_SYNC_CONFIG"] = "file:"+filepath.Join(dir, "ledger.db"), "../signup-sync.yaml"
	p.settings["SIGNUP_SYNC_CLOCK"] = fmt.Sprintf("%s,100", p.clock.Start.Format(time.RFC3339))
	for _, one := range p.crowd {
		p.Tenant.SignUp(one)
	}
	return p
}

func (p *played) getenv(name string) string { return p.settings[name] }

// run runs a command, which never says who anybody is.
func (p *played) run(args ...string) (code int, stdout, all string) {
	p.t.Helper()
	var out, errs bytes.Buffer
	code = run(p.t.Context(), system{args: args, getenv: p.getenv, stdout: &out, stderr: &errs})
	all = out.String() + errs.String()
	for _, one := range p.crowd {
		for _, text := range []string{one.Email, one.Surname, "@"} {
			if len(text) > 3 && strings.Contains(all, text) || strings.Contains(all, "@") {
				p.t.Fatalf("%s says %q:\n%s", args, text, all)
			}
		}
	}
	return code, out.String(), all
}

// want demands an exit code, and that the command says all of these.
func (p *played) want(code int, args []string, says ...string) {
	p.t.Helper()
	got, _, said := p.run(args...)
	for _, text := range says {
		if !strings.Contains(said, text) {
			p.t.Errorf("%s does not say %q", args, text)
		}
	}
	if got != code || p.t.Failed() {
		p.t.Errorf("%s: got exit code %d, want %d, and\n%s", args, got, code, said)
	}
}

// rows is the ledger.
func (p *played) rows() map[signup.UserID]signup.Row {
	p.t.Helper()
	a, _, err := openForUsers(system{getenv: p.getenv, stderr: io.Discard}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer a.ledger.Close()
	rows := map[signup.UserID]signup.Row{}
	for row, err := range a.ledger.All(p.t.Context()) {
		if err != nil {
			p.t.Fatal(err)
		}
		rows[row.User] = row
	}
	return rows
}

// with returns the users whose association is so, sorted.
func (p *played) with(destination string, state signup.State) (users []signup.UserID) {
	p.t.Helper()
	for id, row := range p.rows() {
		if a, ok := row.Association(destination); ok && a.State == state {
			users = append(users, id)
		}
	}
	slices.Sort(users)
	return users
}

const stranger = "75b523ca-d064-4ddf-80af-87738f504026"

// TestOperatingASimulatedTenant goes the way of an operator: two people fail, why is explained, they are replayed, and
// one of them is forgotten.
func TestOperatingASimulatedTenant(t *testing.T) {
	const people = 12
	p := openPlayed(t, people)
	p.want(exitFailed, []string{"explain", stranger}, stranger+" is not in the ledger", "there was no run", "error: the user is not in the ledger")
	p.Stripe.Faults.Add(sim.Fault{Method: http.MethodPost, Path: "/v1/customers", Status: http.StatusPaymentRequired, Times: 2})
	settle(t, p.getenv, p.clock, people)
	failed := p.with("billing", signup.Failed)
	if len(failed) != 2 {
		t.Fatalf("got %d users failed", len(failed))
	}
	one, two := string(failed[0]), string(failed[1])

	p.want(exitOK, []string{"explain", strings.ToUpper(one)}, one+" is failed: rejected.", "selfService (userFlow), by creationType=", "first seen by ", "because: rejected",
		"customers", "because: needs, it needs an account", "(billing)", "handler replay --user "+one+" --destination billing --yes", ", account ")
	p.want(exitFailed, []string{"explain", stranger}, "is not in the ledger", "the user signed up before ", "audit has been read up to ", "directory has been read up to ", "handler census")
	var x pipeline.Explanation
	_, stdout, _ := p.run("explain", "--json", one)
	if err := json.Unmarshal([]byte(stdout), &x); err != nil || x.Row == nil || x.State != signup.Failed || string(x.User) != one || len(x.Detectors) != 2 {
		t.Errorf("got %+v, %v, of\n%s", x, err, stdout)
	}
	code, stdout, _ := p.run("explain", "--json", stranger)
	if x = (pipeline.Explanation{}); json.Unmarshal([]byte(stdout), &x) != nil || code != exitFailed || x.Row != nil || x.Since.IsZero() {
		t.Errorf("got exit code %d and\n%s", code, stdout)
	}

	chain := "planned   billing (failed: rejected), with customers (skipped: needs), profile (associated)"
	p.want(exitOK, []string{"replay"}, one+"  "+chain, two+"  "+chain, "customers     skipped: needs     2\n", "planned 2. Nothing was changed: add --yes to do it.")
	for _, args := range []string{"--older 240h", "--newer 1s", "--reason horizon", "--destination welcome"} {
		p.want(exitOK, append([]string{"replay"}, strings.Fields(args)...), "There is nothing to reopen")
	}
	p.want(exitOK, []string{"replay", "--state", "skipped", "--reason", "needs", "--destination", "customers"}, one+"  planned   customers (skipped: needs)\n", "planned 2.")
	if still := p.with("billing", signup.Failed); !slices.Equal(still, failed) {
		t.Errorf("the plan has changed %v to %v", failed, still)
	}
	p.want(exitFailed, []string{"replay", "--yes", "--user", stranger, "--user", one}, stranger+"  absent", one+"  reopened", "reopened 1, absent 1. The next run works", "1 users are not in the ledger; 'handler explain ID'")
	p.want(exitOK, []string{"explain", one}, one+" is pending.", "unsure", "due since ", "not tried since it was opened again or added", "waits for billing")
	var report struct {
		Acted  bool
		Users  []struct{ User, State string }
		Counts []replayCount
	}
	if code, stdout, _ := p.run("replay", "--yes", "--json"); code != exitOK || json.Unmarshal([]byte(stdout), &report) != nil || !report.Acted ||
		len(report.Users) != 1 || report.Users[0].User != two || report.Users[0].State != "reopened" ||
		!slices.Equal(report.Counts, []replayCount{{"billing", signup.Failed, "rejected", 1}, {"customers", signup.Skipped, "needs", 1}, {"profile", signup.Associated, "", 1}}) {
		t.Errorf("got exit code %d and\n%s", code, stdout)
	}
	p.want(exitOK, []string{"replay", "--yes"}, "There is nothing to reopen")
	settle(t, p.getenv, p.clock, people)
	for _, id := range failed {
		if row := p.rows()[id]; !slices.ContainsFunc(row.Associations, func(a signup.Association) bool { return a.Destination == "customers" && a.State == signup.Associated }) {
			t.Errorf("after the replay: %+v", row)
		}
	}
	customers := map[string]int{}
	for _, c := range p.Stripe.Customers() {
		customers[c.Metadata["entra_object_id"]]++
	}
	p.forget(one, len(p.Stripe.Customers()))
	settle(t, p.getenv, p.clock, people)
	if got, want := len(p.Stripe.Customers()), len(p.with("billing", signup.Associated))+1; got != want || len(customers) != want {
		t.Errorf("Stripe has %d customers, of %d users, want %d", got, len(customers), want)
	}
}

// forget forgets somebody and a stranger.
func (p *played) forget(one string, customers int) {
	p.t.Helper()
	p.want(exitOK, []string{"forget", one, stranger}, one+"  planned", stranger+"  planned    was not in the ledger", "planned 2. Nothing was changed: add --yes to do it.")
	p.want(exitOK, []string{"forget", "--yes", strings.ToUpper(one), stranger}, one+"  forgotten", "forgotten 2. No run touches them again. Their accounts")
	p.want(exitOK, []string{"forget", "--yes", one}, one+"  nothing    forgotten before", "nothing 1.")
	p.want(exitOK, []string{"explain", one}, one+" is forgotten since ", "No run touches the user")
	p.want(exitOK, []string{"replay", "--state", "associated", "--user", one, "--yes"}, one+"  forgotten\nforgotten 1.\n")
	p.want(exitOK, []string{"undo", "--yes", one}, "nothing 1.")
	if row := p.rows()[signup.UserID(one)]; len(row.Associations) > 0 || !row.At.IsZero() || row.Evidence != "" {
		p.t.Errorf("the ledger still has %+v", row)
	}
	if got := len(p.Stripe.Customers()); got != customers {
		p.t.Errorf("Stripe had %d customers and has %d", customers, got)
	}
}

func TestOperatingIsRefused(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	maps.Copy(settings, world.more())
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "local.yaml"
	for name, c := range map[string]struct {
		args string
		want string
	}{
		"replay, an unknown destination":    {"replay --destination crm2", "--destination crm2: local.yaml has no such destination; say one of billing, newsletter, crm, "},
		"replay, several things at once":    {"replay --user jane --user " + stranger + " --user x", "user 1: object id has 4 characters, want a GUID of 36\nerror: user 3: object id has 1"},
		"replay, an unknown state":          {"replay --state done", `--state must be one of "failed","skipped","pending","associated" but got "done"`},
		"replay, a reason that nobody has":  {"replay --state associated --reason rejected", "--reason: what is associated has none; leave it out"},
		"replay, an age that nobody has":    {"replay --older 2h --newer 1h", "nothing is older than 2h0m0s and newer than 1h0m0s"},
		"replay, an age of the future":      {"replay --older=-2h", "want a time above zero"},
		"replay, an age that is none":       {"replay --older 2x", "--older"},
		"replay, users by position":         {"replay " + stranger, "unexpected argument"},
		"forget nobody":                     {"forget --yes", "expected \"<user> ...\""},
		"forget, an id that is none":        {"forget --yes jane.doe@contoso.com", "user 1: object id has 20 characters"},
		"explain nobody":                    {"explain", "expected \"<user>\""},
		"explain an address":                {"explain jane.doe@contoso.com", "user 1: object id has 20 characters"},
		"explain, the object id of another": {"explain " + stranger + "0", "has 37 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), system{args: strings.Fields(c.args), getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
			if code != exitRefused || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, stderr.String(), exitRefused, c.want)
			}
			if strings.Contains(stdout.String()+stderr.String(), "jane.doe") {
				t.Errorf("it repeats the address:\n%s%s", stdout.String(), stderr.String())
			}
		})
	}
}

// On a terminal the share is drawn in place, and what stays is written over it; elsewhere lines come now and then.
func TestProgressShowsTheShare(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b, terminal: true}
	for done := range 3001 {
		p.part(done, 3000, "users")
		if done == 1200 {
			p.last = time.Time{}
			p.part(done, 3000, "users")
			p.say("one of them")
		}
	}
	p.done()
	for _, want := range []string{"\r\033[K[....................]    0 of 3000 users", "\r\033[K[########............] 1200 of 3000 users\r\033[Kone of them\n", "\r\033[K[####################] 3000 of 3000 users\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("does not show %q", want)
		}
	}
	if n := strings.Count(b.String(), "of 3000"); n > 100 || !strings.HasSuffix(b.String(), "users\n") {
		t.Errorf("drawn %d times: %q", n, b.String())
	}
	b.Reset()
	p.last = time.Time{}
	p.part(7, 0, "users")
	if p.done(); b.String() != "\r\033[K7 users\n" {
		t.Errorf("of an unknown total: got %q", b.String())
	}
	for _, share := range []struct {
		done, total int
		want        string
	}{{0, 1, "...................."}, {1, 1, "####################"}, {2999, 3000, "###################."}, {9, 3, "####################"}, {-1, 3, "...................."}} {
		if got := bar(share.done, share.total); got != "["+share.want+"]" {
			t.Errorf("%d of %d: got %s", share.done, share.total, got)
		}
	}

	b.Reset()
	p = newProgress(system{stdout: io.Discard, stderr: &b}, true)
	p.part(1, 3, "users")
	p.last = time.Now().Add(-time.Minute)
	p.part(2, 3, "users")
	p.part(3, 3, "users")
	if p.done(); b.String() != "2 of 3 users\n" {
		t.Errorf("without a terminal, beside JSON: got %q", b.String())
	}
}
