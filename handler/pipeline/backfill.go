package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNoRun is the error of what needs a ledger that a run has begun, and why a census then is idle.
var ErrNoRun = errors.New("no run of SyncNewUsers has read a detector yet: let it run once")

// Backfill makes everyone who has signed up since then somebody to be associated, with every configured destination. It
// holds the run lease while it says so in the ledger, and begins a census anew, which takes them in: whoever calls Census
// next goes on with it.
func (e *Engine) Backfill(ctx context.Context, since time.Time) error {
	r := e.newRun(Trigger{Invocation: "backfill"})
	switch end, err := r.rangeEnd(ctx); {
	case err != nil:
		return err
	case end.IsZero():
		return ErrNoRun
	}
	return r.hold(ctx, func(ctx context.Context) error {
		if err := r.loadState(ctx); err != nil {
			return err
		}
		r.state.body.lower(since)
		var err error
		if r.state.note, err = putNote(ctx, r.Ledger, r.state.note, r.state.body); err != nil {
			return fmt.Errorf("write the state: %w", err)
		}
		progress, err := r.readNote(ctx, censusNote, &Census{})
		if err != nil {
			return err
		}
		if _, err = putNote(ctx, r.Ledger, progress, Census{ID: r.id, Started: r.start}); err != nil {
			return fmt.Errorf("begin the census anew: %w", err)
		}
		return nil
	})
}

// lower makes users and destinations count since then. Since when the detectors have looked for users is not forgotten.
func (b *stateBody) lower(since time.Time) {
	if b.Watched.IsZero() {
		b.Watched = b.Since
	}
	if since.Before(b.Since) {
		b.Since = since
	}
	for i := range b.Destinations {
		if d := &b.Destinations[i]; since.Before(d.Since) {
			d.Since, d.Known = since, later(d.Since, d.Known)
		}
	}
}
