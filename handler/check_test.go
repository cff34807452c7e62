package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestCheckOnlineAsksEveryone(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "../signup-sync.yaml"
	check := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), system{args: append([]string{"check"}, args...), getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
		return code, stdout.String(), stderr.String()
	}
	if code, out, errs := check("--online"); code != exitOK || strings.Count(out, " works\n") != 4 || errs != "" {
		t.Errorf("got exit code %d\n%s%s", code, out, errs)
	}
	calls := len(world.Tenant.Requests())
	settings["STRIPE_API_KEY"] = "sk_test_Another"
	if code, out, errs := check(); code != exitOK || strings.Contains(out, "work") || errs != "" || len(world.Tenant.Requests()) != calls {
		t.Errorf("offline: got exit code %d\n%s%s", code, out, errs)
	}
	code, out, errs := check("--online")
	if code != exitFailed || strings.Count(out, " works\n") != 3 || !strings.Contains(out, "billing              stripe       live     does not work\n") ||
		!strings.HasPrefix(errs, "error: billing: list customers: unauthorized (HTTP 401)") || strings.Contains(out+errs, "Another") {
		t.Errorf("got exit code %d\n%s%s", code, out, errs)
	}
	var object struct {
		Good   bool
		Errors []string
		Checks []struct {
			Name   string
			Works  bool
			Errors []string
		}
	}
	code, out, _ = check("--online", "--json")
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exitFailed || object.Good || len(object.Errors) != 1 || len(object.Checks) != 4 ||
		object.Checks[0].Name != "tenant" || !object.Checks[0].Works || object.Checks[1].Works || len(object.Checks[1].Errors) != 1 {
		t.Errorf("--json: got exit code %d, %v\n%s", code, err, out)
	}
}

// TestCheckOnlineSaysWhatKeepsBirthrightsFromWorking is for what only the tenant knows.
func TestCheckOnlineSaysWhatKeepsBirthrightsFromWorking(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	world.Tenant = sim.NewTenant(sim.TenantOptions{ID: simTenant, Groups: []sim.Group{{ID: staffGroup, Kind: sim.DynamicGroup}}})
	world.Entra.SetApp(sim.App{ID: simClient, Secret: simSecret, Roles: []string{"User.ReadWrite.All", "GroupMember.ReadWrite.All"}})
	config := filepath.Join(t.TempDir(), "signup-sync.yaml")
	file := fmt.Sprintf("destinations:\n  - name: staff\n    connector: group\n    settings: { groups: [%s, %s] }\n  - name: pack\n    connector: accessPackage\n    settings: { accessPackage: %s, policy: %s }\n",
		staffGroup, readersGroup, aPackage, aPolicy)
	if err := os.WriteFile(config, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", config
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), system{args: []string{"check", "--online"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if code != exitFailed || len(lines) != 3 || !strings.Contains(lines[0], "staff: group-unsuitable: settings.groups: the group "+staffGroup) ||
		!strings.Contains(lines[1], "staff: group-missing") || !strings.Contains(lines[2], "pack: no-entitlement-management") {
		t.Errorf("got exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
}
