// Package pipeline is the engine: it detects sign-ups, records them in the ledger, associates them with the
// destinations and settles what came of it. It knows the outside only through the interfaces of package signup.
//
// Its clock, its randomness and its one way to do things at the same time (Engine.Each) are handed in, and it iterates
// no map, so that a simulation can decide the order of everything.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"signup-sync/handler/signup"
)

// ErrNoDetector is Run's error when no detector could be read to the end of anything: nothing new can be known.
var ErrNoDetector = errors.New("no detector could be read")

// Destination is one configured target.
type Destination struct {
	Name        string
	Connector   signup.Connector
	Observe     bool    // record what would be sent, and send nothing
	Rate        float64 // calls a second; 0 = no limit
	Burst       int     // at least 1 where Rate is set
	Concurrency int     // calls at the same time, at least 1
	Fuse        Fuse    // of its breaker
}

// Settings say what the engine looks for.
type Settings struct {
	Overlap       time.Duration   // how far each window reaches back before the watermark
	FirstLookBack time.Duration   // how far the very first window reaches back
	Origins       []signup.Origin // who is associated; everyone else is skipped: origin
	Invited       bool            // guests are associated when they are invited; else when they accept
}

// Engine does the job. All fields but Certificate, Entitlements and Span are to be set; one Run at a time, beside which a
// Census may go on.
type Engine struct {
	Tenant       string
	Settings     Settings
	Mapping      *Mapping
	Destinations []Destination
	Detectors    []signup.Detector
	Backstop     signup.Detector // reads what a log no longer has; also when it is not among Detectors
	Directory    signup.Directory
	Entitlements signup.Entitlements // nil = guests whom an access package let in are guests like others
	Ledger       signup.Ledger
	Clock        signup.Clock
	Rand         *rand.Rand                 // seeded by the caller; used under a lock
	Each         func(n int, f func(i int)) // the one spawn point: f(0) … f(n-1) at the same time; returns after all
	Log          *slog.Logger
	Certificate  func() (from, until time.Time) // of the app's certificate that is in use, zero = not known; nil = it has none
	Span         Span                           // nil = nobody is told

	mu     sync.Mutex
	known  map[key]sight
	makers []string // the names that sights refer to
	gates  map[string]*gate
	ended  []string          // the latest runs of this process, which it has survived
	shown  *CertificateDates // that stand in the history
}

// Trigger is what the host says of this run; all of it is a hint.
type Trigger struct {
	Invocation string    // for the logs
	PastDue    bool      // the host is late
	Last       time.Time // the start of the run before, as the host remembers it; zero if it does not
}

// Run is the whole job, once: take the run lease, detect, record, associate, settle, until nothing is due or ctx's
// deadline is near. When that has taken a minute it detects again, and so on. It returns what was done also with an error; an
// error means that the job itself could not be done (no lease, no ledger, no detector), not that a destination failed.
func (e *Engine) Run(ctx context.Context, t Trigger) (Summary, error) {
	r, err := e.begin(ctx, t)
	if err != nil || r.sum.Busy {
		return r.sum, err
	}
	r.longest = shortLead // until a batch has taken longer
	err = r.underLease(ctx, r.rounds)
	endErr := r.end(ctx)
	return r.sum, errors.Join(err, endErr)
}

func (r *run) rounds(ctx context.Context) error {
	err := r.round(ctx)
	for err == nil && r.again(ctx) {
		err = r.round(ctx)
	}
	return err
}

// lookAgain is how long a round of a run takes at least for another to follow it, and how much time is to be left for that.
// By then the timer has had its turn in vain, and the next one is up to a minute away.
const lookAgain = time.Minute

// again reports that the run has been at work for so long that it is to look for who has signed up meanwhile, and that
// there is time to read the detectors, as long as that took last.
func (r *run) again(ctx context.Context) bool {
	return r.Clock.Now().Sub(r.looked) >= lookAgain && !r.timeUp(ctx) && (r.until.IsZero() || time.Until(r.until) >= max(lookAgain, 8*r.reading))
}

// round detects who is new, and works them and who is due.
func (r *run) round(ctx context.Context) error {
	var detectErr, workErr error
	first := r.looked.IsZero()
	r.looked, r.sum.fresh, r.fresh = r.Clock.Now(), 0, make(chan []signup.Row, freshUsers+1)
	r.Each(2, func(i int) {
		if i == 0 {
			detectErr = r.detect(ctx) // hands over who is new …
		} else {
			workErr = r.work(ctx) // … and who is due is worked meanwhile
		}
	})
	if first { // a minute later it is in the log, and in the summary as the detector's trouble
		r.unseen = detectErr
	}
	r.trigger.PastDue = false // what the host has missed is caught up with
	return errors.Join(r.unseen, workErr)
}

// run is one Run on its way.
type run struct {
	*Engine
	Clock   signup.Clock // the engine's, which the tenant has confirmed when the run began; it is not asked again
	id      string
	trigger Trigger
	log     *slog.Logger
	start   time.Time     // by the clock
	looked  time.Time     // … when the round began
	reading time.Duration // how long the round's detectors were read, by the wall clock
	until   time.Time     // the work is over then (wall clock, as contexts have it); zero = no end
	most    time.Duration // of that time to be left when nothing new is begun any more
	lease   lease
	state   state

	recording chan struct{}     // held while a detector records; a channel, since the ledger is asked meanwhile
	abort     func()            // ends what the run is doing, when the lease is lost
	fresh     chan []signup.Row // users just detected, with a durable intent; nil = some without; closed when detection is over
	waiting   atomic.Bool       // the latter was said, and the work has not looked yet

	mu      sync.Mutex
	sum     Summary
	flows   flows
	bad     error         // the first failure of the ledger: ends the run
	unseen  error         // that no detector could be read
	unread  int           // profile reads that failed, in a row
	longest time.Duration // that a batch took so far, or may take
}

func (e *Engine) newRun(t Trigger) *run {
	clock := signup.Steady(e.Clock)
	r := &run{Engine: e, Clock: clock, trigger: t, start: clock.Now(), recording: make(chan struct{}, 1)}
	r.id = fmt.Sprintf("%s-%08x", r.start.Format("20060102T150405"), e.random32())
	r.log = e.Log.With("run", r.id, "invocation", t.Invocation)
	r.sum = Summary{Run: r.id, Started: r.start, PastDue: t.PastDue}
	return r
}

func (e *Engine) begin(ctx context.Context, t Trigger) (*run, error) {
	r := e.newRun(t)
	r.setUntil(ctx)
	if err := r.checkClock(ctx); err != nil {
		return r, err
	}
	if err := r.takeLease(ctx); err != nil || r.sum.Busy {
		return r, err
	}
	if err := r.loadState(ctx); err != nil {
		return r, errors.Join(err, r.end(ctx))
	}
	return r, nil
}

// setUntil decides when the work is to be over, by ctx's deadline.
func (r *run) setUntil(ctx context.Context) {
	r.longest = longLead
	if deadline, ok := ctx.Deadline(); ok {
		r.until, r.most = deadline.Add(-lastWrite), time.Until(deadline)/4
	}
}

const (
	// shortLead and longLead bound how long before the end of the work nothing new is begun: as long as a batch takes.
	shortLead = 5 * time.Second
	longLead  = 20 * time.Second
)

// took takes note of how long a batch was at work.
func (r *run) took(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.longest = min(max(r.longest, d), longLead)
}

// lastWrite is kept at the end of a run for writing down what is known.
const lastWrite = 5 * time.Second

// timeUp reports that nothing new is to be started.
func (r *run) timeUp(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bad != nil || r.unread >= maxUnread || !r.until.IsZero() && time.Until(r.until) < min(r.longest, r.most)
}

// read takes note of a profile read. When the directory fails again and again the run leaves everyone to the next one.
func (r *run) read(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unread++; err == nil {
		r.unread = 0
	}
}

// maxUnread is how many profile reads may fail in a row before a run gives up working.
const maxUnread = 3

// fail ends the run: without the ledger, or without the lease, nothing may go on.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bad == nil {
		r.bad = err
	}
}

// jitter spreads a pause over its second half, so that those who failed together do not come back together.
func (e *Engine) jitter(d time.Duration) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return d/2 + time.Duration(e.Rand.Int64N(int64(d/2)+1))
}

func (e *Engine) random32() uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Rand.Uint32()
}

// Each is the ordinary spawn point: n goroutines.
func Each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
