package identity_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/identity"
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
