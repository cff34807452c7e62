package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite", without C
)

// OpenSQLite is a Ledger in a file, for the local run (LEDGER=file:PATH). The file is made on first use, in a directory
// that exists, for its owner only; those that SQLite puts beside it are as it is. Other processes may use it at the same time:
//
//	select key, body from signups where key like 'user|%'
//	select key, body from state
func OpenSQLite(path, tenant string) (*Ledger, error) {
	if path == "" {
		return nil, errors.New("open the ledger: LEDGER=file: names no file, want file:PATH")
	}
	// A write lock is asked for at the start of a transaction, and waited for. Without a sync after each transaction
	// the file survives a killed process, though not a power failure. SQLite's own cache of pages, 2 MB unless it is told, is
	// kept for as long as the file is open; reads that miss it cost a call of the system, which has the file in memory.
	dsn := "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path) +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=cache_size(-256)&_txlock=immediate"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open the ledger %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // this process waits in Go, not in the driver's busy loop
	return newLedger(tenant, &sqlite{db: db, path: path, tenant: strings.ToLower(tenant)}), nil
}

type sqlite struct {
	db     *sql.DB
	path   string
	tenant string

	mu   sync.Mutex
	made bool // the tables exist
}

// make creates the tables unless it has done so before.
func (s *sqlite) make(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made {
		return nil
	}
	if err := makeOwn(s.path); err != nil {
		return fmt.Errorf("make %s: %w", s.path, err)
	}
	for _, table := range []string{signups, state} {
		_, err := s.db.ExecContext(ctx, `create table if not exists `+table+` (
			tenant text not null, key text not null, version integer not null, mark text not null, body text not null,
			primary key (tenant, key))`)
		if err != nil {
			return fmt.Errorf("create the table %s in %s: %w", table, s.path, err)
		}
	}
	s.made = true
	return nil
}

// makeOwn makes an empty file that only its owner may read; SQLite's own all may. One that is there is left alone: to
// close it would free the locks that this process has on it.
func makeOwn(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (s *sqlite) apply(ctx context.Context, table string, ops []op) ([]string, error) {
	if err := s.make(ctx); err != nil {
		return nil, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback() // without effect after Commit
	versions := make([]string, len(ops))
	for i, o := range ops {
		if versions[i], err = s.applyOne(ctx, tx, table, o); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("commit a transaction: %w", err)
	}
	return versions, nil
}

func (s *sqlite) applyOne(ctx context.Context, tx *sql.Tx, table string, o op) (version string, err error) {
	var res sql.Result
	switch o.action {
	case insert:
		version = "1" // never used again: what has versions is never removed
		res, err = tx.ExecContext(ctx, `insert into `+table+` (tenant, key, version, mark, body) values (?, ?, 1, ?, ?)
			on conflict do nothing`, s.tenant, o.Key, o.Mark, o.Body)
	case replace:
		old, perr := strconv.ParseInt(o.Version, 10, 64)
		if perr != nil {
			return "", errRefused // it cannot be the current version: we give numbers
		}
		version = strconv.FormatInt(old+1, 10)
		res, err = tx.ExecContext(ctx, `update `+table+` set version = version + 1, mark = ?, body = ?
			where tenant = ? and key = ? and version = ?`, o.Mark, o.Body, s.tenant, o.Key, old)
	case remove:
		res, err = tx.ExecContext(ctx, `delete from `+table+` where tenant = ? and key = ?`, s.tenant, o.Key)
	}
	if err != nil {
		return "", fmt.Errorf("write %s: %w", o.Key, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return "", fmt.Errorf("write %s: %w", o.Key, err)
	}
	if n == 0 {
		return "", errRefused
	}
	return version, nil
}

func (s *sqlite) get(ctx context.Context, table string, keys []string) (map[string]entity, error) {
	found := make(map[string]entity, len(keys))
	for chunk := range slices.Chunk(keys, 500) {
		args := []any{s.tenant}
		for _, k := range chunk {
			args = append(args, k)
		}
		page, err := s.query(ctx, `select key, version, mark, body from `+table+
			` where tenant = ? and key in (?`+strings.Repeat(", ?", len(chunk)-1)+`)`, args...)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			found[e.Key] = e
		}
	}
	return found, nil
}

func (s *sqlite) scan(ctx context.Context, table, after, before string, limit int) ([]entity, bool, error) {
	page, err := s.query(ctx, `select key, version, mark, body from `+table+
		` where tenant = ? and key > ? and key < ? order by key limit ?`, s.tenant, after, before, limit+1)
	if err != nil {
		return nil, false, err
	}
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

func (s *sqlite) query(ctx context.Context, query string, args ...any) ([]entity, error) {
	if err := s.make(ctx); err != nil {
		return nil, err
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer rows.Close()
	var page []entity
	for rows.Next() {
		var e entity
		if err := rows.Scan(&e.Key, &e.Version, &e.Mark, &e.Body); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		page = append(page, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return page, nil
}

// access makes no file and no tables, which a read elsewhere would: it looks whether the directory is there, and whether a
// file that is there is a database that can be written: by a transaction that is not brought to its end. To begin one is
// not enough, which a file that can only be read allows.
func (s *sqlite) access(ctx context.Context) (Access, error) {
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(s.path)); err != nil {
			return Access{}, fmt.Errorf("make %s: %w", s.path, err)
		}
		return Access{Absent: []string{signups, state}}, nil
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return Access{}, fmt.Errorf("write to %s: %w", s.path, err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `create table "~" (x)`); err != nil {
		return Access{}, fmt.Errorf("write to %s: %w", s.path, err)
	}
	var a Access
	for _, table := range []string{signups, state} {
		var there bool
		if err := tx.QueryRowContext(ctx, `select count(*) > 0 from sqlite_master where name = ?`, table).Scan(&there); err != nil {
			return Access{}, fmt.Errorf("read %s: %w", s.path, err)
		}
		if !there {
			a.Absent = append(a.Absent, table)
		}
	}
	return a, nil
}

func (s *sqlite) close() error { return s.db.Close() }
