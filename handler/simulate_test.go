package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// In `handler sim` the doctor has nothing to say of the app's permissions: they are the least for signup-sync.yaml.
func TestTheSimulatedAppHasTheLeastPermissions(t *testing.T) {
	data, err := os.ReadFile("../signup-sync.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checks := newConnectorChecks()
	config, err := parseConfig("signup-sync.yaml", data, func(string) string { return standIn }, connectorChecks{Kinds: checks.Kinds, Record: checks.Record})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range entra.Least(needsOf(config)) {
		want = append(want, p.Name)
	}
	slices.Sort(want)
	if diff := cmp.Diff(slices.Sorted(slices.Values(simRoles)), want); diff != "" {
		t.Errorf("roles (-got +want):\n%s", diff)
	}
}

func TestTheSimulatedTenantIsAnExternalOne(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	token := sim.Token(sim.Claims{Audience: "https://graph.microsoft.com", Tenant: simTenant, Roles: []string{"Organization.Read.All", "EventListener.Read.All"},
		Expires: time.Now().Add(time.Hour).Unix()})
	for path, want := range map[string]string{"/organization": `"tenantType":"CIAM"`, "/identity/authenticationEventsFlows": world.Tenant.Extension("marketingOptIn")} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", world.server.URL+"/v1.0"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := world.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if !strings.Contains(body.String(), want) {
			t.Errorf("%s: got %s", path, body.String())
		}
	}
}

// Of a flag the tenant says that it is one before anybody has been asked, in a tenant without user flows too.
func TestTheSimulatedAttributesHaveTheirTypes(t *testing.T) {
	for _, kind := range []sim.TenantType{sim.External, sim.Workforce} {
		world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, kind)
		if err != nil {
			t.Fatal(err)
		}
		defer world.server.Close()
		settings := world.settings()
		settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "../signup-sync.yaml"
		a, err := openApp(func(name string) string { return settings[name] }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		types, err := a.tenant.AttributeTypes(t.Context())
		if err != nil || types["marketingOptIn"] != signup.BoolType || types["stripeCustomerId"] != signup.StringType {
			t.Errorf("%s: got %v, %v", kind, types, err)
		}
	}
}

// The command itself gives the app no more.
func TestSimServesWithTheLeastPermissions(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	dir := t.TempDir()
	out := &firstLine{seen: make(chan string, 1)}
	done := make(chan int)
	go func() {
		done <- run(ctx, system{args: []string{"sim", "--listen", "127.0.0.1:0", "--dir", dir}, getenv: func(string) string { return "" }, stdout: out, stderr: out})
	}()
	line := <-out.seen
	_, address, _ := strings.Cut(line, "https://")
	address, _, _ = strings.Cut(address, ";")
	settings := (&simulation{server: &sim.Server{URL: "https://" + address}, dir: dir}).settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "../signup-sync.yaml"
	a, err := openApp(func(name string) string { return settings[name] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	grant, err := a.tenant.Grant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(grant.Roles, slices.Sorted(slices.Values(simRoles))); diff != "" {
		t.Errorf("roles (-got +want):\n%s", diff)
	}
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("got exit code %d", code)
	}
}

// Who is invited by `invite` against the simulation accepts after a while, and goes the way of every sign-up.
func TestGuestsOfTheSimulationAccept(t *testing.T) {
	for _, kind := range []string{"external", "workforce"} {
		ctx, stop := context.WithCancel(t.Context())
		dir, done := t.TempDir(), make(chan int)
		r, w := io.Pipe()
		go func() {
			done <- run(ctx, system{args: []string{"sim", "--listen", "127.0.0.1:0", "--dir", dir, "--every", "5ms", "--seed", "1", "--tenant", kind}, getenv: func(string) string { return "" }, stdout: w, stderr: w})
			w.Close()
		}()
		came, lines := map[string]string{}, bufio.NewScanner(r)
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			if len(words) != 3 {
				continue
			}
			if words[1] == "accepted" {
				if how := came[words[2]]; how != "guest" && how != "requested" {
					t.Errorf("%s: who came by %q accepts", kind, how)
				}
				break
			}
			if came[words[2]] = words[1]; len(came) == 500 {
				t.Errorf("%s: of %d people nobody has accepted", kind, len(came))
				break
			}
		}
		stop()
		go func() { _, _ = io.Copy(io.Discard, r) }()
		if code := <-done; code != exitOK {
			t.Errorf("%s: got exit code %d, and %d people", kind, code, len(came))
		}
	}
}

// firstLine hands on the first thing that is written.
type firstLine struct{ seen chan string }

func (f *firstLine) Write(p []byte) (int, error) {
	select {
	case f.seen <- string(p):
	default:
	}
	return len(p), nil
}
