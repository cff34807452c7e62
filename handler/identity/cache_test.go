package identity_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// together calls f so many times at once and waits for all.
func together(n int, f func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
}

func TestManyCallersMakeOneRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.entra.Faults.Add(sim.Fault{Path: "/token", Skip: 1, Times: -1})
		c := w.open(identity.Secret)
		together(64, func() { w.token(c) })
		if n, _ := w.asked(); n != 1 {
			t.Errorf("got %d token requests, want 1", n)
		}
	})
}

func TestATokenIsRenewedAheadAndNobodyWaitsForIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		c := w.open(identity.Secret)
		first := w.token(c)
		time.Sleep(55 * time.Minute)
		if w.token(c); w.count() != 1 {
			t.Errorf("renewed %v before its end", time.Until(first.ExpiresOn))
		}
		time.Sleep(time.Minute)
		w.entra.Faults.Add(sim.Fault{Path: "/token", Delay: 4 * time.Second, Status: 500})
		before := time.Now()
		together(64, func() {
			if w.token(c).Token != first.Token {
				t.Error("got another token")
			}
		})
		if d := time.Since(before); d > 0 {
			t.Errorf("callers with a good token waited for %v", d)
		}
		time.Sleep(30 * time.Second)
		second := w.token(c)
		if second.Token == first.Token {
			t.Error("the token was not renewed ahead")
		}
		if n := w.count(); n != 3 { // the first, the one that failed, and the library's second try
			t.Errorf("got %d token requests, want 3", n)
		}
	})
}

func (w world) count() int {
	n, _ := w.asked()
	return n
}

func TestADeadEndpointFailsNobodyWhileTheTokenIsGood(t *testing.T) {
	for name, fault := range map[string]sim.Fault{
		"cut":       {Times: -1},
		"hanging":   {Times: -1, Delay: 24 * time.Hour},
		"throttled": {Times: -1, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"120"}}},
		"refusing":  refuse(401, 7000222),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				c := w.open(identity.Secret)
				first := w.token(c)
				w.entra.Faults.Add(fault)
				for time.Until(first.ExpiresOn) > 31*time.Second {
					before := time.Now()
					if w.token(c).Token != first.Token || time.Since(before) > 0 {
						t.Fatalf("%v before its end: another token, after %v", time.Until(first.ExpiresOn), time.Since(before))
					}
					time.Sleep(time.Second)
				}
				if n := w.count(); n > 40 { // the library tries thrice each time
					t.Errorf("got %d token requests, want pauses between them", n)
				}
				time.Sleep(2 * time.Second)
				before := time.Now()
				failure(t, c)
				if d := time.Since(before); d > 30*time.Second {
					t.Errorf("it took %v to fail", d)
				}
				w.entra.Faults.Clear()
				time.Sleep(2 * time.Minute)
				w.token(c)
			})
		})
	}
}

func TestAHangingEndpointHoldsNobodyBeyondItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.entra.Faults.Add(sim.Fault{Path: "/token", Times: 2, Delay: time.Hour}) // the library's third try comes through
		c := w.open(identity.Secret)
		begun := time.Now()
		var wg sync.WaitGroup
		for _, patience := range []time.Duration{100 * time.Millisecond, 2 * time.Second} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := c.GetToken(ctx, graphToken)
				if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Transient || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(begun); d != patience {
					t.Errorf("it took %v, want %v", d, patience)
				}
			})
			synctest.Wait()
		}
		// Those who have asked first have given up long since, and that is not this caller's loss.
		wg.Go(func() { w.token(c) })
		wg.Wait()
		if n := w.count(); n != 3 {
			t.Errorf("got %d token requests, want 3", n)
		}
	})
}

// hanging is an identity that does not answer while anybody waits for it.
type hanging struct{}

func (hanging) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	<-ctx.Done()
	return azcore.AccessToken{}, ctx.Err()
}

func TestARenewalEndsAlsoWhereNobodyGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		o := w.options(identity.Federated)
		o.Identity = hanging{}
		before := time.Now()
		if e := failure(t, open(t, o)); e.Class != signup.Transient || time.Since(before) > 30*time.Second {
			t.Errorf("got %v after %v", e, time.Since(before))
		}
	})
}

func TestAFailureIsNotRepeatedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.entra.Faults.Add(refuse(401, 7000222))
		c := w.open(identity.Secret)
		for range 60 {
			together(8, func() { failure(t, c) })
			time.Sleep(time.Second)
		}
		if n := w.count(); n < 4 || n > 5 { // after 5 and 10 s, and then every 20
			t.Errorf("got %d requests in a minute", n)
		}
		w.entra.Faults.Clear()
		time.Sleep(time.Minute)
		w.token(c)
	})
}

func TestAThrottlingEndpointIsObeyed(t *testing.T) {
	for name, wait := range map[string]string{"seconds": "300", "a date": "Sat, 01 Jan 2000 00:05:00 GMT"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				w.entra.Faults.Add(sim.Fault{Path: "/token", Status: 429, Header: http.Header{"Retry-After": {wait}}})
				c := w.open(identity.Secret)
				if e := failure(t, c); e.Class != signup.Throttled || e.RetryAfter < 299*time.Second || e.RetryAfter > 300*time.Second {
					t.Errorf("got %v, to wait for %v", e, e.RetryAfter)
				}
				time.Sleep(298 * time.Second)
				if failure(t, c); w.count() != 1 {
					t.Errorf("got %d requests before the time", w.count())
				}
				time.Sleep(2 * time.Second)
				w.token(c)
			})
		})
	}
}

func TestTokensForDifferentPurposesAreKeptApart(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		c := w.open(identity.Secret)
		all := []policy.TokenRequestOptions{
			{Scopes: []string{scope}}, {Scopes: []string{scope}, EnableCAE: true}, {Scopes: []string{scope}, TenantID: tenantID},
			{Scopes: []string{"https://storage.azure.com/.default"}},
		}
		for range 2 {
			for _, o := range all {
				if _, err := c.GetToken(t.Context(), o); err != nil {
					t.Error(err)
				}
			}
		}
		// The library knows that the tenant is the one it asks for anyway.
		if n := w.count(); n != 3 {
			t.Errorf("got %d token requests, want 3", n)
		}
	})
}

func TestClaimsGetAnotherTokenThatReplacesTheFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		c := w.open(identity.Secret)
		first := w.token(c)
		time.Sleep(time.Second)
		challenged := graphToken
		challenged.Claims = `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
		w.entra.Faults.Add(sim.Fault{Path: "/token", Delay: time.Second, Status: 503}) // for long enough that all of them ask
		var all sync.Map
		together(8, func() {
			token, err := c.GetToken(t.Context(), challenged)
			if err != nil || token.Token == first.Token {
				t.Errorf("got the same token, %v", err)
			}
			all.Store(token.Token, true)
		})
		if _, ok := all.Load(w.token(c).Token); !ok || w.count() != 3 {
			t.Errorf("the token was not replaced, after %d requests", w.count())
		}
	})
}

// azsecrets v1.5.1 looks for the tenant behind the third slash of a challenge, and panics where there are fewer.
func TestAnAnswerThatUpsetsTheLibraryIsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.vault.Faults.Add(sim.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer authorization="x", resource="https://vault.azure.net"`}}})
		if e := failure(t, w.open(identity.Certificate)); e.Class != signup.Transient {
			t.Errorf("got %v", e)
		}
	})
}
