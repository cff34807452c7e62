package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	leaseNote = "run"
	stateNote = "state"
	// leaseTime is how long a dead run keeps others away. It is renewed at a third of it.
	leaseTime = 2 * time.Minute
	// renewPatience is how long one renewal may take: two that hang are over when the lease is.
	renewPatience = leaseTime / 6
	// leasePatience is how long a command waits for a run that is at work; runs take at most four minutes.
	leasePatience = 5 * time.Minute
)

// ErrBusy ends a command that has waited in vain for the run lease.
var ErrBusy = errors.New("a run is at work and does not come to an end: try again later")

// ErrLeaseLost ends a run whose lease somebody else has taken in the meantime.
var ErrLeaseLost = errors.New("the run lease was taken by someone else")

// lease is the note that makes runs single for certain; the last run's summary stands in it as well, so that one read
// shows both.
type lease struct {
	note    signup.Note
	renewed time.Time
	last    *Summary // what stood in it
}

type leaseBody struct {
	Owner   string    `json:"owner,omitempty"` // "" = free
	Expires time.Time `json:"expires,omitzero"`
	Last    *Summary  `json:"last,omitempty"` // of the last run that ended by itself
}

// held reports that somebody has the lease. No lease is longer than leaseTime: one that ends later is from a clock that was
// wrong, and keeps nobody away.
func (b leaseBody) held(now time.Time) bool {
	return now.Before(b.Expires) && !b.Expires.After(now.Add(leaseTime+skew))
}

// takeLease takes the run lease, or finds another run alive (Summary.Busy).
func (r *run) takeLease(ctx context.Context) error {
	var body leaseBody
	died := ""
	n, err := r.readNote(ctx, leaseNote, &body)
	if err != nil {
		return err
	}
	if body.held(r.start) {
		r.sum.Busy = true
		r.log.Info("another run holds the lease", "owner", body.Owner, "until", body.Expires)
		return nil
	}
	if body.Owner != "" {
		r.log.Info("a run died at work; its lease has ended", "owner", body.Owner, "ended", body.Expires)
		died = body.Owner
	}
	body.Owner, body.Expires = r.id, r.start.Add(leaseTime)
	n, err = putNote(ctx, r.Ledger, n, body)
	if errors.Is(err, signup.ErrConflict) {
		r.sum.Busy = true
		r.log.Info("another run took the lease first")
		return nil
	}
	if err != nil {
		return fmt.Errorf("take the run lease: %w", err)
	}
	r.lease, r.flows.died = lease{note: n, renewed: r.start, last: body.Last}, died
	return nil
}

// hold does what an operator's command does, under the run lease: no run is at work meanwhile. A run that is at work
// already is waited for. The last run's summary stays in the lease. By a clock that is known to be wrong nothing is done:
// who is reopened by one is due when it says. That nobody tells the time keeps no operator back.
func (r *run) hold(ctx context.Context, act func(ctx context.Context) error) error {
	if err := r.checkClock(ctx); errors.Is(err, ErrClock) {
		return err
	}
	if err := r.awaitLease(ctx); err != nil {
		return err
	}
	err := r.underLease(ctx, act)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	return errors.Join(r.freeLease(ctx, r.lease.last), err)
}

// underLease acts, and renews the lease beside it all the while. A lease that is lost ends what is being done.
func (r *run) underLease(ctx context.Context, act func(ctx context.Context) error) (err error) {
	working, stop := context.WithCancel(ctx)
	r.abort = stop
	r.Each(2, func(i int) {
		if i == 0 {
			err = act(working)
			stop()
			return
		}
		r.keepLease(working)
	})
	return err
}

// awaitLease takes the run lease, after a run that has it.
func (r *run) awaitLease(ctx context.Context) error {
	begun := r.start
	for {
		if err := r.takeLease(ctx); err != nil || !r.sum.Busy {
			return err
		}
		if r.start.Sub(begun) >= leasePatience {
			return ErrBusy
		}
		if err := r.Clock.Sleep(ctx, 2*time.Second); err != nil {
			return err
		}
		r.start, r.sum.Busy = r.Clock.Now(), false
	}
}

// keepLease renews the lease until ctx is over.
func (r *run) keepLease(ctx context.Context) {
	for r.Clock.Sleep(ctx, leaseTime/3) == nil {
		r.renew(ctx)
	}
}

// renew renews the lease once. A lease that somebody else has taken ends the run.
func (r *run) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewPatience)
	defer cancel()
	now := r.Clock.Now()
	var body leaseBody
	err := decodeNote(r.lease.note, &body)
	n := r.lease.note
	if err == nil {
		body.Expires = now.Add(leaseTime)
		n, err = putNote(ctx, r.Ledger, n, body)
	}
	if errors.Is(err, signup.ErrConflict) { // perhaps with our own last renewal, whose answer was lost
		if current, e := r.ownNote(ctx); e == nil {
			n, err = putNote(ctx, r.Ledger, current, body)
		}
	}
	switch {
	case err == nil:
		r.lease.note, r.lease.renewed = n, now
	case errors.Is(err, signup.ErrConflict):
		r.fail(ErrLeaseLost)
		r.abort()
	case r.Clock.Now().Sub(r.lease.renewed) >= leaseTime:
		// Until it expires a lease lives on without renewal, and the next try may succeed.
		r.fail(fmt.Errorf("renew the run lease: %w", err))
		r.abort()
	}
}

// ownNote reads the lease's note if this run still has the lease.
func (r *run) ownNote(ctx context.Context) (signup.Note, error) {
	var body leaseBody
	n, err := r.readNote(ctx, leaseNote, &body)
	if err == nil && body.Owner != r.id {
		err = ErrLeaseLost
	}
	return n, err
}

// end saves the breakers, frees the lease and leaves the summary in it, and adds it to the history.
func (r *run) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	r.sum.Ended = r.Clock.Now()
	r.survive()
	r.tellBreakers()
	r.log.Info("run done", "users", r.sum.Users, "new", r.sum.newUsers(), "detectors", r.sum.Detectors, "destinations", r.sum.Destinations)
	err := r.saveState(ctx)
	err = errors.Join(r.freeLease(ctx, r.sum.short()), err)
	if lost := r.saveHistory(ctx); lost != nil {
		r.log.Info("history not written; what this run has counted is not in it", "err", lost)
	}
	return err
}

// freeLease gives the lease back, with the summary of the last run in it, and says what ended this one early.
func (r *run) freeLease(ctx context.Context, last *Summary) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(r.bad, ErrLeaseLost) {
		return r.bad
	}
	_, err := putNote(ctx, r.Ledger, r.lease.note, leaseBody{Last: last})
	if errors.Is(err, signup.ErrConflict) { // perhaps with our own last renewal
		var own signup.Note
		if own, err = r.ownNote(ctx); err == nil {
			_, err = putNote(ctx, r.Ledger, own, leaseBody{Last: last})
		}
	}
	if err != nil {
		err = fmt.Errorf("free the run lease: %w", err)
	}
	return errors.Join(r.bad, err)
}

// state is what the engine remembers of the installation.
type state struct {
	note   signup.Note
	body   stateBody
	loaded bool
}

type stateBody struct {
	Since        time.Time      `json:"since"`            // users older than this are 'before'
	Watched      time.Time      `json:"watched,omitzero"` // what Since was before a backfill lowered it: detectors look since then
	Destinations []since        `json:"destinations"`     // which destination was first seen when
	Breakers     []namedBreaker `json:"breakers,omitempty"`
}

// watched is since when the detectors look for users.
func (b stateBody) watched() time.Time { return later(b.Since, b.Watched) }

// olderThan reports that a sign-up is from before the ledger knew of the destination: a ledger that was lost may have
// known, and brought the user there.
func (s state) olderThan(destination string, signedUp time.Time) bool {
	i := slices.IndexFunc(s.body.Destinations, func(d since) bool { return d.Name == destination })
	if i < 0 {
		return true
	}
	d := s.body.Destinations[i]
	return signedUp.Before(later(d.Since, d.Known))
}

type since struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	Known time.Time `json:"known,omitzero"` // what Since was before a backfill lowered it: the ledger knows of it since then
}

type namedBreaker struct {
	Name string `json:"name"`
	Breaker
}

// loadState reads the state and brings the configured destinations into it.
func (r *run) loadState(ctx context.Context) error {
	b := &r.state.body
	var err error
	if r.state.note, err = r.readNote(ctx, stateNote, b); err != nil {
		return err
	}
	changed := false
	if b.Since.IsZero() {
		b.Since, changed = r.start.Add(-r.Settings.FirstLookBack), true
		r.forgetKnown() // it was of another ledger, which is lost
	}
	for _, d := range r.Destinations {
		if !slices.ContainsFunc(b.Destinations, func(s since) bool { return s.Name == d.Name }) {
			b.Destinations, changed = append(b.Destinations, since{Name: d.Name, Since: r.start}), true
		}
	}
	if changed {
		if r.state.note, err = putNote(ctx, r.Ledger, r.state.note, b); err != nil {
			return fmt.Errorf("write the state: %w", err)
		}
	}
	r.openGates(b.Breakers)
	r.state.loaded = true
	return nil
}

// saveState writes the breakers down if they have changed. A state that could not be read stays as it is.
func (r *run) saveState(ctx context.Context) error {
	if !r.state.loaded {
		return nil
	}
	var now []namedBreaker
	for _, name := range r.gateNames() {
		if b := r.gates[name].snapshot(); b != (Breaker{LastSuccess: b.LastSuccess}) {
			now = append(now, namedBreaker{Name: name, Breaker: b})
		}
	}
	if slices.Equal(now, r.state.body.Breakers) {
		return nil
	}
	r.state.body.Breakers = now
	var err error
	if r.state.note, err = putNote(ctx, r.Ledger, r.state.note, r.state.body); err != nil {
		return fmt.Errorf("write the breakers: %w", err)
	}
	return nil
}

// readNote reads a note; one that was never written leaves the body as it is.
func (e *Engine) readNote(ctx context.Context, name string, body any) (signup.Note, error) {
	n, err := e.Ledger.Note(ctx, name)
	if err != nil {
		return n, err // which names the note
	}
	n.Name = name
	return n, decodeNote(n, body)
}

func decodeNote(n signup.Note, into any) error {
	if len(n.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(n.Body, into); err != nil {
		return fmt.Errorf("decode the note %s: %w", n.Name, err)
	}
	return nil
}

func putNote(ctx context.Context, l signup.Ledger, n signup.Note, body any) (signup.Note, error) {
	var err error
	if n.Body, err = json.Marshal(body); err != nil {
		return n, fmt.Errorf("encode the note %s: %w", n.Name, err)
	}
	return l.PutNote(ctx, n)
}
