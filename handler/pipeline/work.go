package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	batchUsers = 15 // Graph's limit for one profile read
	batches    = 8  // worked at the same time
	// scanRows is how many due rows are held in memory.
	scanRows = 4 * batchUsers * batches

	aloneAt = 3 // starts without a settle: the user is worked alone
	crashAt = 6 // … and then no more
)

// work associates who is due and who is detected meanwhile, until there is nobody left or the time is up.
func (r *run) work(ctx context.Context) error {
	q := &queue{run: r, due: r.looked, turn: make(chan struct{}, 1), seen: map[key]bool{}}
	workCtx := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		workCtx, cancel = context.WithDeadline(ctx, deadline.Add(-lastWrite))
		defer cancel()
	}
	r.Each(batches, func(int) {
		for rows := q.next(workCtx); len(rows) > 0; rows = q.next(workCtx) {
			r.batch(ctx, workCtx, rows)
		}
	})
	// Who has been at work at the fewest deaths first: the others of a batch are not to wait until the one who kills the
	// program is given up.
	slices.SortStableFunc(q.alone, func(a, b signup.Row) int { return cmp.Compare(a.Starts, b.Starts) })
	for _, row := range q.alone {
		if r.timeUp(workCtx) {
			break
		}
		if rows := r.intend(workCtx, []signup.Row{row}); len(rows) > 0 {
			r.batch(ctx, workCtx, rows)
		}
	}
	for rows := range r.fresh { // until detection is over, which ends before the run's time does
		q.fresh = append(q.fresh, rows...)
	}
	r.handBack(ctx, q.fresh)
	return q.err
}

// queue hands out batches: the fresh rows, which have their intent already, and what is due.
type queue struct {
	*run
	due  time.Time     // everything due by then is worked
	turn chan struct{} // one at a time looks for more; a channel, since it is held while the ledger is asked

	fresh []signup.Row
	over  bool         // detection is
	page  []signup.Row // due rows without an intent of this run
	seen  map[key]bool // who was in a page; they stay due in the ledger until settled
	done  bool         // there is no further page
	alone []signup.Row
	err   error
}

// next returns at most 15 rows with a durable intent; none when there is no more, or no time.
func (q *queue) next(ctx context.Context) []signup.Row {
	q.turn <- struct{}{}
	defer func() { <-q.turn }()
	for !q.timeUp(ctx) {
		if n := min(len(q.fresh), batchUsers); n > 0 {
			rows := q.fresh[:n]
			q.fresh = q.fresh[n:]
			return rows
		}
		if len(q.page) > 0 || q.scan(ctx) {
			n := min(len(q.page), batchUsers)
			rows := q.page[:n]
			q.page = q.page[n:]
			if rows = q.intend(ctx, rows); len(rows) > 0 {
				return rows
			}
		} else if !q.await(ctx) {
			return nil
		}
	}
	return nil
}

// await waits for users to be detected: those with an intent come themselves, and for others the index is read again. Without
// these it is not: that costs a read for each row that has an intent, too.
func (q *queue) await(ctx context.Context) bool {
	if q.over {
		return false
	}
	select {
	case rows, ok := <-q.run.fresh:
		q.fresh, q.over = rows, !ok
		if len(rows) == 0 && q.waiting.Swap(false) && q.err == nil {
			q.done, q.due = false, q.Clock.Now()
		}
		return true
	case <-ctx.Done():
		return false
	}
}

// scan reads a page of due rows. Rows that somebody is at, or that killed a run before, are set aside.
func (q *queue) scan(ctx context.Context) bool {
	if q.done {
		return false
	}
	full := false
	for row, err := range q.Ledger.Due(ctx, q.due) {
		if err != nil {
			q.done, q.err = true, fmt.Errorf("look for due rows: %w", err)
			q.log.Warn("due rows not read", "err", err)
			return false
		}
		if q.seen[keyOf(row.User)] || row.Owner == q.id && !row.Intent.Before(q.looked) {
			continue // this round is at it, or about to be
		}
		q.seen[keyOf(row.User)] = true
		if !row.Intent.IsZero() && (row.Owner == q.id || q.survived(row.Owner)) {
			row.Starts-- // the ledger failed, or its answer was lost: nobody has died at this user
		}
		switch {
		case row.Starts >= crashAt:
			q.log.Error("the program has died at this user again and again; giving up", "user", row.User, "attempt", row.Starts)
			q.settle(ctx, []change{{row, row.SettleAll(signup.Failed, "crash", "", q.Clock.Now())}})
		case row.Starts >= aloneAt:
			q.alone = append(q.alone, row)
		default:
			q.page = append(q.page, row)
		}
		if full = len(q.page) == scanRows; full {
			break
		}
	}
	q.done = !full
	return len(q.page) > 0
}

// endedRuns is how many of its runs a process remembers to have survived; who was left by one is due at once.
const endedRuns = 100

// survive notes that the program has not died in this run.
func (r *run) survive() {
	e := r.Engine
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = append(e.ended, r.id)
	e.ended = e.ended[max(0, len(e.ended)-endedRuns):]
}

// survived reports that a run has come to its end in this process.
func (e *Engine) survived(run string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.ended, run)
}

// intend makes the intent durable and returns the rows for which it is. Rows that somebody else has changed are left.
func (r *run) intend(ctx context.Context, rows []signup.Row) []signup.Row {
	now := r.Clock.Now()
	intended := make([]signup.Row, len(rows))
	for i, row := range rows {
		intended[i] = row.Intend(r.id, now)
	}
	written, err := r.Ledger.Replace(ctx, intended)
	if err != nil && !errors.Is(err, signup.ErrConflict) {
		r.log.Warn("intents not written; the rows are left for the next run", "rows", len(rows), "err", err)
		r.fail(fmt.Errorf("write intents: %w", err))
		return nil
	}
	return written
}

// handBack frees rows that were taken and not begun.
func (r *run) handBack(ctx context.Context, rows []signup.Row) {
	if len(rows) == 0 {
		return
	}
	now := r.Clock.Now()
	back := make([]change, len(rows))
	for i, row := range rows {
		back[i] = change{row, row.Postpone(now, time.Second)}
	}
	r.log.Info("time is up; handing back users that were not begun", "users", len(rows))
	r.settle(ctx, back)
}

// change is a row before and after.
type change struct{ before, after signup.Row }

// settle writes what is now known. A row that somebody else has changed stays as that one wrote it: our effects are
// found again by look-ups.
func (r *run) settle(ctx context.Context, changes []change) {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
		defer cancel()
	}
	ctx, end := r.span(ctx, "settle", slog.Int("users", len(changes)))
	rows := make([]signup.Row, len(changes))
	for i, c := range changes {
		rows[i] = c.after
		rows[i].Owner = r.id
	}
	var err error
	for range 3 {
		var written []signup.Row
		if written, err = r.Ledger.Replace(ctx, rows); err == nil || errors.Is(err, signup.ErrConflict) {
			end("")
			r.settled(changes, written)
			return
		}
		if r.Clock.Sleep(ctx, r.jitter(time.Second)) != nil {
			break
		}
	}
	end(failed(err))
	r.log.Error("what was done could not be written; the next run looks before it repeats anything", "users", len(rows), "err", err)
	r.fail(fmt.Errorf("settle %d rows: %w", len(rows), err))
}

// settled takes what was written into the summary, and tells what a person must look at.
func (r *run) settled(changes []change, written []signup.Row) {
	if len(written) < len(changes) {
		r.log.Warn("rows were changed by someone else in the meantime", "users", len(changes)-len(written))
	}
	there := make(map[signup.UserID]bool, len(written))
	for _, row := range written {
		there[row.User] = true
	}
	for _, c := range changes {
		if !there[c.after.User] {
			continue
		}
		for i, a := range c.after.Associations {
			if a.State == signup.Failed && c.before.Associations[i].State == signup.Pending {
				r.log.Error("association failed; replay it after mending the cause", "user", c.after.User, "destination", a.Destination, "reason", a.Reason, "detail", a.Detail)
			}
		}
		if deleted(c.after) {
			r.lookAgain(c.after.User)
		}
		r.mu.Lock()
		r.sum.add(c)
		r.flows.settled(c)
		r.mu.Unlock()
	}
}
