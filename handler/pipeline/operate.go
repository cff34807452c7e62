package pipeline

import (
	"context"
	"errors"
	"slices"

	"signup-sync/handler/signup"
)

// Fate is what an operator's command has done about one user.
type Fate string

const (
	FatePlanned   Fate = "planned"   // it was not to act
	FateUndone    Fate = "undone"    // also if there was nothing left to take back
	FateReopened  Fate = "reopened"  //
	FateForgotten Fate = "forgotten" //
	FateNothing   Fate = "nothing"   // there is nothing to do
	FateAbsent    Fate = "absent"    // the ledger has no such user
	FateGone      Fate = "gone"      // the directory has no such user
	FateFailed    Fate = "failed"
)

const (
	// operateRows is how many rows a command changes in one write.
	operateRows = 100
	// operateTries is how often a command takes up a row that somebody else has changed in between.
	operateTries = 3
)

// rewrite changes rows, compare-and-swap: who was changed by someone else in between (by a census, or by a run that has
// lost its lease) is read again and goes through change once more. It returns who was written; not among them is whom
// change has left alone, by false, nor who was changed by others again and again.
func (r *run) rewrite(ctx context.Context, rows []signup.Row, change func(signup.Row) (signup.Row, bool)) (written []signup.UserID, err error) {
	for range operateTries {
		var next []signup.Row
		var left []signup.UserID
		for _, row := range rows {
			if after, ok := change(row); ok {
				after.Owner = r.id
				next, left = append(next, after), append(left, row.User)
			}
		}
		if len(next) == 0 {
			return written, nil
		}
		done, err := r.Ledger.Replace(ctx, next)
		for _, row := range done {
			written = append(written, row.User)
		}
		if err == nil || !errors.Is(err, signup.ErrConflict) {
			return written, err
		}
		left = slices.DeleteFunc(left, func(id signup.UserID) bool { return slices.Contains(written, id) })
		if rows, err = r.Ledger.Get(ctx, left); err != nil {
			return written, err
		}
	}
	return written, nil
}

// distinct sorts ids and drops repeated ones.
func distinct(ids []signup.UserID) []signup.UserID {
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}
