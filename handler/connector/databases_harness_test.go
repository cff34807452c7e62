package connector_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// customersTable is customers as both servers have it.
const customersTable = `CREATE TABLE customers (
	entra_id VARCHAR(36) NOT NULL UNIQUE, email VARCHAR(200), name VARCHAR(200) NOT NULL CHECK (length(name) < 100), seats BIGINT, vip BOOLEAN, note VARCHAR(200) DEFAULT 'none')`

// databaseSystem is a real database behind a proxy. more changes the settings.
func databaseSystem(fresh func(t testing.TB, statements ...string) *testDatabase, more map[string]any) func(t testing.TB) *connectortest.System {
	return func(t testing.TB) *connectortest.System {
		d := fresh(t, customersTable)
		p := newProxy(t, d)
		clock := sim.NewClock(start)
		log := &lockedBuffer{}
		with := func(password string) signup.Connector {
			settings := map[string]any{"driver": d.driver, "dsn": d.dsn(d.login, password, p.port()), "table": "customers", "key": "entra_id"}
			for k, v := range more {
				settings[k] = v
			}
			return open(t, "sql", settings, connector.Env{Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil))})
		}
		good, bad := with(loginPassword), with("not-"+loginPassword)
		c := &lossy{Connector: good}
		s := &connectortest.System{
			Connector: c, Clock: clock, Log: log.String, Secrets: []string{loginPassword, d.login, p.port()},
			Accounts: func(user signup.UserID) (n int) {
				if err := d.QueryRow(fmt.Sprintf("SELECT count(*) FROM customers WHERE entra_id = '%s'", user)).Scan(&n); err != nil {
					t.Error(err)
				}
				return n
			},
			State: func() string { return d.rows(t, "SELECT * FROM customers ORDER BY entra_id") },
			Record: func(email, name string) map[string]any {
				return map[string]any{"email": email, "name": name, "seats": 3, "vip": true}
			},
			Rejected: func(signup.UserID) map[string]any { return map[string]any{"name": strings.Repeat("lovelace", 20)} },
			Stranger: func() string { return "99999999-5eed-4000-8000-00000000beef" },
			Move: func(user signup.UserID, email string) {
				if _, err := d.Exec(fmt.Sprintf("UPDATE customers SET email = '%s' WHERE entra_id = '%s'", email, user)); err != nil {
					t.Error(err)
				}
			},
			LoseAnswer:      func() { p.set(func() { p.lose = true }) },
			FailAfterEffect: func() { c.lose = true },
			Unavailable:     func() { p.set(func() { p.down = true; p.cutAll() }) },
			BreakCredential: func() { c.Connector = bad },
			Stall: func() <-chan struct{} {
				stalled := make(chan struct{})
				p.set(func() { p.stalled = stalled })
				return stalled
			},
		}
		s.Heal = func() {
			c.Connector, c.lose = good, false
			p.set(func() { p.lose, p.down, p.stalled = false, false, nil })
		}
		return s
	}
}

var databaseSkips = map[string]string{
	connectortest.FailedLookup: "nothing is looked up before a write, but for a count",
	connectortest.SpentKey:     "there is no idempotency key: the row's key is the user",
	connectortest.Throttled:    "a database does not ask for a pause",
}

func TestPostgresKeepsThePromisesOfAConnector(t *testing.T) {
	connectortest.Run(t, connectortest.Harness{New: databaseSystem(postgres, nil), Skip: databaseSkips})
}

func TestMariaDBKeepsThePromisesOfAConnector(t *testing.T) {
	connectortest.Run(t, connectortest.Harness{New: databaseSystem(mariaDB, nil), Skip: databaseSkips})
}
