package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	censusNote      = "census"      // the walk under way, or the one that the certificate is of
	certificateNote = "certificate" // the last walk that came to its end

	// censusEvery is how old a certificate gets before the next census begins.
	censusEvery = 24 * time.Hour

	// A slice grows while it has few users and shrinks when it has many. One that has too many is not read to its end,
	// so that a walk that has grown over empty years does not hold a whole tenant in memory.
	firstStep    = 30 * 24 * time.Hour
	shortestStep = time.Second // the directory's own precision
	fewUsers     = 500
	manyUsers    = 2000
	tooManyUsers = 8000
	slowSlice    = 30 * time.Second
)

// firstUsers is where the walk begins: no tenant is older.
var firstUsers = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// CensusOptions say what a census is for.
type CensusOptions struct {
	Act   bool         // take in who is missing, and store the certificate; false = count, and write nothing at all
	Fresh bool         // begin anew, whatever is under way, however new the last certificate is
	Since time.Time    // count as if users had been looked for since then; only without Act
	Show  func(Census) // gets the counts after each slice
}

// Census compares the directory with the ledger, from the oldest user to the latest watermark less the overlap: younger
// users the detectors may still be bringing. It goes on where the last one was interrupted, and stops before ctx's
// deadline; Ended tells whether it has come to its end. It does nothing, as Idle says, while the last certificate is
// less than a day old.
//
// Whoever is missing gets a row, which the next run works, looking before it creates. It holds no lease: it inserts
// rows, which leaves existing ones alone, and changes settled ones by compare-and-swap, as any run does. Its progress is
// written the same way, once a slice, when all of the slice is in the ledger: of two at a time one goes on, and the
// other is Busy.
func (e *Engine) Census(ctx context.Context, t Trigger, o CensusOptions) (Census, error) {
	c := &counting{run: e.newRun(t), CensusOptions: o}
	c.setUntil(ctx)
	open, err := c.begin(ctx)
	if err == nil && open {
		err = c.walk(ctx)
		c.alert()
	}
	if errors.Is(err, signup.ErrConflict) {
		c.log.Info("another census has gone on in the meantime; leaving it to that one")
		c.census.Busy, err = true, nil
	}
	return c.census, err
}

// LastCensus is the certificate of the last census that came to its end; without an ID if there is none.
func (e *Engine) LastCensus(ctx context.Context) (Census, error) {
	var last Census
	_, err := e.readNote(ctx, certificateNote, &last)
	return last, err
}

// counting is one call of Census.
type counting struct {
	*run
	CensusOptions
	census   Census
	progress signup.Note // where it is stored
	last     signup.Note // the certificate
	watched  time.Time   // since when detectors have looked for users: who is older is backfilled and not missing
	added    []since     // from when on each configured destination gets users

	slices   int             // counted in this call
	inserted int             // missing users whom this call took in
	some     []signup.UserID // the first of them
}

// begin finds the census to go on with, or begins one. If there is nothing to do the census says why.
func (c *counting) begin(ctx context.Context) (open bool, err error) {
	var under, last Census
	if c.progress, err = c.readNote(ctx, censusNote, &under); err != nil {
		return false, err
	}
	if c.last, err = c.readNote(ctx, certificateNote, &last); err != nil {
		return false, err
	}
	underWay := under.ID != "" && under.ID != last.ID
	// A certificate from the future is from a clock that was wrong, and keeps nobody waiting.
	if age := c.start.Sub(last.Ended); c.Act && !c.Fresh && !underWay && age.Abs() < censusEvery {
		c.census.Idle = "the last census ended " + age.Round(time.Minute).String() + " ago"
		return false, nil
	}
	if err := c.checkClock(ctx); err != nil {
		return false, err
	}
	var body stateBody
	if _, err := c.readNote(ctx, stateNote, &body); err != nil {
		return false, err
	}
	if body.Since.IsZero() {
		c.census.Idle = ErrNoRun.Error()
		return false, nil
	}
	c.watched = body.watched()
	if !c.Act && !c.Since.IsZero() {
		body.lower(c.Since)
	}
	for _, s := range body.Destinations {
		if slices.Contains(c.destinationNames(), s.Name) {
			c.added = append(c.added, s)
		}
	}
	if c.Act && !c.Fresh && underWay && !under.To.IsZero() && under.Since.Equal(body.Since) {
		c.census = under
		return true, nil
	}
	to, err := c.rangeEnd(ctx)
	if err != nil {
		return false, err
	}
	if to.IsZero() {
		c.census.Idle = ErrNoRun.Error()
		return false, nil
	}
	from := firstUsers
	if body.Since.Before(from) {
		from = body.Since
	}
	return true, c.store(ctx, Census{ID: c.id, Started: c.start, Acted: c.Act, Since: body.Since, From: from, To: later(from, to), Cursor: from, Step: firstStep})
}

// rangeEnd is how far the configured detectors have brought the ledger for certain; zero if they have brought nothing.
func (r *run) rangeEnd(ctx context.Context) (time.Time, error) {
	detectors, err := r.Matrix(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var latest time.Time
	for _, d := range detectors {
		latest = later(latest, d.Watermark)
	}
	if latest.IsZero() {
		return latest, nil
	}
	if latest.After(r.start) {
		latest = r.start
	}
	return latest.Add(-r.Settings.Overlap).Truncate(time.Second), nil
}

// walk counts slice after slice until the end, or until the time is up.
func (c *counting) walk(ctx context.Context) error {
	workCtx := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		workCtx, cancel = context.WithDeadline(ctx, deadline.Add(-lastWrite))
		defer cancel()
	}
	for c.census.Cursor.Before(c.census.To) {
		if c.timeUp(workCtx) {
			return nil
		}
		next, err := c.slice(workCtx)
		switch {
		case err == nil:
			if err := c.store(ctx, next); err != nil {
				return err
			}
			c.slices++
			if c.Show != nil {
				c.Show(c.census)
			}
		case errors.Is(err, errTooMany):
			c.census.Step = max(c.census.Step/8, shortestStep)
		default:
			return c.interrupted(ctx, workCtx.Err() != nil, err)
		}
	}
	return c.finish(ctx)
}

// interrupted drops an unfinished slice: the next call begins with half of it, which may be what there is time for.
func (c *counting) interrupted(ctx context.Context, late bool, err error) error {
	next := c.census
	next.Step = max(next.Step/2, shortestStep)
	storeErr := c.store(ctx, next)
	switch {
	case late || errors.Is(storeErr, signup.ErrConflict):
		return storeErr
	case c.Act && c.slices > 0 && storeErr == nil: // this call came further than the one before, and the next fails if it does not
		c.log.Warn("census interrupted; the next one goes on where it was", "cursor", c.census.Cursor, "err", err)
		return nil
	}
	return fmt.Errorf("census from %s on: %w", c.census.Cursor.Format(time.RFC3339), errors.Join(err, storeErr))
}

// errTooMany says that a slice has more users than are held in memory, and can be made smaller.
var errTooMany = &signup.Error{Class: signup.Permanent, Code: "too-many"}

// slice counts the next slice, and brings its users into the ledger.
func (c *counting) slice(ctx context.Context) (next Census, err error) {
	w := signup.Window{From: c.census.Cursor, To: c.census.Cursor.Add(c.census.Step)}
	for _, end := range []time.Time{c.census.Since, c.census.To} { // no slice is on both sides of since
		if w.From.Before(end) && end.Before(w.To) {
			w.To = end
		}
	}
	begun := c.Clock.Now()
	err = c.patiently(ctx, func() error {
		next = c.census.clone()
		events, err := c.read(ctx, w, &next)
		for len(events) > 0 && err == nil {
			n := min(len(events), insertRows)
			err = c.chunk(ctx, events[:n], w, &next)
			events = events[n:]
		}
		return err
	})
	next.Cursor = w.To
	switch users, took := next.Users-c.census.Users, c.Clock.Now().Sub(begun); {
	case users > manyUsers || took > slowSlice:
		next.Step = max(next.Step/2, shortestStep)
	case users < fewUsers && took < slowSlice/2:
		next.Step *= 2
	}
	return next, err
}

// read returns the users of a slice, each once. All of them, or an error.
func (c *counting) read(ctx context.Context, w signup.Window, next *Census) (events []signup.Event, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(c.Backstop.Name(), v)
			events, err = nil, errors.New("the detector has panicked")
		}
	}()
	counter, counts := c.Backstop.(interface{ PassedOver() int64 })
	if counts {
		next.PassedOver -= counter.PassedOver()
	}
	at := make(map[signup.UserID]int)
	for e, err := range c.Backstop.Events(ctx, w) {
		if err != nil {
			return nil, fmt.Errorf("read the directory: %w", err)
		}
		created := e.Created
		if created.IsZero() && e.Kind == signup.Created {
			created = e.At
		}
		if !created.IsZero() && (created.Before(w.From) || !created.Before(w.To)) {
			continue // the neighbour's
		}
		if i, ok := at[e.User]; !ok {
			at[e.User] = len(events)
			events = append(events, e)
		} else if e.Kind == signup.Redeemed {
			events[i] = e
		}
		if len(events) > tooManyUsers && c.census.Step > shortestStep {
			return nil, errTooMany
		}
	}
	if counts {
		next.PassedOver += counter.PassedOver()
	}
	return events, nil
}

// store makes a counted slice durable. Who loses the write to another census has signup.ErrConflict.
func (c *counting) store(ctx context.Context, next Census) error {
	if !c.Act {
		c.census = next
		return next.CheckSum()
	}
	var err error
	if c.progress.Body, err = next.encode(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	n, err := c.Ledger.PutNote(ctx, c.progress)
	if err != nil {
		return fmt.Errorf("write how far the census is: %w", err)
	}
	c.progress, c.census = n, next
	return nil
}

// finish makes the walk that has come to its end the certificate. The progress stays as it is: the certificate's id
// tells that it is over.
func (c *counting) finish(ctx context.Context) error {
	done := c.census
	done.Ended = c.Clock.Now()
	var err error
	if done.Matrix, err = c.Engine.Matrix(ctx); err != nil {
		return err
	}
	if !c.Act {
		c.census = done
		return done.CheckSum()
	}
	if c.last.Body, err = done.encode(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	if _, err := c.Ledger.PutNote(ctx, c.last); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	c.census = done
	c.log.Info("census done", "users", done.Users, "before", done.Before, "associated", done.Associated, "pending", done.Pending,
		"missing", done.Missing, "backfilled", done.Backfilled, "to", done.To)
	return nil
}

// alert tells of users whom no detector has shown, and of a certificate that has some.
func (c *counting) alert() {
	if ended := !c.census.Ended.IsZero(); c.inserted > 0 || c.Act && ended && c.census.Missing > 0 {
		c.log.Error("users were missing from the ledger and are taken in now", "users", c.inserted, "some", c.some, "missing", c.census.Missing, "ended", ended)
	}
}
