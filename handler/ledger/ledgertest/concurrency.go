package ledgertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

var concurrencyChecks = []Check{
	{"of many who replace one version exactly one wins", oneWins},
	{"of many who write one version of a note exactly one wins", oneNoteWins},
	{"updates by many are not lost", noneLost},
	{"overlapping inserts report each row as new exactly once", newOnce},
}

const writers = 8

// atOnce runs f by many writers that start together, and returns their first error.
func atOnce(f func(writer int) error) error {
	var wg sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			<-start
			errs[w] = f(w)
		})
	}
	close(start)
	wg.Wait()
	return errors.Join(errs...)
}

func oneWins(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	rows, err := insertAll(ctx, l, newRow(1, "nobody", noon), newRow(2, "nobody", noon))
	if err != nil {
		return err
	}
	row := rows[0]
	for round := range 8 {
		var won [writers]signup.Row
		err := atOnce(func(w int) error {
			mine := row
			mine.Owner, mine.Due = fmt.Sprintf("writer-%d", w), noon.Add(time.Duration(round*w))
			got, err := l.Replace(ctx, []signup.Row{mine})
			if errors.Is(err, signup.ErrConflict) {
				return nil
			}
			if err == nil {
				won[w] = got[0]
			}
			return err
		})
		if err != nil {
			return err
		}
		winners := 0
		for _, r := range won {
			if r.Version != "" {
				winners, row = winners+1, r
			}
		}
		if err := diff(fmt.Sprintf("winners of round %d", round), winners, 1); err != nil {
			return err
		}
		if err := holds(ctx, l, row); err != nil {
			return err
		}
	}
	return dueIs(ctx, l, noon.Add(time.Hour), dueOrdered(row, rows[1])...)
}

func dueOrdered(a, b signup.Row) []signup.Row {
	if c := a.Due.Compare(b.Due); c < 0 {
		return []signup.Row{a, b}
	} else if c > 0 {
		return []signup.Row{b, a}
	}
	return byKey(a, b)
}

func oneNoteWins(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	note := signup.Note{Name: "lease"}
	for round := range 8 {
		var won [writers]signup.Note
		err := atOnce(func(w int) error {
			mine := note
			mine.Body = fmt.Appendf(nil, `{"owner":%d}`, w)
			got, err := l.PutNote(ctx, mine)
			if errors.Is(err, signup.ErrConflict) {
				return nil
			}
			won[w] = got
			return err
		})
		if err != nil {
			return err
		}
		winners := 0
		for _, n := range won {
			if n.Version != "" {
				winners, note = winners+1, n
			}
		}
		if err := diff(fmt.Sprintf("winners of round %d", round), winners, 1); err != nil {
			return err
		}
		got, err := l.Note(ctx, "lease")
		if err != nil {
			return err
		}
		if err := diff("the note", got, note); err != nil {
			return err
		}
	}
	return nil
}

// noneLost lets everybody count in one row and one note by reading, adding one, and trying again after a conflict.
func noneLost(ctx context.Context, newLedger func() signup.Ledger) error {
	const times = 6
	l := newLedger()
	if _, err := insertAll(ctx, l, newRow(1, "nobody", noon)); err != nil {
		return err
	}
	countRow := func() error {
		got, err := l.Get(ctx, []signup.UserID{user(1)})
		if err != nil {
			return err
		}
		got[0].Starts++
		got[0].Due = noon.Add(time.Duration(got[0].Starts))
		_, err = l.Replace(ctx, got)
		return err
	}
	countNote := func() error {
		n, err := l.Note(ctx, "count")
		if err != nil {
			return err
		}
		count := 0
		if n.Version != "" {
			if err := json.Unmarshal(n.Body, &count); err != nil {
				return err
			}
		}
		n.Body = fmt.Append(nil, count+1)
		_, err = l.PutNote(ctx, n)
		return err
	}
	err := atOnce(func(w int) error {
		for range times {
			for _, count := range []func() error{countRow, countNote} {
				err := count()
				for errors.Is(err, signup.ErrConflict) && ctx.Err() == nil {
					err = count()
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	got, err := collect(l.Due(ctx, noon.Add(time.Hour)))
	if err != nil {
		return err
	}
	if len(got) != 1 || got[0].Starts != writers*times {
		return fmt.Errorf("count in a row: got %+v, want one row with %d", got, writers*times)
	}
	n, err := l.Note(ctx, "count")
	if err != nil {
		return err
	}
	return diff("count in a note", string(n.Body), fmt.Sprint(writers*times))
}

func newOnce(ctx context.Context, newLedger func() signup.Ledger) error {
	const each, step = 60, 20
	l := newLedger()
	var mu sync.Mutex
	owners := make(map[signup.UserID][]string)
	err := atOnce(func(w int) error {
		owner := fmt.Sprintf("writer-%d", w)
		got, err := l.Insert(ctx, newRows(w*step, w*step+each, owner, noon))
		mu.Lock()
		defer mu.Unlock()
		for _, r := range got {
			owners[r.User] = append(owners[r.User], owner)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := diff("users reported new", len(owners), (writers-1)*step+each); err != nil {
		return err
	}
	rows, err := collect(l.All(ctx))
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := diff("who was told that user "+string(r.User)+" is new", owners[r.User], []string{r.Owner}); err != nil {
			return err
		}
	}
	return diff("rows in the ledger", len(rows), len(owners))
}
