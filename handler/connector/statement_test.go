package connector_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
)

func TestStatementsAreCutAtTheirParameters(t *testing.T) {
	tests := []struct{ driver, text, want string }{
		{"postgres", "SELECT :a, :b_2, :a", "SELECT $1, $2, $3"},
		{"mysql", "SELECT :a, :b_2, :a", "SELECT ?, ?, ?"},
		{"sqlite", "SELECT :a, :b_2, :a ;\n -- the end\n", "SELECT ?, ?, ? ;\n -- the end\n"},
		{"postgres", "SELECT (:a)::text, x[1 : 2], f(n := :b), a ? 'x', 1::int", "SELECT ($1)::text, x[1 : 2], f(n := $2), a ? 'x', 1::int"},
		{"postgres", `SELECT ':a''b', ":a"":b", E'\':a', e'\':a', :a, 'x\', :b`, `SELECT ':a''b', ":a"":b", E'\':a', e'\':a', $1, 'x\', $2`},
		{"postgres", `SELECT table_e'\', :a`, `SELECT table_e'\', $1`},
		{"postgres", "SELECT $$ :a ; $x$ $$, $x$ $$ :b $x$, a$b$ FROM t -- :c $$\n WHERE d = :d /* :e /* ; */ ' */", "SELECT $$ :a ; $x$ $$, $x$ $$ :b $x$, a$b$ FROM t -- :c $$\n WHERE d = $1 /* :e /* ; */ ' */"},
		{"mysql", "SELECT 'it\\'s :a', \"\\\":b\", `:c``:d`, :e # :f ' \n, 1--:g, @v, a -- :h\n, :i /* /* :j */", "SELECT 'it\\'s :a', \"\\\":b\", `:c``:d`, ? # :f ' \n, 1--?, @v, a -- :h\n, ? /* /* :j */"},
		{"sqlite", "SELECT [:a;], `:b`, ':c\\', :d", "SELECT [:a;], `:b`, ':c\\', ?"},
		{
			"sqlserver", `MERGE [t:a;]]:b] /* :c /* ; */ ' */ USING (SELECT :d, N':e\', ":f", geometry::Point(:d)) -- :g`,
			`MERGE [t:a;]]:b] /* :c /* ; */ ' */ USING (SELECT @p1, N':e\', ":f", geometry::Point(@p2)) -- :g`,
		},
		{"postgres", "SELECT ':é', é:a", "SELECT ':é', é$1"},
	}
	for _, tt := range tests {
		_, _, got, err := connector.ParseStatement(tt.driver, tt.text)
		if diff := cmp.Diff(got, tt.want); diff != "" || err != nil {
			t.Errorf("%s: %v (-got +want):\n%s", tt.text, err, diff)
		}
	}
}

func TestStatementsThatAreRefused(t *testing.T) {
	const two, unended = "has more than one statement", "has a text, a name or a comment that does not end"
	tests := []struct{ driver, text, want string }{
		{"postgres", " ; -- nothing\n", "is empty"},
		{"postgres", "DELETE FROM a; DELETE FROM b", two},
		{"postgres", "DELETE FROM a; :b", two},
		{"postgres", "SELECT 'a", unended},
		{"postgres", `SELECT E'a\'`, unended},
		{"postgres", "SELECT $a$ $b$", unended},
		{"postgres", "SELECT 1 /* /* */", unended},
		{"mysql", `SELECT 'a\'`, unended},
		{"mysql", "SELECT /*! 1; DROP TABLE a */ 1", "has a comment that the database would carry out"},
		{"postgres", "SELECT $1", "has a parameter that begins with $; write :name"},
		{"mysql", "SELECT ?", "has a parameter that begins with ?; write :name"},
		{"sqlite", "SELECT @a", "has a parameter that begins with @; write :name"},
		{"sqlite", "SELECT $a", "has a parameter that begins with $; write :name"},
		{"sqlserver", "SELECT @p1", "has a parameter that begins with @; write :name"},
		{"sqlserver", "SELECT /* /* */ 1", unended},
	}
	for _, tt := range tests {
		if _, _, got, err := connector.ParseStatement(tt.driver, tt.text); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.text, got, err, tt.want)
		}
	}
}

// FuzzParseStatement holds that nothing between the parameters is changed, and that nothing in a text, a quoted name or a comment
// counts, whatever it is.
func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{"SELECT :a, ':b' FROM \"c\" -- d\n;", "E'\\'' $x$ $x$ $1 /* /* */ */", "`a` [b] # c", "::int := :a:b", "\\", "'", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, driver := range []string{"mysql", "postgres", "sqlite", "sqlserver"} {
			pieces, names, _, err := connector.ParseStatement(driver, text)
			if err == nil {
				back := pieces[0]
				for i, name := range names {
					back += ":" + name + pieces[i+1]
				}
				if diff := cmp.Diff(back, text); diff != "" || len(pieces) != len(names)+1 {
					t.Errorf("%s: put together again (-got +want):\n%s", driver, diff)
				}
			}
			for _, inert := range inertTexts(driver, text) {
				statement := "SELECT " + inert + "\n, :user_id"
				pieces, names, _, err := connector.ParseStatement(driver, statement)
				if diff := cmp.Diff(pieces, []string{"SELECT " + inert + "\n, ", ""}); diff != "" || err != nil || len(names) != 1 {
					t.Errorf("%s: %q: %v, names %q (-got +want):\n%s", driver, statement, err, names, diff)
				}
			}
		}
	})
}

// inertTexts quotes a text in every way that a database has.
func inertTexts(driver, text string) []string {
	double := func(s, c string) string { return c + strings.ReplaceAll(s, c, c+c) + c }
	oneLine := strings.ReplaceAll(text, "\n", " ")
	switch driver {
	case "mysql":
		escaped := strings.ReplaceAll(text, `\`, `\\`)
		return []string{double(escaped, "'"), double(escaped, `"`), double(text, "`"), "'" + strings.ReplaceAll(escaped, "'", `\'`) + "'", "# " + oneLine, "-- " + oneLine}
	case "postgres":
		escaped := strings.ReplaceAll(text, `\`, `\\`)
		all := []string{double(text, "'"), double(text, `"`), "E" + double(escaped, "'"), "E'" + strings.ReplaceAll(escaped, "'", `\'`) + "'", "--" + oneLine}
		if !strings.Contains(text, "$") {
			all = append(all, "$t$"+text+"$t$", "$$"+text+"$$")
		}
		return all
	}
	if driver == "sqlserver" {
		return []string{double(text, "'"), "N" + double(text, "'"), double(text, `"`), "[" + strings.ReplaceAll(text, "]", "]]") + "]", "--" + oneLine}
	}
	return []string{double(text, "'"), double(text, `"`), double(text, "`"), "[" + strings.ReplaceAll(text, "]", "") + "]", "--" + oneLine, "/*" + strings.ReplaceAll(text, "*/", "") + " */"}
}

func TestStatementSettings(t *testing.T) {
	const good = "INSERT INTO t (k, email) VALUES (:user_id, :email) ON CONFLICT DO NOTHING"
	tests := []struct {
		name      string
		statement string
		more      map[string]any
		shape     map[string]any
		want      []string
	}{
		{"good", good, nil, map[string]any{"email": nil}, nil},
		{"nothing known of the record", good, nil, nil, nil},
		{"beside a table", good, map[string]any{"table": "t", "key": "k"}, nil, []string{"settings.statement: stands for settings.table and settings.key; remove them, or it"}},
		{"two", good + "; DROP TABLE t", nil, nil, []string{"settings.statement: has more than one statement"}},
		{"no user", "UPDATE t SET email = :email", nil, nil, []string{"settings.statement: never uses :user_id, so that it cannot tell one user from another"}},
		{"unknown and unused", good, nil, map[string]any{"mail": nil, "name": nil}, []string{
			"settings.statement: :email is no field of the record, nor user_id or tenant_id", "settings.statement: never uses record.mail", "settings.statement: never uses record.name",
		}},
		{"hidden", good, nil, map[string]any{"email": nil, "user_id": nil}, []string{"settings.statement: record.user_id would hide :user_id; give the field another name"}},
		{"neither", "", nil, nil, []string{
			"settings.table: missing; name the table, or write settings.statement",
			"settings.key: missing; name the column of the user's object id, or write settings.statement",
		}},
		{"not a MERGE", good, map[string]any{"driver": "sqlserver", "dsn": "server=localhost;user id=crm;password=x;database=crm"}, nil, []string{
			"settings.statement: wants one MERGE, which no other statement can follow; this database needs no semicolon between two",
		}},
		{"no driver", good, map[string]any{"driver": "oracle"}, nil, []string{"settings.driver: not known; there are mysql, postgres, sqlite, sqlserver"}},
	}
	for _, tt := range tests {
		settings := map[string]any{"driver": "sqlite", "dsn": "x.db", "statement": tt.statement}
		for k, v := range tt.more {
			settings[k] = v
		}
		c, errs := kindOf(t, "sql").Open(settings, connector.Env{Shape: tt.shape})
		if closer, ok := c.(interface{ Close() error }); ok {
			_ = closer.Close()
		}
		var got []string
		for _, err := range errs {
			got = append(got, err.Error())
		}
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", tt.name, diff)
		}
	}
}

// ownStatements are one statement in each dialect, of one kind of table.
var ownStatements = map[string]string{
	"sqlite":   "INSERT INTO customers (entra_id, email, name, seats, vip, note) VALUES (:user_id, :email, :name, :seats, :vip, :tenant_id) ON CONFLICT (entra_id) DO UPDATE SET email = excluded.email, name = excluded.name",
	"postgres": "INSERT INTO customers (entra_id, email, name, seats, vip, note) VALUES (:user_id, :email, :name, :seats::int, :vip, :tenant_id) ON CONFLICT (entra_id) DO UPDATE SET email = excluded.email, name = excluded.name;",
	"mysql":    "INSERT INTO customers (entra_id, email, name, seats, vip, note) VALUES (:user_id, :email, :name, :seats, :vip, :tenant_id) ON DUPLICATE KEY UPDATE email = VALUES(email), name = VALUES(name)",
}

func statementSettings(driver string) map[string]any {
	return map[string]any{"table": nil, "key": nil, "statement": ownStatements[driver]}
}

func TestStatementsKeepThePromisesOfAConnector(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		connectortest.Run(t, connectortest.Harness{New: databaseSystem(postgres, statementSettings("postgres")), Skip: databaseSkips})
	})
	t.Run("mariadb", func(t *testing.T) {
		connectortest.Run(t, connectortest.Harness{New: databaseSystem(mariaDB, statementSettings("mysql")), Skip: databaseSkips})
	})
}

func TestStatementsTakeTheRecord(t *testing.T) {
	const query = "SELECT email, name, seats, note FROM customers"
	try := func(t *testing.T, c signup.Connector, dump func() string) {
		req := with(map[string]any{"name": "Ada", "email": "", "seats": 3, "vip": true})
		for range 2 {
			a, err := c.Associate(t.Context(), req)
			if diff := cmp.Diff(a, signup.Account{ID: string(ada.User)}); diff != "" || err != nil {
				t.Errorf("%v (-got +want):\n%s", err, diff)
			}
		}
		if diff := cmp.Diff(dump(), "NULL|Ada|3|"+req.Tenant); diff != "" {
			t.Errorf("(-got +want):\n%s", diff)
		}
		if err := c.Check(t.Context()); err != nil {
			t.Errorf("check: %v", err)
		}
		if diff := cmp.Diff(dump(), "NULL|Ada|3|"+req.Tenant); diff != "" {
			t.Errorf("after a check (-got +want):\n%s", diff)
		}
		for _, field := range []string{"nick", "user_id"} {
			if e := call(t, c, with(map[string]any{field: "x"})); e.Code != "invalid-record" || e.Class != signup.Permanent {
				t.Errorf("%s: got %s, %v", field, e.Class, e)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		path, db := sqliteFile(t, customers)
		c := open(t, "sql", map[string]any{"driver": "sqlite", "dsn": path, "statement": ownStatements["sqlite"]}, connector.Env{})
		try(t, c, func() string { return dumpRows(t, db, query) })
	})
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable)
		c := open(t, "sql", map[string]any{"driver": d.driver, "dsn": d.dsn(d.login, loginPassword, ""), "statement": ownStatements[d.driver]}, connector.Env{})
		try(t, c, func() string { return d.rows(t, query) })
	})
}

// TestStatementsThatMeetAnotherWritersRowTakeItForTheUsersOwn has four writers see no row, and then wait for one another
// to make it: a statement without an upsert of its own finds it the second time.
func TestStatementsThatMeetAnotherWritersRowTakeItForTheUsersOwn(t *testing.T) {
	statements := map[string]string{
		"postgres": "INSERT INTO t (entra_id, name) SELECT :user_id, max(:name) FROM pg_sleep(0.2) WHERE NOT EXISTS (SELECT 1 FROM t WHERE entra_id = :user_id) HAVING count(*) > 0",
		"mysql":    "INSERT INTO t (entra_id, name) SELECT :user_id, :name FROM (SELECT count(*) AS n FROM t WHERE entra_id = :user_id) AS x WHERE n = 0 AND sleep(0.2) = 0",
	}
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, "CREATE TABLE t (entra_id varchar(36) PRIMARY KEY, name varchar(99))")
		var more []string
		if d.driver == "mysql" { // which otherwise locks the gap that they have read, and undoes all but one
			more = []string{"tx_isolation=%27READ-COMMITTED%27"}
		}
		settings := map[string]any{"driver": d.driver, "dsn": d.dsn(d.login, loginPassword, "", more...), "statement": statements[d.driver]}
		var writers sync.WaitGroup
		for range 4 {
			c := open(t, "sql", settings, connector.Env{})
			writers.Go(func() {
				if _, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada"})); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		if got := d.rows(t, "SELECT name FROM t"); got != "Ada" {
			t.Errorf("got %s", got)
		}
	})
}

// TestStatementsAreReadAsTheDatabaseReadsThem has in every text what would end it if it were read otherwise.
func TestStatementsAreReadAsTheDatabaseReadsThem(t *testing.T) {
	texts := map[string]string{
		"postgres": `'a\' || E'b\':c' || $x$'d$x$ || U&'e' /* /* ' */ ' */ -- '`,
		"mysql":    `concat('a\\', 'b\':c', "'d", 'e') # '`,
	}
	const want = `a\b':c'de`
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, "CREATE TABLE t (entra_id varchar(36), name varchar(99))")
		statement := "INSERT INTO t (entra_id, name) VALUES (:user_id, " + texts[d.driver] + "\n)"
		c := open(t, "sql", map[string]any{"driver": d.driver, "dsn": d.dsn(d.login, loginPassword, ""), "statement": statement}, connector.Env{})
		if _, err := c.Associate(t.Context(), with(nil)); err != nil {
			t.Fatal(err)
		}
		if got := d.rows(t, "SELECT name FROM t"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestStatementsAreChecked(t *testing.T) {
	wrong := map[string]string{
		"no table":  "INSERT INTO nowhere (entra_id) VALUES (:user_id)",
		"no column": "INSERT INTO customers (entra_id, mail, name) VALUES (:user_id, 'a', 'b')",
		"no SQL":    "INSERT customers :user_id",
	}
	check := func(t *testing.T, driver, dsn string) {
		for name, statement := range wrong {
			c := open(t, "sql", map[string]any{"driver": driver, "dsn": dsn, "statement": statement}, connector.Env{})
			if e, _ := errors.AsType[*signup.Error](c.Check(t.Context())); e == nil || e.Class != signup.Permanent && e.Class != signup.Systemic {
				t.Errorf("%s: the check says %v", name, e)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		path, _ := sqliteFile(t, customers)
		check(t, "sqlite", path)
	})
	eachDatabase(t, func(t *testing.T, fresh freshFunc) {
		d := fresh(t, customersTable, "CREATE TABLE seen (entra_id varchar(36))")
		dsn := d.dsn(d.login, loginPassword, "")
		check(t, d.driver, dsn)
		if d.driver == "mysql" {
			return
		}
		// EXPLAIN sees that no unique index fits, and carries nothing out.
		c := open(t, "sql", map[string]any{"driver": d.driver, "dsn": dsn, "statement": "INSERT INTO seen VALUES (:user_id) ON CONFLICT (entra_id) DO NOTHING"}, connector.Env{})
		if e, _ := errors.AsType[*signup.Error](c.Check(t.Context())); e == nil || e.Code != "schema" {
			t.Errorf("no unique index: the check says %v", e)
		}
		c = open(t, "sql", map[string]any{"driver": d.driver, "dsn": dsn, "statement": "ANALYZE INSERT INTO seen VALUES (:user_id)"}, connector.Env{})
		if err := c.Check(t.Context()); err != nil || d.rows(t, "SELECT count(*) FROM seen") != "0" {
			t.Errorf("EXPLAIN ANALYZE: %v, %s rows", err, d.rows(t, "SELECT count(*) FROM seen"))
		}
	})
}
