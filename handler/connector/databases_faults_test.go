package connector_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

// TestDatabasesFromManyWriters has 16 writers make and change the same rows, in whose way is a second unique column.
func TestDatabasesFromManyWriters(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, "CREATE TABLE t (email varchar(99) PRIMARY KEY, entra_id varchar(36) NOT NULL UNIQUE, n int)")
		var writers sync.WaitGroup
		var busy, created sync.Map
		for w := range 16 {
			c := open(t, "sql", d.settings("t"), connector.Env{})
			writers.Go(func() {
				for i := range 40 {
					user := fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", i%20)
					req := with(map[string]any{"email": user + "@example.com", "n": w*100 + i})
					req.User = signup.UserID(user)
					a, err := c.Associate(t.Context(), req)
					if e, ok := errors.AsType[*signup.Error](err); err != nil && (!ok || e.Class != signup.Transient || e.Code != "busy") {
						t.Errorf("got %v, want it to be busy at most", err)
					} else if err != nil {
						busy.Store(fmt.Sprint(w, i), true)
					}
					if a.Created && d.driver == "mysql" {
						if _, twice := created.LoadOrStore(user, true); twice {
							t.Errorf("%s was created twice", user)
						}
					}
				}
			})
		}
		writers.Wait()
		if got := d.rows(t, "SELECT count(*), count(DISTINCT entra_id), count(DISTINCT email) FROM t"); got != "20|20|20" {
			t.Errorf("got %s, want 20 rows of 20 users", got)
		}
		n := 0
		busy.Range(func(any, any) bool { n++; return true })
		t.Logf("%d of 640 writes were busy", n)
	})
}

// TestDatabasesGiveAnAddressToOneOfManyUsers has users of the same address arrive at once: one has the row, and the
// others, who may have to come again, are told so.
func TestDatabasesGiveAnAddressToOneOfManyUsers(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, "CREATE TABLE t (entra_id varchar(36) PRIMARY KEY, email varchar(99) UNIQUE, name varchar(99))")
		var writers sync.WaitGroup
		var stored sync.Map
		for w := range 8 {
			c := open(t, "sql", d.settings("t"), connector.Env{})
			writers.Go(func() {
				user := fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", w)
				req := with(map[string]any{"email": "ada@example.com", "name": user})
				req.User = signup.UserID(user)
				for {
					_, err := c.Associate(t.Context(), req)
					e, _ := errors.AsType[*signup.Error](err)
					switch {
					case err == nil:
						stored.Store(user, true)
						return
					case e == nil, e.Code != "busy" && (e.Class != signup.Permanent || e.Code != "data"):
						t.Errorf("got %v, want it to be refused, or busy at most", err)
						return
					case e.Code == "data":
						return
					}
				}
			})
		}
		writers.Wait()
		rows := strings.Split(d.rows(t, "SELECT entra_id, name FROM t"), "\n")
		user, name, _ := strings.Cut(rows[0], "|")
		if _, ok := stored.Load(user); len(rows) != 1 || user != name || !ok {
			t.Errorf("got %q, want one row, of the user who was told so", rows)
		}
		stored.Range(func(told, _ any) bool {
			if told != user {
				t.Errorf("%v was told to have a row, which is of %s", told, user)
			}
			return true
		})
	})
}

// TestPostgresTakesAnotherWritersRowForTheUsersOwn has every writer see no row, and only then, after the time that the
// first index takes, meet another writer's at the second one.
func TestPostgresTakesAnotherWritersRowForTheUsersOwn(t *testing.T) {
	d := postgres(t, "CREATE TABLE t (email varchar(99), entra_id varchar(36), n int)",
		"CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN $1; END'",
		"CREATE INDEX ON t (slow(n))", "CREATE UNIQUE INDEX ON t (email)", "CREATE UNIQUE INDEX ON t (entra_id)")
	for _, settings := range []map[string]any{
		d.settings("t"),
		{"driver": d.driver, "dsn": d.dsn(d.login, loginPassword, ""), "statement": `INSERT INTO t (entra_id, email, n) VALUES (:user_id, :email, :n)
			ON CONFLICT (entra_id) DO UPDATE SET email = excluded.email, n = excluded.n`},
	} {
		var writers sync.WaitGroup
		for w := range 4 {
			c := open(t, "sql", settings, connector.Env{})
			writers.Go(func() {
				if _, err := c.Associate(t.Context(), with(map[string]any{"email": "ada@example.com", "n": w})); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		if got := d.rows(t, "SELECT entra_id, email FROM t"); got != string(ada.User)+"|ada@example.com" {
			t.Errorf("got %s", got)
		}
		if _, err := d.Exec("DELETE FROM t"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDatabasesWaitForALockNoLongerThanTheyMay(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		record := with(map[string]any{"name": "Ada"})
		patience := "lock_timeout=20"
		if d.driver == "mysql" {
			patience = "innodb_lock_wait_timeout=1"
		}
		slow := d.settings("customers")
		slow["timeout"] = "100ms"
		patient := open(t, "sql", d.settings("customers"), connector.Env{})
		hasty, short := open(t, "sql", d.settings("customers", patience), connector.Env{}), open(t, "sql", slow, connector.Env{})
		if _, err := patient.Associate(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		lock, err := d.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock.Exec("UPDATE customers SET name = 'Held'"); err != nil {
			t.Fatal(err)
		}
		if e := call(t, hasty, record); e.Class != signup.Transient || e.Code != "busy" {
			t.Errorf("by the database's patience: got %s, %v", e.Class, e)
		}
		if e := call(t, short, record); e.Class != signup.Transient || e.Code != "timeout" {
			t.Errorf("by our own: got %s, %v", e.Class, e)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := patient.Associate(ctx, record); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		if err := lock.Rollback(); err != nil {
			t.Fatal(err)
		}
		if _, err := patient.Associate(t.Context(), record); err != nil {
			t.Errorf("after the lock: %v", err)
		}
	})
}

func TestDatabasesWhoseAnswerIsLostHaveTheRow(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		p := newProxy(t, d)
		settings := d.settings("customers")
		settings["dsn"] = d.dsn(d.login, loginPassword, p.port())
		c := open(t, "sql", settings, connector.Env{})
		for i, name := range []string{"Ada", "Ada King"} { // an INSERT and then an UPDATE
			p.set(func() { p.lose = true })
			if e := call(t, c, with(map[string]any{"name": name})); e.Class != signup.Transient {
				t.Errorf("try %d: got %s, %v", i, e.Class, e)
			}
			p.set(func() {
				if p.lose {
					t.Errorf("try %d: no answer was lost", i)
				}
			})
			if got := d.rows(t, "SELECT name FROM customers"); got != name {
				t.Errorf("try %d: the table has %q, want %q", i, got, name)
			}
			if a, err := c.Associate(t.Context(), with(map[string]any{"name": name})); err != nil || a.Created {
				t.Errorf("try %d: again: %+v, %v", i, a, err)
			}
		}
	})
}

// token is an identity whose token is a password that the database knows.
type token struct {
	password string
	scopes   *[]string
}

func (c token) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	*c.scopes = append(*c.scopes, o.Scopes...)
	if c.password == "" {
		return azcore.AccessToken{}, errors.New("no token for Ada")
	}
	return azcore.AccessToken{Token: c.password}, nil
}

func TestDatabasesByToken(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		settings := d.settings("customers")
		settings["auth"], settings["dsn"] = "entra", d.dsn(d.login, "", "")
		var scopes []string
		if _, err := open(t, "sql", settings, connector.Env{Token: token{loginPassword, &scopes}}).Associate(t.Context(), with(map[string]any{"name": "Ada"})); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(scopes, []string{"https://ossrdbms-aad.database.windows.net/.default"}); diff != "" {
			t.Errorf("scopes (-got +want):\n%s", diff)
		}
		for identity, want := range map[azcore.TokenCredential]string{
			nil: "systemic no-token", token{"", &scopes}: "transient no-token", token{"x", &scopes}: "systemic unauthorized",
		} {
			e := call(t, open(t, "sql", settings, connector.Env{Token: identity}), with(map[string]any{"name": "Ada"}))
			if got := e.Class.String() + " " + e.Code; got != want || strings.Contains(e.Error(), "Ada") {
				t.Errorf("got %s, %v; want %s", got, e, want)
			}
		}
	})
}
