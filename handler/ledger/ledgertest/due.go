package ledgertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

var dueChecks = []Check{
	{"due yields what is due, earliest first, to the nanosecond", dueOrder},
	{"due compares instants, not clocks' faces", dueZones},
	{"due follows a row that moves, and forgets one that is settled", dueMoves},
	{"due yields a row with the version it has now", dueVersion},
	{"due goes through 500 rows while they are replaced", dueWhileReplaced},
	{"due leaves out rows that others settle or put off meanwhile", dueLeavesOut},
	{"due ends although rows are made due again", dueEnds},
	{"due starts from the beginning each time, and may be left early", dueAgain},
}

// byKey sorts rows of one due time as a ledger yields them: by user.
func byKey(rows ...signup.Row) []signup.Row {
	return slices.SortedFunc(slices.Values(rows), func(a, b signup.Row) int { return strings.Compare(string(a.User), string(b.User)) })
}

func dueOrder(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	times := []time.Duration{0, 1, -1, -time.Hour, time.Millisecond, -time.Millisecond, -25 * time.Hour, 9 * 365 * 24 * time.Hour, -time.Second}
	var rows []signup.Row
	for n, d := range times {
		rows = append(rows, newRow(n, "run-1", noon.Add(d)))
	}
	rows = append(rows, newRow(len(times), "run-1", time.Time{}))
	if _, err := insertAll(ctx, l, rows...); err != nil {
		return err
	}
	if err := dueIs(ctx, l, noon, rows[6], rows[3], rows[8], rows[5], rows[2], rows[0]); err != nil {
		return err
	}
	if err := dueIs(ctx, l, noon.Add(-26*time.Hour)); err != nil {
		return err
	}
	if err := dueIs(ctx, l, time.Time{}); err != nil {
		return err
	}
	return dueIs(ctx, l, time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		rows[6], rows[3], rows[8], rows[5], rows[2], rows[0], rows[1], rows[4], rows[7])
}

func dueZones(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	east := newRow(1, "run-1", noon.Add(-time.Minute).In(time.FixedZone("east", 10*3600)))
	west := newRow(2, "run-1", noon.Add(time.Minute).In(time.FixedZone("west", -10*3600)))
	if _, err := insertAll(ctx, l, west, east); err != nil {
		return err
	}
	if err := dueIs(ctx, l, noon.In(time.FixedZone("west", -10*3600)), east); err != nil {
		return err
	}
	return dueIs(ctx, l, noon.Add(time.Hour).In(time.FixedZone("east", 10*3600)), east, west)
}

func dueMoves(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRow(1, "run-1", noon), newRow(2, "run-1", noon.Add(1)), newRow(3, "run-1", noon.Add(2)))
	if err != nil {
		return err
	}
	rows[0].Due = noon.Add(time.Hour)
	rows[1].Due = time.Time{}
	rows[2].Due = noon.Add(-time.Hour)
	if rows, err = l.Replace(ctx, rows); err != nil {
		return err
	}
	if err := dueIs(ctx, l, noon.Add(time.Minute), rows[2]); err != nil {
		return err
	}
	if err := dueIs(ctx, l, noon.Add(24*time.Hour), rows[2], rows[0]); err != nil {
		return err
	}
	rows[1].Due = noon // reopened
	if _, err = l.Replace(ctx, rows[1:2]); err != nil {
		return err
	}
	return dueIs(ctx, l, noon.Add(24*time.Hour), rows[2], rows[1], rows[0])
}

func dueVersion(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRow(1, "run-1", noon))
	if err != nil {
		return err
	}
	rows[0].Owner = "run-2" // the index entry stays the same
	if rows, err = l.Replace(ctx, rows); err != nil {
		return err
	}
	got, err := collect(l.Due(ctx, noon))
	if err != nil {
		return err
	}
	if err := diff("rows due", got, rows); err != nil {
		return err
	}
	got[0].Due = time.Time{}
	if _, err = l.Replace(ctx, got); err != nil {
		return fmt.Errorf("settle what due yielded: %w", err)
	}
	return dueIs(ctx, l, noon)
}

// dueWhileReplaced does what a run does: it settles rows, or puts them off, in groups of 15 while it goes on.
func dueWhileReplaced(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows := make([]signup.Row, 500)
	for n := range rows {
		rows[n] = newRow(n, "run-1", noon.Add(time.Duration(n/7)))
	}
	if _, err := insertAll(ctx, l, rows...); err != nil {
		return err
	}
	by := noon.Add(time.Second)
	var yielded, group []signup.Row
	flush := func() error {
		_, err := l.Replace(ctx, group)
		group = nil
		return err
	}
	for r, err := range l.Due(ctx, by) {
		if err != nil {
			return err
		}
		yielded = append(yielded, r)
		r.Owner, r.Due = "run-2", time.Time{}
		if len(yielded)%5 == 0 {
			r.Due = by.Add(time.Minute)
		}
		if group = append(group, r); len(group) == 15 {
			if err := flush(); err != nil {
				return fmt.Errorf("replace what due yielded: %w", err)
			}
		}
	}
	if err := flush(); err != nil {
		return fmt.Errorf("replace what due yielded: %w", err)
	}
	if err := diff("users yielded, by id", userIDs(byKey(yielded...)), userIDs(byKey(rows...))); err != nil {
		return err
	}
	if err := dueIs(ctx, l, by); err != nil {
		return err
	}
	later, err := collect(l.Due(ctx, by.Add(time.Hour)))
	if err != nil {
		return err
	}
	return diff("rows put off", len(later), 100)
}

// dueLeavesOut changes rows so far ahead that no ledger should have read them yet: a run takes 15 at a time.
func dueLeavesOut(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, byKey(newRows(0, 40, "run-1", noon)...)...)
	if err != nil {
		return err
	}
	var got []signup.Row
	for r, err := range l.Due(ctx, noon) {
		if err != nil {
			return err
		}
		if got = append(got, r); len(got) > 1 {
			continue
		}
		changed := slices.Clone(rows[30:])
		for i := range changed {
			changed[i].Due = time.Time{}
			if i%2 == 0 {
				changed[i].Due = noon.Add(time.Hour)
			}
		}
		if _, err := l.Replace(ctx, changed); err != nil {
			return err
		}
	}
	return diff("users yielded", userIDs(got), userIDs(rows[:30]))
}

// dueEnds makes the first rows due again behind all others, which is beyond what any ledger reads at once.
func dueEnds(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows := byKey(newRows(0, 230, "run-1", noon)...)
	if _, err := insertAll(ctx, l, rows...); err != nil {
		return err
	}
	by, seen := noon.Add(time.Hour), make(map[signup.UserID]bool)
	var group []signup.Row
	for r, err := range l.Due(ctx, by) {
		if err != nil {
			return err
		}
		if seen[r.User] {
			return fmt.Errorf("due yields user %s again after it was replaced", r.User)
		}
		seen[r.User] = true
		if len(seen) > 30 {
			continue
		}
		r.Due = by
		if group = append(group, r); len(group) == 15 {
			if _, err := l.Replace(ctx, group); err != nil {
				return err
			}
			group = nil
		}
	}
	if err := diff("users yielded", len(seen), len(rows)); err != nil {
		return err
	}
	return dueIs(ctx, l, by, slices.Concat(rows[30:], rows[:30])...)
}

func dueAgain(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows := byKey(newRows(0, 40, "run-1", noon)...)
	if _, err := insertAll(ctx, l, rows...); err != nil {
		return err
	}
	due := l.Due(ctx, noon)
	for range 2 {
		var got []signup.Row
		for r, err := range due {
			if err != nil {
				return err
			}
			if got = append(got, r); len(got) == 20 {
				break
			}
		}
		if err := diff("the first users due", userIDs(got), userIDs(rows[:20])); err != nil {
			return err
		}
	}
	return nil
}
