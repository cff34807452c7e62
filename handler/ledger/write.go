package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"signup-sync/handler/signup"
)

// draft is a row on its way into the store.
type draft struct {
	row     signup.Row
	body    string
	version string // the store's, of what it replaces; "" for a row to insert
	from    string // the stamp of the index entry it has; "" for none
	to      string // the stamp of the index entry it needs; "" for none
	written bool
}

// ops is what writing the draft takes: at most 3 operations.
func (d *draft) ops(mark string) []op {
	act := insert
	if d.version != "" {
		act = replace
	}
	ops := []op{{act, entity{Key: userKey(d.row.User), Version: d.version, Mark: mark, Body: d.body}}}
	if d.from == d.to {
		return ops
	}
	if d.from != "" {
		ops = append(ops, op{remove, entity{Key: dueKey(d.from, d.row.User)}})
	}
	if d.to != "" {
		ops = append(ops, op{insert, entity{Key: dueKey(d.to, d.row.User), Mark: mark}})
	}
	return ops
}

func (d *draft) wrote(version string) {
	d.written = true
	d.row.Version = rowVersion(d.to, version)
}

// Insert adds the rows whose user is new, 50 a transaction, and returns those in the order given. Of several rows of
// one user the first counts.
//
// Where many of the rows may exist it is cheaper to Get them first: a transaction that is refused for one existing row
// has its 50 read back and is then repeated without those that exist.
func (l *Ledger) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	seen := make(map[signup.UserID]bool, len(rows))
	drafts := make([]*draft, 0, len(rows))
	for _, r := range rows {
		if seen[r.User] {
			continue
		}
		seen[r.User] = true
		body, err := encode(r)
		if err != nil {
			return nil, fmt.Errorf("insert into the ledger: %w", err)
		}
		drafts = append(drafts, &draft{row: r, body: body, to: stamp(r.Due)})
	}
	if err := l.write(ctx, drafts); err != nil {
		return written(drafts), fmt.Errorf("insert into the ledger: %w", err)
	}
	return written(drafts), nil
}

// Replace writes the rows over the versions they carry, 33 to 100 a transaction, and returns those written in the order
// given. Of several rows of one user the first counts and the others are conflicts, as are rows that are not there or
// carry no version. If some were in conflict the others are still written, and the error is signup.ErrConflict.
func (l *Ledger) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	seen := make(map[signup.UserID]bool, len(rows))
	drafts := make([]*draft, 0, len(rows))
	for _, r := range rows {
		body, err := encode(r)
		if err != nil {
			return nil, fmt.Errorf("replace in the ledger: %w", err)
		}
		from, version, _ := splitVersion(r.Version)
		if seen[r.User] || version == "" {
			continue
		}
		seen[r.User] = true
		drafts = append(drafts, &draft{row: r, body: body, version: version, from: from, to: stamp(r.Due)})
	}
	if err := l.write(ctx, drafts); err != nil {
		return written(drafts), fmt.Errorf("replace in the ledger: %w", err)
	}
	done := written(drafts)
	if len(done) < len(rows) {
		return done, fmt.Errorf("replace in the ledger: %d of %d rows: %w", len(rows)-len(done), len(rows), signup.ErrConflict)
	}
	return done, nil
}

func written(drafts []*draft) []signup.Row {
	var rows []signup.Row
	for _, d := range drafts {
		if d.written {
			rows = append(rows, d.row)
		}
	}
	return rows
}

// write brings the drafts into as few transactions as they fit, in order.
func (l *Ledger) write(ctx context.Context, drafts []*draft) error {
	for len(drafts) > 0 {
		n, ops := 0, 0
		for n < len(drafts) {
			k := len(drafts[n].ops(""))
			if ops+k > maxOps {
				break
			}
			ops += k
			n++
		}
		if err := l.transact(ctx, drafts[:n]); err != nil {
			return err
		}
		drafts = drafts[n:]
	}
	return nil
}

// transact writes drafts that fit into one transaction, and marks those written. When the transaction is refused it
// finds out whose fault that was, leaves those out, and tries the others again: each round has fewer.
func (l *Ledger) transact(ctx context.Context, drafts []*draft) error {
	mark := rand.Text()
	for len(drafts) > 0 {
		var ops []op
		for _, d := range drafts {
			ops = append(ops, d.ops(mark)...)
		}
		versions, err := l.apply(ctx, signups, ops)
		if err == nil && versions != nil {
			i := 0
			for _, d := range drafts {
				d.wrote(versions[i])
				i += len(d.ops(mark))
			}
			return nil
		}
		if err != nil && !errors.Is(err, errRefused) {
			return err
		}
		left, err := l.sortOut(ctx, drafts, mark)
		if err != nil {
			return fmt.Errorf("read back a refused transaction: %w", err)
		}
		if len(left) == len(drafts) {
			return fmt.Errorf("write user %s and %d more: the store refuses it although no row has changed: is an index entry (%s…) missing or left over?",
				drafts[0].row.User, len(drafts)-1, duePrefix)
		}
		drafts = left
	}
	return nil
}

// sortOut reads back the rows of a transaction that was refused, or whose versions are unknown, and returns the drafts
// that nothing speaks against. Those with our mark are written: it was an earlier attempt of the same transaction.
func (l *Ledger) sortOut(ctx context.Context, drafts []*draft, mark string) (left []*draft, err error) {
	keys := make([]string, len(drafts))
	for i, d := range drafts {
		keys[i] = userKey(d.row.User)
	}
	current, err := l.get(ctx, signups, keys)
	if err != nil {
		return nil, err
	}
	for i, d := range drafts {
		c, exists := current[keys[i]]
		if exists && c.Mark == mark {
			d.wrote(c.Version)
		} else if c.Version == d.version { // both "" for a row to insert that is still absent
			left = append(left, d)
		}
	}
	return left, nil
}

func (l *Ledger) apply(ctx context.Context, table string, ops []op) ([]string, error) {
	if err := checkKey(l.tenant); err != nil {
		return nil, fmt.Errorf("check the tenant's id: %w", err)
	}
	if err := checkOps(ops); err != nil {
		return nil, err
	}
	if table == signups {
		l.transactions.Add(1)
	} else {
		l.noteWrites.Add(1)
	}
	return l.store.apply(ctx, table, ops)
}

// get reads entities by key; a key that occurs twice is read once.
func (l *Ledger) get(ctx context.Context, table string, keys []string) (map[string]entity, error) {
	if err := checkKey(l.tenant); err != nil {
		return nil, fmt.Errorf("check the tenant's id: %w", err)
	}
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	if len(keys) == 0 {
		return nil, nil
	}
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return nil, err
		}
	}
	l.reads.Add(int64(len(keys)))
	return l.store.get(ctx, table, keys)
}
