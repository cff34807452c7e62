package connector_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"
	mssql "github.com/microsoft/go-mssqldb"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/connector/tdstest"
	"signup-sync/handler/signup"
)

func TestSQLServerKeepsThePromisesOfAConnector(t *testing.T) {
	connectortest.Run(t, connectortest.Harness{New: sqlServerSystem, Skip: map[string]string{
		connectortest.SpentKey:  "there is no idempotency key: the row's key is the user",
		connectortest.Throttled: "SQL Server does not say for how long; its error 40501 is tested by number",
	}})
}

func sqlServerOpen(t testing.TB, there *sqlServer, shape map[string]any) signup.Connector {
	t.Helper()
	return open(t, "sql", sqlServerSettings(there.dsn("127.0.0.1", "")), connector.Env{Shape: shape})
}

func TestSQLServerUpsertsTheMappedColumns(t *testing.T) {
	there := newSQLServer(t, nil)
	c := sqlServerOpen(t, there, nil)
	steps := []struct {
		record  map[string]any
		created bool
		want    map[string]any
	}{
		{
			map[string]any{"email": "a@example.com", "name": "Ada", "seats": 3, "vip": true}, true,
			map[string]any{"email": "a@example.com", "name": "Ada", "seats": int64(3), "vip": true},
		},
		{
			map[string]any{"email": "", "name": "'; DROP TABLE x", "seats": -4, "vip": false}, false,
			map[string]any{"email": "a@example.com", "name": "'; DROP TABLE x", "seats": int64(-4), "vip": false},
		},
		{map[string]any{"email": nil, "name": "Ada"}, false, map[string]any{"email": "a@example.com", "name": "Ada", "seats": int64(-4), "vip": false}},
		{nil, false, map[string]any{"email": "a@example.com", "name": "Ada", "seats": int64(-4), "vip": false}},
	}
	for i, s := range steps {
		a, err := c.Associate(t.Context(), with(s.record))
		if diff := cmp.Diff(a, signup.Account{ID: string(ada.User), Created: s.created}); diff != "" || err != nil {
			t.Fatalf("step %d (-got +want): %s%v", i, diff, err)
		}
		if diff := cmp.Diff(there.rows, map[string]map[string]any{string(ada.User): s.want}); diff != "" {
			t.Fatalf("step %d (-got +want):\n%s", i, diff)
		}
	}
	login := there.logins[0]
	if diff := cmp.Diff(login, tdstest.Login{User: "crm", Password: mssqlPassword, App: "signup-sync", Database: "crm"}); diff != "" {
		t.Errorf("login (-got +want):\n%s", diff)
	}
}

// TestSQLServerStatements shows the text that is sent; the simulated server refuses these, which it does not know.
func TestSQLServerStatements(t *testing.T) {
	long := strings.Repeat("é", 4001)
	tests := []struct {
		table, key string
		record     map[string]any
		exists     string
		want       tdstest.Statement
	}{
		{
			"customers", "id", nil, "SELECT 1 FROM [customers] WHERE [id] = CAST(@p1 AS varchar(36))",
			tdstest.Statement{
				SQL: "SET XACT_ABORT ON; DECLARE @key varchar(36) = @p1; BEGIN TRANSACTION; " +
					"IF NOT EXISTS (SELECT 1 FROM [customers] WITH (UPDLOCK, SERIALIZABLE) WHERE [id] = @key) " +
					"INSERT INTO [customers] ([id]) VALUES (@key); COMMIT TRANSACTION;",
				Declared: "@p1 nvarchar(36)", Values: []any{string(ada.User)},
			},
		},
		{
			"order.group", "key", map[string]any{"select": "x", "a$b": 1234567.25, "seats": 12345678.0, "From": true, "note": long, "list": []any{"a", 1}, "none": ""},
			"SELECT 1 FROM [order].[group] WHERE [key] = CAST(@p1 AS varchar(36))",
			tdstest.Statement{
				SQL: "SET XACT_ABORT ON; DECLARE @key varchar(36) = @p1; BEGIN TRANSACTION; " +
					"IF EXISTS (SELECT 1 FROM [order].[group] WITH (UPDLOCK, SERIALIZABLE) WHERE [key] = @key) " +
					"UPDATE [order].[group] SET [From] = @p2, [a$b] = @p3, [list] = @p4, [note] = @p5, [seats] = @p6, [select] = @p7 WHERE [key] = @key; " +
					"ELSE INSERT INTO [order].[group] ([key], [From], [a$b], [list], [note], [seats], [select]) VALUES (@key, @p2, @p3, @p4, @p5, @p6, @p7); COMMIT TRANSACTION;",
				Declared: "@p1 nvarchar(36),@p2 bit,@p3 nvarchar(10),@p4 nvarchar(7),@p5 nvarchar(max),@p6 bigint,@p7 nvarchar(1)",
				Values:   []any{string(ada.User), true, "1234567.25", `["a",1]`, long, int64(12345678), "x"},
			},
		},
	}
	for _, tt := range tests {
		var seen []tdstest.Statement
		var mu sync.Mutex
		server, err := tdstest.New(tdstest.Options{Answer: func(_ context.Context, s tdstest.Statement) tdstest.Reply {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, s)
			return tdstest.Reply{Columns: []any{0}}
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		settings := sqlServerSettings((&sqlServer{Server: server}).dsn("127.0.0.1", ""))
		settings["table"], settings["key"] = tt.table, tt.key
		if _, err := open(t, "sql", settings, connector.Env{}).Associate(t.Context(), with(tt.record)); err != nil {
			t.Errorf("%s: %v", tt.table, err)
		}
		exists := tdstest.Statement{SQL: tt.exists, Declared: "@p1 nvarchar(36)", Values: []any{string(ada.User)}}
		if diff := cmp.Diff(seen, []tdstest.Statement{exists, tt.want}); diff != "" {
			t.Errorf("%s: statements (-got +want):\n%s", tt.table, diff)
		}
	}
}

func TestSQLServerErrorsBecomeOutcomes(t *testing.T) {
	there := newSQLServer(t, nil)
	c := sqlServerOpen(t, there, nil)
	tests := []struct {
		class   signup.Class
		code    string
		numbers []int32
	}{
		{signup.Transient, "busy", []int32{1205, 1222, 3960}},
		{signup.Transient, "unavailable", []int32{40613, 40197, 40143, 40540, 4221, 615, 233, 701, 8645, 12345}},
		{signup.Throttled, "throttled", []int32{40501, 10928, 10929, 10936, 49918, 49919, 49920}},
		{signup.Permanent, "data", []int32{2627, 2601, 547, 515, 8152, 2628, 3609, 245, 8114, 8115, 8169, 220, 232, 241, 242, 248, 295, 8023, 8672, 50000, 54321}},
		{signup.Permanent, "schema", []int32{207, 208, 206, 257, 264, 271, 273, 544, 8102, 13536, 13537, 102, 156}},
		{signup.Systemic, "unauthorized", []int32{18456, 18452, 18470, 18486, 18487, 18488}},
		{signup.Systemic, "forbidden", []int32{229, 230, 916, 3906, 40615, 40914, 47073}},
		{signup.Systemic, "no-database", []int32{4060, 911, 40532}},
		{signup.Systemic, "full", []int32{40544, 1105, 9002}},
	}
	for _, tt := range tests {
		for _, number := range tt.numbers {
			there.refuseWith("before", -1, number)
			e := call(t, c, with(map[string]any{"name": "Ada"}))
			if tt.code == "data" || tt.code == "schema" { // the look before it says nothing of those
				there.heal()
				there.refuseWith("after", 2, number)
				e = call(t, c, with(map[string]any{"name": "Ada"}))
			}
			if e.Class != tt.class || e.Code != tt.code {
				t.Errorf("%d: got %s, %v; want %s, %s", number, e.Class, e, tt.class, tt.code)
			}
			if number == 40501 && e.RetryAfter != 10*time.Second {
				t.Errorf("40501: retry after %s, want the ten seconds of its text", e.RetryAfter)
			}
			if s := fmt.Sprintf("%v %+v", e, errors.Unwrap(e)); strings.Contains(s, "Lovelace") || strings.Contains(s, mssqlPassword) {
				t.Errorf("%d: %s holds the server's text", number, s)
			}
		}
	}
}

func TestSQLServerTheFirstErrorCounts(t *testing.T) {
	there := newSQLServer(t, nil)
	elsewhere := open(t, "sql", sqlServerSettings(strings.Replace(there.dsn("127.0.0.1", ""), "database=crm", "database=other", 1)), connector.Env{})
	if e := call(t, elsewhere, ada); e.Class != signup.Systemic || e.Code != "no-database" {
		t.Errorf("a database that is not there: got %s, %v", e.Class, e)
	}
	c := sqlServerOpen(t, there, nil)
	there.refuseWith("before", 1, 50001, 3609)
	if e := call(t, c, ada); e.Class != signup.Permanent || e.Detail != "refused by a trigger" {
		t.Errorf("a trigger that rolls back: got %s, %v", e.Class, e)
	}
	there.refuseWith("before", 1, 266, 1205)
	if e := call(t, c, ada); e.Code != "busy" {
		t.Errorf("an unknown one and a deadlock: got %s, %v", e.Class, e)
	}
	there.set(func() { there.refuse["before"], there.with = 1, []tdstest.Error{{Number: 10713, Severity: 15}} })
	if e := call(t, c, ada); e.Class != signup.Permanent || e.Code != "schema" {
		t.Errorf("any error of syntax: got %s, %v", e.Class, e)
	}
	there.set(func() { there.login = []tdstest.Error{{Number: 40613}, {Number: 18456}} })
	if e := call(t, sqlServerOpen(t, there, nil), ada); e.Class != signup.Transient || e.Code != "unavailable" {
		t.Errorf("a database that is resuming: got %s, %v", e.Class, e)
	}
}

// A clash that is gone at once was another writer's; one that stays is in another column.
func TestSQLServerUniqueClash(t *testing.T) {
	for _, number := range []int32{2627, 2601} {
		there := newSQLServer(t, nil)
		c := sqlServerOpen(t, there, nil)
		count := func() (n int) {
			there.set(func() {
				for _, s := range there.seen {
					if _, ok := upserts[s.SQL]; ok {
						n++
					}
				}
				there.seen = nil
			})
			return n
		}
		there.refuseWith("after", 1, number)
		if _, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada"})); err != nil || len(there.rows) != 1 {
			t.Errorf("%d once: %v, %d rows", number, err, len(there.rows))
		}
		if n := count(); n != 2 {
			t.Errorf("%d once: written %d times, want 2", number, n)
		}
		there.refuseWith("after", -1, number)
		e := call(t, c, with(map[string]any{"name": "Ada"}))
		if e.Class != signup.Permanent || e.Code != "data" || e.Detail != "refused by a unique column" {
			t.Errorf("%d always: got %s, %v", number, e.Class, e)
		}
		if n := count(); n != 2 {
			t.Errorf("%d always: written %d times, want 2", number, n)
		}
	}
}

func TestSQLServerCheck(t *testing.T) {
	row := func(kind, name string, required, unique int) []any { return []any{kind, name, required, 0, unique, 1} }
	tests := []struct {
		name    string
		columns [][]any
		want    string
	}{
		{"fine", [][]any{row("U ", "ENTRA_ID", 1, 1), row("U ", "Name", 1, 0), row("U ", "other", 0, 0)}, ""},
		{"no table", nil, "there is no table dbo.customers"},
		{"view", [][]any{row("V ", "entra_id", 1, 0)}, "dbo.customers is a view; rows can be inserted or updated in a table only"},
		{
			"not unique", [][]any{row("U ", "entra_id", 1, 0), row("U ", "name", 1, 0)},
			"column entra_id is not unique: CREATE UNIQUE INDEX dbo_customers_entra_id ON dbo.customers (entra_id)",
		},
		{"no rights", [][]any{{"U ", "entra_id", 1, 0, 1, 0}, {"U ", "name", 1, 0, 0, 0}}, "the login lacks INSERT, UPDATE or SELECT on the table"},
		{"a number", [][]any{{"U ", "entra_id", 1, 1, 1, 1}, row("U ", "name", 1, 0)}, "column entra_id holds numbers, and an object id is a text"},
		{
			"several", [][]any{row("U ", "entra_id", 1, 1), row("U ", "plan", 1, 0)},
			"there is no column name; column plan needs a value and the record has none",
		},
	}
	for _, tt := range tests {
		there := newSQLServer(t, nil)
		there.columns = tt.columns
		err := sqlServerOpen(t, there, map[string]any{"name": nil}).Check(t.Context())
		got := ""
		if e, ok := errors.AsType[*signup.Error](err); ok {
			got = e.Detail
		}
		if got != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	there := newSQLServer(t, nil)
	there.refuseWith("rows", 1, 1205)
	err := sqlServerOpen(t, there, map[string]any{"name": nil}).Check(t.Context())
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != "busy" {
		t.Errorf("cut short: got %v, want transient, busy", err)
	}
}

// credential is the app's identity in a test.
type credential struct {
	token  string
	err    error
	scopes []string
}

func (c *credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.scopes = append(c.scopes, o.Scopes...)
	return azcore.AccessToken{Token: c.token}, c.err
}

func TestSQLServerByToken(t *testing.T) {
	there := newSQLServer(t, nil)
	there.token = "eyJ0eXAi." + strings.Repeat("t0ken", 400)
	settings := sqlServerSettings(fmt.Sprintf("server=127.0.0.1,%d;database=crm", there.Port()))
	settings["auth"] = "entra"
	id := &credential{token: there.token}
	c := open(t, "sql", settings, connector.Env{Token: id})
	if _, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada"})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(there.logins, []tdstest.Login{{Token: there.token, App: "signup-sync", Database: "crm"}}); diff != "" {
		t.Errorf("logins (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(id.scopes, []string{"https://database.windows.net/.default"}); diff != "" {
		t.Errorf("scopes (-got +want):\n%s", diff)
	}
	for token, want := range map[azcore.TokenCredential]string{
		nil: "systemic no-token", &credential{token: "other"}: "systemic unauthorized",
		&credential{err: errors.New("no identity at 169.254.169.254")}: "transient no-token",
	} {
		c := open(t, "sql", settings, connector.Env{Token: token})
		for _, err := range []error{c.Check(t.Context()), call(t, c, ada)} {
			e, ok := errors.AsType[*signup.Error](err)
			if !ok || e.Class.String()+" "+e.Code != want || strings.Contains(fmt.Sprintf("%v %+v", e, e.Err), "169.254") {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	}
}

func TestSQLServerTokenIsOfItsCloud(t *testing.T) {
	for host, want := range map[string]string{
		"crm.database.windows.net":           "https://database.windows.net/.default",
		"crm.database.usgovcloudapi.net":     "https://database.usgovcloudapi.net/.default",
		"CRM.DATABASE.CHINACLOUDAPI.CN":      "https://database.chinacloudapi.cn/.default",
		"evildatabase.chinacloudapi.cn":      "https://database.windows.net/.default",
		"sql.example.com":                    "https://database.windows.net/.default",
		"database.usgovcloudapi.net.example": "https://database.windows.net/.default",
	} {
		id := &credential{token: "t"}
		if _, err := connector.SQLServerToken(id, host)(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(id.scopes, []string{want}); diff != "" {
			t.Errorf("%s (-got +want):\n%s", host, diff)
		}
	}
}

func TestSQLServerRefusesDataSourceNames(t *testing.T) {
	const entra = "entra"
	tests := []struct{ name, dsn, auth, want string }{
		{"no text", "hunter2", "", "names no server"},
		{"no parameter", "server=sql.example.com;database=crm;user id=u;password=hunter2;connection timeout=soon", "", "is not one that sqlserver takes"},
		{"no server", "database=crm;user id=u;password=hunter2", "", "names no server"},
		{"database as a path", "sqlserver://u:hunter2@sql.example.com/crm", "", "names no database; write it as database=…, since a path is an instance"},
		{"no password", "server=sql.example.com;database=crm;user id=u", "", "holds no user and password; add them, or set settings.auth to entra"},
		{"both", "server=sql.example.com;database=crm;user id=u;password=hunter2", entra, "holds a user or password, and settings.auth is entra; use one of them"},
		{"plain", "server=sql.example.com;database=crm;user id=u;password=hunter2;encrypt=disable", "", "encrypt must be true or strict for another machine"},
		{"plain but for the login", "sqlserver://u:hunter2@sql.example.com?database=crm&encrypt=false", "", "encrypt must be true or strict for another machine"},
		{"plain token", "sqlserver://sql.example.com?database=crm&encrypt=optional", entra, "encrypt must be true or strict for another machine"},
		{"plain partner", "server=localhost;failoverpartner=sql.example.com;database=crm;user id=u;password=hunter2;encrypt=no", "", "encrypt must be true or strict for another machine"},
		{
			"any certificate", "odbc:server=sql.example.com;database=crm;user id=u;password=hunter2;encrypt=yes;trustservercertificate=yes", "",
			"TrustServerCertificate is for this machine only; name the server's certificate by serverCertificate=file.pem or its issuer's by certificate=file.pem",
		},
		{
			"any certificate by default", "sqlserver://u:hunter2@sql.example.com?database=crm&TrustServerCertificate=true", "",
			"TrustServerCertificate is for this machine only; name the server's certificate by serverCertificate=file.pem or its issuer's by certificate=file.pem",
		},
		{"no such file", "sqlserver://u:hunter2@sql.example.com?database=crm&certificate=/nowhere/hunter2.pem", "", "is not one that sqlserver takes"},
		{
			"the portal's", "Server=tcp:crm.database.windows.net,1433;Initial Catalog=crm;Persist Security Info=False;User ID=u;Password={hunter2};" +
				"MultipleActiveResultSets=False;Encrypt=True;TrustServerCertificate=False;Connection Timeout=30;", "", "",
		},
		{"the portal's by token", `Server=tcp:crm.database.windows.net,1433;Initial Catalog=crm;Encrypt=True;TrustServerCertificate=False;Authentication="Active Directory Default";`, entra, ""},
		{"without encrypt", "sqlserver://u:hunter2@sql.example.com?database=crm", "", ""},
		{"strict", "sqlserver://u:hunter2@sql.example.com?database=crm&encrypt=strict", "", ""},
		{"on this machine", "sqlserver://u:hunter2@localhost?database=crm&encrypt=disable", "", ""},
	}
	for _, tt := range tests {
		settings := sqlServerSettings(tt.dsn)
		if tt.auth != "" {
			settings["auth"] = tt.auth
		}
		_, errs := kindOf(t, "sql").Open(settings, connector.Env{})
		got := fmt.Sprint(errs)
		want := "[]"
		if tt.want != "" {
			want = "[settings.dsn: " + tt.want + "]"
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", tt.name, got, want)
		}
	}
}

// 0.0.0.0 leads to this machine and does not look like it, so that it is treated as any other.
func TestSQLServerIsEncryptedToAnotherMachine(t *testing.T) {
	config, file := certificate(t)
	const far = "0.0.0.0"
	certificate := "&certificate=" + file
	tests := []struct {
		name, host, more  string
		encrypts          bool
		logsIn, encrypted bool
	}{
		{"cannot encrypt", far, "", false, false, false},
		{"unknown issuer", far, "&hostnameincertificate=example.com", true, false, false},
		{"another name", far, certificate, true, false, false},
		{"known issuer", far, certificate + "&hostnameincertificate=example.com", true, true, true},
		{"known issuer, said", far, "&encrypt=true" + certificate + "&hostnameincertificate=example.com", true, true, true},
		{"known certificate", far, "&servercertificate=" + file, true, true, true},
		{"strict", far, "&encrypt=strict" + certificate + "&hostnameincertificate=example.com", true, true, true},
		{"strict, unknown issuer", far, "&encrypt=strict&hostnameincertificate=example.com", true, false, false},
		{"this machine", "127.0.0.1", "", false, true, false},
		{"this machine, encrypted", "127.0.0.1", "", true, true, true},
		{"this machine, said", "127.0.0.1", "&encrypt=true", false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			there := newSQLServer(t, nil)
			if tt.encrypts {
				there = newSQLServer(t, config)
			}
			c := open(t, "sql", sqlServerSettings(there.dsn(tt.host, tt.more)), connector.Env{})
			var wg sync.WaitGroup
			for range 4 { // connections of their own
				wg.Go(func() {
					_, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada"}))
					if (err == nil) != tt.logsIn {
						t.Errorf("got %v, want it to log in: %t", err, tt.logsIn)
					}
					if e, ok := errors.AsType[*signup.Error](err); err != nil && (!ok || e.Class != signup.Transient || e.Detail == "") {
						t.Errorf("got %v, want a transient outcome that says where to look", err)
					}
				})
			}
			wg.Wait()
			if (len(there.logins) > 0) != tt.logsIn {
				t.Errorf("%d logins, want some: %t", len(there.logins), tt.logsIn)
			}
			for _, l := range there.logins {
				if l.Encrypted != tt.encrypted {
					t.Errorf("encrypted: %t, want %t", l.Encrypted, tt.encrypted)
				}
			}
		})
	}
}

// The driver itself sets no limit to a login, and takes TLS 1.0 if told to.
func TestSQLServerIsBounded(t *testing.T) {
	c, err := connector.SQLServerConfig("sqlserver://u:p@sql.example.com?database=crm&tlsmin=1.0&dial+timeout=0&connection+timeout=0", time.Second)
	if err != nil || c.DialTimeout != time.Second || c.ConnTimeout != 6*time.Second || c.TLSConfig.MinVersion != tls.VersionTLS12 {
		t.Errorf("dial %s, read %s, TLS %x, %v; want 1s, 6s, 303", c.DialTimeout, c.ConnTimeout, c.TLSConfig.MinVersion, err)
	}
}

func TestSQLServerDriverLogsNothing(t *testing.T) {
	log := &lockedBuffer{}
	mssql.SetLogger(slog.NewLogLogger(slog.NewTextHandler(log, nil), slog.LevelError))
	t.Cleanup(func() { mssql.SetLogger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)) })
	there := newSQLServer(t, nil)
	c := open(t, "sql", sqlServerSettings(there.dsn("127.0.0.1", "&log=255")), connector.Env{})
	there.refuseWith("after", 1, 547)
	if e := call(t, c, with(map[string]any{"name": "Ada"})); e.Code != "data" || log.String() != "" {
		t.Errorf("got %v, and the log holds %q", e, log.String())
	}
}

func TestSQLServerDoesNotWaitForASilentOne(t *testing.T) {
	server, err := tdstest.New(tdstest.Options{Mute: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	settings := sqlServerSettings((&sqlServer{Server: server}).dsn("127.0.0.1", ""))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := open(t, "sql", settings, connector.Env{}).Associate(ctx, ada); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled at login: got %v", err)
	}
	settings["timeout"] = "50ms"
	if e := call(t, open(t, "sql", settings, connector.Env{}), ada); e.Class != signup.Transient || e.Code != "timeout" {
		t.Errorf("got %s, %v; want transient, timeout", e.Class, e)
	}
}

func TestSQLServerEndsAStatementThatTakesTooLong(t *testing.T) {
	there := newSQLServer(t, nil)
	settings := sqlServerSettings(there.dsn("127.0.0.1", ""))
	settings["timeout"] = "100ms"
	c := open(t, "sql", settings, connector.Env{})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	there.set(func() { there.stalled = make(chan struct{}) })
	if e := call(t, c, ada); e.Class != signup.Transient || e.Code != "timeout" {
		t.Errorf("got %s, %v; want transient, timeout", e.Class, e)
	}
	if _, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada"})); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestSQLServerTakesAMergeOfOnesOwn(t *testing.T) {
	const merge = "MERGE dbo.customers WITH (HOLDLOCK) AS t USING (SELECT :user_id AS id, :name AS n) AS s ON t.entra_id = s.id " +
		"WHEN MATCHED THEN UPDATE SET name = s.n WHEN NOT MATCHED THEN INSERT (entra_id, name) VALUES (s.id, s.n) -- :user_id"
	var seen []tdstest.Statement
	there, err := tdstest.New(tdstest.Options{Answer: func(_ context.Context, q tdstest.Statement) tdstest.Reply {
		seen = append(seen, q)
		return tdstest.Reply{Count: 1}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(there.Close)
	dsn := fmt.Sprintf("server=127.0.0.1;port=%d;user id=crm;password=x;database=crm;encrypt=disable", there.Port())
	c := open(t, "sql", map[string]any{"driver": "sqlserver", "dsn": dsn, "statement": merge}, connector.Env{Shape: map[string]any{"name": nil}})
	if err := c.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
	seen = nil
	if a, err := c.Associate(t.Context(), with(map[string]any{"name": "Ada"})); err != nil || a.ID != string(ada.User) {
		t.Fatalf("got %v, %v", a, err)
	}
	// The comment keeps its text, and the semicolon that a MERGE must end with stands outside of it.
	want := strings.NewReplacer("SELECT :user_id", "SELECT @p1", ":name", "@p2").Replace(merge) + "\n;"
	if len(seen) != 1 || seen[0].SQL != want {
		t.Errorf("got %+v, want one statement\n%s", seen, want)
	}
	if diff := cmp.Diff(seen[0].Values, []any{string(ada.User), "Ada"}); diff != "" {
		t.Errorf("values (-got +want):\n%s", diff)
	}
}
