package pipeline

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"signup-sync/handler/signup"
)

const (
	breakForMost = 15 * time.Minute
	// patience is how long a user waits for a destination's turn before being handed back.
	patience = 15 * time.Second
)

// Fuse says when a destination's breaker opens, and for how long.
type Fuse struct {
	Failures int           // in a row; 0 = 5
	Pause    time.Duration // the first one, doubled each time up to 15 minutes; 0 = 30 s
}

// DefaultFuse is what an empty Fuse stands for.
var DefaultFuse = Fuse{Failures: 5, Pause: 30 * time.Second}

func (f Fuse) orDefault() Fuse {
	return Fuse{cmp.Or(f.Failures, DefaultFuse.Failures), cmp.Or(f.Pause, DefaultFuse.Pause)}
}

// Breaker keeps a destination that fails everybody from being asked by everybody.
//
//	closed ── so many failures in a row (Fuse), or one systemic answer ──► open ── time over ──► half-open: one call ──► closed, or open for twice as long
type Breaker struct {
	Failures    int       `json:"failures,omitempty"` // in a row
	Opened      int       `json:"opened,omitempty"`   // times in a row
	Since       time.Time `json:"since,omitzero"`     // when it opened first of those times
	Until       time.Time `json:"until,omitzero"`     // open until
	Code        string    `json:"code,omitempty"`     // of the failure that opened it
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
}

// Open reports that nobody may pass before Until.
func (b Breaker) Open(now time.Time) bool { return now.Before(b.Until) }

// HalfOpen reports that one call may try.
func (b Breaker) HalfOpen(now time.Time) bool { return b.Opened > 0 && !b.Open(now) }

// Report takes one answer into account. Only systemic ones, and transient ones that are not about the one user, count
// as failures; any other shows that the destination works.
func (b Breaker) Report(err error, now time.Time, f Fuse) Breaker {
	f = f.orDefault()
	class := signup.ClassOf(err)
	switch {
	case err == nil:
		return Breaker{LastSuccess: now}
	case class == signup.Skip, codeOf(err) == "invalid-record": // decided without the destination, of which it says nothing
		return b
	case class == signup.Permanent, aboutUser(err):
		return Breaker{LastSuccess: b.LastSuccess}
	case class == signup.Throttled, b.Open(now): // the latter were on their way when it opened
		return b
	}
	b.Failures++
	if class == signup.Systemic || b.Failures >= f.Failures || b.Opened > 0 {
		if b.Opened == 0 {
			b.Since = now
		}
		b.Until = now.Add(min(f.Pause<<min(b.Opened, 10), max(f.Pause, breakForMost)))
		b.Opened++
		b.Code = codeOf(err)
	}
	return b
}

// aboutUser reports a transient answer by a service that works: not there yet, in conflict, being worked on, its key is
// settling.
func aboutUser(err error) bool {
	e, ok := errors.AsType[*signup.Error](err)
	if !ok || e.Class != signup.Transient {
		return false
	}
	switch e.Code {
	case "in-progress", "key-settling", "key-spent":
		return true
	}
	return e.Status == 404 || e.Status == 409 || e.Status == 412 || e.Status == 423
}

// gate is the way to one destination: its breaker, rate, and number of calls at the same time. Each destination has
// its own, so that one's trouble is not another's.
type gate struct {
	name  string
	clock signup.Clock
	slots chan struct{}
	fuse  Fuse

	mu      sync.Mutex
	rate    *rate.Limiter // nil = none
	hold    time.Time     // throttled until
	breaker Breaker
	probing bool
}

func newGate(name string, clock signup.Clock, perSecond float64, burst, concurrency int, fuse Fuse) *gate {
	g := &gate{name: name, clock: clock, slots: make(chan struct{}, max(concurrency, 1)), fuse: fuse.orDefault()}
	if perSecond > 0 {
		g.rate = rate.NewLimiter(rate.Limit(perSecond), max(burst, 1))
	}
	return g
}

// enter waits for the turn of one call, not much longer than patience. Without one it says how long to leave the destination
// alone; with one, leave is to be called with the answers that the turn brought, and returns the one that has opened the
// breaker, nil if none has.
func (g *gate) enter(ctx context.Context) (leave func(errs ...error) error, wait time.Duration) {
	probe, wait := g.admit()
	if wait > 0 {
		return nil, wait
	}
	giveUp := func(wait time.Duration) (func(...error) error, time.Duration) {
		g.endProbe(probe)
		return nil, max(wait, time.Second)
	}
	if ctx.Err() != nil { // select would toss a coin
		return giveUp(0)
	}
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
	case <-patient.Done():
		return giveUp(0)
	}
	delay, ok := g.reserve()
	if !ok || delay > 0 && g.clock.Sleep(ctx, delay) != nil {
		<-g.slots
		return giveUp(delay)
	}
	if !probe { // while this user waited the destination may have closed
		if probe, wait = g.admit(); wait > 0 {
			<-g.slots
			return nil, wait
		}
	}
	return func(errs ...error) error {
		opened := g.report(errs)
		g.endProbe(probe)
		<-g.slots
		return opened
	}, 0
}

func (g *gate) endProbe(probe bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if probe {
		g.probing = false
	}
}

// admit asks the breaker and the throttling.
func (g *gate) admit() (probe bool, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Now()
	switch {
	case now.Before(g.hold):
		return false, g.hold.Sub(now)
	case g.breaker.Open(now):
		return false, g.breaker.Until.Sub(now)
	case g.breaker.HalfOpen(now):
		if g.probing {
			return false, g.fuse.Pause
		}
		g.probing = true
		return true, 0
	}
	return false, 0
}

// reserve takes a call from the rate, or says how long that would take if it is too long.
func (g *gate) reserve() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rate == nil {
		return 0, true
	}
	now := g.clock.Now()
	res := g.rate.ReserveN(now, 1)
	delay := res.DelayFrom(now)
	if delay > patience {
		res.CancelAt(now)
		return delay, false
	}
	return delay, true
}

// report takes the answers of a turn into account, and returns the one that has opened the breaker.
func (g *gate) report(errs []error) (opened error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Now()
	for _, err := range errs {
		before := g.breaker.Opened
		if g.breaker = g.breaker.Report(err, now, g.fuse); g.breaker.Opened > before {
			opened = err
		}
		if signup.ClassOf(err) == signup.Throttled && err != nil {
			g.hold = later(g.hold, now.Add(max(retryAfter(err), time.Second)))
		}
	}
	return opened
}

func (g *gate) snapshot() Breaker {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.breaker
}

// Graph allows 3,000 writes in 150 s, 20 a second, an app and tenant (throttling limits, identity and access). The tenant's
// client keeps a pace of its own for all writes, which is a little less.
const (
	patchRate        = 20
	patchBurst       = 20
	patchConcurrency = 8
)

// openGates makes the gates at the first run and brings back the breakers that the run before has saved.
func (r *run) openGates(saved []namedBreaker) {
	if r.gates == nil {
		r.gates = map[string]*gate{signup.Profile: newGate(signup.Profile, r.Clock, patchRate, patchBurst, patchConcurrency, DefaultFuse)}
		for _, d := range r.Destinations {
			r.gates[d.Name] = newGate(d.Name, r.Clock, d.Rate, d.Burst, d.Concurrency, d.Fuse)
		}
	}
	for _, name := range r.gateNames() {
		g := r.gates[name]
		g.mu.Lock()
		g.clock = r.Clock
		g.breaker = Breaker{LastSuccess: g.breaker.LastSuccess}
		for _, b := range saved {
			if b.Name == name {
				g.breaker = b.Breaker
			}
		}
		g.mu.Unlock()
	}
}

func (e *Engine) gateNames() []string { return append(e.destinationNames(), signup.Profile) }

// tellBreakers puts the breakers that are not closed into the summary.
func (r *run) tellBreakers() {
	for _, name := range r.gateNames() {
		g := r.gates[name]
		if g == nil { // the run could not begin
			continue
		}
		switch b, now := g.snapshot(), r.Clock.Now(); {
		case b.Open(now):
			r.sum.destination(name).Breaker = "open"
		case b.HalfOpen(now):
			r.sum.destination(name).Breaker = "half-open"
		}
	}
}
