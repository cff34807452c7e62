package connector_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

type freshFunc = func(t testing.TB, statements ...string) *testDatabase

func TestDatabasesKeepTheMappedColumns(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		c := open(t, "sql", d.settings("customers"), connector.Env{})
		steps := []struct {
			record  map[string]any
			created bool
			want    string
		}{
			{map[string]any{"name": "Ada", "email": "a@example.com", "seats": 1<<53 + 1, "vip": true}, true, "a@example.com|Ada|9007199254740993|1|none"},
			{map[string]any{"name": "Ada King", "vip": false, "seats": 4.0}, false, "a@example.com|Ada King|4|0|none"},
			{map[string]any{"name": "Ada King", "vip": false, "seats": 4.0}, false, "a@example.com|Ada King|4|0|none"},
			{map[string]any{"email": "", "seats": nil, "name": "Zoë 李 👩‍🚀"}, false, "a@example.com|Zoë 李 👩‍🚀|4|0|none"},
			{map[string]any{"name": "'\"`\\'); DROP TABLE customers; -- :name ? $1"}, false, "a@example.com|'\"`\\'); DROP TABLE customers; -- :name ? $1|4|0|none"},
			{map[string]any{"name": 7}, false, "a@example.com|7|4|0|none"},
			{map[string]any{"name": "Ada", "note": []any{"a", 1}, "seats": "5"}, false, `a@example.com|Ada|5|0|["a",1]`},
		}
		for i, s := range steps {
			a, err := c.Associate(t.Context(), with(s.record))
			if diff := cmp.Diff(a, signup.Account{ID: string(ada.User), Created: s.created}); diff != "" || err != nil {
				t.Fatalf("step %d (-got +want): %s%v", i, diff, err)
			}
			got := d.rows(t, "SELECT email, name, seats, CASE WHEN vip THEN 1 ELSE 0 END, note FROM customers WHERE entra_id = '"+string(ada.User)+"'")
			if diff := cmp.Diff(got, s.want); diff != "" {
				t.Fatalf("step %d (-got +want):\n%s", i, diff)
			}
		}
		if got := d.rows(t, "SELECT count(*) FROM customers"); got != "1" {
			t.Errorf("%s rows, want 1", got)
		}
	})
}

func TestDatabasesKeepAbsentFieldsNull(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		c := open(t, "sql", d.settings("customers"), connector.Env{})
		if _, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada", "email": "", "seats": nil})); err != nil {
			t.Fatal(err)
		}
		if got := d.rows(t, "SELECT email, seats, vip, note FROM customers"); got != "NULL|NULL|NULL|none" {
			t.Errorf("got %s, want NULL and the default", got)
		}
	})
}

// TestDatabasesKeepNumbersInTexts has the numbers that a user's attributes are, all of them decoded as float64.
func TestDatabasesKeepNumbersInTexts(t *testing.T) {
	record := with(map[string]any{"a": 12345678.0, "b": 1e15, "c": -3.0, "d": 1234567.25, "e": 4.0})
	const columns, want = "a, b, c, d, e", "12345678|1000000000000000|-3|1234567.25|4"
	const table = "CREATE TABLE t (entra_id varchar(36) PRIMARY KEY, a varchar(99), b varchar(99), c varchar(99), d varchar(99), e int)"
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, table)
		if _, err := open(t, "sql", d.settings("t"), connector.Env{}).Associate(t.Context(), record); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(d.rows(t, "SELECT "+columns+" FROM t"), want); diff != "" {
			t.Errorf("(-got +want):\n%s", diff)
		}
	})
	t.Run("sqlite", func(t *testing.T) {
		path, db := sqliteFile(t, table)
		if _, err := sqliteOpen(t, path, "t", nil).Associate(t.Context(), record); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(dumpRows(t, db, "SELECT "+columns+" FROM t"), want); diff != "" {
			t.Errorf("(-got +want):\n%s", diff)
		}
	})
}

func TestDatabasesTakeTimes(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		stamp := "timestamptz"
		if fresh(t).driver == "mysql" {
			stamp = "timestamp NULL"
		}
		d := fresh(t, "CREATE TABLE seen (entra_id varchar(36) PRIMARY KEY, a "+stamp+", b date, c varchar(40))")
		c := open(t, "sql", d.settings("seen"), connector.Env{})
		if _, err := c.Associate(t.Context(), with(map[string]any{"a": "2026-11-20T09:00:00Z", "b": "2026-11-20", "c": "2026-11"})); err != nil {
			t.Fatal(err)
		}
		seconds := "extract(epoch FROM a)::bigint"
		if d.driver == "mysql" {
			seconds = "unix_timestamp(a)"
		}
		if got, want := d.rows(t, "SELECT "+seconds+", b, c FROM seen"), fmt.Sprint(start.Unix(), "|2026-11-20"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "|2026-11") {
			t.Errorf("got %s, want %s…", got, want)
		}
	})
}

func TestDatabasesQuoteNames(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		quote := func(s string) string { return `"` + s + `"` }
		if fresh(t).driver == "mysql" {
			quote = func(s string) string { return "`" + s + "`" }
		}
		d := fresh(t, fmt.Sprintf("CREATE TABLE %s (entra_id varchar(36) PRIMARY KEY, %s varchar(9), %s varchar(9), id int)", quote("order"), quote("group"), quote("userId")))
		schema := "public"
		if d.driver == "mysql" {
			schema = d.name
		}
		for _, table := range []string{"order", schema + ".order"} {
			c := open(t, "sql", d.settings(table), connector.Env{Shape: map[string]any{"group": nil, "userId": nil}})
			if err := c.Check(t.Context()); err != nil {
				t.Errorf("%s: %v", table, err)
			}
			for range 2 {
				if _, err := c.Associate(t.Context(), with(map[string]any{"group": "a", "userId": "b"})); err != nil {
					t.Errorf("%s: %v", table, err)
				}
			}
		}
		if got := d.rows(t, fmt.Sprintf("SELECT %s, %s FROM %s", quote("group"), quote("userId"), quote("order"))); got != "a|b" {
			t.Errorf("got %s", got)
		}
		if d.driver == "mysql" {
			return
		}
		c := open(t, "sql", d.settings("order"), connector.Env{Shape: map[string]any{"Group": nil}})
		e, _ := errors.AsType[*signup.Error](c.Check(t.Context()))
		if e == nil || e.Detail != "there is no column Group" {
			t.Errorf("a name in another case: got %v", e)
		}
	})
}

func TestDatabasesWithoutColumnsKeepTheRow(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, "CREATE TABLE t (entra_id varchar(36) PRIMARY KEY)")
		c := open(t, "sql", d.settings("t"), connector.Env{})
		for i := range 3 {
			if a, err := c.Associate(t.Context(), with(nil)); err != nil || a.Created != (i == 0) {
				t.Errorf("call %d: %+v, %v", i, a, err)
			}
		}
		if got := d.rows(t, "SELECT entra_id FROM t"); got != string(ada.User) {
			t.Errorf("got %s", got)
		}
	})
}

// TestDatabasesLeaveTheRowOfAnotherUserAlone is about a second unique column, in every order of the indexes.
func TestDatabasesLeaveTheRowOfAnotherUserAlone(t *testing.T) {
	const others = "INSERT INTO t (entra_id, email, name) VALUES ('other', 'ada@example.com', 'Other')"
	mine := "INSERT INTO t (entra_id, email, name) VALUES ('" + string(ada.User) + "', 'old@example.com', 'Old')"
	tables := map[string]string{
		"key first":    "CREATE TABLE t (entra_id varchar(36) PRIMARY KEY, email varchar(99) UNIQUE, name varchar(99))",
		"e-mail first": "CREATE TABLE t (entra_id varchar(36) NOT NULL, email varchar(99) PRIMARY KEY, name varchar(99), UNIQUE (entra_id))",
	}
	all := func(t *testing.T, prepare func(t *testing.T, statements ...string) (c signup.Connector, rows func() string)) {
		for name, table := range tables {
			for _, existing := range [][]string{{others}, {others, mine}} {
				c, rows := prepare(t, append([]string{table}, existing...)...)
				before := rows()
				e := call(t, c, with(map[string]any{"email": "ada@example.com", "name": "Ada"}))
				if e.Class != signup.Permanent || e.Code != "data" || !strings.HasPrefix(e.Detail, "refused by a ") {
					t.Errorf("%s, %d rows: got %s, %v", name, len(existing), e.Class, e)
				}
				if diff := cmp.Diff(rows(), before); diff != "" {
					t.Errorf("%s, %d rows (-got +want):\n%s", name, len(existing), diff)
				}
			}
		}
	}
	const query = "SELECT entra_id, email, name FROM t ORDER BY entra_id"
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		all(t, func(t *testing.T, statements ...string) (signup.Connector, func() string) {
			d := fresh(t, statements...)
			return open(t, "sql", d.settings("t"), connector.Env{}), func() string { return d.rows(t, query) }
		})
	})
	t.Run("sqlite", func(t *testing.T) {
		all(t, func(t *testing.T, statements ...string) (signup.Connector, func() string) {
			path, db := sqliteFile(t, statements...)
			return sqliteOpen(t, path, "t", nil), func() string { return dumpRows(t, db, query) }
		})
	})
}

// TestDatabasesLeaveRowsOfANumberAlone is about a key that is no object id's: to a database that makes a number of the
// object id, another row may have the same.
func TestDatabasesLeaveRowsOfANumberAlone(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		for _, kind := range []string{"int", "bigint", "double precision", "decimal(20)"} {
			d := fresh(t, "CREATE TABLE t (entra_id "+kind+" PRIMARY KEY, name varchar(99))", "INSERT INTO t VALUES (0, 'zero'), (12345678, 'many'), (100000, 'power')")
			c := open(t, "sql", d.settings("t"), connector.Env{})
			if e, _ := errors.AsType[*signup.Error](c.Check(t.Context())); e == nil || e.Detail != "column entra_id holds numbers, and an object id is a text" {
				t.Errorf("%s: the check says %v", kind, e)
			}
			for _, user := range []signup.UserID{"12345678-5eed-4000-8000-00000000beef", "abcdef00-5eed-4000-8000-00000000beef", "1e5aaaaa-5eed-4000-8000-00000000beef"} {
				req := with(map[string]any{"name": "Ada"})
				req.User = user
				if e := call(t, c, req); e.Class != signup.Permanent {
					t.Errorf("%s, %s: got %s, %v", kind, user, e.Class, e)
				}
			}
			if got := d.rows(t, "SELECT name FROM t ORDER BY name"); got != "many\npower\nzero" {
				t.Errorf("%s: got %s", kind, got)
			}
		}
	})
}

func TestDatabasesFindTheObjectIDInEveryKindOfText(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		kinds := []string{"char(36)", "char(40)", "varchar(36)", "uuid"}
		if fresh(t).driver == "mysql" {
			kinds = append(kinds, "varchar(36) CHARACTER SET latin1 COLLATE latin1_bin", "varchar(36) CHARACTER SET ascii", "varbinary(36)", "varchar(36) COLLATE utf8mb4_bin")
		}
		for _, kind := range kinds {
			d := fresh(t, "CREATE TABLE t (entra_id "+kind+" PRIMARY KEY, name varchar(99))")
			c := open(t, "sql", d.settings("t"), connector.Env{})
			if err := c.Check(t.Context()); err != nil {
				t.Errorf("%s: the check says %v", kind, err)
			}
			for i, name := range []string{"Ada", "Ada King"} {
				a, err := c.Associate(t.Context(), with(map[string]any{"name": name}))
				if got := d.rows(t, "SELECT name FROM t"); err != nil || a.Created != (i == 0) || got != name {
					t.Errorf("%s, call %d: got %+v, %v, and the table has %s", kind, i, a, err, got)
				}
			}
		}
	})
}

func TestDatabasesOutcomes(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable, `CREATE TABLE loose (entra_id varchar(36), name varchar(9))`, `CREATE TABLE parent (id varchar(9) PRIMARY KEY)`,
			`CREATE TABLE child (entra_id varchar(36) PRIMARY KEY, parent varchar(9), born date, FOREIGN KEY (parent) REFERENCES parent (id))`)
		stranger := fresh(t, customersTable)
		name := map[string]any{"name": "Ada"}
		tests := []struct {
			name, table string
			change      map[string]any
			record      map[string]any
			class       signup.Class
			code        string
		}{
			{"no table", "nowhere", nil, name, signup.Permanent, "schema"},
			{"no column", "customers", nil, map[string]any{"name": "A", "mail": "x"}, signup.Permanent, "schema"},
			{"no unique key", "loose", nil, name, signup.Permanent, "schema"},
			{"not null", "customers", nil, map[string]any{"email": "ada@example.com"}, signup.Permanent, "data"},
			{"check", "customers", nil, map[string]any{"name": strings.Repeat("Ada", 50)}, signup.Permanent, "data"},
			{"too long", "customers", nil, map[string]any{"name": "A", "note": strings.Repeat("Ada", 99)}, signup.Permanent, "data"},
			{"no number", "customers", nil, map[string]any{"name": "A", "seats": "Ada"}, signup.Permanent, "data"},
			{"too large", "customers", nil, map[string]any{"name": "A", "seats": 1e30}, signup.Permanent, "data"},
			{"no such parent", "child", nil, map[string]any{"parent": "Ada"}, signup.Permanent, "data"},
			{"no date", "child", nil, map[string]any{"born": "Ada"}, signup.Permanent, "data"},
			{"wrong password", "customers", map[string]any{"dsn": d.dsn(d.login, "Ada", "")}, name, signup.Systemic, "unauthorized"},
			{"no such login", "customers", map[string]any{"dsn": d.dsn("Ada", "Ada", "")}, name, signup.Systemic, "unauthorized"},
			{"no server", "customers", map[string]any{"dsn": d.dsn(d.login, loginPassword, "1")}, name, signup.Transient, "unavailable"},
			{"wrong case is no key", "customers", nil, map[string]any{"name": "A", "ENTRA_ID": "x"}, signup.Permanent, "invalid-record"},
		}
		for _, tt := range tests {
			settings := d.settings(tt.table)
			for k, v := range tt.change {
				settings[k] = v
			}
			e := call(t, open(t, "sql", settings, connector.Env{}), with(tt.record))
			if e.Class != tt.class || e.Code != tt.code {
				t.Errorf("%s: got %s, %v; want %s, %s", tt.name, e.Class, e, tt.class, tt.code)
			}
			for _, secret := range []string{"Ada", "ada@", loginPassword, d.login} {
				if strings.Contains(e.Error(), secret) {
					t.Errorf("%s: %q holds %q", tt.name, e.Error(), secret)
				}
			}
		}
		// A login without rights, at the table and at the database.
		foreign := &testDatabase{server: d.server, driver: d.driver, name: stranger.name, login: d.login}
		settings := foreign.settings("customers")
		c := open(t, "sql", settings, connector.Env{})
		if e := call(t, c, with(name)); e.Class != signup.Systemic {
			t.Errorf("no rights: got %s, %v", e.Class, e)
		}
		if e, _ := errors.AsType[*signup.Error](c.Check(t.Context())); e == nil || e.Class != signup.Systemic {
			t.Errorf("no rights: the check says %v", e)
		}
		foreign.name = "nowhere"
		settings["dsn"] = foreign.dsn("", "", "")
		if e := call(t, open(t, "sql", settings, connector.Env{}), with(name)); e.Class != signup.Systemic || e.Code != "no-database" {
			t.Errorf("no database: got %s, %v", e.Class, e)
		}
	})
}

func TestDatabasesMissingRightsAreSeenByTheCheck(t *testing.T) {
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		from, who := "customers", d.login
		if d.driver == "mysql" {
			from, who = d.name+".*", d.login+"@localhost"
		}
		for _, right := range []string{"UPDATE", "INSERT"} {
			if _, err := d.Exec("REVOKE " + right + " ON " + from + " FROM " + who); err != nil {
				t.Fatal(err)
			}
			c := open(t, "sql", d.settings("customers"), connector.Env{})
			if e, _ := errors.AsType[*signup.Error](c.Check(t.Context())); e == nil || e.Class != signup.Systemic || e.Code != "forbidden" {
				t.Errorf("without %s the check says %v", right, e)
			}
			if e := call(t, c, with(map[string]any{"name": "A"})); e.Class != signup.Systemic || e.Code != "forbidden" {
				t.Errorf("without %s: got %s, %v", right, e.Class, e)
			}
			if _, err := d.Exec("GRANT " + right + " ON " + from + " TO " + who); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestDatabasesCheck(t *testing.T) {
	const notUnique = "column entra_id is not unique: CREATE UNIQUE INDEX t_entra_id ON t (entra_id)"
	tests := []struct {
		name, schema string
		only         string // a driver
		shape        map[string]any
		want         string // "" = fine
	}{
		{"primary key", `CREATE TABLE t (entra_id varchar(36) PRIMARY KEY, name text)`, "", map[string]any{"name": nil}, ""},
		{"unique column", `CREATE TABLE t (id int PRIMARY KEY DEFAULT 1, entra_id varchar(36) UNIQUE, name text)`, "", map[string]any{"name": nil}, ""},
		{"unique index", `CREATE TABLE t (entra_id varchar(36)); CREATE UNIQUE INDEX i ON t (entra_id)`, "", nil, ""},
		{"no table", `CREATE TABLE u (x int)`, "", nil, "there is no table t"},
		{"view", `CREATE TABLE u (entra_id varchar(36) PRIMARY KEY); CREATE VIEW t AS SELECT * FROM u`, "", nil, "t is a view; rows can be inserted or updated in a table only"},
		{"no key", `CREATE TABLE t (x int)`, "", nil, "there is no column entra_id"},
		{"not unique", `CREATE TABLE t (entra_id varchar(36))`, "", nil, notUnique},
		{"plain index", `CREATE TABLE t (entra_id varchar(36)); CREATE INDEX i ON t (entra_id)`, "", nil, notUnique},
		{"unique with another", `CREATE TABLE t (entra_id varchar(36), b varchar(9), UNIQUE (entra_id, b), PRIMARY KEY (b, entra_id))`, "", nil, notUnique},
		{"partial index", `CREATE TABLE t (entra_id varchar(36)); CREATE UNIQUE INDEX i ON t (entra_id) WHERE entra_id > 'a'`, "postgres", nil, notUnique},
		{"index on an expression", `CREATE TABLE t (entra_id varchar(36)); CREATE UNIQUE INDEX i ON t (lower(entra_id))`, "postgres", nil, notUnique},
		{"deferrable", `CREATE TABLE t (entra_id varchar(36) UNIQUE DEFERRABLE)`, "postgres", nil, notUnique},
		{"with more in the index", `CREATE TABLE t (entra_id varchar(36), b int); CREATE UNIQUE INDEX i ON t (entra_id) INCLUDE (b)`, "postgres", nil, ""},
		{"index on a prefix", `CREATE TABLE t (entra_id varchar(36)); CREATE UNIQUE INDEX i ON t (entra_id(8))`, "mysql", nil, notUnique},
		{
			"what fills itself", `CREATE TABLE t (entra_id uuid PRIMARY KEY, a int GENERATED ALWAYS AS IDENTITY, b serial, c int NOT NULL GENERATED ALWAYS AS (1 + 1) STORED)`,
			"postgres", map[string]any{}, "",
		},
		{
			"what fills itself", `CREATE TABLE t (entra_id varchar(36) UNIQUE, a int NOT NULL AUTO_INCREMENT PRIMARY KEY, c int GENERATED ALWAYS AS (1 + 1) STORED, d timestamp NOT NULL DEFAULT now(), e enum('x') NOT NULL)`,
			"mysql", map[string]any{}, "",
		},
		{
			"several", `CREATE TABLE t (entra_id varchar(36) PRIMARY KEY, a int NOT NULL, b int NOT NULL DEFAULT 1, c text)`, "", map[string]any{"x": nil, "c": nil},
			"there is no column x; column a needs a value and the record has none",
		},
	}
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		driver := fresh(t).driver
		for _, tt := range tests {
			if tt.only != "" && tt.only != driver {
				continue
			}
			d := fresh(t, strings.Split(tt.schema, "; ")...)
			if strings.Contains(tt.schema, "serial") {
				if _, err := d.Exec("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO " + d.login); err != nil {
					t.Fatal(err)
				}
			}
			c := open(t, "sql", d.settings("t"), connector.Env{Shape: tt.shape})
			err := c.Check(t.Context())
			got := ""
			if e, ok := errors.AsType[*signup.Error](err); ok {
				got = e.Detail
			}
			if got != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			}
			// What the check says is what the database does.
			if _, err := c.Associate(t.Context(), with(tt.shape)); (err == nil) != (tt.want == "") && tt.name != "several" && tt.name != "view" {
				t.Errorf("%s: the check says %q, and a row %v", tt.name, tt.want, err)
			}
		}
	})
}
