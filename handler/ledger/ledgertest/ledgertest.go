// Package ledgertest says what every signup.Ledger has to do, as checks that return an error, and starts the emulator
// that the ledger in Azure Tables is tested against.
//
// It imports signup and the standard library; tests import it.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

// Check is one promise of signup.Ledger.
type Check struct {
	Name string
	// Run returns an error if a ledger breaks the promise. Every call of newLedger gives an empty one.
	Run func(ctx context.Context, newLedger func() signup.Ledger) error
}

// Checks returns all of them; they do not depend on each other.
func Checks() []Check {
	return slices.Concat(insertChecks, replaceChecks, dueChecks, noteChecks, concurrencyChecks)
}

// noon is the time around which the checks' rows are due. It has nanoseconds, since a ledger may not round them.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 123456789, time.UTC)

// user is the nth object id; ids are not in the order of n.
func user(n int) signup.UserID {
	return signup.UserID(fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(n)*2654435761, n))
}

// newRow is a row as detection makes it, due at that time, or settled if it is zero.
func newRow(n int, owner string, due time.Time) signup.Row {
	r := signup.NewRow(signup.Event{User: user(n), Kind: signup.Created, At: noon.Add(-time.Hour)}, "audit", []string{"billing"}, noon)
	r.Owner, r.Due = owner, due
	return r
}

func newRows(from, to int, owner string, due time.Time) []signup.Row {
	var rows []signup.Row
	for n := from; n < to; n++ {
		rows = append(rows, newRow(n, owner, due))
	}
	return rows
}

func userIDs(rows []signup.Row) []signup.UserID {
	ids := []signup.UserID{}
	for _, r := range rows {
		ids = append(ids, r.User)
	}
	return ids
}

func noVersions(rows []signup.Row) []signup.Row {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Version = ""
	}
	return rows
}

// diff is an error unless got and want are the same.
func diff(what string, got, want any) error {
	if d := cmp.Diff(want, got); d != "" {
		if len(d) > 2000 {
			d = d[:2000] + "…"
		}
		return fmt.Errorf("%s (-want +got):\n%s", what, d)
	}
	return nil
}

// insertAll inserts rows that must all be new.
func insertAll(ctx context.Context, l signup.Ledger, rows ...signup.Row) ([]signup.Row, error) {
	got, err := l.Insert(ctx, rows)
	if err != nil {
		return nil, err
	}
	return got, diff("rows new to the ledger", userIDs(got), userIDs(rows))
}

// holds is an error unless the ledger has exactly these rows of these users; versions are not compared.
func holds(ctx context.Context, l signup.Ledger, rows ...signup.Row) error {
	got, err := l.Get(ctx, userIDs(rows))
	if err != nil {
		return err
	}
	return diff("rows in the ledger", noVersions(got), noVersions(rows))
}

func collect(seq iter.Seq2[signup.Row, error]) ([]signup.Row, error) {
	var rows []signup.Row
	for r, err := range seq {
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// dueIs is an error unless exactly those rows are due, in that order.
func dueIs(ctx context.Context, l signup.Ledger, by time.Time, rows ...signup.Row) error {
	got, err := collect(l.Due(ctx, by))
	if err != nil {
		return err
	}
	return diff("users due by "+by.Format(time.RFC3339Nano), userIDs(got), userIDs(rows))
}

// conflict is an error unless err is signup.ErrConflict.
func conflict(what string, err error) error {
	if !errors.Is(err, signup.ErrConflict) {
		return fmt.Errorf("%s: got error %v, want signup.ErrConflict", what, err)
	}
	return nil
}
