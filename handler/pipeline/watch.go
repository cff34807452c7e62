package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signup-sync/handler/signup"
)

// watch is one detector's turn in a round.
type watch struct {
	run    *run
	d      signup.Detector
	index  int // among Engine.Detectors
	note   signup.Note
	mark   mark
	before time.Time // the watermark when the turn began: what lies before it was read in another turn

	sum     DetectorSummary
	fresh   Sightings // that no note has yet
	total   Sightings // of the turn
	healing bool      // it is the directory that is read

	turn  time.Duration // how long the turn can be, by the wall clock; 0 = without end
	slice signup.Window // that is being read, or could not be
	begun time.Time     // when that was begun, by the wall clock
}

// open reads the detector's note.
func (w *watch) open(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		w.turn = time.Until(deadline)
	}
	var err error
	w.note, err = w.run.readNote(ctx, markNote(w.d.Name()), &w.mark)
	return err
}

// save writes the note, with what was counted since the last time.
func (w *watch) save(ctx context.Context, next mark) error {
	next = next.see(w.fresh)
	tell := late(next.Recent.all(), w.run.Settings.Overlap) && w.run.start.Sub(next.Warned).Abs() >= warnAgain // also back from a wrong clock
	if tell {
		next.Warned = w.run.start
	}
	n, err := putNote(ctx, w.run.Ledger, w.note, next)
	if err != nil {
		return fmt.Errorf("write the watermark: %w", err)
	}
	w.note, w.mark, w.total, w.fresh = n, next, w.total.plus(w.fresh), Sightings{}
	if tell {
		w.run.log.Warn("sign-ups are shown late; raise sync.overlap", "detector", w.d.Name(),
			"p99", next.Recent.all().Quantile(0.99).String(), "overlap", w.run.Settings.Overlap.String())
	}
	return nil
}

// read reads the window, or as much of it as there is time for.
func (w *watch) read(ctx context.Context) error {
	window, missed := w.window()
	w.sum.From, w.sum.To, w.before = window.From, window.To, w.mark.Watermark
	if !missed.Empty() {
		// The gap is durable before the watermark passes it.
		w.run.log.Warn("the log no longer has all of the window; reading the directory instead", "detector", w.d.Name(), "from", missed.From, "to", missed.To)
		if err := w.save(ctx, w.mark.miss(missed)); err != nil {
			return err
		}
	}
	err := w.slices(ctx, w.d, window, w.mark.Slice, func(slice signup.Window, step time.Duration) error {
		return w.save(ctx, w.mark.advance(slice, step, w.d.Served()))
	})
	if err == nil || !timeUp(ctx) {
		return err
	}
	next := w.mark
	next.Rest = signup.Window{From: w.slice.From, To: window.To}
	if w.tooMuch() {
		next.Slice = w.half()
	}
	return errors.Join(err, w.saveLast(ctx, next))
}

// window is what is to be read, and what can no longer be. A watermark from the future is not believed: a later outage
// would hide behind it.
func (w *watch) window() (window, missed signup.Window) {
	r := w.run
	if w.mark.Watermark.After(r.looked.Add(skew)) {
		r.log.Warn("the watermark lies in the future; everything is read again", "detector", w.d.Name(), "watermark", w.mark.Watermark)
		w.mark.Watermark, w.mark.Rest = time.Time{}, signup.Window{}
	}
	return w.mark.window(r.looked, r.state.body.watched(), r.Settings.Overlap, w.d.Retention(), r.trigger)
}

// closeGaps reads from the directory what the log no longer has, and remembers how far it came.
func (w *watch) closeGaps(ctx context.Context) error {
	w.healing = true
	for left := len(w.mark.Gaps); left > 0; left-- {
		g := w.mark.Gaps[0]
		err := w.slices(ctx, w.run.Backstop, g.Window, g.Slice, func(slice signup.Window, step time.Duration) error {
			return w.save(ctx, w.mark.fill(slice, step))
		})
		if err == nil {
			continue
		}
		err = fmt.Errorf("close the gap from %s: %w", w.mark.Gaps[0].From.Format(time.RFC3339), err)
		if timeUp(ctx) && w.tooMuch() {
			err = errors.Join(err, w.saveLast(ctx, w.mark.fill(signup.Window{To: w.slice.From}, w.half())))
		}
		return err
	}
	return nil
}

// slices reads window from d, oldest slice first, records each whole slice, and calls done after it with the length of the
// next one. They grow as long as one takes little of the turn.
func (w *watch) slices(ctx context.Context, d signup.Detector, window signup.Window, step time.Duration, done func(signup.Window, time.Duration) error) error {
	if step == 0 {
		step = maxSlice
	}
	for ; !window.Empty(); window.From = w.slice.To {
		slice := head(window, step)
		w.slice, w.begun = slice, time.Now()
		var events []signup.Event // not yet recorded: no more than one call takes, however many a slice has
		for e, err := range d.Events(ctx, slice) {
			if err != nil {
				return fmt.Errorf("read %s to %s: %w", slice.From.Format(time.RFC3339), slice.To.Format(time.RFC3339), err)
			}
			if events = append(events, e); len(events) < insertRows {
				continue
			}
			if err := w.record(ctx, d.Name(), events); err != nil {
				return err
			}
			events = events[:0]
		}
		if err := w.record(ctx, d.Name(), events); err != nil {
			return err
		}
		if time.Since(w.begun) <= w.turn/8 {
			step = min(2*step, maxSlice)
		}
		if err := done(slice, step%maxSlice); err != nil {
			return err
		}
		w.sum.Slices++
	}
	return nil
}

// timeUp reports that what has failed did so for the time, and not because the run was called off.
func timeUp(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < lateRead && !errors.Is(ctx.Err(), context.Canceled)
}

// tooMuch reports that the slice which could not be read had a fair share of the turn.
func (w *watch) tooMuch() bool { return time.Since(w.begun) > w.turn/2 }

// half is half of the slice that could not be read.
func (w *watch) half() time.Duration { return max(w.slice.To.Sub(w.slice.From)/2, minSlice) }

// saveLast writes the note when there is no time left.
func (w *watch) saveLast(ctx context.Context, next mark) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	return w.save(ctx, next)
}

// summary is what the turn came to.
func (w *watch) summary() DetectorSummary {
	s := w.sum
	s.Name, s.Watermark, s.Gaps = w.d.Name(), w.mark.Watermark, len(w.mark.Gaps)
	s.Also, s.Lags = w.total.also(), w.total.Lags
	s.LagP50, s.LagP99 = seconds(s.Lags.Quantile(0.5)), seconds(s.Lags.Quantile(0.99))
	return s
}
