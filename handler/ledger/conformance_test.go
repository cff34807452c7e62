package ledger_test

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
)

const tenant = "7D0E5F1A-0000-4000-8000-00000000000A" // upper case: a ledger writes it in lower case

func TestMemory(t *testing.T) {
	conformance(t, func() *ledger.Ledger { return ledger.Memory(tenant) })
}

func TestSQLite(t *testing.T) {
	conformance(t, func() *ledger.Ledger { return openSQLite(t) })
}

func TestTables(t *testing.T) {
	connection := ledgertest.StartAzurite(t)
	conformance(t, func() *ledger.Ledger {
		return openTables(t, ledger.TablesOptions{ConnectionString: connection, Prefix: prefix()})
	})
}

func conformance(t *testing.T, open func() *ledger.Ledger) {
	for _, c := range ledgertest.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Run(t.Context(), func() signup.Ledger { return open() }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTenantsAreApart(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ledger.db")
		tenantsAreApart(t, func(tenant string) (*ledger.Ledger, error) { return ledger.OpenSQLite(path, tenant) })
	})
	t.Run("tables", func(t *testing.T) {
		o := ledger.TablesOptions{ConnectionString: ledgertest.StartAzurite(t), Prefix: prefix()}
		tenantsAreApart(t, func(tenant string) (*ledger.Ledger, error) {
			o.Tenant = tenant
			return ledger.OpenTables(o)
		})
	})
}

func tenantsAreApart(t *testing.T, open func(tenant string) (*ledger.Ledger, error)) {
	var ledgers []*ledger.Ledger
	for _, tenant := range []string{"one", "two", "ONE", "o'ne"} {
		l, err := open(tenant)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ledgers = append(ledgers, l)
	}
	one, two, same, bad := ledgers[0], ledgers[1], ledgers[2], ledgers[3]
	mustInsert(t, one, newRows(0, 3))
	mustInsert(t, two, newRows(0, 2))
	for _, l := range []*ledger.Ledger{one, two} {
		if _, err := l.PutNote(t.Context(), signup.Note{Name: "lease", Body: []byte(`1`)}); err != nil {
			t.Error(err)
		}
	}
	for i, want := range []int{3, 2, 3} {
		if got := len(mustDue(t, ledgers[i], noon)); got != want {
			t.Errorf("rows due of ledger %d: got %d, want %d", i, got, want)
		}
		all := 0
		for range ledgers[i].All(t.Context()) {
			all++
		}
		if all != want {
			t.Errorf("rows of ledger %d: got %d, want %d", i, all, want)
		}
	}
	if got, err := same.Insert(t.Context(), newRows(0, 3)); len(got) != 0 || err != nil {
		t.Errorf("insert for the same tenant in other letter case: got %d new and error %v, want none", len(got), err)
	}
	if _, err := bad.Insert(t.Context(), newRows(0, 1)); err == nil {
		t.Error("insert for a tenant with a quote: got no error")
	}
	if _, err := bad.Get(t.Context(), []signup.UserID{user(0)}); err == nil {
		t.Error("get for a tenant with a quote: got no error")
	}
	if err := bad.Check(t.Context()); err == nil {
		t.Error("check a tenant with a quote: got no error")
	}
}

// eachStore runs a test with an empty ledger over every store.
func eachStore(t *testing.T, f func(t *testing.T, l *ledger.Ledger)) {
	t.Run("memory", func(t *testing.T) { f(t, ledger.Memory(tenant)) })
	t.Run("sqlite", func(t *testing.T) { f(t, openSQLite(t)) })
	t.Run("tables", func(t *testing.T) {
		connection := ledgertest.StartAzurite(t)
		f(t, openTables(t, ledger.TablesOptions{ConnectionString: connection, Prefix: prefix()}))
	})
}

func openSQLite(t *testing.T) *ledger.Ledger {
	t.Helper()
	l, err := ledger.OpenSQLite(filepath.Join(t.TempDir(), "ledger.db"), tenant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

func openTables(t *testing.T, o ledger.TablesOptions) *ledger.Ledger {
	t.Helper()
	o.Tenant = tenant
	l, err := ledger.OpenTables(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// prefix is for tables that nobody else has.
func prefix() string { return "t" + strings.ToLower(rand.Text()) }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func user(n int) signup.UserID {
	return signup.UserID(fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(n)*2654435761, n))
}

// newRows are the rows of users from ≤ n < to, as a run inserts them: due, with an open intent.
func newRows(from, to int) []signup.Row {
	var rows []signup.Row
	for n := from; n < to; n++ {
		e := signup.Event{User: user(n), Kind: signup.Created, At: noon.Add(-time.Minute)}
		rows = append(rows, signup.NewRow(e, "audit", []string{"billing"}, noon).Intend("run-1", noon))
	}
	return rows
}

// settle is what becomes of rows that were associated everywhere.
func settle(rows []signup.Row) []signup.Row {
	var settled []signup.Row
	for _, r := range rows {
		settled = append(settled, r.SettleAll(signup.Associated, "", "", noon.Add(time.Second)))
	}
	return settled
}
