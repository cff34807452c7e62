package connector_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"signup-sync/handler/connector/databasetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	databasetest.StopAll()
	os.Exit(code)
}

var (
	startedPostgres = sync.OnceValues(databasetest.StartPostgres)
	startedMariaDB  = sync.OnceValues(databasetest.StartMariaDB)

	databasesMade atomic.Int32
)

// testDatabase is a fresh database with one login, which has the rights that the documentation asks for and no other.
type testDatabase struct {
	*sql.DB // as the administrator
	server  *databasetest.Server
	driver  string // the setting
	name    string
	login   string
}

const loginPassword = "hunter2"

func postgres(t testing.TB, statements ...string) *testDatabase {
	t.Helper()
	return freshDatabase(t, startedPostgres, "postgres", statements)
}

func mariaDB(t testing.TB, statements ...string) *testDatabase {
	t.Helper()
	return freshDatabase(t, startedMariaDB, "mysql", statements)
}

// eachDatabase runs a test on both servers.
func eachDatabase(t *testing.T, test func(t *testing.T, fresh func(t testing.TB, statements ...string) *testDatabase)) {
	t.Run("postgres", func(t *testing.T) { test(t, postgres) })
	t.Run("mariadb", func(t *testing.T) { test(t, mariaDB) })
}

func freshDatabase(t testing.TB, start func() (*databasetest.Server, error), driver string, statements []string) *testDatabase {
	t.Helper()
	server, err := start()
	switch {
	case errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "":
		t.Skip("NOT TESTED: a database server is missing, which 'make databases' installs: ", err)
	case err != nil:
		t.Fatal(err)
	}
	d := &testDatabase{server: server, driver: driver, name: fmt.Sprint("d", databasesMade.Add(1))}
	d.login = "login_" + d.name
	exe := func(db *sql.DB, statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	characters := " CHARACTER SET utf8mb4"
	if driver == "postgres" {
		characters = ""
	}
	exe(server.Admin, "CREATE DATABASE "+d.name+characters)
	if d.DB, err = sql.Open(server.Driver, d.dsn("", "", "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	exe(d.DB, statements...)
	if driver == "postgres" {
		exe(d.DB, "CREATE ROLE "+d.login+" LOGIN PASSWORD '"+loginPassword+"'", "GRANT INSERT, UPDATE, SELECT ON ALL TABLES IN SCHEMA public TO "+d.login)
	} else {
		exe(d.DB, "CREATE USER "+d.login+"@localhost IDENTIFIED BY '"+loginPassword+"'", "GRANT INSERT, UPDATE, SELECT ON "+d.name+".* TO "+d.login+"@localhost")
	}
	return d
}

// dsn is a data source name by the server's socket, or to a port of this machine; without a login the administrator's.
// more is added as it is written in this kind of name.
func (d *testDatabase) dsn(login, password, port string, more ...string) string {
	if d.driver == "postgres" {
		host := filepath.Dir(d.server.Socket)
		if login == "" {
			login, password = "postgres", databasetest.AdminPassword
		}
		if password != "" {
			more = append(more, "password="+password)
		}
		if port != "" {
			host, more = "127.0.0.1", append(more, "port="+port)
		}
		return fmt.Sprintf("host=%s dbname=%s user=%s %s", host, d.name, login, strings.Join(more, " "))
	}
	to := "unix(" + d.server.Socket + ")"
	if port != "" {
		to = "tcp(127.0.0.1:" + port + ")"
	}
	if login == "" {
		login = "root"
	}
	if password != "" {
		login += ":" + password
	}
	return fmt.Sprintf("%s@%s/%s?%s", login, to, d.name, strings.Join(more, "&"))
}

// settings are those of a destination with the login of this database.
func (d *testDatabase) settings(table string, more ...string) map[string]any {
	return map[string]any{"driver": d.driver, "dsn": d.dsn(d.login, loginPassword, "", more...), "table": table, "key": "entra_id"}
}

// rows is what a query says, a line a row.
func (d *testDatabase) rows(t testing.TB, query string) string {
	t.Helper()
	return dumpRows(t, d.DB, query)
}

func dumpRows(t testing.TB, db *sql.DB, query string) string {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Error(err)
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	var lines []string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Error(err)
		}
		var line []string
		for _, v := range values {
			if !v.Valid {
				v.String = "NULL"
			}
			line = append(line, v.String)
		}
		lines = append(lines, strings.Join(line, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
	return strings.Join(lines, "\n")
}
