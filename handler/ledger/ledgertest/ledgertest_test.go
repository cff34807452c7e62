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
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
)

// broken is a good ledger with some calls exchanged for bad ones.
type broken struct {
	signup.Ledger
	insert  func(context.Context, []signup.Row) ([]signup.Row, error)
	get     func(context.Context, []signup.UserID) ([]signup.Row, error)
	replace func(context.Context, []signup.Row) ([]signup.Row, error)
	due     func(context.Context, time.Time) iter.Seq2[signup.Row, error]
	all     func(context.Context) iter.Seq2[signup.Row, error]
	note    func(context.Context, string) (signup.Note, error)
	putNote func(context.Context, signup.Note) (signup.Note, error)
}

func (b broken) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	if b.insert != nil {
		return b.insert(ctx, rows)
	}
	return b.Ledger.Insert(ctx, rows)
}

func (b broken) Get(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
	if b.get != nil {
		return b.get(ctx, ids)
	}
	return b.Ledger.Get(ctx, ids)
}

func (b broken) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	if b.replace != nil {
		return b.replace(ctx, rows)
	}
	return b.Ledger.Replace(ctx, rows)
}

func (b broken) Due(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
	if b.due != nil {
		return b.due(ctx, by)
	}
	return b.Ledger.Due(ctx, by)
}

func (b broken) All(ctx context.Context) iter.Seq2[signup.Row, error] {
	if b.all != nil {
		return b.all(ctx)
	}
	return b.Ledger.All(ctx)
}

func (b broken) Note(ctx context.Context, name string) (signup.Note, error) {
	if b.note != nil {
		return b.note(ctx, name)
	}
	return b.Ledger.Note(ctx, name)
}

func (b broken) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if b.putNote != nil {
		return b.putNote(ctx, n)
	}
	return b.Ledger.PutNote(ctx, n)
}

// breaks has, for each check, a mistake that it must find.
var breaks = map[string]func(l signup.Ledger) broken{
	"insert keeps every field of a row":                                   dropsAField,
	"insert leaves existing rows alone":                                   insertOverwrites,
	"insert returns only what was new, in order, of 1,000 rows":           insertReturnsAll,
	"insert takes the first of two rows of one user":                      insertTakesLast,
	"insert of the same rows again returns none":                          insertKnowsItsOwnByTheirContent,
	"insert, get and replace of nothing do nothing":                       refusesNothing,
	"a ledger does not share memory with its caller":                      keepsTheCallersRows,
	"get answers in the order asked and leaves out who is not there":      getSorts,
	"all yields every row once, settled or not, beyond a page":            allStopsAfterAPage,
	"a cancelled context is an error and writes nothing":                  ignoresContext,
	"replace writes over the version it was given, and only over that":    replaceIgnoresVersion,
	"replace writes the others when some are in conflict, of 250 rows":    replaceStopsAtConflict,
	"replace returns versions for the next replace":                       replaceReturnsOldVersions,
	"replace does not make rows":                                          replaceInserts,
	"replace takes the first of two rows of one user":                     replaceTakesBoth,
	"a row replaced by the same again has a new version":                  replaceSkipsTheSame,
	"due yields what is due, earliest first, to the nanosecond":           dueRoundsUp,
	"due compares instants, not clocks' faces":                            dueReadsTheClocksFace,
	"due follows a row that moves, and forgets one that is settled":       dueYieldsSettled,
	"due yields a row with the version it has now":                        dueKeepsTheFirstVersion,
	"due goes through 500 rows while they are replaced":                   duePagesByOffset,
	"due leaves out rows that others settle or put off meanwhile":         dueOnlyAtFirst,
	"due ends although rows are made due again":                           dueUntilNothingIsLeft,
	"due starts from the beginning each time, and may be left early":      dueOnlyOnce,
	"a note that was never written has no body and no version":            absentNoteHasVersion,
	"a note is kept as it was written":                                    noteIsCompacted,
	"a note is written over the version it was given, and only over that": noteIgnoresVersion,
	"a note is made only once":                                            noteIsMadeTwice,
	"notes do not touch each other, nor the rows":                         noteNamesAreCut,
	"of many who replace one version exactly one wins":                    replaceHidesConflict,
	"of many who write one version of a note exactly one wins":            noteHidesConflict,
	"updates by many are not lost":                                        losesUpdates,
	"overlapping inserts report each row as new exactly once":             insertLooksThenWrites,
}

func TestEachCheckFindsItsMistake(t *testing.T) {
	for _, c := range ledgertest.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			breaker, ok := breaks[c.Name]
			if !ok {
				t.Fatal("the check has no mistake to find: add one to breaks")
			}
			if err := c.Run(t.Context(), func() signup.Ledger { return ledger.Memory("tenant") }); err != nil {
				t.Fatalf("a good ledger: %v", err)
			}
			err := c.Run(t.Context(), func() signup.Ledger { return breaker(ledger.Memory("tenant")) })
			if err == nil {
				t.Fatal("the mistake is not found")
			}
			t.Logf("found: %.300v", err)
		})
	}
	if got, want := len(ledgertest.Checks()), len(breaks); got != want {
		t.Errorf("got %d checks, want one for each of %d mistakes", got, want)
	}
}

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
