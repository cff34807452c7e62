package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	// freshUsers is how many new users a run works from memory; their rows are inserted with the intent. The others wait
	// in the ledger.
	freshUsers = 300
	// insertRows is how many rows are recorded in one call.
	insertRows = 200
	// knownUsers bounds the memory of who needs no look into the ledger, 36 bytes and the map's own a user.
	knownUsers = 200_000
)

// detect reads every detector and hands over the rows that it inserted with this run's intent. A detector that fails
// does not keep the others back; the error is for the case that none could be read.
func (r *run) detect(ctx context.Context) error {
	defer close(r.fresh)
	if deadline, ok := ctx.Deadline(); ok {
		// Half of the time at most: what is recorded without an intent is worked after it.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)/2))
		defer cancel()
	}
	results := make([]detection, len(r.Detectors))
	r.Each(len(r.Detectors), func(i int) { results[i] = r.detectOne(ctx, r.Detectors[i]) })

	var errs []error
	for i, d := range results {
		r.sum.Detectors = append(r.sum.Detectors, d.sum)
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

// detectOne reads one detector's window slice by slice: rows first, then the watermark.
func (r *run) detectOne(ctx context.Context, d signup.Detector) (out detection) {
	out.sum.Name = d.Name()
	defer func() {
		if v := recover(); v != nil {
			r.panicked(d.Name(), v)
			out.err = errors.New("the detector has panicked")
		}
	}()
	n, err := r.Ledger.Note(ctx, "watermark|"+d.Name())
	if err != nil {
		out.err = fmt.Errorf("read the watermark: %w", err)
		return out
	}
	n.Name = "watermark|" + d.Name()
	var m mark
	if out.err = decodeNote(n, &m); out.err != nil {
		return out
	}
	save := func(next mark) bool {
		saved, err := putNote(ctx, r.Ledger, n, next)
		if err != nil {
			out.err = fmt.Errorf("write the watermark: %w", err)
			return false
		}
		n, m = saved, next
		return true
	}

	w, gap := m.window(r.start, r.state.body.Since, r.Settings.Overlap, d.Retention(), r.trigger)
	out.sum.From, out.sum.To, out.sum.Watermark = w.From, w.To, m.Watermark
	if !gap.Empty() {
		// The gap is durable before the watermark passes it.
		next := m
		next.Gaps = append([]signup.Window(nil), m.Gaps...)
		if i := len(next.Gaps) - 1; i >= 0 && !gap.From.After(next.Gaps[i].To) {
			next.Gaps[i].To = gap.To
		} else {
			next.Gaps = append(next.Gaps, gap)
		}
		next.Watermark = later(m.Watermark, gap.To)
		r.log.Warn("the log no longer has all of the window; reading the directory instead", "detector", d.Name(), "from", gap.From, "to", gap.To)
		if !save(next) {
			return out
		}
	}
	out.err = r.readSlices(ctx, d, w, m.Slice, &out, func(slice signup.Window) bool { return save(m.advance(slice, d.Served())) })
	if out.err != nil && ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
		defer cancel()
		if _, err := putNote(saveCtx, r.Ledger, n, m.halve()); err != nil {
			out.err = errors.Join(out.err, fmt.Errorf("write the watermark: %w", err))
		}
	}
	if out.err == nil {
		out.err = r.closeGaps(ctx, &m, save, &out)
	}
	out.sum.Gaps, out.sum.Watermark = len(m.Gaps), m.Watermark
	return out
}

// closeGaps reads from the directory what the log no longer has, and remembers how far it came.
func (r *run) closeGaps(ctx context.Context, m *mark, save func(mark) bool, out *detection) error {
	for len(m.Gaps) > 0 {
		gap := m.Gaps[0]
		err := r.readSlices(ctx, r.Backstop, gap, 0, out, func(slice signup.Window) bool {
			next := *m
			next.Gaps = append([]signup.Window{{From: slice.To, To: gap.To}}, m.Gaps[1:]...)
			if next.Gaps[0].Empty() {
				next.Gaps = next.Gaps[1:]
			}
			return save(next)
		})
		if err != nil {
			return fmt.Errorf("close the gap from %s: %w", m.Gaps[0].From.Format(time.RFC3339), err)
		}
	}
	return nil
}

// readSlices reads w from d, oldest slice first, records each whole slice, and calls done after it.
func (r *run) readSlices(ctx context.Context, d signup.Detector, w signup.Window, step time.Duration, out *detection, done func(signup.Window) bool) error {
	for _, slice := range cut(w, step) {
		var events []signup.Event
		for e, err := range d.Events(ctx, slice) {
			if err != nil {
				return fmt.Errorf("read %s to %s: %w", slice.From.Format(time.RFC3339), slice.To.Format(time.RFC3339), err)
			}
			events = append(events, e)
		}
		out.sum.Events += len(events)
		for len(events) > 0 {
			n := min(len(events), insertRows)
			if err := r.record(ctx, d.Name(), events[:n], out); err != nil {
				return err
			}
			events = events[n:]
		}
		out.sum.Slices++
		if done != nil && !done(slice) {
			return out.err
		}
	}
	return nil
}

// record brings users that were seen into the ledger: a row for who is new, a reopened row for who has come back. One
// detector records at a time, so that who is seen by two is inserted once.
func (r *run) record(ctx context.Context, detector string, events []signup.Event, out *detection) error {
	r.recording <- struct{}{}
	defer func() { <-r.recording }()
	events = r.unknown(events)
	if len(events) == 0 {
		return nil
	}
	ids := make([]signup.UserID, len(events))
	for i, e := range events {
		ids[i] = e.User
	}
	rows, err := r.Ledger.Get(ctx, ids)
	if err != nil {
		return fmt.Errorf("look up %d users in the ledger: %w", len(ids), err)
	}
	there := make(map[signup.UserID]signup.Row, len(rows))
	for _, row := range rows {
		there[row.User] = row
	}
	now := r.Clock.Now()
	var insert, reopen []signup.Row
	for _, e := range events {
		row, ok := there[e.User]
		if !ok {
			row = signup.NewRow(e, detector, r.destinationNames(), now)
			if row.Owner = r.id; r.room() {
				row = row.Intend(r.id, now)
			}
			insert = append(insert, row)
		} else if again := comeBack(row, e, detector, now); again.Due != row.Due {
			again.Owner = r.id
			reopen = append(reopen, again)
		}
	}
	if len(reopen) > 0 {
		if _, err := r.Ledger.Replace(ctx, reopen); err != nil && !errors.Is(err, signup.ErrConflict) {
			return fmt.Errorf("reopen %d rows: %w", len(reopen), err)
		}
	}
	if len(insert) > 0 {
		if insert, err = r.Ledger.Insert(ctx, insert); err != nil {
			return fmt.Errorf("insert rows: %w", err)
		}
	}
	out.sum.New += len(insert)
	r.remember(insert, rows)
	if insert = slices.DeleteFunc(insert, func(row signup.Row) bool { return row.Intent.IsZero() }); len(insert) > 0 {
		r.fresh <- insert // has room for every user that may come this way
	}
	return nil
}

// room counts the users that this run takes from memory.
func (r *run) room() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sum.fresh >= freshUsers {
		return false
	}
	r.sum.fresh++
	return true
}

// comeBack reopens a row for a user who redeemed an invitation after the row was settled, and for one who is in the
// directory again after having been taken for deleted.
func comeBack(row signup.Row, e signup.Event, detector string, now time.Time) signup.Row {
	for _, a := range row.Associations {
		redeemed := e.Kind == signup.Redeemed && a.Reason == reasonNotRedeemed
		// A log shows the deleted as well; a list of users does not.
		restored := (detector == "directory" || detector == "backstop") && a.Reason == reasonDeleted
		if a.State == signup.Skipped && (redeemed || restored) {
			row = row.Reopen(a.Destination, now)
			row.Kind, row.Missing = e.Kind, time.Time{}
			if redeemed {
				row.At = e.At
			}
		}
	}
	return row
}

// unknown drops repeated users (the earliest event of each stays) and those whose row needs no further look. A
// redemption always gets one.
func (r *run) unknown(events []signup.Event) []signup.Event {
	r.Engine.mu.Lock()
	defer r.Engine.mu.Unlock()
	at := make(map[signup.UserID]int, len(events))
	var out []signup.Event
	for _, e := range events {
		if _, ok := r.known[e.User]; ok && e.Kind != signup.Redeemed {
			continue
		}
		i, ok := at[e.User]
		switch {
		case !ok:
			at[e.User] = len(out)
			out = append(out, e)
		case e.Kind == signup.Redeemed && out[i].Kind != signup.Redeemed:
			out[i] = e
		case e.Kind == out[i].Kind && e.At.Before(out[i].At):
			out[i] = e
		}
	}
	return out
}

// remember notes whose rows exist and cannot come back by being seen once more.
func (r *run) remember(lists ...[]signup.Row) {
	r.Engine.mu.Lock()
	defer r.Engine.mu.Unlock()
	if r.known == nil || len(r.known) > knownUsers {
		r.known = make(map[signup.UserID]struct{})
	}
	for _, rows := range lists {
		for _, row := range rows {
			if !deleted(row) {
				r.known[row.User] = struct{}{}
			}
		}
	}
}

// forget makes the detectors look at a user again.
func (r *run) forget(id signup.UserID) {
	r.Engine.mu.Lock()
	defer r.Engine.mu.Unlock()
	delete(r.known, id)
}

func deleted(row signup.Row) bool {
	for _, a := range row.Associations {
		if a.Reason == reasonDeleted {
			return true
		}
	}
	return false
}

func (e *Engine) destinationNames() []string {
	names := make([]string, len(e.Destinations))
	for i, d := range e.Destinations {
		names[i] = d.Name
	}
	return names
}
