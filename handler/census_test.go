package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/functions"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// TestCensusAndBackfillAgainstASimulatedTenant lets people sign up before the installation and after it, one of them
// without a trace in the log that is read, and finds and brings them all.
func TestCensusAndBackfillAgainstASimulatedTenant(t *testing.T) {
	t.Parallel()
	const rate = 200
	clock := signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: rate}
	dir := t.TempDir()
	world, err := openSimulation(t.Context(), dir, "127.0.0.1:0", 1, clock, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	config := filepath.Join(dir, "audit-alone.yaml")
	if err := os.WriteFile(config, []byte("sync: { overlap: 1m, firstLookBack: 1m, detectors: [audit] }\ndestinations:\n"+
		"  - name: welcome\n    connector: webhook\n    settings: { url: \"${WELCOME_URL}\", secret: \"${WELCOME_SECRET}\", allowPrivate: true }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "file:"+filepath.Join(dir, "ledger.db"), config
	settings["SIGNUP_SYNC_CLOCK"] = fmt.Sprintf("%s,%d", clock.Start.Format(time.RFC3339), rate)
	getenv := func(name string) string { return settings[name] }
	handler := func(args ...string) (code int, stdout, stderr string) {
		var out, err bytes.Buffer
		code = run(t.Context(), system{args: args, getenv: getenv, stdout: &out, stderr: &err})
		if all := out.String() + err.String(); strings.Contains(all, "@") {
			t.Fatalf("%s names somebody:\n%s", args, all)
		}
		return code, out.String(), err.String()
	}
	want := func(code int, says string, args ...string) {
		t.Helper()
		got, stdout, stderr := handler(args...)
		if got != code || !strings.Contains(strings.Join(strings.Fields(stdout+stderr), " "), says) {
			t.Errorf("%s: got exit code %d, want %d and %q:\n%s%s", args, got, code, says, stdout, stderr)
		}
	}
	pass := func(d time.Duration) {
		t.Helper()
		if err := clock.Sleep(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	a, err := openApp(getenv, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.ledger.Close()
	// runs has the timers fire each minute until so many users are in the ledger and nothing is due.
	runs := func(people int) {
		t.Helper()
		for rows, due := 0, 1; rows < people || due > 0; {
			if rows, due = 0, 0; clock.Now().Sub(clock.Start) > 3*time.Hour {
				t.Fatal("it does not settle")
			}
			pass(time.Minute)
			if _, err := a.syncNewUsers(t.Context(), functions.Invocation{}); err != nil {
				t.Fatal(err)
			}
			for row, err := range a.ledger.All(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if rows++; !row.Due.IsZero() {
					due++
				}
			}
		}
	}

	crowd := sim.Crowd(40, 1)
	signUp := func(p sim.Person, auditLag time.Duration) signup.UserID {
		p.How, p.AuditLag = sim.Email, &auditLag
		return world.Tenant.SignUp(p)
	}
	for i := range 5 {
		signUp(crowd[i], 0)
	}
	pass(20 * time.Minute)
	want(exitFailed, "no run of SyncNewUsers", "census")
	want(exitFailed, "no run of SyncNewUsers", "census", "--yes")
	want(exitFailed, "no run of SyncNewUsers", "backfill", "--since", "2020-01-31", "--yes")
	want(exitFailed, "no certificate yet", "census", "--last")
	runs(0)
	for i := 5; i < 8; i++ {
		signUp(crowd[i], 0)
	}
	lost := signUp(crowd[8], 1000*time.Hour)
	runs(3)
	pass(5 * time.Minute)
	runs(3)

	want(exitFailed, "missing 1 shown by no detector; --yes takes them in", "census")
	want(exitFailed, "Nothing was changed", "census")
	want(exitFailed, "no certificate yet", "census", "--last")
	want(exitFailed, string(lost), "census", "--yes")
	want(exitFailed, "1 users were missing from the ledger; they are taken in", "census", "--last")
	runs(4)
	want(exitOK, "The certificate is stored: nobody was missing.", "census", "--yes")
	code, stdout, _ := handler("census", "--last", "--json")
	var last pipeline.Census
	if err := json.Unmarshal([]byte(stdout), &last); err != nil || code != exitOK || last.Users != 9 || last.Before != 5 || last.Associated != 4 || last.CheckSum() != nil {
		t.Errorf("got exit code %d, %+v, %v", code, last, err)
	}
	timer, err := a.takeCensus(t.Context(), functions.Invocation{})
	if r := timer.(censusReport); err != nil || r.Idle == "" || r.GraphCalls != 0 || r.LedgerReads > 2 {
		t.Errorf("the timer: got %+v, %v; want it idle", r, err)
	}

	since := clock.Start.Add(-time.Second).Format(time.RFC3339)
	want(exitRefused, "it is in the future", "backfill", "--since", "2999-01-31")
	want(exitRefused, "is not a date", "backfill", "--since", "yesterday")
	want(exitRefused, "no tenant is older", "backfill", "--since", "1999-12-31")
	want(exitRefused, "--since", "backfill", "--yes")
	want(exitRefused, "leave out --yes", "census", "--yes", "--last")
	want(exitOK, "backfilled 5 older than the detectors' work; --yes takes them in", "backfill", "--since", since)
	want(exitOK, "before 5", "census")
	want(exitOK, "backfilled 5 older than the detectors' work; in the ledger now", "backfill", "--since", since, "--yes")
	runs(9)
	if n := len(world.Webhook.Deliveries()); n != 9 {
		t.Errorf("%d people were welcomed, want 9", n)
	}
	code, stdout, stderr := handler("census", "--yes", "--json")
	if err := json.Unmarshal([]byte(stdout), &last); err != nil || code != exitOK || last.Associated != 9 || last.Before != 0 {
		t.Errorf("got exit code %d, %+v, %v\n%s", code, last, err, stderr)
	}
}
