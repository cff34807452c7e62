package ledgertest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

func dropsAField(l signup.Ledger) broken {
	return broken{Ledger: l, get: func(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
		rows, err := l.Get(ctx, ids)
		for i := range rows {
			rows[i].Missing = time.Time{}
		}
		return rows, err
	}}
}

// force replaces rows whatever their versions are.
func force(ctx context.Context, l signup.Ledger, rows []signup.Row) ([]signup.Row, error) {
	var done []signup.Row
	for _, r := range rows {
		for {
			now, err := l.Get(ctx, []signup.UserID{r.User})
			if err != nil || len(now) == 0 {
				return done, cmp.Or(err, signup.ErrConflict)
			}
			r.Version = now[0].Version
			got, err := l.Replace(ctx, []signup.Row{r})
			if errors.Is(err, signup.ErrConflict) {
				continue
			}
			if err != nil {
				return done, err
			}
			done = append(done, got...)
			break
		}
	}
	return done, nil
}

func insertOverwrites(l signup.Ledger) broken {
	return broken{Ledger: l, insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		if _, err := l.Insert(ctx, rows); err != nil {
			return nil, err
		}
		return force(ctx, l, rows)
	}}
}

func insertReturnsAll(l signup.Ledger) broken {
	return broken{Ledger: l, insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		_, err := l.Insert(ctx, rows)
		return rows, err
	}}
}

func insertTakesLast(l signup.Ledger) broken {
	return broken{Ledger: l, insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
		got, err := l.Insert(ctx, rows)
		slices.Reverse(got)
		return got, err
	}}
}

func insertKnowsItsOwnByTheirContent(l signup.Ledger) broken {
	return broken{Ledger: l, insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		got, err := l.Insert(ctx, rows)
		if err != nil || len(got) == len(rows) {
			return got, err
		}
		got = nil
		for _, r := range rows {
			stored, err := l.Get(ctx, []signup.UserID{r.User})
			if err != nil {
				return nil, err
			}
			version := stored[0].Version
			stored[0].Version = ""
			if gocmp.Equal(stored[0], r) {
				r.Version = version
				got = append(got, r)
			}
		}
		return got, nil
	}}
}

func refusesNothing(l signup.Ledger) broken {
	return broken{Ledger: l, insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		if len(rows) == 0 {
			return nil, errors.New("no rows")
		}
		return l.Insert(ctx, rows)
	}}
}

func keepsTheCallersRows(l signup.Ledger) broken {
	kept := make(map[signup.UserID]signup.Row)
	return broken{Ledger: l,
		insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
			for _, r := range rows {
				kept[r.User] = r
			}
			return l.Insert(ctx, rows)
		},
		get: func(_ context.Context, ids []signup.UserID) ([]signup.Row, error) {
			var rows []signup.Row
			for _, id := range ids {
				rows = append(rows, kept[id])
			}
			return rows, nil
		}}
}

func getSorts(l signup.Ledger) broken {
	return broken{Ledger: l, get: func(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
		return l.Get(ctx, slices.Sorted(slices.Values(ids)))
	}}
}

func allStopsAfterAPage(l signup.Ledger) broken {
	return broken{Ledger: l, all: func(ctx context.Context) iter.Seq2[signup.Row, error] {
		return func(yield func(signup.Row, error) bool) {
			n := 0
			for r, err := range l.All(ctx) {
				if n++; n > 1000 || !yield(r, err) {
					return
				}
			}
		}
	}}
}

func ignoresContext(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		return l.Replace(context.WithoutCancel(ctx), rows)
	}}
}

func replaceIgnoresVersion(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		return force(ctx, l, rows)
	}}
}

func replaceStopsAtConflict(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		var done []signup.Row
		for _, r := range rows {
			got, err := l.Replace(ctx, []signup.Row{r})
			if err != nil {
				return done, err
			}
			done = append(done, got...)
		}
		return done, nil
	}}
}

func replaceReturnsOldVersions(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		_, err := l.Replace(ctx, rows)
		return rows, err
	}}
}

func replaceInserts(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		got, err := l.Replace(ctx, rows)
		if errors.Is(err, signup.ErrConflict) {
			return l.Insert(ctx, rows)
		}
		return got, err
	}}
}

func replaceTakesBoth(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		got, err := l.Replace(ctx, rows)
		if len(rows) > 2 {
			_, err = force(ctx, l, rows[2:])
		}
		return got, cmp.Or(err, signup.ErrConflict)
	}}
}

func replaceSkipsTheSame(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		stored, err := l.Get(ctx, []signup.UserID{rows[0].User})
		if err == nil && gocmp.Equal(stored, rows) {
			return rows, nil
		}
		return l.Replace(ctx, rows)
	}}
}

func dueRoundsUp(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		return l.Due(ctx, by.Truncate(time.Millisecond).Add(time.Millisecond-1))
	}}
}

func dueReadsTheClocksFace(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		return l.Due(ctx, time.Date(by.Year(), by.Month(), by.Day(), by.Hour(), by.Minute(), by.Second(), by.Nanosecond(), time.UTC))
	}}
}

func dueYieldsSettled(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		return func(yield func(signup.Row, error) bool) {
			for r, err := range l.Due(ctx, by) {
				if !yield(r, err) {
					return
				}
			}
			for r, err := range l.All(ctx) {
				if (err != nil || r.Due.IsZero()) && !yield(r, err) {
					return
				}
			}
		}
	}}
}

func dueKeepsTheFirstVersion(l signup.Ledger) broken {
	first := make(map[signup.UserID]string)
	return broken{Ledger: l,
		insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
			got, err := l.Insert(ctx, rows)
			for _, r := range got {
				first[r.User] = r.Version
			}
			return got, err
		},
		due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
			return func(yield func(signup.Row, error) bool) {
				for r, err := range l.Due(ctx, by) {
					r.Version = first[r.User]
					if !yield(r, err) {
						return
					}
				}
			}
		}}
}

func collect(seq iter.Seq2[signup.Row, error]) []signup.Row {
	var rows []signup.Row
	for r, err := range seq {
		if err == nil {
			rows = append(rows, r)
		}
	}
	return rows
}

func duePagesByOffset(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		return func(yield func(signup.Row, error) bool) {
			for offset := 0; ; offset += 15 {
				rows := collect(l.Due(ctx, by))
				if len(rows) <= offset {
					return
				}
				for _, r := range rows[offset:min(offset+15, len(rows))] {
					if !yield(r, nil) {
						return
					}
				}
			}
		}
	}}
}

func dueOnlyAtFirst(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		return func(yield func(signup.Row, error) bool) {
			for _, r := range collect(l.Due(ctx, by)) {
				if !yield(r, nil) {
					return
				}
			}
		}
	}}
}

func dueUntilNothingIsLeft(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		return func(yield func(signup.Row, error) bool) {
			for {
				rows := collect(l.Due(ctx, by))
				if len(rows) == 0 || !yield(rows[0], nil) {
					return
				}
			}
		}
	}}
}

func dueOnlyOnce(l signup.Ledger) broken {
	return broken{Ledger: l, due: func(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
		rows := collect(l.Due(ctx, by))
		return func(yield func(signup.Row, error) bool) {
			for len(rows) > 0 {
				r := rows[0]
				rows = rows[1:]
				if !yield(r, nil) {
					return
				}
			}
		}
	}}
}

func absentNoteHasVersion(l signup.Ledger) broken {
	return broken{Ledger: l, note: func(ctx context.Context, name string) (signup.Note, error) {
		n, err := l.Note(ctx, name)
		n.Version = cmp.Or(n.Version, "0")
		return n, err
	}}
}

func noteIsCompacted(l signup.Ledger) broken {
	return broken{Ledger: l, note: func(ctx context.Context, name string) (signup.Note, error) {
		n, err := l.Note(ctx, name)
		var b bytes.Buffer
		if err == nil {
			err = json.Compact(&b, n.Body)
		}
		n.Body = b.Bytes()
		return n, err
	}}
}

func noteIgnoresVersion(l signup.Ledger) broken {
	return broken{Ledger: l, putNote: func(ctx context.Context, n signup.Note) (signup.Note, error) {
		now, err := l.Note(ctx, n.Name)
		if err != nil {
			return signup.Note{}, err
		}
		n.Version = now.Version
		return l.PutNote(ctx, n)
	}}
}

func noteIsMadeTwice(l signup.Ledger) broken {
	return broken{Ledger: l, putNote: func(ctx context.Context, n signup.Note) (signup.Note, error) {
		if n.Version == "" {
			return noteIgnoresVersion(l).PutNote(ctx, n)
		}
		return l.PutNote(ctx, n)
	}}
}

func noteNamesAreCut(l signup.Ledger) broken {
	cut := func(name string) string { return strings.TrimSuffix(name, ".") }
	return broken{Ledger: l, putNote: func(ctx context.Context, n signup.Note) (signup.Note, error) {
		n.Name = cut(n.Name)
		return noteIgnoresVersion(l).PutNote(ctx, n)
	}}
}

func replaceHidesConflict(l signup.Ledger) broken {
	return broken{Ledger: l, replace: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		got, err := l.Replace(ctx, rows)
		if errors.Is(err, signup.ErrConflict) {
			return rows, nil
		}
		return got, err
	}}
}

func noteHidesConflict(l signup.Ledger) broken {
	return broken{Ledger: l, putNote: func(ctx context.Context, n signup.Note) (signup.Note, error) {
		got, err := l.PutNote(ctx, n)
		if errors.Is(err, signup.ErrConflict) {
			return l.Note(ctx, n.Name)
		}
		return got, err
	}}
}

// meeting lets nobody pass until as many have come as the checks have writers.
func meeting() (pass func()) {
	var mu sync.Mutex
	come, all := 0, make(chan struct{})
	return func() {
		mu.Lock()
		if come++; come == 8 {
			close(all)
		}
		mu.Unlock()
		<-all
	}
}

func losesUpdates(l signup.Ledger) broken {
	pass := meeting()
	b := replaceIgnoresVersion(l)
	b.get = func(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
		rows, err := l.Get(ctx, ids)
		pass()
		return rows, err
	}
	return b
}

func insertLooksThenWrites(l signup.Ledger) broken {
	pass := meeting()
	return broken{Ledger: l, insert: func(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
		var absent []signup.Row
		for _, r := range rows {
			found, err := l.Get(ctx, []signup.UserID{r.User})
			if err != nil {
				return nil, err
			}
			if len(found) == 0 {
				absent = append(absent, r)
			}
		}
		pass()
		_, err := l.Insert(ctx, absent)
		return absent, err
	}}
}
