package ledger

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	duePage  = 200  // index entries a read
	dueGroup = 15   // rows read ahead of the caller: what it works at a time
	allPage  = 1000 // rows a read; the service's limit
)

// Get returns the rows of those users that have one, in the order of ids.
func (l *Ledger) Get(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = userKey(id)
	}
	found, err := l.get(ctx, signups, keys)
	if err != nil {
		return nil, fmt.Errorf("get from the ledger: %w", err)
	}
	var rows []signup.Row
	for _, key := range keys {
		if e, ok := found[key]; ok {
			r, err := decode(e)
			if err != nil {
				return nil, fmt.Errorf("get from the ledger: %w", err)
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// Due yields the rows whose Due is not zero and not after by, earliest first. It costs one read for every 200 of them
// and one for each row; settled rows cost nothing.
//
// Rows may be replaced meanwhile, by the caller too: index entries are read 200 ahead and rows 15 ahead, and a row is
// left out when it no longer has the Due of the index entry that led to it. So a row that was due when Due was called,
// and that nobody replaced, is yielded exactly once; any other at most once, as it was at most 15 rows ago (Replace
// tells if that is too long ago). It ends: a row that is made due again, still not after by, waits for the next Due.
// An error is the last thing yielded.
func (l *Ledger) Due(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
	return func(yield func(signup.Row, error) bool) {
		seen := make(map[signup.UserID]bool)
		for page, err := range l.pages(ctx, duePrefix, dueBefore(by), duePage) {
			if err != nil {
				yield(signup.Row{}, fmt.Errorf("read what is due in the ledger: %w", err))
				return
			}
			for group := range slices.Chunk(page, dueGroup) {
				rows, err := l.current(ctx, group)
				if err != nil {
					yield(signup.Row{}, fmt.Errorf("read what is due in the ledger: %w", err))
					return
				}
				for _, r := range rows {
					if seen[r.User] {
						continue
					}
					seen[r.User] = true
					if !yield(r, nil) {
						return
					}
				}
			}
		}
	}
}

// current reads the rows of index entries, in their order, without those that have moved on.
func (l *Ledger) current(ctx context.Context, entries []entity) ([]signup.Row, error) {
	ids := make([]signup.UserID, 0, len(entries))
	stamps := make(map[signup.UserID]string, len(entries))
	for _, e := range entries {
		at, id, ok := parseDueKey(e.Key)
		if !ok {
			return nil, fmt.Errorf("the index has the key %q, want %s<time>|<user>", e.Key, duePrefix)
		}
		ids = append(ids, id)
		stamps[id] = at
	}
	rows, err := l.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r signup.Row) bool { return stamp(r.Due) != stamps[r.User] }), nil
}

// All yields every row, in the order of user ids, 1,000 a read. A row inserted meanwhile may be left out. An error is
// the last thing yielded.
func (l *Ledger) All(ctx context.Context) iter.Seq2[signup.Row, error] {
	return func(yield func(signup.Row, error) bool) {
		for page, err := range l.pages(ctx, userPrefix, userEnd, allPage) {
			if err != nil {
				yield(signup.Row{}, fmt.Errorf("read the ledger: %w", err))
				return
			}
			for _, e := range page {
				r, err := decode(e)
				if err != nil {
					yield(signup.Row{}, fmt.Errorf("read the ledger: %w", err))
					return
				}
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// pages reads the entities of the table of rows with after < key < before. Each page goes on behind the last key of the
// one before, whatever has changed in between.
func (l *Ledger) pages(ctx context.Context, after, before string, limit int) iter.Seq2[[]entity, error] {
	return func(yield func([]entity, error) bool) {
		if err := checkKey(l.tenant); err != nil {
			yield(nil, fmt.Errorf("check the tenant's id: %w", err))
			return
		}
		for more := true; more; {
			var page []entity
			var err error
			l.reads.Add(1)
			page, more, err = l.store.scan(ctx, signups, after, before, limit)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(page, nil) || len(page) == 0 {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}
