package identity

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/signup"
)

const (
	// renewAhead is how long before its end a token is renewed, where its endpoint names no time itself. Microsoft's
	// library keeps tokens too, and gives the same one again until five minutes before its end.
	renewAhead = 4*time.Minute + 30*time.Second
	// spareTime is how much of a token's life is left to the call that it is taken for.
	spareTime = 30 * time.Second
	// renewalTime bounds one renewal, retries included, whoever waits for it.
	renewalTime = 30 * time.Second
	// firstPause follows a renewal that failed. It doubles with each further one, up to longestPause, which with renewalTime is less
	// than a minute: the next run asks for itself.
	firstPause   = 5 * time.Second
	longestPause = 20 * time.Second
	// newFor is how long a token is new: it is not renewed so soon, nor replaced for the claims that it was got for.
	newFor = time.Minute
	// longestWait is the most that an endpoint is obeyed which asks to wait.
	longestWait = 10 * time.Minute
)

// cached keeps the tokens of a credential and renews them ahead of time. Each is renewed once at a time, whatever the
// number of callers: who has a token that is good still does not wait for that, nor learn that it failed; the others wait
// for it, each as long as its own context lives. After a failure nobody asks again for a while.
//
// The libraries' own caches do less: that of managed identities lets every caller ask, the confidential clients' keeps
// callers at a mutex that knows no context, and both renew in the caller's time.
//
// Tokens are dated by the machine's clock, by azidentity as well as here.
type cached struct {
	inner   azcore.TokenCredential
	explain func(error) *signup.Error // makes the inner one's errors ours

	mu      sync.Mutex
	entries map[purpose]*entry
}

// purpose is what a token is for. Claims are not part of it: a token that was got for claims is as good as one without.
type purpose struct {
	scopes, tenant string
	cae            bool
}

// entry is the token for one purpose.
type entry struct {
	token   azcore.AccessToken
	claims  string              // for which it was got
	since   time.Time           // when it was got, by the wall clock alone: the monotonic one is never put back
	renew   time.Time           // when it is to be renewed
	flights map[string]*renewal // under way, by their claims

	failures int       // renewals that have failed since one succeeded
	pause    time.Time // before which nobody asks again
	err      error     // why
}

// renewal is one call to the inner credential; token and err may be read once done is closed.
type renewal struct {
	claims string
	done   chan struct{}
	token  azcore.AccessToken
	err    error
}

func newCached(inner azcore.TokenCredential, explain func(error) *signup.Error) *cached {
	return &cached{inner: inner, explain: explain, entries: map[purpose]*entry{}}
}

// GetToken implements azcore.TokenCredential. Claims, with which a service asks for another token than the one it was
// shown, pass the cache by, unless a token was got for the same ones within a minute: a revocation challenges every call on
// its way. The answer replaces what is in the cache. Errors are *signup.Error.
func (c *cached) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, r, err := c.find(ctx, o)
	if r == nil {
		return token, err
	}
	select {
	case <-r.done:
		return r.token, r.err
	case <-ctx.Done():
		return azcore.AccessToken{}, c.explain(ctx.Err())
	}
}

// find is the token at hand, or the renewal to wait for, or the error that stands.
func (c *cached) find(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, *renewal, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := purpose{strings.Join(o.Scopes, " "), o.TenantID, o.EnableCAE}
	e := c.entries[key]
	if e == nil {
		e = &entry{flights: map[string]*renewal{}}
		c.entries[key] = e
	}
	now, r := time.Now(), e.flights[o.Claims]
	good := e.good(now) && (o.Claims == "" || o.Claims == e.claims && now.Sub(e.since) < newFor)
	if r == nil && !now.Before(e.pause) && !(good && now.Before(e.renew)) {
		r = &renewal{claims: o.Claims, done: make(chan struct{})}
		e.flights[o.Claims] = r
		go c.run(context.WithoutCancel(ctx), e, o, r)
	}
	switch {
	case good:
		return e.token, nil, nil
	case r == nil:
		return azcore.AccessToken{}, nil, e.err
	}
	return azcore.AccessToken{}, r, nil
}

// run is the life of one renewal. It outlives the caller that began it: one who gives up must not fail the others.
func (c *cached) run(ctx context.Context, e *entry, o policy.TokenRequestOptions, r *renewal) {
	ctx, cancel := context.WithTimeout(ctx, renewalTime)
	defer cancel()
	r.token, r.err = c.ask(ctx, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(e.flights, o.Claims)
	e.settle(r, time.Now())
	close(r.done)
}

// ask calls the inner credential. A panic in it, on a goroutine of its own, would end the program.
func (c *cached) ask(ctx context.Context, o policy.TokenRequestOptions) (token azcore.AccessToken, err error) {
	defer func() {
		if recover() != nil {
			err = &signup.Error{Class: signup.Transient, Code: "no-token", Detail: "an answer has upset the library that asks for tokens"}
		}
	}()
	token, err = c.inner.GetToken(ctx, o)
	if err == nil {
		return token, nil
	}
	if _, ours := errors.AsType[*signup.Error](err); !ours && ctx.Err() != nil {
		err = ctx.Err() // which the libraries do not hand on
	}
	return azcore.AccessToken{}, c.explain(err)
}

// good reports that the token can be used. A clock that was put back makes it unusable: nobody knows how old it is then.
func (e *entry) good(now time.Time) bool {
	return e.token.Token != "" && !now.Before(e.since) && now.Before(e.token.ExpiresOn.Add(-spareTime))
}

// settle takes in how a renewal has ended.
func (e *entry) settle(r *renewal, now time.Time) {
	if r.err != nil {
		pause := min(firstPause<<min(e.failures, 10), longestPause)
		if asked := retryAfter(r.err); asked > pause {
			pause = min(asked, longestWait)
		}
		e.failures++
		e.pause, e.err = now.Add(pause), r.err
		return
	}
	*e = entry{token: r.token, claims: r.claims, since: now.Round(0), flights: e.flights, renew: r.token.ExpiresOn.Add(-renewAhead)}
	if on := r.token.RefreshOn; !on.IsZero() && on.Before(e.renew) {
		e.renew = on
	}
	if e.renew.Before(now.Add(newFor)) { // it lives for minutes, or the library has given the same one again
		e.renew = now.Add(newFor)
	}
}
