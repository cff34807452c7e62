package connector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"modernc.org/sqlite"

	"signup-sync/handler/signup"
)

// busyTimeout is how long a statement waits for another process's write, in milliseconds. It is short, since a wait does
// not end with its context; the engine tries again.
const busyTimeout = 2000

func sqliteDialect() dialect {
	return dialect{
		open:   openSQLite,
		quote:  func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` },
		upsert: sqliteUpsert,
		exists: func(table, key string) string {
			return fmt.Sprintf("SELECT 1 FROM %s AS t WHERE t.%s = ?", table, key)
		},
		judge: judgeSQLite, describe: describeSQLite,
		syntax: syntax{
			parameter: func(int) string { return "?" }, native: "?@$", brackets: true, probe: explain,
		},
	}
}

func openSQLite(s sqlSettings, _ Env) (*sql.DB, error) {
	if s.Auth == "entra" {
		return nil, errNoEntra
	}
	dsn, err := sqliteDSN(s.DSN)
	if err != nil {
		return nil, err
	}
	return sql.Open("sqlite", dsn)
}

// sqliteDSN adds to a path or file: URI what makes it safe to share: waiting for other writers, and no new database
// where there is none.
func sqliteDSN(dsn string) (string, error) {
	path, query, _ := strings.Cut(dsn, "?")
	if !strings.HasPrefix(path, "file:") {
		path = "file:" + (&url.URL{Path: path}).EscapedPath()
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	if strings.Contains(path, ":memory:") || q.Get("mode") == "memory" {
		return "", errors.New("a database in memory ends with the process")
	}
	if !q.Has("mode") {
		q.Set("mode", "rw")
	}
	if !q.Has("_busy_timeout") && !q.Has("_timeout") {
		q.Set("_busy_timeout", fmt.Sprint(busyTimeout))
	}
	return path + "?" + q.Encode(), nil
}

func sqliteUpsert(table, key string, columns []string) string {
	marks := strings.Repeat(", ?", len(columns))
	var sets []string
	for _, c := range columns {
		sets = append(sets, c+" = excluded."+c)
	}
	action := "NOTHING"
	if len(sets) > 0 {
		action = "UPDATE SET " + strings.Join(sets, ", ")
	}
	names := strings.Join(append([]string{key}, columns...), ", ")
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s) ON CONFLICT (%s) DO %s", table, names, marks, key, action)
}

// judgeSQLite goes by SQLite's result codes (sqlite.org/rescode.html); the low byte is the primary one.
func judgeSQLite(err error) *signup.Error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return nil
	}
	detail := fmt.Sprintf("sqlite: result code %d", e.Code())
	switch e.Code() & 0xff {
	case 5, 6: // BUSY, LOCKED
		return &signup.Error{Class: signup.Transient, Code: "busy", Detail: detail}
	case 19: // CONSTRAINT, and which
		what := map[int]string{
			275: "a check constraint", 787: "a foreign key", 1299: "a column that must not be null", 1811: "a trigger", 2067: "a unique column", 1555: "a primary key",
		}[e.Code()]
		if what == "" {
			what = "a constraint"
		}
		return refusedData(what)
	case 18, 20: // TOOBIG, MISMATCH
		return &signup.Error{Class: signup.Permanent, Code: "data", Detail: detail}
	case 1, 25: // ERROR: no such table or column, no unique key; RANGE
		return wrongSchema(detail)
	case 3, 8, 23: // PERM, READONLY, AUTH
		return &signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: detail}
	case 14, 11, 26: // CANTOPEN, CORRUPT, NOTADB
		return &signup.Error{Class: signup.Systemic, Code: "no-database", Detail: detail}
	}
	return &signup.Error{Class: signup.Transient, Code: "unavailable", Detail: detail}
}

// describeSQLite reads the schema by SQLite's pragma functions, which take their arguments as parameters.
func describeSQLite(ctx context.Context, db *sql.DB, table string) (d description, err error) {
	schema, name, qualified := strings.Cut(table, ".")
	if !qualified {
		schema, name = "main", table
	}
	var kind string
	var rowid bool
	err = db.QueryRowContext(ctx, `SELECT type, NOT wr FROM pragma_table_list WHERE schema = ? COLLATE NOCASE AND name = ? COLLATE NOCASE`, schema, name).Scan(&kind, &rowid)
	if errors.Is(err, sql.ErrNoRows) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	d.found, d.view = true, kind == "view"
	rows, err := db.QueryContext(ctx, `SELECT name, "notnull" AND dflt_value IS NULL, pk, upper(type) = 'INTEGER' FROM pragma_table_info(?, ?)`, name, schema)
	if err != nil {
		return d, err
	}
	defer rows.Close()
	var primary []string
	for rows.Next() {
		var c column
		var pk int
		var integer bool
		if err := rows.Scan(&c.name, &c.required, &pk, &integer); err != nil {
			return d, err
		}
		if pk > 0 {
			primary = append(primary, strings.ToLower(c.name))
			c.number = integer && rowid
		}
		d.columns = append(d.columns, c)
	}
	if err := rows.Err(); err != nil {
		return d, err
	}
	for i := range d.columns { // an INTEGER PRIMARY KEY by itself is the row's number, which fills itself
		d.columns[i].number = d.columns[i].number && len(primary) == 1
		d.columns[i].required = d.columns[i].required && !d.columns[i].number
	}
	if len(primary) == 1 {
		d.unique = primary
	}
	return d, uniqueSQLite(ctx, db, schema, name, &d)
}

// uniqueSQLite adds the columns that have a whole unique index of their own.
func uniqueSQLite(ctx context.Context, db *sql.DB, schema, table string, d *description) error {
	rows, err := db.QueryContext(ctx, `SELECT max(lower(c.name)) FROM pragma_index_list(?, ?) AS i, pragma_index_info(i.name, ?) AS c
		WHERE i."unique" AND NOT i.partial GROUP BY i.name HAVING count(*) = 1 AND count(c.name) = 1`, table, schema, schema)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		if !slices.Contains(d.unique, name) {
			d.unique = append(d.unique, name)
		}
	}
	return rows.Err()
}
