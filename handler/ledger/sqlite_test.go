package ledger_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/signup"
)

func TestSQLiteFileIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "100% a?b#c.db") // characters that mean something in a URI
	open := func(tenant string) *ledger.Ledger {
		l, err := ledger.OpenSQLite(path, tenant)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	one, two, stranger := open(tenant), open(tenant), open("another")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file before the first use: got %v, want none", err)
	}
	mustInsert(t, stranger, newRows(0, 2))
	rows := mustInsert(t, one, newRows(0, 3))
	if got := mustDue(t, two, noon); len(got) != 3 {
		t.Errorf("rows due in the other handle: got %d, want 3", len(got))
	}
	settled := mustReplace(t, two, settle(rows[:1]))
	if _, err := one.Replace(t.Context(), rows); !errors.Is(err, signup.ErrConflict) {
		t.Errorf("replace what the other handle has changed: got error %v, want a conflict", err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := open(tenant).Get(t.Context(), []signup.UserID{user(0)})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(settled, again); d != "" {
		t.Errorf("row after closing and opening (-want +got):\n%s", d)
	}

	db, err := sql.Open("sqlite", "file:"+filepath.Join(filepath.Dir(path), "100%25 a%3fb%23c.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow(`select count(*) from signups where key like 'user|%' and json_extract(body, '$.user') is not null`).Scan(&n); err != nil || n != 5 {
		t.Errorf("rows that another program reads: got %d and error %v, want 5", n, err)
	}
}

func TestSQLiteErrorsNameTheFile(t *testing.T) {
	if _, err := ledger.OpenSQLite("", tenant); err == nil {
		t.Error("open no file: got no error")
	}
	l, err := ledger.OpenSQLite(filepath.Join(t.TempDir(), "no", "such", "folder.db"), tenant)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "folder.db") {
		t.Errorf("check a file in a folder that is not there: got error %v, want one that names the file", err)
	}
}

// TestTheFileIsItsOwnersOnly holds for the files that SQLite puts beside it, too.
func TestTheFileIsItsOwnersOnly(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.OpenSQLite(filepath.Join(dir, "ledger.db"), tenant)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Insert(t.Context(), newRows(0, 1)); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v (%v), want 0600", f.Name(), info.Mode(), err)
		}
	}
}

func TestACheckMakesNoFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	check := func(path string) error {
		l, err := ledger.OpenSQLite(path, "tenant")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Check(t.Context())
	}
	if err := check(path); err != nil {
		t.Errorf("no file yet: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the check has left %v, %v", left, err)
	}
	if err := check(filepath.Join(dir, "nowhere", "ledger.db")); err == nil {
		t.Error("a directory that is not there: got no error")
	}
	if err := os.WriteFile(path, []byte("this is no database, and long enough to be looked at as one would be"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(path); err == nil {
		t.Error("a file that is no database: got no error")
	}
}
