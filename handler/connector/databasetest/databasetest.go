// Package databasetest starts real database servers for tests, from the programs that Debian's packages install. It
// imports the standard library only: whoever starts a server imports its driver.
package databasetest

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
	"syscall"
	"time"
)

// Server is a server that this process has started, reached by a socket in its folder. Its defaults are the worst that
// it has. When the process ends, however it does, so does the server, and its folder goes.
type Server struct {
	Driver string // its name in database/sql
	Socket string
	Admin  *sql.DB // as the administrator
	stop   func()
}

// AdminPassword is the administrator's, where one is needed.
const AdminPassword = "of-the-administrator"

var (
	startedMu sync.Mutex
	started   []*Server
)

// StopAll ends all servers that were started, for a TestMain.
func StopAll() {
	startedMu.Lock()
	defer startedMu.Unlock()
	for _, s := range started {
		s.stop()
	}
}

// StartPostgres starts PostgreSQL; exec.ErrNotFound if it is not installed.
func StartPostgres() (*Server, error) {
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
		return "host=" + dir + " user=postgres dbname=postgres password=" + AdminPassword, filepath.Join(dir, ".s.PGSQL.5432")
	})
}

// StartMariaDB starts MariaDB; exec.ErrNotFound if it is not installed.
func StartMariaDB() (*Server, error) {
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

// startServer makes a server's data with its first command and starts it with the second, in a folder of its own and not
// as root, which neither server would have. A shell beside it waits for the end of its input, that is of this process.
func startServer(driver, ready, signal string, commands func(dir string) (first, server []string), reach func(dir string) (dsn, socket string)) (*Server, error) {
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(AdminPassword), 0o644); err != nil {
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
	s := &Server{Driver: driver, stop: func() {
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
	s.Socket = socket
	s.Admin, err = sql.Open(driver, dsn)
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
