package connector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"signup-sync/handler/signup"
)

// mysqlDialect has no upsert: ON DUPLICATE KEY UPDATE takes any unique index for the key, and would write one user's
// values into the row of another who has, say, the same e-mail address.
func mysqlDialect() dialect {
	return dialect{
		open: openMySQL, quote: quoteMySQL, store: storeMySQL, value: mysqlValue,
		judge: judgeMySQL, describe: describeMySQL,
		syntax: syntax{
			parameter: func(int) string { return "?" },
			native:    "?", backslash: true, hash: true, probe: prepare,
		},
	}
}

func quoteMySQL(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }

func openMySQL(s sqlSettings, env Env) (*sql.DB, error) {
	config, err := mysqlConfig(s)
	if err != nil {
		return nil, err
	}
	if s.Auth == "entra" {
		app := identity{env.Token, scopeDatabases}
		before := mysql.BeforeConnect(func(ctx context.Context, c *mysql.Config) (err error) {
			c.Passwd, err = app.token(ctx)
			return err
		})
		if err := config.Apply(before); err != nil {
			return nil, err
		}
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// mysqlConfig reads the data source name, and sets what must be so: without strict mode a value that does not fit is
// cut without a word, and without utf8mb4 a name may be.
func mysqlConfig(s sqlSettings) (*mysql.Config, error) {
	config, err := mysql.ParseDSN(s.DSN)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(config.Addr)
	far := config.Net != "unix" && (err != nil || !isLoopback(host))
	entra := s.Auth == "entra"
	switch {
	case config.MultiStatements:
		return nil, dsnError("must not allow multiStatements")
	case entra && config.Passwd != "":
		return nil, dsnError("holds a password, and settings.auth is entra; use one of them")
	case far && config.TLSConfig == "false":
		return nil, dsnError("tls must be true or skip-verify for another machine")
	case far && config.TLSConfig == "":
		config.TLSConfig = "true"
	}
	if far || entra {
		config.AllowFallbackToPlaintext = false
	}
	if entra {
		config.AllowCleartextPasswords = config.TLSConfig != "" && config.TLSConfig != "false"
		if config.TLS != nil && far {
			config.TLS.InsecureSkipVerify, config.TLS.ServerName = false, host // a token goes only where the certificate was checked
		}
	}
	config.AllowAllFiles = false
	config.ClientFoundRows = true // an UPDATE counts the rows that it finds
	config.InterpolateParams = false
	config.RejectReadOnly = true // so that a connection does not stay with a server that is the primary no more
	config.Logger = &mysql.NopLogger{}
	said := config.Params
	config.Params = map[string]string{"time_zone": "'+00:00'"}
	for name, value := range said { // they are variables, whose names have no case
		config.Params[strings.ToLower(name)] = value
	}
	config.Params["sql_mode"] = "'TRADITIONAL'" // strict, and neither ANSI_QUOTES nor NO_BACKSLASH_ESCAPES
	return config, config.Apply(mysql.Charset("utf8mb4", ""))
}

// mysqlValue writes a time as MySQL's date and time types take it, in UTC, as the connection is: they refuse the Z of
// RFC 3339.
func mysqlValue(v any) any {
	s, _ := v.(string)
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return v
	}
	return t.UTC().Format("2006-01-02 15:04:05.999999")
}

// storeMySQL updates the user's row or inserts it. What an INSERT collides with is the user's own row, of another
// writer, if the second UPDATE finds it, and somebody else's if not.
func storeMySQL(ctx context.Context, c *sqlConnector, columns []string, values []any) (created bool, err error) {
	if found, err := c.updateMySQL(ctx, columns, values); found || err != nil {
		return false, err
	}
	unique, err := uniqueMySQL(ctx, c.db, c.table)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(unique, func(name string) bool { return strings.EqualFold(name, c.key) }) {
		return false, wrongSchema("no unique index") // without a unique index two writers at the same time would make two rows
	}
	names := strings.Join(append([]string{c.quote(c.key)}, columns...), ", ")
	_, err = c.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", c.quotedTable(), names, strings.Repeat(", ?", len(columns))), values...)
	if !c.conflict(err) {
		return err == nil, err
	}
	found, err := c.updateMySQL(ctx, columns, values)
	if err == nil && !found {
		err = refusedData("a unique column")
	}
	return false, err
}

// updateMySQL compares the key as a text too: a key that is a number makes a number of the object id, by its first
// digits, and that may be another row's. The first comparison is the one that has the index.
func (c *sqlConnector) updateMySQL(ctx context.Context, columns []string, values []any) (found bool, err error) {
	key := c.quote(c.key)
	sets := []string{key + " = " + key}
	for _, name := range columns {
		sets = append(sets, name+" = ?")
	}
	if len(columns) > 0 {
		sets = sets[1:]
	}
	args := append(values[1:len(values):len(values)], values[0], values[0])
	result, err := c.db.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET %s WHERE %s = ? AND CAST(%s AS CHAR) = ?", c.quotedTable(), strings.Join(sets, ", "), key, key), args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// judgeMySQL goes by the error numbers of MySQL (8.4 reference manual, appendix B) and MariaDB, and then by the class of
// SQLSTATE, its first two characters.
func judgeMySQL(err error) *signup.Error {
	for _, method := range []error{mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword, mysql.ErrUnknownPlugin} {
		if errors.Is(err, method) {
			return &signup.Error{Class: signup.Systemic, Code: "unauthorized", Detail: "mysql: the server wants a login method that is not allowed here"}
		}
	}
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return nil
	}
	detail := fmt.Sprintf("mysql: error %d", e.Number)
	switch e.Number {
	case 1062, 1586:
		return &signup.Error{Class: signup.Permanent, Code: "conflict", Detail: detail}
	case 1048, 1364: // null; no value, and the column has no default
		return refusedData("a column that must not be null")
	case 1216, 1217, 1451, 1452:
		return refusedData("a foreign key")
	case 3819, 4025: // MySQL, MariaDB
		return refusedData("a check constraint")
	case 1264, 1265, 1292, 1366, 1406, 1411, 3140, 4038, 1644: // out of range, cut, wrong, too long, no JSON; a trigger's own
		return &signup.Error{Class: signup.Permanent, Code: "data", Detail: detail}
	case 1205, 1213, 1020: // a lock not had in time, a deadlock, a row changed meanwhile
		return &signup.Error{Class: signup.Transient, Code: "busy", Detail: detail}
	case 1203, 1226: // the login has too many connections, or its share of this hour
		return &signup.Error{Class: signup.Transient, Code: "unavailable", Detail: detail}
	case 1045, 1129, 1130, 1251, 1698, 1820, 1862, 3118, 3159, 4151: // password, host, method, expired, locked, needs TLS
		return &signup.Error{Class: signup.Systemic, Code: "unauthorized", Detail: detail}
	case 1044, 1142, 1143, 1227, 1370:
		return &signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: detail}
	case 1046, 1049:
		return &signup.Error{Class: signup.Systemic, Code: "no-database", Detail: detail}
	case 1054, 1136, 1146, 1288, 1305, 1347, 1471, 1906, 3105: // no such column, table, routine; not to be written
		return wrongSchema(detail)
	}
	switch string(e.SQLState[:2]) {
	case "22", "23", "44", "45":
		return &signup.Error{Class: signup.Permanent, Code: "data", Detail: detail}
	case "42":
		return wrongSchema(detail)
	}
	return &signup.Error{Class: signup.Transient, Code: "unavailable", Detail: detail}
}

// describeMySQL reads information_schema, which shows of a table what the login has rights on, and which.
func describeMySQL(ctx context.Context, db *sql.DB, table string) (d description, err error) {
	schema, name := splitMySQL(table)
	var kind string
	err = db.QueryRowContext(ctx, `SELECT table_type FROM information_schema.tables WHERE table_schema = coalesce(?, database()) AND table_name = ?`, schema, name).Scan(&kind)
	if errors.Is(err, sql.ErrNoRows) {
		// Reading it tells a table that is not there from one that the login may not see.
		_, err := db.ExecContext(ctx, "SELECT 1 FROM "+quoteTable(quoteMySQL, table)+" LIMIT 0")
		if e := judgeMySQL(err); e != nil && e.Code == "schema" {
			return d, nil
		}
		return d, err
	}
	if err != nil {
		return d, err
	}
	d.found, d.view = true, strings.HasSuffix(kind, "VIEW")
	rows, err := db.QueryContext(ctx, `SELECT column_name, privileges, is_nullable = 'NO' AND column_default IS NULL AND data_type <> 'enum'
		AND extra NOT LIKE '%auto_increment%' AND extra NOT LIKE '%GENERATED%', numeric_precision IS NOT NULL
		FROM information_schema.columns WHERE table_schema = coalesce(?, database()) AND table_name = ? ORDER BY ordinal_position`, schema, name)
	if err != nil {
		return d, err
	}
	defer rows.Close()
	var rights strings.Builder
	for rows.Next() {
		var c column
		var privileges string
		if err := rows.Scan(&c.name, &privileges, &c.required, &c.number); err != nil {
			return d, err
		}
		rights.WriteString(strings.ToLower(privileges))
		d.columns = append(d.columns, c)
	}
	if err := rows.Err(); err != nil {
		return d, err
	}
	for _, right := range []string{"insert", "update", "select"} {
		if !strings.Contains(rights.String(), right) {
			return d, lacksRights()
		}
	}
	d.unique, err = uniqueMySQL(ctx, db, table)
	return d, err
}

// uniqueMySQL returns the columns that have a whole unique index of their own.
func uniqueMySQL(ctx context.Context, db *sql.DB, table string) ([]string, error) {
	schema, name := splitMySQL(table)
	return texts(ctx, db, `SELECT min(lower(column_name)) FROM information_schema.statistics
		WHERE table_schema = coalesce(?, database()) AND table_name = ? AND non_unique = 0
		GROUP BY index_name HAVING count(*) = 1 AND count(column_name) = 1 AND count(sub_part) = 0`, schema, name)
}

// splitMySQL returns a table's schema, nil for the connection's own, and its name.
func splitMySQL(table string) (schema any, name string) {
	if before, after, ok := strings.Cut(table, "."); ok {
		return before, after
	}
	return nil, table
}
