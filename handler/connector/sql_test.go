package connector_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

func sqliteOpen(t testing.TB, path, table string, shape map[string]any) signup.Connector {
	t.Helper()
	return open(t, "sql", map[string]any{"driver": "sqlite", "dsn": path, "table": table, "key": "entra_id"}, connector.Env{Shape: shape})
}

func with(record map[string]any) signup.Request {
	req := ada
	req.Record = record
	return req
}

func TestSQLUpsertsTheMappedColumns(t *testing.T) {
	path, db := sqliteFile(t, customers)
	c := sqliteOpen(t, path, "customers", nil)
	steps := []struct {
		record  map[string]any
		created bool
		want    string
	}{
		{map[string]any{"name": "Ada", "email": "a@example.com", "seats": 3, "vip": true}, true, "a@example.com|Ada|3|1|none"},
		{map[string]any{"name": "Ada King", "vip": false, "seats": 4.0}, false, "a@example.com|Ada King|4|0|none"},
		{map[string]any{"name": "Ada", "email": "", "seats": nil}, false, "a@example.com|Ada|4|0|none"},
		{map[string]any{"name": `"); DROP TABLE customers; --`, "note": []any{"a", 1}}, false, `a@example.com|"); DROP TABLE customers; --|4|0|["a",1]`},
		{map[string]any{"name": "Ada", "note": time.Date(2026, 11, 20, 10, 0, 0, 0, time.FixedZone("", 3600))}, false, "a@example.com|Ada|4|0|2026-11-20T09:00:00Z"},
	}
	for i, s := range steps {
		a, err := c.Associate(t.Context(), with(s.record))
		if diff := cmp.Diff(a, signup.Account{ID: string(ada.User), Created: s.created}); diff != "" || err != nil {
			t.Fatalf("step %d (-got +want): %s%v", i, diff, err)
		}
		if diff := cmp.Diff(dump(t, db), string(ada.User)+"|"+s.want); diff != "" {
			t.Fatalf("step %d (-got +want):\n%s", i, diff)
		}
	}
}

func TestSQLQuotesNames(t *testing.T) {
	path, db := sqliteFile(t, `CREATE TABLE "order" (entra_id TEXT PRIMARY KEY, "group" TEXT, "select" TEXT)`)
	shape := map[string]any{"group": nil, "select": nil}
	for _, table := range []string{"order", "main.order"} {
		c := sqliteOpen(t, path, table, shape)
		if err := c.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", table, err)
		}
		if _, err := c.Associate(t.Context(), with(map[string]any{"group": "a", "select": "b"})); err != nil {
			t.Errorf("%s: %v", table, err)
		}
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM "order" WHERE "group" = 'a' AND "select" = 'b'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestSQLWithoutColumnsKeepsTheRow(t *testing.T) {
	path, _ := sqliteFile(t, `CREATE TABLE t (entra_id TEXT PRIMARY KEY)`)
	c := sqliteOpen(t, path, "t", nil)
	for i := range 2 {
		if a, err := c.Associate(t.Context(), with(nil)); err != nil || a.Created != (i == 0) {
			t.Errorf("call %d: %+v, %v", i, a, err)
		}
	}
}

func TestSQLOutcomes(t *testing.T) {
	path, _ := sqliteFile(t, customers,
		`CREATE TABLE loose (entra_id TEXT, name TEXT)`,
		`CREATE TABLE strict_t (entra_id TEXT PRIMARY KEY, seats INTEGER) STRICT`,
		`CREATE TABLE mails (entra_id TEXT PRIMARY KEY, email TEXT UNIQUE)`,
		`INSERT INTO mails VALUES ('other', 'ada@example.com')`)
	notADatabase := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(notADatabase, []byte(strings.Repeat("not a database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.db")
	tests := []struct {
		name, path, table string
		record            map[string]any
		class             signup.Class
		code              string
	}{
		{"no table", path, "nowhere", nil, signup.Permanent, "schema"},
		{"no column", path, "customers", map[string]any{"name": "A", "mail": "x"}, signup.Permanent, "schema"},
		{"no unique key", path, "loose", map[string]any{"name": "A"}, signup.Permanent, "schema"},
		{"not null", path, "customers", map[string]any{"email": "ada@example.com"}, signup.Permanent, "data"},
		{"check", path, "customers", map[string]any{"name": strings.Repeat("Ada", 50)}, signup.Permanent, "data"},
		{"unique", path, "mails", map[string]any{"email": "ada@example.com"}, signup.Permanent, "data"},
		{"type", path, "strict_t", map[string]any{"seats": "Ada"}, signup.Permanent, "data"},
		{"the key in the record", path, "customers", map[string]any{"Entra_ID": "x"}, signup.Permanent, "invalid-record"},
		{"a name that is none", path, "customers", map[string]any{"a b": "x"}, signup.Permanent, "invalid-record"},
		{"no file", missing, "customers", map[string]any{"name": "A"}, signup.Systemic, "no-database"},
		{"no database", notADatabase, "customers", map[string]any{"name": "A"}, signup.Systemic, "no-database"},
		{"read-only", "file:" + strings.ReplaceAll(path, "%", "%25") + "?mode=ro", "customers", map[string]any{"name": "A"}, signup.Systemic, "forbidden"},
	}
	for _, tt := range tests {
		e := call(t, sqliteOpen(t, tt.path, tt.table, nil), with(tt.record))
		if e.Class != tt.class || e.Code != tt.code {
			t.Errorf("%s: got %s, %v; want %s, %s", tt.name, e.Class, e, tt.class, tt.code)
		}
		for _, secret := range []string{"Ada", "ada@", tt.path} {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("%s: %q holds %q", tt.name, e.Error(), secret)
			}
		}
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a database was made where there was none: %v", err)
	}
}

func TestSQLCheck(t *testing.T) {
	tests := []struct {
		name, schema string
		shape        map[string]any
		want         string // "" = fine
	}{
		{"primary key", `CREATE TABLE t (entra_id TEXT PRIMARY KEY, name TEXT)`, map[string]any{"name": nil}, ""},
		{"unique column", `CREATE TABLE t (id INTEGER PRIMARY KEY, Entra_Id TEXT UNIQUE, NAME TEXT)`, map[string]any{"name": nil}, ""},
		{"unique index", `CREATE TABLE t (entra_id TEXT); CREATE UNIQUE INDEX i ON t (entra_id)`, nil, ""},
		{"a row's number beside", `CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, entra_id TEXT UNIQUE)`, map[string]any{}, ""},
		{"a row's number", `CREATE TABLE t (entra_id INTEGER NOT NULL PRIMARY KEY)`, map[string]any{}, "column entra_id holds numbers, and an object id is a text"},
		{"a number that is none", `CREATE TABLE t (entra_id INTEGER PRIMARY KEY) WITHOUT ROWID`, map[string]any{}, ""},
		{"two numbers", `CREATE TABLE t (a INTEGER NOT NULL, b INTEGER NOT NULL, entra_id TEXT UNIQUE, PRIMARY KEY (a, b))`, map[string]any{}, "column a needs a value and the record has none; column b needs a value and the record has none"},
		{"without rowid", `CREATE TABLE t (entra_id TEXT PRIMARY KEY) WITHOUT ROWID`, nil, ""},
		{"no table", `CREATE TABLE u (x)`, nil, "there is no table t"},
		{"view", `CREATE TABLE u (entra_id TEXT PRIMARY KEY); CREATE VIEW t AS SELECT * FROM u`, nil, "t is a view; rows can be inserted or updated in a table only"},
		{"no key", `CREATE TABLE t (x)`, nil, "there is no column entra_id"},
		{"not unique", `CREATE TABLE t (entra_id TEXT)`, nil, "column entra_id is not unique: CREATE UNIQUE INDEX t_entra_id ON t (entra_id)"},
		{"plain index", `CREATE TABLE t (entra_id TEXT); CREATE INDEX i ON t (entra_id)`, nil, "column entra_id is not unique: CREATE UNIQUE INDEX t_entra_id ON t (entra_id)"},
		{"partial index", `CREATE TABLE t (entra_id TEXT); CREATE UNIQUE INDEX i ON t (entra_id) WHERE entra_id > 'a'`, nil, "column entra_id is not unique: CREATE UNIQUE INDEX t_entra_id ON t (entra_id)"},
		{"index on an expression", `CREATE TABLE t (entra_id TEXT); CREATE UNIQUE INDEX i ON t (lower(entra_id))`, nil, "column entra_id is not unique: CREATE UNIQUE INDEX t_entra_id ON t (entra_id)"},
		{"unique with another", `CREATE TABLE t (entra_id TEXT, b TEXT, UNIQUE (entra_id, b), PRIMARY KEY (b, entra_id))`, nil, "column entra_id is not unique: CREATE UNIQUE INDEX t_entra_id ON t (entra_id)"},
		{
			"several", `CREATE TABLE t (entra_id TEXT PRIMARY KEY, a TEXT NOT NULL, b TEXT NOT NULL DEFAULT '', c TEXT)`, map[string]any{"x": nil, "y": nil, "c": nil},
			"there is no column x; there is no column y; column a needs a value and the record has none",
		},
	}
	for _, tt := range tests {
		path, db := sqliteFile(t, strings.Split(tt.schema, "; ")...)
		c := sqliteOpen(t, path, "t", tt.shape)
		err := c.Check(t.Context())
		got := ""
		if e, ok := errors.AsType[*signup.Error](err); ok {
			got = e.Detail
		}
		if got != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		// What the check says is what the database does.
		if _, err := c.Associate(t.Context(), with(tt.shape)); (err == nil) != (tt.want == "") && tt.name != "several" {
			t.Errorf("%s: the check says %q, and a row %v", tt.name, tt.want, err)
		}
		_ = db.Close()
	}
}

func TestSQLWaitsForAnotherWriter(t *testing.T) {
	path, db := sqliteFile(t, customers)
	c := sqliteOpen(t, path, "customers", nil)
	lock, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Associate(ctx, with(map[string]any{"name": "A"})); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while waiting: got %v", err)
	}
	hasty := sqliteOpen(t, path+"?_busy_timeout=1", "customers", nil)
	if e := call(t, hasty, with(map[string]any{"name": "A"})); e.Class != signup.Transient || e.Code != "busy" {
		t.Errorf("without waiting: got %s, %v; want transient, busy", e.Class, e)
	}
	freed := make(chan error)
	go func() {
		_, err := lock.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		freed <- err
	}()
	if _, err := c.Associate(t.Context(), with(map[string]any{"name": "A"})); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	if err := errors.Join(<-freed, lock.Close()); err != nil {
		t.Error(err)
	}
}

const writers = "SIGNUP_SYNC_TEST_WRITES_TO"

// TestSQLFromTwoProcesses runs itself once more in a process of its own.
func TestSQLFromTwoProcesses(t *testing.T) {
	path := os.Getenv(writers)
	if path != "" {
		writeAll(t, path)
		return
	}
	path, db := sqliteFile(t, customers)
	other := exec.Command(os.Args[0], "-test.run=^TestSQLFromTwoProcesses$")
	other.Env = append(os.Environ(), writers+"="+path)
	var said strings.Builder
	other.Stdout, other.Stderr = &said, &said
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	writeAll(t, path)
	if err := other.Wait(); err != nil {
		t.Fatalf("the other process: %v\n%s", err, said.String())
	}
	var rows, users int
	if err := db.QueryRow("SELECT count(*), count(DISTINCT entra_id) FROM customers").Scan(&rows, &users); err != nil || rows != 20 || users != 20 {
		t.Errorf("%d rows for %d users, %v; want 20", rows, users, err)
	}
}

// writeAll writes 20 users, each from several goroutines; being busy is the only thing that may happen.
func writeAll(t *testing.T, path string) {
	c := sqliteOpen(t, path, "customers", nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 20 {
				req := with(map[string]any{"name": fmt.Sprint("writer ", w)})
				req.User = signup.UserID(fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", n))
				for {
					_, err := c.Associate(t.Context(), req)
					if err == nil {
						break
					}
					if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Transient {
						t.Errorf("got %v, want it to be busy at most", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
