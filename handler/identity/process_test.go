package identity_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/identity"
	"signup-sync/handler/sim"
)

// late lets every request wait first.
type late struct {
	inner http.RoundTripper
	by    func(*http.Request) time.Duration

	mu    sync.Mutex
	paths []string
}

func (l *late) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	l.paths = append(l.paths, r.Method+" "+r.URL.Path)
	l.mu.Unlock()
	select {
	case <-time.After(l.by(r)):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return l.inner.RoundTrip(r)
}

// delay puts the time that by says before every request from now on.
func (w *world) delay(by func(*http.Request) time.Duration) *late {
	l := &late{inner: w.client.Transport, by: by}
	w.client = &http.Client{Transport: l}
	return l
}

// A Function App's process lives for minutes, so that for as long as the app registration does not know the newest versions
// every run may begin like this.
func TestAFreshProcessHasATokenSoonAfterTwoRefusedVersions(t *testing.T) {
	for name, test := range map[string]struct {
		inVault bool
		calls   int
	}{"exportable": {false, 11}, "in the vault": {true, 19}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				inVault := test.inVault
				_, cert := w.add(0, 300*day, inVault)
				w.register(cert)
				w.add(1, 300*day, inVault)
				w.add(2, 300*day, inVault)
				calls := w.delay(func(*http.Request) time.Duration { return time.Second })
				before := time.Now()
				w.token(w.open(""))
				if d := time.Since(before); len(calls.paths) != test.calls || d > 20*time.Second {
					t.Errorf("with a second for each call it took %v:\n%s", d, strings.Join(calls.paths, "\n"))
				}
			})
		})
	}
}

// The n-th call hangs, and all that follow do, for ten minutes: to the vault, to the token endpoint, with one version and the next.
func TestAHangInAnyCallHoldsNobodyAndPasses(t *testing.T) {
	for name, inVault := range map[string]bool{"exportable": false, "in the vault": true} {
		for n := range 14 {
			t.Run(fmt.Sprintf("%s, call %d", name, n), func(t *testing.T) {
				inBubble(t, func(t *testing.T, w world) {
					over := time.Now().Add(10 * time.Minute)
					calls := w.delay(func(*http.Request) time.Duration { return 0 })
					calls.by = func(*http.Request) time.Duration {
						if len(calls.paths) > n {
							return time.Until(over)
						}
						return 0
					}
					_, cert := w.add(0, 300*day, inVault)
					w.register(cert)
					w.add(1, 300*day, inVault)
					c := w.open("")
					for _, patience := range []time.Duration{3 * time.Second, 3 * time.Second, time.Hour} {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						before := time.Now()
						_, _ = c.GetToken(ctx, graphToken)
						cancel()
						if d := time.Since(before); d > min(patience, 30*time.Second) {
							t.Errorf("with %v it took %v", patience, d)
						}
					}
					time.Sleep(time.Until(over) + time.Minute)
					w.token(c)
				})
			})
		}
	}
}

// A run begins every minute. What failed for the last one, however long that took, is tried again for the next.
func TestEveryRunAsksForItself(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, cert := w.add(0, 300*day, false)
		w.register(cert)
		calls := w.delay(func(*http.Request) time.Duration { return 100 * day })
		c := w.open("")
		begun := time.Now()
		for run := range 20 {
			time.Sleep(time.Until(begun.Add(time.Duration(run) * time.Minute)))
			before := len(calls.paths)
			failure(t, c)
			if len(calls.paths) == before {
				t.Errorf("run %d has asked nobody", run)
			}
		}
	})
}

// An upload is known to one replica of Entra and not yet to the next: whoever answers, there is a token.
func TestReplicasThatDoNotAgreeCostNoToken(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, first := w.add(0, 300*day, true)
		w.register(first)
		registered, asked := [][]*x509.Certificate{{first}}, 0
		w.delay(func(r *http.Request) time.Duration {
			if strings.HasSuffix(r.URL.Path, "/token") {
				w.register(registered[asked%len(registered)]...)
				asked++
			}
			return 0
		})
		c := w.open("")
		w.token(c)
		_, second := w.add(1, 300*day, true)
		registered = [][]*x509.Certificate{{first}, {first}, {first, second}}
		for range 12 {
			w.next(c)
		}
		if got := w.logged(); got[fellBack] > 1 || got[changed] > 12 {
			t.Errorf("logged %v", got)
		}
		if asked > 30 { // a version that is refused costs one
			t.Errorf("got %d token requests", asked)
		}
	})
}

// When a token is revoked all calls on their way with it are challenged, one after the other; each asks with the same claims.
func TestOneRevocationIsOneRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		c := w.open(identity.Secret)
		first := w.token(c)
		challenged := graphToken
		challenged.Claims = `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
		ask := func(want int) {
			t.Helper()
			if token, err := c.GetToken(t.Context(), challenged); err != nil || token.Token == first.Token || w.count() != want {
				t.Errorf("got %v after %d token requests, want another token and %d", err, w.count(), want)
			}
		}
		time.Sleep(time.Second) // by which the tokens differ
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			ask(2)
		}
		time.Sleep(time.Minute)
		ask(3) // it is refused still
		challenged.Claims = `{"access_token":{"nbf":{"essential":true,"value":"2"}}}`
		ask(4)
	})
}

// issue lets the endpoint give tokens of this life, in seconds; refresh is when it wants them to be renewed, 0 = it does not say.
func (w world) issue(life, refresh int) {
	body := fmt.Sprintf(`{"token_type":"Bearer","expires_in":%d,"access_token":"t"}`, life)
	if refresh > 0 {
		body = fmt.Sprintf(`{"token_type":"Bearer","expires_in":%d,"refresh_in":%d,"access_token":"t"}`, life, refresh)
	}
	w.entra.Faults.Add(sim.Fault{Path: "/token", Times: -1, Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
}

func TestWhenATokenIsRenewed(t *testing.T) {
	for name, test := range map[string]struct {
		life, refresh int
		calls, want   int // calls in so many minutes, and the token requests then
	}{
		"where the endpoint wants it":                       {86400, 43200, 13 * 60, 2},
		"shortly before its end":                            {86400, 0, 13 * 60, 1},
		"once a minute, if it is too short for the library": {250, 0, 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				w.issue(test.life, test.refresh)
				c := w.open(identity.Secret)
				for range test.calls {
					together(8, func() { w.token(c) })
					time.Sleep(30 * time.Second)
					w.token(c)
					time.Sleep(30 * time.Second)
				}
				if n := w.count(); n != test.want {
					t.Errorf("got %d token requests, want %d", n, test.want)
				}
			})
		})
	}
}

func TestHowLongAnEndpointIsLeftAlone(t *testing.T) {
	for name, test := range map[string]struct {
		fault sim.Fault
		want  time.Duration
	}{
		"it wants an hour":           {sim.Fault{Path: "/token", Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, 10 * time.Minute},
		"it sees a loop of requests": {refuse(400, 50196), 5 * time.Minute},
		"it throttles the tenant":    {refuse(400, 90055), time.Minute},
		"it says nothing":            {refuse(400, 999999), 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				w.entra.Faults.Add(test.fault)
				c := w.open(identity.Secret)
				failure(t, c)
				w.entra.Faults.Clear()
				time.Sleep(test.want - time.Second)
				failure(t, c)
				time.Sleep(time.Second)
				w.token(c)
			})
		})
	}
}

// The doctor is asked when somebody has just changed something.
func TestTheStatusIsThatOfTheVaultNow(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, cert := w.add(0, 300*day, false)
		w.register(cert)
		c := w.open("")
		w.token(c)
		w.add(1, 300*day, false)
		time.Sleep(time.Minute)
		if all, err := c.Certificates(t.Context()); err != nil || len(all) != 2 {
			t.Errorf("got %+v, %v", all, err)
		}
	})
}
