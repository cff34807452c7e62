package soak_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// ledgerAt is the ledger as a process reaches it.
type ledgerAt struct{ p *process }

var (
	_ signup.Ledger = (*ledgerAt)(nil)

	errLedger = errors.New("the ledger does not answer")
)

// step waits for the operation's turn; half is for a write of several rows that breaks off.
func (l *ledgerAt) step(ctx context.Context, op, about string) (fate, error) {
	p := l.p
	key := fmt.Sprintf("ledger %s %s %s", p.name, op, about)
	if err := ctx.Err(); err != nil {
		return fate{}, err
	}
	f := p.sched.park(p, key, func() fate { return p.befallsLedger(p, op) })
	p.hinder = p.hinder || f.what != ""
	if f.dead {
		return f, errDead
	}
	if err := ctx.Err(); err != nil {
		return f, err
	}
	if err := p.pass(ctx, f.before, key); err != nil {
		return f, err
	}
	if f.dies == "before" {
		p.kill()
		return f, errDead
	}
	if f.none {
		return f, errLedger
	}
	return f, nil
}

// done is what the process learns after the effect.
func (l *ledgerAt) done(f fate, err error) error {
	l.p.hinder = l.p.hinder || f.what != ""
	if f.dies == "after" {
		l.p.kill()
		return errDead
	}
	if f.lost || f.half {
		return errLedger
	}
	return err
}

func rowIDs(rows []signup.Row) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(string(r.User)[:8])
		b.WriteByte(' ')
	}
	return b.String()
}

func (l *ledgerAt) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	f, err := l.step(ctx, "insert", rowIDs(rows))
	if err != nil {
		return nil, err
	}
	if f.half {
		rows = rows[:len(rows)/2]
	}
	for _, r := range rows {
		l.p.checkRow(r)
	}
	written, err := l.p.ledger.Insert(context.Background(), rows)
	if err = l.done(f, err); err != nil {
		return nil, err
	}
	return written, nil
}

func (l *ledgerAt) Get(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
	f, err := l.step(ctx, "get", short(ids))
	if err != nil {
		return nil, err
	}
	rows, err := l.p.ledger.Get(context.Background(), ids)
	if err = l.done(f, err); err != nil {
		return nil, err
	}
	return rows, nil
}

func (l *ledgerAt) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	f, err := l.step(ctx, "replace", rowIDs(rows))
	if err != nil {
		return nil, err
	}
	if f.half {
		rows = rows[:len(rows)/2]
	}
	for _, r := range rows {
		l.p.checkRow(r)
	}
	written, err := l.p.ledger.Replace(context.Background(), rows)
	for _, r := range written {
		l.p.reached(r)
	}
	if f.dies == "after" || f.lost || f.half {
		return nil, l.done(f, err)
	}
	return written, err
}

func (l *ledgerAt) Due(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
	return l.rows(ctx, "due", func() iter.Seq2[signup.Row, error] { return l.p.ledger.Due(context.Background(), by) })
}

func (l *ledgerAt) All(ctx context.Context) iter.Seq2[signup.Row, error] {
	return l.rows(ctx, "all", func() iter.Seq2[signup.Row, error] { return l.p.ledger.All(context.Background()) })
}

// rows reads what was there at one moment; an answer that breaks off has shown two rows.
func (l *ledgerAt) rows(ctx context.Context, op string, read func() iter.Seq2[signup.Row, error]) iter.Seq2[signup.Row, error] {
	return func(yield func(signup.Row, error) bool) {
		f, err := l.step(ctx, op, "")
		if err != nil {
			yield(signup.Row{}, err)
			return
		}
		var rows []signup.Row
		for r, err := range read() {
			if err != nil {
				panic(err) // it is in memory
			}
			if rows = append(rows, r); f.half && len(rows) == 2 {
				break
			}
		}
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
		if err := l.done(f, nil); err != nil {
			yield(signup.Row{}, err)
		}
	}
}

func (l *ledgerAt) Note(ctx context.Context, name string) (signup.Note, error) {
	f, err := l.step(ctx, "note", name)
	if err != nil {
		return signup.Note{}, err
	}
	n, err := l.p.ledger.Note(context.Background(), name)
	if err = l.done(f, err); err != nil {
		return signup.Note{}, err
	}
	return n, nil
}

func (l *ledgerAt) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	f, err := l.step(ctx, "put", n.Name)
	if err != nil {
		return signup.Note{}, err
	}
	n, err = l.p.ledger.PutNote(context.Background(), n)
	if err == nil {
		l.p.checkNote(n)
	}
	if f.half {
		f.half, f.lost = false, true // a note is one row
	}
	if err = l.done(f, err); err != nil {
		return signup.Note{}, err
	}
	return n, nil
}
