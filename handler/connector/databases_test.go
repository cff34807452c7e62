package connector_test

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// databaseServer is a real server that this test binary starts when it is first needed, reached by a socket in its
// folder. Its defaults are the worst that it has. When the binary ends, however it does, so does the server, and its
// folder goes.
type databaseServer struct {
	driver, socket string
	admin          *sql.DB
	made           atomic.Int32
	stop           func()
}

var (
	startedPostgres = sync.OnceValues(startPostgres)
	startedMariaDB  = sync.OnceValues(startMariaDB)

	startedMu sync.Mutex
	started   []*databaseServer
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range started {
		s.stop()
	}
	os.Exit(code)
}

func startPostgres() (*databaseServer, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	initdb := append(found, "initdb")[0]
	if _, err := exec.LookPath(initdb); err != nil {
		return nil, err
	}
	return startServer("pgx", "database system is ready", "QUIT", func(dir string) (first, server []string) {
		data := filepath.Join(dir, "data")
		first = []string{initdb, "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile=" + filepath.Join(dir, "password"), "--no-sync", "-E", "UTF8", "--no-locale"}
		return first, []string{filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-F", "-c", "standard_conforming_strings=off", "-c", "timezone=Asia/Kolkata"}
	}, func(dir string) (string, string) {
		return "host=" + dir + " user=postgres dbname=postgres password=" + adminPassword, filepath.Join(dir, ".s.PGSQL.5432")
	})
}

func startMariaDB() (*databaseServer, error) {
	install, err := exec.LookPath("mariadb-install-db")
	if err != nil {
		return nil, err
	}
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		if server, err = exec.LookPath("/usr/sbin/mariadbd"); err != nil {
			return nil, err
		}
	}
	return startServer("mysql", "ready for connections", "TERM", func(dir string) ([]string, []string) {
		data := "--datadir=" + filepath.Join(dir, "data")
		return []string{install, "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db"},
			[]string{server, "--no-defaults", data, "--skip-networking", "--socket=" + filepath.Join(dir, "s"), "--pid-file=" + filepath.Join(dir, "pid"), "--innodb-flush-log-at-trx-commit=0",
				"--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "--default-time-zone=+05:00", "--character-set-server=latin1"}
	}, func(dir string) (string, string) {
		return "root@unix(" + filepath.Join(dir, "s") + ")/", filepath.Join(dir, "s")
	})
}

const adminPassword = "of-the-administrator"

// startServer makes a server's data with its first command and starts it with the second, in a folder of its own and not
// as root, which neither server would have. A shell beside it waits for the end of its input, that is of this process.
func startServer(driver, ready, signal string, commands func(dir string) (first, server []string), reach func(dir string) (dsn, socket string)) (*databaseServer, error) {
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(adminPassword), 0o644); err != nil {
		return nil, err
	}
	as := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
	}
	first, server := commands(dir)
	setUp := exec.Command(first[0], first[1:]...)
	setUp.Dir, setUp.SysProcAttr = dir, as
	if out, err := setUp.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("%s: %w\n%s", first[0], err, out)
	}
	const watch = `signal=$1; shift; "$@" & cat > /dev/null; kill -$signal $!; wait $!; rm -rf "$0"`
	cmd := exec.Command("sh", append([]string{"-c", watch, dir, signal}, server...)...)
	cmd.Dir, cmd.SysProcAttr = dir, as
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &databaseServer{driver: driver, stop: func() {
		_ = life.Close()
		_ = cmd.Wait()
	}}
	startedMu.Lock()
	started = append(started, s)
	startedMu.Unlock()
	if err := waitFor(said, ready); err != nil {
		return nil, fmt.Errorf("%s: %w", server[0], err)
	}
	dsn, socket := reach(dir)
	s.socket = socket
	s.admin, err = sql.Open(driver, dsn)
	return s, err
}

// waitFor reads a server's log until it says that it is ready, and goes on reading so that it can go on writing.
func waitFor(said io.Reader, ready string) error {
	seen := make(chan error, 1)
	go func() {
		var all strings.Builder
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			if strings.Contains(lines.Text(), ready) {
				seen <- nil
				_, _ = io.Copy(io.Discard, said)
				return
			}
			all.WriteString(lines.Text() + "\n")
		}
		seen <- errors.New("it ended: " + all.String())
	}()
	select {
	case err := <-seen:
		return err
	case <-time.After(time.Minute):
		return errors.New("not ready after a minute")
	}
}

// testDatabase is a fresh database with one login, which has the rights that the documentation asks for and no other.
type testDatabase struct {
	*sql.DB // as the administrator
	server  *databaseServer
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

func freshDatabase(t testing.TB, start func() (*databaseServer, error), driver string, statements []string) *testDatabase {
	t.Helper()
	server, err := start()
	switch {
	case errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "":
		t.Skip("NOT TESTED: a database server is missing, which 'make databases' installs: ", err)
	case err != nil:
		t.Fatal(err)
	}
	d := &testDatabase{server: server, driver: driver, name: fmt.Sprint("d", server.made.Add(1))}
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
	exe(server.admin, "CREATE DATABASE "+d.name+characters)
	if d.DB, err = sql.Open(server.driver, d.dsn("", "", "")); err != nil {
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
		host := filepath.Dir(d.server.socket)
		if login == "" {
			login, password = "postgres", adminPassword
		}
		if password != "" {
			more = append(more, "password="+password)
		}
		if port != "" {
			host, more = "127.0.0.1", append(more, "port="+port)
		}
		return fmt.Sprintf("host=%s dbname=%s user=%s %s", host, d.name, login, strings.Join(more, " "))
	}
	to := "unix(" + d.server.socket + ")"
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
