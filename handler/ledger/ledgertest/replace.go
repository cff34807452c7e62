package ledgertest

import (
	"context"
	"fmt"
	"time"

	"signup-sync/handler/signup"
)

var replaceChecks = []Check{
	{"replace writes over the version it was given, and only over that", replaceVersion},
	{"replace writes the others when some are in conflict, of 250 rows", replaceOthers},
	{"replace returns versions for the next replace", replaceChain},
	{"replace does not make rows", replaceMakesNone},
	{"replace takes the first of two rows of one user", replaceTakesFirst},
	{"a row replaced by the same again has a new version", replaceSame},
}

func replaceVersion(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	old, err := insertAll(ctx, l, newRow(1, "run-1", noon))
	if err != nil {
		return err
	}
	second, third := old[0], old[0]
	second.Owner, third.Owner = "run-2", "run-3"
	got, err := l.Replace(ctx, []signup.Row{second})
	if err != nil {
		return err
	}
	if err := diff("row returned by replace", noVersions(got), noVersions([]signup.Row{second})); err != nil {
		return err
	}
	lost, err := l.Replace(ctx, []signup.Row{third})
	if err := conflict("replace over an old version", err); err != nil {
		return err
	}
	if err := diff("rows written over an old version", userIDs(lost), []signup.UserID{}); err != nil {
		return err
	}
	return holds(ctx, l, second)
}

func replaceOthers(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRows(0, 250, "run-1", noon)...)
	if err != nil {
		return err
	}
	var theirs, ours []signup.Row
	for n, r := range rows {
		if n == 0 || n == 17 || n == 18 || n >= 120 && n < 170 || n == 249 {
			r.Owner = "run-2"
			theirs = append(theirs, r)
		}
	}
	if _, err := l.Replace(ctx, theirs); err != nil {
		return err
	}
	taken := make(map[signup.UserID]bool)
	for _, r := range theirs {
		taken[r.User] = true
	}
	for n := range rows {
		rows[n].Owner = "run-3"
		switch n % 3 { // settled, moved, left where it is: with and without a change of the index
		case 0:
			rows[n].Due = time.Time{}
		case 1:
			rows[n].Due = noon.Add(time.Minute)
		}
		if !taken[rows[n].User] {
			ours = append(ours, rows[n])
		}
	}
	got, err := l.Replace(ctx, rows)
	if err := conflict("replace rows of which some were changed", err); err != nil {
		return err
	}
	if err := diff("rows written", noVersions(got), noVersions(ours)); err != nil {
		return err
	}
	if err := holds(ctx, l, theirs...); err != nil {
		return err
	}
	return holds(ctx, l, ours...)
}

func replaceChain(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRow(1, "run-0", noon), newRow(2, "run-0", time.Time{}))
	if err != nil {
		return err
	}
	for n := range 6 {
		for i := range rows {
			rows[i].Owner = fmt.Sprintf("run-%d", n+1)
			rows[i].Due = time.Time{}
			if n%3 != i {
				rows[i].Due = noon.Add(time.Duration(n) * time.Hour)
			}
		}
		if rows, err = l.Replace(ctx, rows); err != nil {
			return fmt.Errorf("replace number %d: %w", n+1, err)
		}
		if err := holds(ctx, l, rows...); err != nil {
			return err
		}
	}
	read, err := l.Get(ctx, userIDs(rows))
	if err != nil {
		return err
	}
	return diff("rows with their versions", read, rows)
}

func replaceMakesNone(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	there, err := insertAll(ctx, l, newRow(1, "run-1", noon))
	if err != nil {
		return err
	}
	borrowed := newRow(2, "run-1", noon)
	borrowed.Version = there[0].Version
	for _, r := range []signup.Row{borrowed, newRow(3, "run-1", noon)} {
		got, err := l.Replace(ctx, []signup.Row{r})
		if err := conflict("replace a row that is not there", err); err != nil {
			return err
		}
		if err := diff("rows written", userIDs(got), []signup.UserID{}); err != nil {
			return err
		}
	}
	bare := there[0]
	bare.Version, bare.Owner = "", "run-2"
	_, err = l.Replace(ctx, []signup.Row{bare})
	if err := conflict("replace a row without saying which version", err); err != nil {
		return err
	}
	got, err := collect(l.All(ctx))
	if err != nil {
		return err
	}
	return diff("rows in the ledger", got, there)
}

func replaceTakesFirst(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRow(1, "run-1", noon), newRow(2, "run-1", noon))
	if err != nil {
		return err
	}
	first, second := rows[0], rows[0]
	first.Owner, second.Owner = "first", "second"
	got, err := l.Replace(ctx, []signup.Row{first, rows[1], second})
	if err := conflict("replace a row twice in one call", err); err != nil {
		return err
	}
	if err := diff("rows written", userIDs(got), []signup.UserID{user(1), user(2)}); err != nil {
		return err
	}
	return holds(ctx, l, first)
}

func replaceSame(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRow(1, "run-1", noon))
	if err != nil {
		return err
	}
	if _, err := l.Replace(ctx, rows); err != nil {
		return err
	}
	_, err = l.Replace(ctx, rows)
	return conflict("replace the same again over the version before", err)
}
