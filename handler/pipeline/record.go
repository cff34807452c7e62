package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// record brings users that were seen into the ledger: a row for who is new, a reopened row for who has come back. One
// detector records at a time, so that who is seen by two is inserted once.
func (w *watch) record(ctx context.Context, detector string, events []signup.Event) error {
	r := w.run
	w.sum.Events += len(events)
	r.recording <- struct{}{}
	defer func() { <-r.recording }()
	events = w.unknown(events)
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
	waiting := false // there are users to be worked from the ledger
	for _, e := range events {
		row, ok := there[e.User]
		if !ok {
			row = signup.NewRow(e, detector, r.destinationNames(), now)
			if row.Owner = r.id; r.room() {
				row = row.Intend(r.id, now)
			} else {
				waiting = true
			}
			insert = append(insert, row)
		} else if again := comeBack(row, e, detector, now); again.Due != row.Due {
			again.Owner = r.id
			reopen, waiting = append(reopen, again), true
		}
	}
	if waiting { // also if only some of them, or the answer, are lost
		defer r.lookAtLedger()
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
	w.sum.New += len(insert)
	w.remember(events, insert, rows)
	r.signedUp(insert)
	if insert = slices.DeleteFunc(insert, func(row signup.Row) bool { return row.Intent.IsZero() }); len(insert) > 0 {
		r.fresh <- insert // has room for every user that may come this way
	}
	return nil
}

// lookAtLedger tells the work that users were recorded without an intent, unless it has been told and has not looked since.
func (r *run) lookAtLedger() {
	if r.waiting.CompareAndSwap(false, true) {
		r.fresh <- nil
	}
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
	begun := row.Begun() // when guests were associated when invited: what was made then is to be found
	for _, a := range row.Associations {
		redeemed := e.Kind == signup.Redeemed && a.Reason == reasonNotRedeemed
		// A log shows the deleted as well; a list of users does not.
		restored := (detector == "directory" || detector == "backstop") && a.Reason == reasonDeleted
		if a.State == signup.Skipped && (redeemed || restored) {
			row = row.Reopen(a.Destination, now)
			row.Kind, row.Missing = e.Kind, time.Time{}
			if redeemed && !begun {
				row.At = e.At
			}
		}
	}
	return row
}
