package ledgertest_test

import (
	"context"
	"iter"
	"testing"
	"time"

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
