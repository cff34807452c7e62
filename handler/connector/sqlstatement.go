package connector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"signup-sync/handler/signup"
)

// sqlStatement carries out one statement a user. That it leaves one row, however often it runs, is the statement's own
// doing.
type sqlStatement struct {
	sqlPool
	statement
	query string
}

var _ signup.Connector = (*sqlStatement)(nil)

// What a statement can use besides the record.
const (
	userParameter   = "user_id"
	tenantParameter = "tenant_id"
)

func openStatement(pool sqlPool, s sqlSettings) (signup.Connector, []error) {
	c := &sqlStatement{sqlPool: pool}
	var errs []error
	wrong := func(format string, a ...any) { errs = append(errs, fmt.Errorf("settings.statement: "+format, a...)) }
	if s.Table != "" || s.Key != "" {
		wrong("stands for settings.table and settings.key; remove them, or it")
	}
	switch {
	case pool.open == nil: // the driver is not known, which was said
		return c, errs
	case pool.syntax.parameter == nil:
		wrong("cannot be had with this driver; use settings.table and settings.key")
		return c, errs
	}
	parsed, err := parseStatement(s.Statement, pool.syntax)
	if err != nil {
		wrong("%w", err)
		return c, errs
	}
	if only := pool.syntax.only; only != "" && parsed.verb != only {
		wrong("wants one %s, which no other statement can follow; this database needs no semicolon between two", strings.ToUpper(only))
	}
	if !slices.Contains(parsed.names, userParameter) {
		wrong("never uses :%s, so that it cannot tell one user from another", userParameter)
	}
	if pool.shape != nil {
		for _, name := range slices.Compact(slices.Sorted(slices.Values(parsed.names))) {
			if _, ok := pool.shape[name]; !ok && name != userParameter && name != tenantParameter {
				wrong(":%s is no field of the record, nor %s or %s", name, userParameter, tenantParameter)
			}
		}
	}
	c.statement, c.query = parsed, parsed.text(pool.syntax.parameter)
	if pool.syntax.only != "" {
		c.query += "\n;" // a MERGE must end with one; a second does no harm
	}
	for _, name := range sortedKeys(pool.shape) {
		if why := c.unfit(name); why != "" {
			wrong("%s", why)
		}
	}
	return c, errs
}

// unfit says why the statement cannot take a field of the record, "" if it can.
func (c *sqlStatement) unfit(field string) string {
	switch {
	case field == userParameter || field == tenantParameter:
		return "record." + field + " would hide :" + field + "; give the field another name"
	case !slices.Contains(c.names, field):
		return "never uses record." + field
	}
	return ""
}

// Associate carries the statement out. Whether a row was made is not known.
func (c *sqlStatement) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	given := map[string]any{userParameter: string(req.User), tenantParameter: req.Tenant}
	for _, name := range sortedKeys(req.Record) {
		if why := c.unfit(name); why != "" {
			return signup.Account{}, invalidRecord("the statement " + why)
		}
		v, err := c.bind(req.Record[name])
		if err != nil {
			return signup.Account{}, invalidRecord("record." + name + " has a value that JSON cannot hold")
		}
		if v != "" {
			given[name] = v
		}
	}
	values := make([]any, len(c.names))
	for i, name := range c.names {
		values[i] = given[name]
	}
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := c.write(try, c.query, values); err != nil {
		return signup.Account{}, c.outcome(ctx, try, err)
	}
	return signup.Account{ID: string(req.User)}, nil
}

// Check asks the database whether it would take the statement.
func (c *sqlStatement) Check(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := c.syntax.probe(try, c.db, c.statement, c.query); err != nil {
		return c.outcome(ctx, try, err)
	}
	return nil
}

// probe asks the database whether it would take a statement, without carrying it out.
type probe func(ctx context.Context, db *sql.DB, s statement, query string) error

// explain has the statement planned, which sees wrong names and missing rights and unique indexes. What cannot be
// planned is taken at its word: EXPLAIN ANALYZE, for one, would carry it out.
func explain(ctx context.Context, db *sql.DB, s statement, query string) error {
	if !slices.Contains([]string{"insert", "update", "merge", "delete", "replace", "select", "with"}, s.verb) {
		return ping(ctx, db, s, query)
	}
	rows, err := db.QueryContext(ctx, "EXPLAIN "+query, make([]any, len(s.names))...)
	if err != nil {
		return err
	}
	return errors.Join(rows.Close(), rows.Err())
}

// ping takes the statement at its word.
func ping(ctx context.Context, db *sql.DB, _ statement, _ string) error { return db.PingContext(ctx) }

// prepare has the statement prepared, which sees wrong names and missing rights.
func prepare(ctx context.Context, db *sql.DB, _ statement, query string) error {
	stmt, err := db.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	return stmt.Close()
}
