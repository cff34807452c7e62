package ledgertest

import (
	"context"
	"fmt"
	"time"

	"signup-sync/handler/signup"
)

var insertChecks = []Check{
	{"insert keeps every field of a row", insertKeepsFields},
	{"insert leaves existing rows alone", insertLeavesExisting},
	{"insert returns only what was new, in order, of 1,000 rows", insertReturnsNew},
	{"insert takes the first of two rows of one user", insertTakesFirst},
	{"insert of the same rows again returns none", insertAgain},
	{"insert, get and replace of nothing do nothing", emptyCalls},
	{"a ledger does not share memory with its caller", sharesNothing},
	{"get answers in the order asked and leaves out who is not there", getOrder},
	{"all yields every row once, settled or not, beyond a page", allYields},
	{"a cancelled context is an error and writes nothing", cancelled},
}

func insertKeepsFields(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	r := signup.Row{
		User: user(1), Kind: signup.Redeemed, At: noon.Add(-time.Hour), Detected: noon, Detector: "directory",
		Origin: signup.SelfService, Evidence: "creationType=none <&>", Due: noon.Add(1), Owner: "run-1", Intent: noon.Add(2), Starts: 2,
		Unsure: true, Missing: noon.Add(3),
		Associations: []signup.Association{{
			Destination: "billing", State: signup.Failed, Account: "cus_123", Reason: "rejected", Detail: "ein \"Umlaut\": ü, 漢字, \\",
			Generation: 1, Spent: noon.Add(7), Forbidden: noon.Add(8), Attempts: 2, FirstTry: noon.Add(4), Opened: noon.Add(9), Next: noon.Add(5), Settled: noon.Add(6),
		}, {Destination: signup.Profile, State: signup.Pending}},
	}
	got, err := insertAll(ctx, l, r)
	if err != nil {
		return err
	}
	if got[0].Version == "" {
		return fmt.Errorf("insert returned a row without a version")
	}
	if err := diff("row returned by insert", noVersions(got), []signup.Row{r}); err != nil {
		return err
	}
	read, err := l.Get(ctx, []signup.UserID{r.User})
	if err != nil {
		return err
	}
	return diff("row in the ledger, with its version", read, got)
}

func insertLeavesExisting(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	first := newRow(1, "first", noon)
	if _, err := insertAll(ctx, l, first); err != nil {
		return err
	}
	if _, err := l.Insert(ctx, []signup.Row{newRow(1, "second", noon.Add(time.Hour)), newRow(2, "second", noon)}); err != nil {
		return err
	}
	if err := holds(ctx, l, first, newRow(2, "second", noon)); err != nil {
		return err
	}
	return dueIs(ctx, l, noon.Add(time.Hour), byKey(first, newRow(2, "second", noon))...)
}

func insertReturnsNew(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	var old, fresh []signup.Row
	all := newRows(0, 1000, "run-2", noon)
	for n, r := range all {
		if n%3 == 1 || n >= 300 && n < 420 {
			old = append(old, newRow(n, "run-1", noon))
		} else {
			fresh = append(fresh, r)
		}
	}
	if _, err := insertAll(ctx, l, old...); err != nil {
		return err
	}
	got, err := l.Insert(ctx, all)
	if err != nil {
		return err
	}
	if err := diff("rows new to the ledger", noVersions(got), fresh); err != nil {
		return err
	}
	if err := holds(ctx, l, old...); err != nil {
		return err
	}
	if err := holds(ctx, l, fresh...); err != nil {
		return err
	}
	if _, err := l.Replace(ctx, got); err != nil { // the versions are good
		return fmt.Errorf("replace what insert returned: %w", err)
	}
	return nil
}

func insertTakesFirst(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	first := newRow(1, "first", noon)
	got, err := l.Insert(ctx, []signup.Row{first, newRow(2, "first", noon), newRow(1, "second", noon.Add(1))})
	if err != nil {
		return err
	}
	if err := diff("rows new to the ledger", userIDs(got), []signup.UserID{user(1), user(2)}); err != nil {
		return err
	}
	return holds(ctx, l, first)
}

func insertAgain(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows := newRows(0, 3, "run-1", noon)
	if _, err := insertAll(ctx, l, rows...); err != nil {
		return err
	}
	got, err := l.Insert(ctx, rows)
	if err != nil {
		return err
	}
	return diff("rows new at the second insert", userIDs(got), []signup.UserID{})
}

func emptyCalls(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	inserted, err1 := l.Insert(ctx, nil)
	got, err2 := l.Get(ctx, nil)
	replaced, err3 := l.Replace(ctx, nil)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return err
		}
	}
	return diff("rows from nothing", len(inserted)+len(got)+len(replaced), 0)
}

func sharesNothing(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	r := newRow(1, "run-1", noon)
	if _, err := insertAll(ctx, l, r); err != nil {
		return err
	}
	r.Associations[0].State = signup.Failed
	for range 2 {
		got, err := l.Get(ctx, []signup.UserID{r.User})
		if err != nil {
			return err
		}
		if err := diff("rows in the ledger", noVersions(got), []signup.Row{newRow(1, "run-1", noon)}); err != nil {
			return err
		}
		got[0].Associations[0].State = signup.Failed
	}
	return nil
}

func getOrder(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	if _, err := insertAll(ctx, l, newRows(0, 40, "run-1", noon)...); err != nil {
		return err
	}
	var ids, want []signup.UserID
	for n := 59; n >= 0; n-- {
		ids = append(ids, user(n))
		if n < 40 {
			want = append(want, user(n))
		}
	}
	got, err := l.Get(ctx, ids)
	if err != nil {
		return err
	}
	return diff("users in the order asked", userIDs(got), want)
}

func allYields(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows := append(newRows(0, 600, "run-1", noon), newRows(600, 1105, "run-1", time.Time{})...)
	if _, err := insertAll(ctx, l, rows...); err != nil {
		return err
	}
	got, err := collect(l.All(ctx))
	if err != nil {
		return err
	}
	if err := diff("all rows", noVersions(byKey(got...)), noVersions(byKey(rows...))); err != nil {
		return err
	}
	if _, err := l.Replace(ctx, got[:5]); err != nil {
		return fmt.Errorf("replace what all yielded: %w", err)
	}
	for range l.All(ctx) {
		break // stopping early is allowed
	}
	return nil
}

func cancelled(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	kept, err := insertAll(ctx, l, newRow(1, "run-1", noon))
	if err != nil {
		return err
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	changed := kept[0]
	changed.Owner = "run-2"
	_, err1 := l.Insert(gone, []signup.Row{newRow(2, "run-1", noon)})
	_, err2 := l.Replace(gone, []signup.Row{changed})
	_, err3 := l.Get(gone, []signup.UserID{user(1)})
	_, err4 := collect(l.Due(gone, noon))
	_, err5 := collect(l.All(gone))
	_, err6 := l.Note(gone, "lease")
	_, err7 := l.PutNote(gone, signup.Note{Name: "lease", Body: []byte(`{}`)})
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
		if err == nil {
			name := []string{"insert", "replace", "get", "due", "all", "note", "put note"}[i]
			return fmt.Errorf("%s with a cancelled context: got no error", name)
		}
	}
	if err := holds(ctx, l, kept[0]); err != nil {
		return err
	}
	return dueIs(ctx, l, noon, kept[0])
}
