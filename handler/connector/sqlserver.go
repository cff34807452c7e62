package connector

import (
	"cmp"
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"

	"signup-sync/handler/signup"
)

// attentionTime is what a statement may take beyond its context: the driver then asks the server to end it, and waits
// so long for the server to say that it has.
const attentionTime = 5 * time.Second

func sqlServerDialect() dialect {
	return dialect{
		open:   openSQLServer,
		quote:  func(s string) string { return "[" + strings.ReplaceAll(s, "]", "]]") + "]" },
		upsert: sqlServerUpsert,
		exists: func(table, key string) string {
			return fmt.Sprintf("SELECT 1 FROM %s WHERE %s = CAST(@p1 AS varchar(36))", table, key)
		},
		judge: judgeSQLServer, describe: describeSQLServer, value: sqlServerValue,
		syntax: syntax{
			parameter: func(n int) string { return fmt.Sprintf("@p%d", n) },
			native:    "@", nested: true, brackets: true, only: "merge", probe: ping,
		},
	}
}

func openSQLServer(s sqlSettings, env Env) (*sql.DB, error) {
	config, err := sqlServerConfig(s)
	if err != nil {
		return nil, err
	}
	c := &sqlServerConnector{config: config}
	if s.Auth == "entra" {
		c.token = sqlServerToken(env.Token, config.Host)
	}
	return sql.OpenDB(c), nil
}

// sqlServerConfig reads the data source name. The driver would take one without a server for this machine, one without
// a database for the login's own, and one without encrypt for a connection that is encrypted at best and trusts any
// certificate.
func sqlServerConfig(s sqlSettings) (msdsn.Config, error) {
	config, err := msdsn.Parse(s.DSN)
	if err != nil {
		return config, err
	}
	said := config.Parameters
	_, encrypt := said[msdsn.Encrypt]
	_, trust := said[msdsn.TrustServerCertificate]
	encrypted := config.Encryption == msdsn.EncryptionRequired || config.Encryption == msdsn.EncryptionStrict
	credential := config.User != "" && config.Password != ""
	far := !isLoopback(config.Host) || config.FailOverPartner != "" && !isLoopback(config.FailOverPartner)
	switch {
	case said[msdsn.Server] == "":
		return config, dsnError("names no server")
	case config.Database == "":
		return config, dsnError("names no database; write it as database=…, since a path is an instance")
	case s.Auth == "entra" && (config.User != "" || config.Password != ""):
		return config, dsnError("holds a user or password, and settings.auth is entra; use one of them")
	case s.Auth != "entra" && !credential:
		return config, dsnError("holds no user and password; add them, or set settings.auth to entra")
	case far && encrypt && !encrypted:
		return config, dsnError("encrypt must be true or strict for another machine")
	case far && trust && config.TrustServerCertificate:
		return config, dsnError("TrustServerCertificate is for this machine only; name the server's certificate by serverCertificate=file.pem or its issuer's by certificate=file.pem")
	}
	if far && !encrypt {
		host := cmp.Or(said[msdsn.HostNameInCertificate], config.Host)
		config.TLSConfig, err = msdsn.SetupTLS(said[msdsn.Certificate], said[msdsn.ServerCertificate], false, host, said[msdsn.TLSMin])
		if err != nil {
			return config, err
		}
		config.Encryption, config.TrustServerCertificate = msdsn.EncryptionRequired, false
	}
	if config.TLSConfig != nil {
		config.TLSConfig.MinVersion = max(config.TLSConfig.MinVersion, tls.VersionTLS12)
	}
	if _, named := said[msdsn.AppName]; !named {
		config.AppName = "signup-sync"
	}
	config.LogFlags = 0 // the driver's log would hold statements and values
	config.DialTimeout, config.ConnTimeout = s.Timeout, s.Timeout+attentionTime
	return config, nil
}

// sqlServerToken asks for a token of the cloud in which the host is. The server names its resource too, at login, but
// then it could ask for a token of another service.
func sqlServerToken(credential azcore.TokenCredential, host string) func(context.Context) (string, error) {
	resource := "https://database.windows.net"
	for _, domain := range []string{"database.usgovcloudapi.net", "database.chinacloudapi.cn"} {
		if strings.HasSuffix(strings.ToLower(host), "."+domain) {
			resource = "https://" + domain
		}
	}
	return identity{credential, resource + "/.default"}.token
}

// sqlServerConnector is a driver.Connector that ends with its context.
type sqlServerConnector struct {
	config msdsn.Config
	token  func(context.Context) (string, error) // nil = by password
}

func (c *sqlServerConnector) Driver() driver.Driver { return &mssql.Driver{} }

// Connect returns when ctx is done. The driver's own does not: it resolves the name, and waits for the server's first
// words and for TLS, without a look at ctx; ConnTimeout ends that later.
func (c *sqlServerConnector) Connect(ctx context.Context) (driver.Conn, error) {
	type result struct {
		conn driver.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		conn, err := c.connect(ctx)
		select {
		case done <- result{conn, err}:
		case <-ctx.Done():
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *sqlServerConnector) connect(ctx context.Context) (driver.Conn, error) {
	config := c.config
	if config.TLSConfig != nil {
		config.TLSConfig = config.TLSConfig.Clone() // the driver writes to it, in each of the connections
	}
	connector := mssql.NewConnectorConfig(config)
	if c.token != nil {
		var err error
		if connector, err = mssql.NewSecurityTokenConnector(config, c.token); err != nil {
			return nil, err
		}
	}
	conn, err := connector.Connect(ctx)
	if err != nil && judgeSQLServer(err) == nil {
		return nil, &signup.Error{Class: signup.Transient, Code: "unavailable", Detail: "no connection; look at the server's name, its firewall and its certificate"}
	}
	return conn, err
}

// sqlServerUpsert looks and writes under one lock. UPDLOCK with SERIALIZABLE holds the row, or the gap where it would be,
// until the transaction ends, so that of two writers the second waits and then finds the row; it wants the unique index on
// the key that Check asks for. XACT_ABORT rolls back after any error and also when the call is broken off, which would
// otherwise leave the transaction and its locks in a connection of the pool.
//
// MERGE WITH (HOLDLOCK) takes the same locks, and is not used: it has a long list of known wrong results and errors with
// indexed views, filtered indexes, foreign keys and temporal tables; it runs the triggers of both actions, in which
// @@ROWCOUNT is that of the whole statement, and wants INSTEAD OF triggers for all actions or none; and OUTPUT, for which
// one would take it, fails on a table with triggers. UPDATE and then IF @@ROWCOUNT = 0 would save a seek, and run the
// update triggers for every new row.
//
// The key arrives as nvarchar like every text, and is made varchar: against a varchar or char column nvarchar would
// convert the column and not the value, which under the SQL collations gives up the index, and then locks all rows.
// varchar is converted to whatever an nvarchar or uniqueidentifier column is. The columns' values are only stored.
func sqlServerUpsert(table, key string, columns []string) string {
	sets, names, values := []string{}, []string{key}, []string{"@key"}
	for i, c := range columns {
		value := fmt.Sprintf("@p%d", i+2)
		sets = append(sets, c+" = "+value)
		names, values = append(names, c), append(values, value)
	}
	found := fmt.Sprintf("EXISTS (SELECT 1 FROM %s WITH (UPDLOCK, SERIALIZABLE) WHERE %s = @key)", table, key)
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(names, ", "), strings.Join(values, ", "))
	write := fmt.Sprintf("IF NOT %s %s", found, insert)
	if len(sets) > 0 {
		write = fmt.Sprintf("IF %s UPDATE %s SET %s WHERE %s = @key; ELSE %s", found, table, strings.Join(sets, ", "), key, insert)
	}
	return "SET XACT_ABORT ON; DECLARE @key varchar(36) = @p1; BEGIN TRANSACTION; " + write + "; COMMIT TRANSACTION;"
}

// sqlServerValue writes a fraction as text: as a float a column of texts would get six digits of it, and a column of
// whole numbers would cut it without a word.
func sqlServerValue(v any) any {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return v
}

// judgeSQLServer goes by the error numbers (Microsoft, "Database Engine errors" and "Troubleshoot transient connection
// errors in SQL Database"). The first that is known counts: what follows it is "login failed" or "the batch was ended".
func judgeSQLServer(err error) *signup.Error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e // Connect's own
	}
	e, ok := errors.AsType[mssql.Error](err)
	if !ok {
		return nil
	}
	for _, one := range append(slices.Clip(e.All), e) {
		if o := sqlServerOutcome(one.Number); o != nil {
			o.Detail = cmp.Or(o.Detail, fmt.Sprintf("SQL Server error %d", one.Number))
			return o
		}
	}
	detail := fmt.Sprintf("SQL Server error %d", e.Number)
	if e.Class == 15 { // the severity of every error of syntax
		return wrongSchema(detail)
	}
	return &signup.Error{Class: signup.Transient, Code: "unavailable", Detail: detail}
}

func sqlServerOutcome(number int32) *signup.Error {
	switch number {
	case 2627, 2601: // a unique constraint or index; whose it is, the text alone says
		return &signup.Error{Class: signup.Transient, Code: "conflict"}
	case 1205, 1222, 3960: // deadlock, lock time-out, snapshot conflict
		return &signup.Error{Class: signup.Transient, Code: "busy"}
	case 40613, 40197, 40143, 40540, 4221, 615, 233: // failing over, resuming, moving
		return &signup.Error{Class: signup.Transient, Code: "unavailable"}
	case 40501: // its text asks for ten seconds
		return &signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 10 * time.Second}
	case 10928, 10929, 10936, 49918, 49919, 49920: // too many workers, sessions or requests
		return &signup.Error{Class: signup.Throttled, Code: "throttled"}
	case 547:
		return refusedData("a foreign key or check constraint")
	case 515:
		return refusedData("a column that must not be null")
	case 8152, 2628:
		return refusedData("a column that is too short")
	case 3609: // it rolled back
		return refusedData("a trigger")
	case 245, 8114, 8115, 8169, 220, 232, 241, 242, 248, 295, 8023, 8672: // conversion, overflow; a MERGE that meets a row twice
		return &signup.Error{Class: signup.Permanent, Code: "data"}
	case 207, 208, 206, 257, 264, 271, 273, 544, 2812, 4104, 8102, 13536, 13537, 102, 156: // no such column or table; of another type, named twice, not to be written; syntax
		return wrongSchema(fmt.Sprintf("SQL Server error %d", number))
	case 18456, 18452, 18470, 18486, 18487, 18488:
		return &signup.Error{Class: signup.Systemic, Code: "unauthorized"}
	case 229, 230, 916, 3906, 10330: // no permission, no user in the database, a read-only database
		return &signup.Error{Class: signup.Systemic, Code: "forbidden"}
	case 40615, 40914, 47073: // the server's firewall, virtual network rules, no public access
		return &signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: fmt.Sprintf("SQL Server error %d: the server's network rules do not let this app in", number)}
	case 4060, 911, 40532:
		return &signup.Error{Class: signup.Systemic, Code: "no-database"}
	case 40544, 1105, 9002:
		return &signup.Error{Class: signup.Systemic, Code: "full"}
	}
	if number >= 50000 { // RAISERROR and THROW
		return refusedData("a trigger")
	}
	return nil
}

// tableSQLServer lists a table's columns. generated_always_type is a temporal table's period; system type 189 is
// rowversion, and the list of them are the numbers. An index on one column alone has no second key column; what it merely
// includes does not count. A right is there if it is for any column; NULL, not known, is no reason to refuse.
const tableSQLServer = `SELECT o.type, c.name,
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

// describeSQLServer reads the catalog views, of SQL Server 2016 or later. They show only what the login may use: a table
// without any permission is not there. OBJECT_ID finds a name without a schema as the statements do.
func describeSQLServer(ctx context.Context, db *sql.DB, table string) (d description, err error) {
	rows, err := db.QueryContext(ctx, tableSQLServer, "["+strings.ReplaceAll(table, ".", "].[")+"]")
	if err != nil {
		return d, err
	}
	defer rows.Close()
	allowed := false // the same in every row
	for rows.Next() {
		var kind string
		var c column
		var unique bool
		if err := rows.Scan(&kind, &c.name, &c.required, &c.number, &unique, &allowed); err != nil {
			return d, err
		}
		d.found, d.view = true, strings.TrimSpace(kind) == "V"
		d.columns = append(d.columns, c)
		if unique {
			d.unique = append(d.unique, strings.ToLower(c.name))
		}
	}
	if err := rows.Err(); err != nil {
		return d, err
	}
	if d.found && !allowed {
		return d, lacksRights()
	}
	return d, nil
}
