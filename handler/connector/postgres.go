package connector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"signup-sync/handler/signup"
)

func postgresDialect() dialect {
	return dialect{
		open: openPostgres, quote: quotePostgres, upsert: postgresUpsert,
		exists: func(table, key string) string {
			return fmt.Sprintf("SELECT 1 FROM %s AS t WHERE t.%s = $1", table, key)
		},
		judge: judgePostgres, describe: describePostgres,
		syntax: syntax{
			parameter: func(n int) string { return fmt.Sprintf("$%d", n) },
			native:    "$", escapes: true, dollar: true, nested: true, probe: explain,
		},
	}
}

func quotePostgres(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// openPostgres makes a pool that prepares no statements (a pooler such as PgBouncer may give every statement another
// connection) and leaves the types of the parameters to the server, so that a value needs no more than a text that the
// column understands.
func openPostgres(s sqlSettings, env Env) (*sql.DB, error) {
	config, err := postgresConfig(s)
	if err != nil {
		return nil, err
	}
	if s.Auth != "entra" {
		return stdlib.OpenDB(*config), nil
	}
	app := identity{env.Token, scopeDatabases}
	return stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(func(ctx context.Context, c *pgx.ConnConfig) (err error) {
		c.Password, err = app.token(ctx)
		return err
	})), nil
}

// postgresConfig reads the data source name. The driver takes an absent sslmode for prefer, which falls back to plain
// text; here that is for this machine only, as allow and disable are, and prefer means require elsewhere. Neither looks
// at the certificate, as verify-full does; a token goes only where the certificate was checked.
func postgresConfig(s sqlSettings) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(s.DSN)
	if err != nil {
		return nil, err
	}
	if s.Auth == "entra" && config.Password != "" {
		return nil, dsnError("holds a password, and settings.auth is entra; use one of them")
	}
	var attempts []*pgconn.FallbackConfig
	for _, a := range append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...) {
		if isLoopback(a.Host) || strings.HasPrefix(a.Host, "/") {
			attempts = append(attempts, a)
			continue
		}
		if a.TLSConfig == nil {
			continue
		}
		if s.Auth == "entra" && a.TLSConfig.VerifyPeerCertificate == nil {
			a.TLSConfig.InsecureSkipVerify, a.TLSConfig.ServerName = false, a.Host
		}
		attempts = append(attempts, a)
	}
	if len(attempts) == 0 {
		return nil, dsnError("sslmode must be require, verify-ca or verify-full for another machine")
	}
	first := attempts[0]
	config.Host, config.Port, config.TLSConfig, config.Fallbacks = first.Host, first.Port, first.TLSConfig, attempts[1:]
	config.MaxProtocolMessageBodyLen = maxAnswer // whose memory would be taken before it comes
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.RuntimeParams["standard_conforming_strings"] = "on" // or else a backslash would end no literal as expected
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "signup-sync"
	}
	return config, nil
}

func postgresUpsert(table, key string, columns []string) string {
	names, marks := []string{key}, []string{"$1"}
	var sets []string
	for i, c := range columns {
		names = append(names, c)
		marks = append(marks, fmt.Sprintf("$%d", i+2))
		sets = append(sets, c+" = excluded."+c)
	}
	action := "NOTHING"
	if len(sets) > 0 {
		action = "UPDATE SET " + strings.Join(sets, ", ")
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO %s",
		table, strings.Join(names, ", "), strings.Join(marks, ", "), key, action)
}

// judgePostgres goes by SQLSTATE (PostgreSQL's documentation, appendix A), of which the first two characters are the
// class.
func judgePostgres(err error) *signup.Error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(e.Code) != 5 {
		return nil
	}
	detail := "postgres: SQLSTATE " + e.Code
	switch e.Code {
	case "23505": // also of a row that another writer of this user has just made, by a unique column besides the key
		return &signup.Error{Class: signup.Permanent, Code: "conflict", Detail: detail}
	case "42501":
		return &signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: detail}
	case "55000": // also a unique index that is deferrable, so that no conflict can be seen in time
		return wrongSchema(detail)
	case "55P03": // lock_timeout
		return &signup.Error{Class: signup.Transient, Code: "busy", Detail: detail}
	}
	switch e.Code[:2] {
	case "22", "44", "P0": // the value, a view's condition, an exception that a trigger raises
		return &signup.Error{Class: signup.Permanent, Code: "data", Detail: detail}
	case "23":
		what := map[string]string{
			"23502": "a column that must not be null", "23503": "a foreign key",
			"23514": "a check constraint", "23P01": "an exclusion constraint",
		}[e.Code]
		if what == "" {
			what = "a constraint"
		}
		return refusedData(what)
	case "42", "3F", "0A": // no such table, column or unique index; no such schema; not for this kind of table
		return wrongSchema(detail)
	case "28":
		return &signup.Error{Class: signup.Systemic, Code: "unauthorized", Detail: detail}
	case "3D":
		return &signup.Error{Class: signup.Systemic, Code: "no-database", Detail: detail}
	case "40":
		return &signup.Error{Class: signup.Transient, Code: "busy", Detail: detail}
	}
	return &signup.Error{Class: signup.Transient, Code: "unavailable", Detail: detail}
}

// describePostgres reads the system catalogue, where the table is found as a statement finds it. A login that lacks a
// right is told so here, since information_schema would only hide the table.
func describePostgres(ctx context.Context, db *sql.DB, table string) (d description, err error) {
	d.exact = true
	name := quoteTable(quotePostgres, table)
	var allowed bool
	err = db.QueryRowContext(ctx, `SELECT relkind IN ('v', 'm'), has_any_column_privilege(oid, 'INSERT')
		AND has_any_column_privilege(oid, 'UPDATE') AND has_any_column_privilege(oid, 'SELECT')
		FROM pg_class WHERE oid = to_regclass($1) AND relkind IN ('r', 'p', 'f', 'v', 'm')`, name).Scan(&d.view, &allowed)
	if errors.Is(err, sql.ErrNoRows) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	if d.found = true; !allowed {
		return d, lacksRights()
	}
	rows, err := db.QueryContext(ctx, `SELECT attname::text, (attnotnull OR typnotnull) AND NOT atthasdef AND attidentity = '' AND typdefault IS NULL, typcategory = 'N'
		FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
		WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, name)
	if err != nil {
		return d, err
	}
	defer rows.Close()
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.required, &c.number); err != nil {
			return d, err
		}
		d.columns = append(d.columns, c)
	}
	if err := rows.Err(); err != nil {
		return d, err
	}
	// One column, which an expression is not, all rows, and checked at once: what ON CONFLICT takes.
	d.unique, err = texts(ctx, db, `SELECT attname::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
		WHERE indrelid = to_regclass($1) AND indisunique AND indisvalid AND indimmediate AND indnkeyatts = 1 AND indpred IS NULL`, name)
	return d, err
}

// texts reads one column.
func texts(ctx context.Context, db *sql.DB, query string, args ...any) (all []string, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
