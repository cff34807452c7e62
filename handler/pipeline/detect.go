package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"signup-sync/handler/signup"
)

const (
	// freshUsers is how many new users a run works from memory; their rows are inserted with the intent. The others wait
	// in the ledger.
	freshUsers = 300
	// insertRows is how many rows are recorded in one call.
	insertRows = 200
	// lateRead is how shortly before the deadline a read that fails has failed for the time: clients do not begin what
	// would not be done by then.
	lateRead = 15 * time.Second
)

// detect reads every detector and hands over the rows that it inserted with this run's intent. A detector that fails
// does not keep the others back; the error is for the case that none could be read.
func (r *run) detect(ctx context.Context) error {
	begun := time.Now()
	defer func() {
		r.reading = time.Since(begun)
		close(r.fresh)
	}()
	if deadline, ok := ctx.Deadline(); ok {
		// Half of the time at most: what is recorded without an intent is worked after it.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)/2))
		defer cancel()
	}
	results := make([]detection, len(r.Detectors))
	r.Each(len(r.Detectors), func(i int) { results[i] = r.detectOne(ctx, i) })

	var errs []error
	for i, d := range results {
		if d.err != nil {
			d.sum.Trouble = codeOf(d.err)
		}
		r.sum.detected(d.sum)
		if d.err != nil {
			if d.sum.Slices == 0 { // otherwise it came further than the run before
				errs = append(errs, fmt.Errorf("detector %s: %w", r.Detectors[i].Name(), d.err))
			}
			level := slog.LevelWarn
			if signup.ClassOf(d.err) == signup.Throttled { // ours or the service's pace; the next run reads on
				level = slog.LevelInfo
			}
			r.log.Log(ctx, level, "detector not read to the end", "detector", r.Detectors[i].Name(), "slices", d.sum.Slices, "err", d.err)
		}
	}
	if len(errs) < len(r.Detectors) {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNoDetector, errors.Join(errs...))
}

// detection is what one detector's turn came to.
type detection struct {
	sum DetectorSummary
	err error
}

// detectOne reads one detector's window slice by slice, rows first, then the watermark, and after that its gaps.
func (r *run) detectOne(ctx context.Context, i int) (out detection) {
	w := &watch{run: r, d: r.Detectors[i], index: i}
	ctx, end := r.span(ctx, "detect", slog.String("detector", w.d.Name()))
	defer func() { end(failed(out.err)) }()
	defer func() {
		if v := recover(); v != nil {
			r.panicked(w.d.Name(), v)
			out.err = errors.New("the detector has panicked")
		}
		out.sum = w.summary()
	}()
	if out.err = w.open(ctx); out.err == nil {
		out.err = w.read(ctx)
	}
	if out.err == nil {
		out.err = w.closeGaps(ctx)
	}
	return out
}

func (e *Engine) destinationNames() []string {
	names := make([]string, len(e.Destinations))
	for i, d := range e.Destinations {
		names[i] = d.Name
	}
	return names
}
