package sim_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

func TestWorldRoutes(t *testing.T) {
	r := withEntra(t)
	r.world.Vault = sim.NewKeyVault(sim.KeyVaultOptions{Clock: r.clock, Tenant: r.tenant.ID()})
	r.world.Stripe = sim.NewStripe(sim.StripeOptions{Clock: r.clock})
	r.world.Webhook = sim.NewWebhook(sim.WebhookOptions{Clock: r.clock})
	r.world.ServiceBus = sim.NewServiceBus(sim.ServiceBusOptions{Clock: r.clock})
	for path, want := range map[string]int{
		"/v1.0/users":              401,
		"/beta/auditLogs/signUps":  401,
		"/secrets/x?api-version=1": 401,
		"/v1/customers":            401,
		"/webhook":                 405,
		"/webhook/":                405,
		"/x/v2.0/.well-known/openid-configuration": 400,
		"/newcomers":          401, // a queue's description
		"/newcomers/messages": 401,
		"/":                   404,
		"/newcomers/nothing":  404,
	} {
		if a := r.get(path); a.status != want {
			t.Errorf("%s: got %d %s, want %d", path, a.status, a.raw, want)
		}
	}
	*r.world = sim.World{}
	for _, path := range []string{"/v1.0/users", "/secrets/x", "/v1/customers", "/webhook", "/x/v2.0/.well-known/openid-configuration", "/newcomers", "/newcomers/messages"} {
		if a := r.get(path); a.status != 404 {
			t.Errorf("%s of an empty world: got %d", path, a.status)
		}
	}
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := sim.Serve(ctx, "127.0.0.1:0", http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CA) {
		t.Fatal("no certificate in CA")
	}
	for _, host := range []string{"127.0.0.1", "localhost", "myvault.vault.azure.net", "login.microsoftonline.com", "graph.microsoft.com"} {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: host}}).DialContext(ctx, "tcp", s.Addr)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		c.Close()
	}
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	other, err := sim.Serve(ctx, "localhost:0", http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client().Get(other.URL); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("one server's authority is good for another: %v", err)
	}
	other.Close()
	if _, err := other.Client().Get(other.URL); err == nil {
		t.Error("answers after Close")
	}
	client := s.Client()
	cancel()
	for err == nil { // it closes at the end of its context, or this test does not end
		res, err = client.Get(s.URL)
		if err == nil {
			res.Body.Close()
		}
	}
	if _, err := sim.Serve(t.Context(), "0.0.0.0:0", http.NotFoundHandler()); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.NewClock(start)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		sleep := func(d time.Duration) {
			go func() { done <- c.Sleep(ctx, d) }()
			synctest.Wait()
		}
		sleep(2 * time.Second)
		c.Advance(2*time.Second - 1)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("woke early: %v", err)
		default:
		}
		c.Advance(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := c.Now(); !got.Equal(start.Add(2 * time.Second)) {
			t.Errorf("shows %v", got)
		}
		sleep(time.Hour)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCrowd(t *testing.T) {
	people := sim.Crowd(2000, 1)
	if diff := cmp.Diff(people, sim.Crowd(2000, 1)); diff != "" {
		t.Errorf("the same seed makes other people:\n%s", diff)
	}
	share, addresses, foreign, consent := map[string]float64{}, map[string]bool{}, false, 0
	for _, p := range people {
		kind := string(p.How)
		if p.How == sim.Email && p.GivenName == "" {
			kind = "nameless"
		}
		share[kind] += 100.0 / 2000
		addresses[p.Email] = true
		if _, host, _ := strings.Cut(p.Email, "@"); !strings.HasPrefix(host, "example.") {
			t.Errorf("address %s", p.Email)
		}
		foreign = foreign || strings.ContainsFunc(p.Surname, func(c rune) bool { return c > 0x2000 })
		if _, asked := p.Attributes["marketingOptIn"]; asked {
			consent++
		}
	}
	partners := map[sim.How]float64{}
	for _, p := range sim.Partners(2000, 1) {
		partners[p.How] += 100.0 / 2000
	}
	for how, want := range map[sim.How]float64{sim.EmailVerified: 40, sim.Guest: 30, sim.Requested: 20, sim.Admin: 10} {
		if got := partners[how]; got < want-3 || got > want+3 {
			t.Errorf("%.1f %% of a workforce tenant's are %s, want about %v", got, how, want)
		}
	}
	for kind, want := range map[string]float64{"email": 60, "nameless": 15, "social": 12, "admin": 4, "migration": 2, "guest": 7} {
		if got := share[kind]; got < want-3 || got > want+3 {
			t.Errorf("%.1f %% are %s, want about %v", got, kind, want)
		}
	}
	if len(addresses) != 2000 || !foreign || consent < 500 || consent > 1700 {
		t.Errorf("%d addresses, other scripts %v, %d asked for consent", len(addresses), foreign, consent)
	}
}
