package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// TestUndoAgainstASimulatedTenant lets people sign up, brings them everywhere, and takes their profiles back.
func TestUndoAgainstASimulatedTenant(t *testing.T) {
	const people = 20
	clock := signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: 100}
	dir := t.TempDir()
	world, err := openSimulation(t.Context(), dir, "127.0.0.1:0", 1, clock, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "file:"+filepath.Join(dir, "ledger.db"), "../signup-sync.yaml"
	settings["SIGNUP_SYNC_CLOCK"] = fmt.Sprintf("%s,100", clock.Start.Format(time.RFC3339))
	getenv := func(name string) string { return settings[name] }

	for _, p := range sim.Crowd(people, 1) {
		world.Tenant.SignUp(p)
	}
	created := world.Tenant.Users()
	renamed := settle(t, getenv, clock, people)
	written := world.Tenant.Users()

	undo := func(args ...string) (int, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), system{args: append([]string{"undo"}, args...), getenv: getenv, stdout: &stdout, stderr: &stderr})
		for _, p := range sim.Crowd(people, 1) {
			for _, text := range []string{p.Email, p.Surname, "@", "cus_", "evt_"} {
				if all := stdout.String() + stderr.String(); len(text) > 3 && strings.Contains(all, text) || strings.Contains(all, "@") {
					t.Fatalf("undo %s says %q:\n%s", args, text, all)
				}
			}
		}
		return code, stdout.String() + stderr.String()
	}
	if code, said := undo(); code != exitOK || !strings.Contains(said, "Nothing was changed: add --yes") || strings.Contains(said, " undone ") {
		t.Errorf("plan: got exit code %d\n%s", code, said)
	}
	if diff := cmp.Diff(written, world.Tenant.Users()); diff != "" {
		t.Errorf("the plan has changed the tenant:\n%s", diff)
	}
	stranger := "75b523ca-d064-4ddf-80af-87738f504026"
	if code, said := undo("--yes", stranger); code != exitFailed || !strings.Contains(said, stranger+"  absent") {
		t.Errorf("a stranger: got exit code %d\n%s", code, said)
	}

	var stdout bytes.Buffer
	code := run(t.Context(), system{args: []string{"undo", "--yes", "--json"}, getenv: getenv, stdout: &stdout, stderr: io.Discard})
	var report struct {
		Acted bool
		Users []struct {
			User         signup.UserID
			State        string
			Fields, Kept []string
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil || code != exitOK || !report.Acted {
		t.Fatalf("got exit code %d, %v\n%s", code, err, stdout.String())
	}
	undone := map[signup.UserID]bool{}
	for _, u := range report.Users {
		undone[u.User] = u.State == "undone" && len(u.Fields) > 0
		if wantKept := u.User == renamed; wantKept != (len(u.Kept) == 1 && u.Kept[0] == "displayName") && wantKept {
			t.Errorf("%s: kept %v", u.User, u.Kept)
		}
	}
	if len(undone) < people/2 || !undone[renamed] {
		t.Errorf("got %d users undone", len(undone))
	}
	for i, after := range world.Tenant.Users() {
		want := created[i].Properties
		given, _ := want["givenName"].(string)
		surname, _ := want["surname"].(string)
		switch {
		case after.ID == renamed:
			want["displayName"] = "Somebody Else"
		case undone[after.ID] && want["displayName"] == given+" "+surname: // no one can tell who wrote it
			want["displayName"] = "unknown"
		}
		if diff := cmp.Diff(want, after.Properties); diff != "" {
			t.Errorf("%s, %v: the record as it came into being, and now:\n%s", after.ID, undone[after.ID], diff)
		}
	}
	if code, said := undo("--yes"); code != exitOK || !strings.Contains(said, "There is nobody whose profile was written") {
		t.Errorf("once more: got exit code %d\n%s", code, said)
	}
	settle(t, getenv, clock, people)
	if after, _ := world.Tenant.User(renamed); !strings.HasPrefix(after.Properties["userPrincipalName"].(string), string(renamed)) {
		t.Error("a later run has written again")
	}
}

// settle runs the engine until everyone is settled, and gives one of those whose profile was written another name.
func settle(t *testing.T, getenv func(string) string, clock signup.ScaledClock, people int) (renamed signup.UserID) {
	t.Helper()
	a, err := openApp(getenv, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.ledger.Close()
	for settled, tries := 0, 0; settled < people; tries++ {
		if tries == 60 {
			t.Fatalf("%d of %d users are settled after an hour", settled, people)
		}
		if err := clock.Sleep(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := a.syncNewUsers(t.Context(), functions.Invocation{}); err != nil {
			t.Fatal(err)
		}
		settled = 0
		for row, err := range a.ledger.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if row.Due.IsZero() {
				settled++
			}
			if p, _ := row.Association(signup.Profile); p.State == signup.Associated {
				renamed = row.User
			}
		}
	}
	if renamed != "" {
		if err := a.tenant.Update(t.Context(), renamed, signup.Patch{DisplayName: "Somebody Else"}); err != nil {
			t.Fatal(err)
		}
	}
	return renamed
}

// An undo that could not begin, or that failed, says nothing that is not so.
func TestUndoThatFailsClaimsNothing(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "../signup-sync.yaml"
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, c := range map[string]struct {
		ctx  context.Context
		args []string
		want string
	}{
		"stopped":    {stopped, nil, ""},
		"a stranger": {t.Context(), []string{"75b523ca-d064-4ddf-80af-87738f504026"}, "absent 1."},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(c.ctx, system{args: append([]string{"undo", "--yes"}, c.args...), getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
			if said := stdout.String(); code != exitFailed || !strings.Contains(said, c.want) || strings.Contains(said, "nobody") || strings.Contains(said, "Later runs") {
				t.Errorf("got exit code %d and\n%s%s", code, said, stderr.String())
			}
		})
	}
}

func TestUndoIsRefused(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	bare := filepath.Join(t.TempDir(), "bare.yaml")
	if err := os.WriteFile(bare, []byte("destinations:\n  - name: welcome\n    connector: webhook\n    settings: { url: \"${WELCOME_URL}\", secret: \"${WELCOME_SECRET}\", allowPrivate: true }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config string
		args   []string
		want   string
	}{
		"an id that is none": {"local.yaml", []string{"75b523ca-d064-4ddf-80af-87738f504026", "jane"}, "user 2: object id has 4 characters"},
		"no profile section": {bare, nil, "no profile section"},
		"no configuration":   {"missing.yaml", nil, "missing.yaml"},
		"an unknown flag":    {"local.yaml", []string{"--user", "x"}, "unknown flag --user"},
	} {
		t.Run(name, func(t *testing.T) {
			settings := world.settings()
			settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", c.config
			var stderr bytes.Buffer
			s := system{args: append([]string{"undo", "--yes"}, c.args...), getenv: func(n string) string { return settings[n] }, stdout: io.Discard, stderr: &stderr}
			if code := run(t.Context(), s); code != exitRefused || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, stderr.String(), exitRefused, c.want)
			}
		})
	}
}
