// Package ledger is the memory of signup-sync: which users were seen, what became of each, and the notes (watermarks,
// the run lease, summaries) beside them.
//
// All that is to be decided is decided once, in Ledger; under it lies one of three stores that do compare-and-swap and
// range reads and nothing else: Azure Table Storage for the deployed app, a SQLite file for the local run, and memory
// for tests. It imports signup, the SDK for tables (nobody else does) and the SQLite driver.
//
// # Layout
//
// Table signups, all in one partition, whose key is the tenant:
//
//	user|<id>          the row, as JSON
//	due|<time>|<id>    its index entry while there is something to do; no body
//
// A row and its index entry change in one transaction, guarded by the row's version, so that what is due is found
// without reading what is settled. The time is UTC with nine decimals and fixed width, which keeps the order of keys
// the order of time. A row's Version carries the time of its index entry, because that is the key to remove when the
// row moves on.
//
// Table state, same partition key: one entity a note, under its name.
//
// # Writes whose answer was lost
//
// A client that repeats a write after losing the answer is told that somebody else has changed the row: it was itself.
// So every write carries a mark of its own, and a refused write is decided by reading back: what carries our mark is
// ours, whatever the answer said.
package ledger

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"signup-sync/handler/signup"
)

var _ signup.Ledger = (*Ledger)(nil)

// Ledger implements signup.Ledger over a store. It may be used by several goroutines, and several Ledgers, in other
// processes too, may share what is stored.
//
// Beyond the interface it promises: rows are checked before anything is written; an error from Insert or Replace comes
// with the rows that are known to be written so far, and leaves open only those of the transaction under way.
type Ledger struct {
	tenant string
	store  store

	transactions, noteWrites, reads atomic.Int64
}

func newLedger(tenant string, s store) *Ledger {
	return &Ledger{tenant: strings.ToLower(tenant), store: s}
}

// Counts is how many calls Table Storage would have billed, whatever the store is. Retries, and the creation of the
// tables on their first use, are not in it.
type Counts struct {
	Transactions int64 // transactions on rows, refused ones too; one changes at most 100 entities
	NoteWrites   int64 // writes of notes, refused ones too
	Reads        int64 // entities read by key, and pages of range reads
}

// Counts returns what this Ledger has used since it was opened.
func (l *Ledger) Counts() Counts {
	return Counts{Transactions: l.transactions.Load(), NoteWrites: l.noteWrites.Load(), Reads: l.reads.Load()}
}

// Transactions is Counts().Transactions: all attempts to change rows.
func (l *Ledger) Transactions() int64 { return l.transactions.Load() }

// Check is Access without what it found.
func (l *Ledger) Check(ctx context.Context) error {
	_, err := l.Access(ctx)
	return err
}

// Access is what can be known of a store without changing it.
type Access struct {
	Absent []string `json:"absent,omitempty"` // tables that are not there yet: the first write makes them, which cannot be tried before
}

// Access reads from the store, and tries to change and to remove what cannot exist. So it tries the address and the
// permissions, and changes nothing. What it cannot try is whether something may be added: no role and no key allows the one
// without the other, a shared access signature may. Tables that do not exist yet are no error.
func (l *Ledger) Access(ctx context.Context) (Access, error) {
	if err := checkKey(l.tenant); err != nil {
		return Access{}, fmt.Errorf("check the tenant's id: %w", err)
	}
	a, err := l.store.access(ctx)
	if err != nil {
		return Access{}, fmt.Errorf("check the ledger: %w", err)
	}
	return a, nil
}

// Close gives back what the store holds open.
func (l *Ledger) Close() error { return l.store.close() }
