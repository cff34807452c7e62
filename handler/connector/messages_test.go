package connector_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// simIdentity is an identity that all simulated Azure services know.
type simIdentity struct {
	clock signup.Clock
	err   error // instead of a token

	mu     sync.Mutex
	scopes []string // that were asked for
}

func (i *simIdentity) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.scopes = append(i.scopes, o.Scopes...)
	expires := i.clock.Now().Add(time.Hour)
	return azcore.AccessToken{Token: tokenFor(strings.TrimSuffix(o.Scopes[0], "/.default"), i.clock), ExpiresOn: expires}, i.err
}

func tokenFor(resource string, clock signup.Clock) string {
	return sim.Token(sim.Claims{Audience: resource, Expires: clock.Now().Add(time.Hour).Unix()})
}

// foreign is a good token for another service.
func foreign(clock signup.Clock) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+tokenFor("https://graph.microsoft.com", clock))
	}
}

// broker is what the three simulated ones have in common.
type broker struct {
	kind     string
	settings func(root string) map[string]any
	handler  http.Handler
	faults   *sim.Faults
	events   func() []sim.CloudEvent // all that were taken, again and again the same ones too
	limit    int                     // of an event, in bytes
}

// system puts a broker to the test. Its accounts are distinct event ids, which is what a receiver has that takes each id
// once; no broker promises more than that a message arrives.
func (b broker) system(t testing.TB, clock *sim.Clock) *connectortest.System {
	g := &gate{next: b.handler}
	root, client := serve(t, g)
	log := &lockedBuffer{}
	c := open(t, b.kind, b.settings(root), connector.Env{
		HTTP: client, Token: &simIdentity{clock: clock}, Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	s := &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{strings.TrimPrefix(root, "https://"), "newcomers", queueKey, "eyJ"},
		Accounts: func(user signup.UserID) int {
			ids := map[string]bool{}
			for _, e := range b.events() {
				if e.Subject == string(user) {
					ids[e.ID] = true
				}
			}
			return len(ids)
		},
		State: func() string { return asJSON(b.events()) },
		Record: func(email, name string) map[string]any {
			r := map[string]any{"name": name}
			if email != "" {
				r["email"] = email
			}
			return r
		},
		Rejected: func(signup.UserID) map[string]any {
			return map[string]any{"bio": strings.Repeat("lovelace", b.limit/8)}
		},
		Stranger: func() string { return "ea1_" + strings.Repeat("9", 64) },
		Move:     func(signup.UserID, string) {},
	}
	overHTTP(s, b.faults, g, "POST", "GET", foreign(clock))
	return s
}
