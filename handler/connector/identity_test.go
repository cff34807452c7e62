package connector_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/connector"
	who "signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestWithoutATokenNothingIsSent(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		want   signup.Class
		wait   time.Duration
		detail string
	}{
		{"not there", &signup.Error{Class: signup.Systemic, Code: "no-az", Detail: "the Azure CLI is not found"}, signup.Systemic, 0, "the Azure CLI is not found"},
		{"refused", &signup.Error{Class: signup.Systemic, Code: "no-identity", Status: 403, Detail: "it is refused"}, signup.Systemic, 0, "it is refused (HTTP 403)"},
		{"being changed", fmt.Errorf("x: %w", &signup.Error{Code: "no-identity", Status: 404, Detail: "it gives no token"}), signup.Transient, 0, "it gives no token (HTTP 404)"},
		{"throttled", &signup.Error{Class: signup.Throttled, Status: 429, Detail: "it gives no token", RetryAfter: time.Minute}, signup.Throttled, time.Minute, "it gives no token (HTTP 429)"},
		{"anything", errors.New("secret"), signup.Transient, 0, "the app's Azure identity gives no token"},
	}
	for _, tt := range tests {
		calls := 0
		all, id := brokers(t, func(http.ResponseWriter, *http.Request) { calls++ })
		id.err = tt.err
		for kind, c := range all {
			e := call(t, c, ada)
			if e.Class != tt.want || e.Code != "no-token" || e.Detail != tt.detail || e.Status != 0 || e.RetryAfter != tt.wait || e.Err != nil || calls != 0 {
				t.Errorf("%s, %s: got %s, %v after %d calls", tt.name, kind, e.Class, e, calls)
			}
			if e, ok := errors.AsType[*signup.Error](c.Check(t.Context())); !ok || e.Class != tt.want || calls != 0 {
				t.Errorf("%s, %s: check: %v", tt.name, kind, e)
			}
		}
	}
}

func TestAnAppWithoutAnIdentityIsTold(t *testing.T) {
	for kind, settings := range map[string]map[string]any{
		"eventGrid":    {"url": "https://127.0.0.1:1"},
		"serviceBus":   {"url": "https://127.0.0.1:1", "entity": "newcomers"},
		"storageQueue": {"url": "https://127.0.0.1:1", "queue": "newcomers"},
	} {
		e := call(t, open(t, kind, settings, connector.Env{}), ada)
		if e.Class != signup.Systemic || e.Code != "no-token" || !strings.Contains(e.Detail, "managed identity") {
			t.Errorf("%s: got %s, %v", kind, e.Class, e)
		}
	}
}

// patient is a credential that waits for the caller to give up.
type patient struct{ called chan struct{} }

func (p patient) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	close(p.called)
	<-ctx.Done()
	return azcore.AccessToken{}, errors.New("given up") // which does not unwrap to the cause
}

func TestACredentialThatNeverAnswersIsTransient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, "eventGrid", map[string]any{"url": "https://127.0.0.1:1"}, connector.Env{Token: patient{make(chan struct{})}})
		if e := call(t, c, ada); e.Class != signup.Transient || e.Code != "no-token" {
			t.Errorf("got %s, %v", e.Class, e)
		}
	})
}

func TestCancelledWhileWaitingForAToken(t *testing.T) {
	for kind, settings := range map[string]map[string]any{
		"eventGrid":    {"url": "https://127.0.0.1:1"},
		"serviceBus":   {"url": "https://127.0.0.1:1", "entity": "newcomers"},
		"storageQueue": {"url": "https://127.0.0.1:1", "queue": "newcomers"},
	} {
		p := patient{make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-p.called
			cancel()
		}()
		_, err := open(t, kind, settings, connector.Env{Token: p}).Associate(ctx, ada)
		if e, ok := errors.AsType[*signup.Error](err); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, %v", kind, err, e)
		}
	}
}

// managed is the real credential of a Function App, with the simulated endpoint. Its tokens are kept for the whole
// process, so that every test has an identity of its own.
func managed(t *testing.T, there *sim.Identity, header, clientID string) azcore.TokenCredential {
	t.Helper()
	root, client := serve(t, there)
	t.Setenv("IDENTITY_ENDPOINT", root+"/msi/token/")
	t.Setenv("IDENTITY_HEADER", header)
	c, err := who.OpenOwn(true, clientID, client)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheManagedIdentityOpensEveryService(t *testing.T) {
	const header, client = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a", "11111111-5eed-4000-8000-0000000000aa"
	clock := signup.ScaledClock{} // the real credential goes by the machine's
	identities := sim.NewIdentity(sim.IdentityOptions{Clock: clock, Header: header, ClientID: client})
	credential := managed(t, identities, header, client)
	bus := sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{"newcomers"}})
	grid := sim.NewEventGrid(sim.EventGridOptions{Clock: clock})
	queue := sim.NewStorageQueue(sim.StorageQueueOptions{Clock: clock, Queues: []string{"newcomers"}})
	for _, tt := range []struct {
		kind     string
		there    http.Handler
		settings map[string]any
		taken    func() int
	}{
		{"serviceBus", bus, map[string]any{"entity": "newcomers"}, func() int { return len(bus.Messages()) }},
		{"eventGrid", grid, map[string]any{}, func() int { return len(grid.Events()) }},
		{"storageQueue", queue, map[string]any{"queue": "newcomers"}, func() int { return len(queue.Messages()) }},
	} {
		root, hc := serve(t, tt.there)
		tt.settings["url"] = root
		c := open(t, tt.kind, tt.settings, connector.Env{HTTP: hc, Token: credential, Clock: clock})
		for _, req := range readers(2, func(int) int { return 1 }) {
			if _, err := c.Associate(t.Context(), req); err != nil {
				t.Errorf("%s: %v", tt.kind, err)
			}
		}
		if err := c.Check(t.Context()); err != nil || tt.taken() != 2 {
			t.Errorf("%s: %d taken, check: %v", tt.kind, tt.taken(), err)
		}
	}
	var asked []string
	for _, r := range identities.Requests() {
		asked = append(asked, r.URL)
	}
	const each = "/msi/token/?api-version=2019-08-01&client_id=" + client + "&resource=https%3A%2F%2F"
	want := each + "servicebus.azure.net%2F " + each + "eventgrid.azure.net " + each + "storage.azure.com"
	if got := strings.Join(asked, " "); got != want {
		t.Errorf("asked for %s\nwant one token a service: %s", got, want)
	}
}

func TestTheManagedIdentityIsRefused(t *testing.T) {
	const header = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"
	there := sim.NewIdentity(sim.IdentityOptions{Header: header})
	tests := []struct {
		header, client string
		fault          *sim.Fault
		class          signup.Class
		status         int
	}{
		{header, "22222222-5eed-4000-8000-0000000000bb", nil, signup.Systemic, 400}, // not assigned
		{"other", "", nil, signup.Systemic, 401},
		{header, "", &sim.Fault{Times: -1, Status: 503}, signup.Transient, 503},
		{header, "", &sim.Fault{Times: -1}, signup.Transient, 0}, // cut
		{header, "", &sim.Fault{Times: -1, Status: 200, Body: "<html>sign in</html>"}, signup.Transient, 0},
	}
	for _, tt := range tests {
		if tt.fault != nil {
			there.Faults.Add(*tt.fault)
		}
		c := open(t, "eventGrid", map[string]any{"url": "https://127.0.0.1:1"},
			connector.Env{Token: managed(t, there, tt.header, tt.client), Clock: sim.NewClock(time.Now())})
		if e := call(t, c, ada); e.Class != tt.class || e.Code != "no-token" || e.Status != 0 || tt.status != 0 && !strings.HasSuffix(e.Detail, fmt.Sprintf("(HTTP %d)", tt.status)) {
			t.Errorf("%+v: got %s, %v", tt, e.Class, e)
		}
		there.Faults.Clear()
	}
}
