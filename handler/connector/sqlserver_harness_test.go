package connector_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/connector/tdstest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// There is no SQL Server here. The simulated one knows the statements below by their text and nothing else, so that these
// tests show what is sent, what is made of the answers, and that a call may be lost or repeated. That the statement leaves
// one row when two writers run it at once is SQL Server's documented locking (UPDLOCK, SERIALIZABLE), which no fake shows.

const (
	existsText = "SELECT 1 FROM [dbo].[customers] WHERE [entra_id] = CAST(@p1 AS varchar(36))"

	upsertHead = "SET XACT_ABORT ON; DECLARE @key varchar(36) = @p1; BEGIN TRANSACTION; "
	allText    = upsertHead + "IF EXISTS (SELECT 1 FROM [dbo].[customers] WITH (UPDLOCK, SERIALIZABLE) WHERE [entra_id] = @key) " +
		"UPDATE [dbo].[customers] SET [email] = @p2, [name] = @p3, [seats] = @p4, [vip] = @p5 WHERE [entra_id] = @key; " +
		"ELSE INSERT INTO [dbo].[customers] ([entra_id], [email], [name], [seats], [vip]) VALUES (@key, @p2, @p3, @p4, @p5); COMMIT TRANSACTION;"
	noEmailText = upsertHead + "IF EXISTS (SELECT 1 FROM [dbo].[customers] WITH (UPDLOCK, SERIALIZABLE) WHERE [entra_id] = @key) " +
		"UPDATE [dbo].[customers] SET [name] = @p2, [seats] = @p3, [vip] = @p4 WHERE [entra_id] = @key; " +
		"ELSE INSERT INTO [dbo].[customers] ([entra_id], [name], [seats], [vip]) VALUES (@key, @p2, @p3, @p4); COMMIT TRANSACTION;"
	nameText = upsertHead + "IF EXISTS (SELECT 1 FROM [dbo].[customers] WITH (UPDLOCK, SERIALIZABLE) WHERE [entra_id] = @key) " +
		"UPDATE [dbo].[customers] SET [name] = @p2 WHERE [entra_id] = @key; " +
		"ELSE INSERT INTO [dbo].[customers] ([entra_id], [name]) VALUES (@key, @p2); COMMIT TRANSACTION;"
	keyText = upsertHead + "IF NOT EXISTS (SELECT 1 FROM [dbo].[customers] WITH (UPDLOCK, SERIALIZABLE) WHERE [entra_id] = @key) " +
		"INSERT INTO [dbo].[customers] ([entra_id]) VALUES (@key); COMMIT TRANSACTION;"

	tableText = `SELECT o.type, c.name,
	CASE WHEN c.is_nullable = 0 AND c.default_object_id = 0 AND c.is_identity = 0 AND c.is_computed = 0
		AND c.generated_always_type = 0 AND c.system_type_id <> 189 THEN 1 ELSE 0 END,
	CASE WHEN c.system_type_id IN (48, 52, 56, 59, 60, 62, 104, 106, 108, 122, 127) THEN 1 ELSE 0 END,
	CASE WHEN EXISTS (SELECT 1 FROM sys.indexes AS i WHERE i.object_id = o.object_id
		AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0 AND i.is_hypothetical = 0
		AND 1 = (SELECT COUNT(*) FROM sys.index_columns AS k
			WHERE k.object_id = i.object_id AND k.index_id = i.index_id AND k.key_ordinal > 0)
		AND EXISTS (SELECT 1 FROM sys.index_columns AS k
			WHERE k.object_id = i.object_id AND k.index_id = i.index_id AND k.key_ordinal = 1 AND k.column_id = c.column_id))
		THEN 1 ELSE 0 END,
	CASE WHEN 0 IN (HAS_PERMS_BY_NAME(@p1, 'OBJECT', 'INSERT'),
		MAX(HAS_PERMS_BY_NAME(@p1, 'OBJECT', 'UPDATE', c.name, 'COLUMN')) OVER (),
		MAX(HAS_PERMS_BY_NAME(@p1, 'OBJECT', 'SELECT', c.name, 'COLUMN')) OVER ()) THEN 0 ELSE 1 END
FROM sys.objects AS o JOIN sys.columns AS c ON c.object_id = o.object_id
WHERE o.object_id = OBJECT_ID(@p1) AND o.type IN ('U', 'V')
ORDER BY c.column_id`
)

// upserts are the texts that write dbo.customers, and the columns of their parameters from the second on.
var upserts = map[string][]string{
	allText:     {"email", "name", "seats", "vip"},
	noEmailText: {"name", "seats", "vip"},
	nameText:    {"name"},
	keyText:     {},
}

const mssqlPassword = "p@ss;word 4#1"

// sqlServer is a database with one table, dbo.customers, behind a tdstest.Server.
type sqlServer struct {
	*tdstest.Server

	mu      sync.Mutex
	rows    map[string]map[string]any
	logins  []tdstest.Login
	seen    []tdstest.Statement
	columns [][]any // what the catalog says of the table
	token   string  // what a login by token needs

	login    []tdstest.Error // what logins are refused with
	refuse   map[string]int  // how many times statements are refused "before" or "after" their effect, or only "exists" or, in the midst of its "rows", the catalog; -1 = always
	with     []tdstest.Error // with this
	cutAfter bool            // the next upsert has its effect and no answer
	stalled  chan struct{}
}

func newSQLServer(t testing.TB, config *tls.Config) *sqlServer {
	t.Helper()
	s := &sqlServer{rows: map[string]map[string]any{}, refuse: map[string]int{}}
	s.columns = [][]any{{"U ", "entra_id", 1, 0, 1, 1}, {"U ", "email", 0, 0, 0, 1}, {"U ", "name", 1, 0, 0, 1}, {"U ", "seats", 0, 1, 0, 1}, {"U ", "vip", 0, 1, 0, 1}}
	server, err := tdstest.New(tdstest.Options{TLS: config, Login: s.mayLogin, Answer: s.answer})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = server
	t.Cleanup(server.Close)
	return s
}

func (s *sqlServer) mayLogin(l tdstest.Login) []tdstest.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins = append(s.logins, l)
	byPassword := l.User == "crm" && l.Password == mssqlPassword
	byToken := s.token != "" && l.Token == s.token
	switch {
	case s.login != nil:
		return s.login
	case !byPassword && !byToken:
		return []tdstest.Error{{Number: 18456, Text: "Login failed for user '" + l.User + "'."}}
	case l.Database != "crm":
		return []tdstest.Error{
			{Number: 4060, Text: "Cannot open database \"" + l.Database + "\" requested by the login. The login failed."},
			{Number: 18456, Text: "Login failed for user '" + l.User + "'."},
		}
	}
	return nil
}

func (s *sqlServer) answer(ctx context.Context, q tdstest.Statement) tdstest.Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, q)
	if s.stalled != nil {
		close(s.stalled)
		s.stalled = nil
		<-ctx.Done()
		return tdstest.Reply{}
	}
	if s.refused("before") {
		return tdstest.Reply{Errors: s.with}
	}
	columns, upsert := upserts[q.SQL]
	switch {
	case q.SQL == existsText && declares(q, "nvarchar(36)"):
		if s.refused("exists") {
			return tdstest.Reply{Errors: s.with}
		}
		r := tdstest.Reply{Columns: []any{0}}
		if _, ok := s.rows[q.Values[0].(string)]; ok {
			r.Rows = [][]any{{1}}
		}
		return r
	case q.SQL == tableText:
		r := tdstest.Reply{Columns: []any{"", "", 0, 0, 0, 0}}
		if q.Values[0] == "[dbo].[customers]" {
			r.Rows = s.columns
		}
		if s.refused("rows") {
			r.Rows, r.Errors = r.Rows[:1], s.with
		}
		return r
	case upsert:
		return s.upsert(q, columns)
	}
	return tdstest.Reply{Errors: []tdstest.Error{{Number: 102, Text: "Incorrect syntax near 'x'."}}}
}

// refused reports that a statement is to be refused at this point.
func (s *sqlServer) refused(point string) bool {
	n := s.refuse[point]
	s.refuse[point] = max(n-1, min(n, 0))
	return n != 0
}

// upsert has its effect in a transaction: all of it or nothing.
func (s *sqlServer) upsert(q tdstest.Statement, columns []string) tdstest.Reply {
	types := []string{"nvarchar(36)"}
	next := map[string]any{"email": nil, "name": nil}
	maps.Copy(next, s.rows[q.Values[0].(string)])
	for i, c := range columns {
		v := q.Values[i+1]
		types = append(types, map[string]string{"seats": "bigint", "vip": "bit"}[c])
		if text, ok := v.(string); ok {
			types[i+1] = fmt.Sprintf("nvarchar(%d)", len(text))
		}
		next[c] = v
	}
	name, _ := next["name"].(string)
	switch {
	case !declares(q, types...):
		return tdstest.Reply{Errors: []tdstest.Error{{Number: 8144, Text: "Procedure or function has too many arguments specified."}}}
	case next["name"] == nil:
		return tdstest.Reply{Errors: []tdstest.Error{{Number: 515, Text: "Cannot insert the value NULL into column 'name'."}}}
	case len(name) > 100:
		return tdstest.Reply{Errors: []tdstest.Error{{Number: 2628, Text: "String or binary data would be truncated. Truncated value: '" + name + "'."}}}
	}
	s.rows[q.Values[0].(string)] = next
	if s.refused("after") {
		return tdstest.Reply{Errors: s.with}
	}
	r := tdstest.Reply{Count: 1, Cut: s.cutAfter}
	s.cutAfter = false
	return r
}

// declares reports that a statement's parameters are @p1, @p2, … of these types.
func declares(q tdstest.Statement, types ...string) bool {
	var all []string
	for i, t := range types {
		all = append(all, fmt.Sprintf("@p%d %s", i+1, t))
	}
	return q.Declared == strings.Join(all, ",") && len(q.Values) == len(types)
}

// set changes something while no statement is at work.
func (s *sqlServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// refuseWith refuses statements n times with these errors, whose text holds what must not get out.
func (s *sqlServer) refuseWith(point string, n int, numbers ...int32) {
	s.set(func() {
		s.refuse[point], s.with = n, nil
		for _, number := range numbers {
			s.with = append(s.with, tdstest.Error{Number: number, Text: "Ada.Lovelace+signup@example.com of crm did: " + mssqlPassword})
		}
	})
}

func (s *sqlServer) heal() {
	s.set(func() {
		s.login, s.with, s.cutAfter, s.stalled = nil, nil, false, nil
		clear(s.refuse)
	})
}

func (s *sqlServer) dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(s.rows)) {
		lines = append(lines, id+" "+fmt.Sprint(s.rows[id]))
	}
	return strings.Join(lines, "\n")
}

// dsn is a data source name for the server under this host name.
func (s *sqlServer) dsn(host, more string) string {
	u := url.URL{Scheme: "sqlserver", User: url.UserPassword("crm", mssqlPassword), Host: fmt.Sprintf("%s:%d", host, s.Port())}
	return u.String() + "?database=crm" + more
}

func sqlServerSettings(dsn string) map[string]any {
	return map[string]any{"driver": "sqlserver", "dsn": dsn, "table": "dbo.customers", "key": "entra_id"}
}

// certificate makes a server's TLS and the file of its certificate, which is for example.com.
func certificate(t testing.TB) (config *tls.Config, file string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	file = filepath.Join(t.TempDir(), "sql.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: server.TLS.Certificates}, file
}

func sqlServerSystem(t testing.TB) *connectortest.System {
	clock := sim.NewClock(start)
	there := newSQLServer(t, nil)
	log := &lockedBuffer{}
	env := connector.Env{Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil))}
	good := open(t, "sql", sqlServerSettings(there.dsn("127.0.0.1", "")), env)
	wrong := open(t, "sql", sqlServerSettings(strings.Replace(there.dsn("127.0.0.1", ""), "p%40ss", "other", 1)), env)
	c := &lossy{Connector: good}
	return &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{mssqlPassword, "p%40ss", "127.0.0.1"},
		Accounts: func(user signup.UserID) (n int) {
			there.set(func() {
				if there.rows[string(user)] != nil {
					n = 1
				}
			})
			return n
		},
		State: there.dump,
		Record: func(email, name string) map[string]any {
			return map[string]any{"email": email, "name": name, "seats": 3, "vip": true}
		},
		Rejected: func(signup.UserID) map[string]any { return map[string]any{"name": strings.Repeat("lovelace", 20)} },
		Stranger: func() string { return "99999999-5eed-4000-8000-00000000beef" },
		Move: func(user signup.UserID, email string) {
			there.set(func() { there.rows[string(user)]["email"] = email })
		},
		LoseAnswer:      func() { there.set(func() { there.cutAfter = true }) },
		FailAfterEffect: func() { there.refuseWith("after", 1, 40197) },
		BreakCredential: func() { c.Connector = wrong },
		Unavailable: func() {
			there.refuseWith("before", -1, 40613)
			there.set(func() { there.login = there.with })
		},
		FailLookups: func() { there.refuseWith("exists", -1, 1222) },
		Stall: func() <-chan struct{} {
			stalled := make(chan struct{})
			there.set(func() { there.stalled = stalled })
			return stalled
		},
		Heal: func() { c.Connector = good; there.heal() },
	}
}
