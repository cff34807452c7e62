package ledger_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/signup"
)

// used is what f costs.
func used(l *ledger.Ledger, f func()) ledger.Counts {
	before := l.Counts()
	f()
	after := l.Counts()
	return ledger.Counts{
		Transactions: after.Transactions - before.Transactions,
		NoteWrites:   after.NoteWrites - before.NoteWrites,
		Reads:        after.Reads - before.Reads,
	}
}

func mustInsert(t *testing.T, l *ledger.Ledger, rows []signup.Row) []signup.Row {
	t.Helper()
	got, err := l.Insert(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(rows) {
		t.Fatalf("insert: got %d new rows, want %d", len(got), len(rows))
	}
	return got
}

func mustReplace(t *testing.T, l *ledger.Ledger, rows []signup.Row) []signup.Row {
	t.Helper()
	got, err := l.Replace(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustDue(t *testing.T, l *ledger.Ledger, by time.Time) []signup.Row {
	t.Helper()
	var rows []signup.Row
	for r, err := range l.Due(t.Context(), by) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}

func TestASignUpCostsTwoTransactions(t *testing.T) {
	eachStore(t, func(t *testing.T, l *ledger.Ledger) {
		lone := used(l, func() { mustReplace(t, l, settle(mustInsert(t, l, newRows(0, 1)))) })
		if d := cmp.Diff(ledger.Counts{Transactions: 2}, lone); d != "" {
			t.Errorf("a lone sign-up (-want +got):\n%s", d)
		}
		var burst []signup.Row
		inserted := used(l, func() { burst = mustInsert(t, l, newRows(1, 201)) })
		if d := cmp.Diff(ledger.Counts{Transactions: 4}, inserted); d != "" {
			t.Errorf("200 inserted (-want +got):\n%s", d)
		}
		settled := used(l, func() {
			for group := range slices.Chunk(settle(burst), 15) {
				mustReplace(t, l, group)
			}
		})
		if d := cmp.Diff(ledger.Counts{Transactions: 14}, settled); d != "" {
			t.Errorf("200 settled in groups of 15 (-want +got):\n%s", d)
		}
		if got, want := l.Transactions(), int64(2+4+14); got != want {
			t.Errorf("transactions: got %d, want %d", got, want)
		}
		notes := used(l, func() {
			if _, err := l.PutNote(t.Context(), signup.Note{Name: "lease", Body: []byte(`{}`)}); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Note(t.Context(), "lease"); err != nil {
				t.Fatal(err)
			}
		})
		if d := cmp.Diff(ledger.Counts{NoteWrites: 1, Reads: 1}, notes); d != "" {
			t.Errorf("a note written and read (-want +got):\n%s", d)
		}
	})
}

func TestCostDoesNotGrowWithWhatIsSettled(t *testing.T) {
	eachStore(t, func(t *testing.T, l *ledger.Ledger) {
		next := 0
		take := func(n int) []signup.Row {
			next += n
			return newRows(next-n, next)
		}
		work := func() string {
			var due []signup.Row
			inserted := used(l, func() { mustInsert(t, l, take(60)) })
			read := used(l, func() { due = mustDue(t, l, noon) })
			settled := used(l, func() { mustReplace(t, l, settle(due)) })
			if len(due) != 60 {
				t.Fatalf("due: got %d rows, want 60", len(due))
			}
			return fmt.Sprintf("insert %+v, due %+v, settle %+v", inserted, read, settled)
		}
		mustReplace(t, l, settle(mustInsert(t, l, take(10))))
		few := work()
		mustReplace(t, l, settle(mustInsert(t, l, take(2000))))
		many := work()
		if few != many {
			t.Errorf("cost of 60 sign-ups with 2,000 settled rows:\ngot  %s\nwant %s, as with 10", many, few)
		}
		const want = "insert {Transactions:2 NoteWrites:0 Reads:0}, due {Transactions:0 NoteWrites:0 Reads:61}, settle {Transactions:2 NoteWrites:0 Reads:0}"
		if few != want {
			t.Errorf("cost of 60 sign-ups:\ngot  %s\nwant %s", few, want)
		}
	})
}
