package main

import (
	"bytes"
	"strings"
	"testing"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestCheckAsksNobody(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"], settings["STRIPE_API_KEY"] = "memory", "../signup-sync.yaml", "sk_test_Another"
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), system{args: []string{"check"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
	if code != exitOK || !strings.Contains(stdout.String(), "../signup-sync.yaml is good: 3 destinations\n") || stderr.Len() > 0 {
		t.Errorf("got exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	if n := len(world.Tenant.Requests()) + len(world.Entra.Requests()) + len(world.Stripe.Calls()); n > 0 {
		t.Errorf("check has sent %d requests", n)
	}
}
