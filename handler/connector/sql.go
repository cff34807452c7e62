package connector

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

type sqlSettings struct {
	Driver  string        `json:"driver" doc:"The database: sqlite or sqlserver." required:"true"`
	DSN     string        `json:"dsn" doc:"The data source name of that driver; for sqlite a file's path or file: URI, for sqlserver a connection string or sqlserver:// URL." required:"true" secret:"true"`
	Table   string        `json:"table" doc:"The table, with its schema if need be: crm.customers." required:"true"`
	Key     string        `json:"key" doc:"The column that holds the user's object id; it needs a unique index of its own." required:"true"`
	Auth    string        `json:"auth" doc:"password: as the data source name says. entra: as the Function App's managed identity, whose token is the password." default:"password" enum:"password,entra"`
	Timeout time.Duration `json:"timeout" doc:"How long one statement may take." default:"15s"`
}

func sqlKind() Kind {
	return Kind{
		Name:     "sql",
		Doc:      "A row in a table, by the user's object id; the record's fields are columns. A field that is empty for a user leaves its column alone.",
		Settings: sqlSettings{}, Concurrency: 4,
		Connect: Connector(openSQL), Fields: columnErrors,
	}
}

// dialect is what databases differ in.
type dialect struct {
	// open makes the pool without connecting. Its error is not shown, unless it is a dsnError: it may hold the data
	// source name.
	open     func(s sqlSettings, env Env) (*sql.DB, error)
	quote    func(identifier string) string
	upsert   func(table, key string, columns []string) string // all quoted; the parameters are the key and then the columns
	exists   func(table, key string) string                   // selects a row if there is one with this key
	judge    func(err error) *signup.Error                    // nil = the database did not say it; code "conflict" = another row is in the way
	describe func(ctx context.Context, db *sql.DB, table string) (description, error)
}

// description is what Check needs to know of a table.
type description struct {
	found   bool
	view    bool
	columns []column
	unique  []string // the columns that have a unique index or primary key of their own, in lower case
}

type column struct {
	name     string
	required bool // not null, and without a default
}

func dialects() map[string]dialect {
	return map[string]dialect{
		"sqlite":    sqliteDialect(),
		"sqlserver": sqlServerDialect(),
	}
}

// errNoEntra is a dialect's word that its database knows no tokens.
var errNoEntra = errors.New("this database takes no Microsoft Entra token; use password")

// dsnError is what a dialect finds wrong with a data source name, in our words.
type dsnError string

func (e dsnError) Error() string { return string(e) }

var (
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]{0,62}$`)
	tableName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62})?$`)
)

// sqlConnector keeps a row a user, by one statement that inserts or updates: nothing has to be looked up first, and the
// same call again, also at the same time and from another process, leaves the same row.
type sqlConnector struct {
	dialect
	db      *sql.DB
	table   string
	key     string
	timeout time.Duration
	shape   map[string]any
}

var _ signup.Connector = (*sqlConnector)(nil)

func openSQL(s sqlSettings, env Env) (signup.Connector, []error) {
	var errs []error
	c := &sqlConnector{table: s.Table, key: s.Key, timeout: s.Timeout, shape: env.Shape}
	known := dialects()
	d, ok := known[s.Driver]
	switch {
	case ok:
		c.dialect = d
	case s.Driver != "":
		errs = append(errs, fmt.Errorf("settings.driver: not known; there are %s", strings.Join(sortedKeys(known), ", ")))
	}
	if s.Auth != "" && s.Auth != "password" && s.Auth != "entra" {
		errs = append(errs, errors.New("settings.auth: wants password or entra"))
	}
	if s.Table != "" && !tableName.MatchString(s.Table) {
		errs = append(errs, errors.New("settings.table: wants a name of letters, digits and _, or schema.name"))
	}
	if s.Key != "" && !identifier.MatchString(s.Key) {
		errs = append(errs, errors.New("settings.key: wants a name of letters, digits and _"))
	}
	if ok && s.DSN != "" {
		db, err := d.open(s, env)
		wrong, shown := errors.AsType[dsnError](err)
		switch {
		case errors.Is(err, errNoEntra):
			errs = append(errs, errors.New("settings.auth: "+err.Error()))
		case shown:
			errs = append(errs, fmt.Errorf("settings.dsn: %w", wrong))
		case err != nil:
			errs = append(errs, errors.New("settings.dsn: is not one that "+s.Driver+" takes"))
		default:
			c.db = db
			c.db.SetMaxOpenConns(4)
			c.db.SetMaxIdleConns(2)
			c.db.SetConnMaxIdleTime(5 * time.Minute)
		}
	}
	return c, errs
}

// columnErrors takes a record whose fields are columns.
func columnErrors(fields map[string]any) []error {
	var errs []error
	for _, name := range sortedKeys(fields) {
		if _, nested := fields[name].(map[string]any); nested {
			errs = append(errs, fmt.Errorf("record.%s: wants a value, not fields below it", name))
		}
		if !identifier.MatchString(name) {
			errs = append(errs, fmt.Errorf("record.%s: a column is a name of letters, digits and _", name))
		}
	}
	return errs
}

// Close gives the connections back.
func (c *sqlConnector) Close() error { return c.db.Close() }

// Associate writes the row. Account.ID is the object id, since that is the row's key.
func (c *sqlConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	columns := []string{}
	values := []any{string(req.User)}
	for _, name := range sortedKeys(req.Record) {
		v, err := sqlValue(req.Record[name])
		switch {
		case err != nil:
			return signup.Account{}, invalidRecord("record." + name + " has a value that JSON cannot hold")
		case strings.EqualFold(name, c.key):
			return signup.Account{}, invalidRecord("record." + name + " is the key, which the connector sets itself")
		case !identifier.MatchString(name):
			return signup.Account{}, invalidRecord("a field of the record is no column name")
		case v == nil || v == "":
			continue
		}
		columns = append(columns, c.quote(name))
		values = append(values, v)
	}
	table, key := c.quotedTable(), c.quote(c.key)
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// Only a hint for the counts: another process may be between the two statements.
	var one int
	err := c.db.QueryRowContext(try, c.exists(table, key), values[0]).Scan(&one)
	created := errors.Is(err, sql.ErrNoRows)
	if err != nil && !created {
		return signup.Account{}, c.outcome(ctx, try, err)
	}
	if err := c.write(ctx, try, c.upsert(table, key, columns), values); err != nil {
		return signup.Account{}, err
	}
	return signup.Account{ID: string(req.User), Created: created}, nil
}

// write upserts, and does so once more when another row was in the way: if that was this user's, of another writer, it
// is found now. What is still in the way is somebody else's, and stays there until a person changes it.
func (c *sqlConnector) write(ctx, try context.Context, statement string, values []any) error {
	for again := true; ; again = false {
		_, err := c.db.ExecContext(try, statement, values...)
		if err == nil {
			return nil
		}
		err = c.outcome(ctx, try, err)
		switch {
		case code(err) != "conflict":
			return err
		case !again:
			return &signup.Error{Class: signup.Permanent, Code: "data", Detail: "refused by a unique column"}
		}
	}
}

// sqlValue is a record's value as a parameter: a list or map becomes JSON text, a time RFC 3339 text in UTC.
func sqlValue(v any) (any, error) {
	switch v := v.(type) {
	case nil, string, bool, int, float64:
		return v, nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// Check reads the table's description: the columns must be there and the key must be unique, or no row could be
// written.
func (c *sqlConnector) Check(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	d, err := c.describe(try, c.db, c.table)
	if err != nil {
		return c.outcome(ctx, try, err)
	}
	problems := c.compare(d)
	if len(problems) == 0 {
		return nil
	}
	return &signup.Error{Class: signup.Permanent, Code: "schema", Detail: strings.Join(problems, "; ")}
}

func (c *sqlConnector) compare(d description) []string {
	if !d.found {
		return []string{"there is no table " + c.table}
	}
	if d.view {
		return []string{c.table + " is a view; rows can be inserted or updated in a table only"}
	}
	var problems []string
	has := func(name string) bool {
		return slices.ContainsFunc(d.columns, func(x column) bool { return strings.EqualFold(x.name, name) })
	}
	if !has(c.key) {
		problems = append(problems, "there is no column "+c.key)
	} else if !slices.Contains(d.unique, strings.ToLower(c.key)) {
		problems = append(problems, fmt.Sprintf("column %s is not unique: CREATE UNIQUE INDEX %s_%s ON %s (%s)",
			c.key, strings.ReplaceAll(c.table, ".", "_"), c.key, c.table, c.key))
	}
	for _, name := range sortedKeys(c.shape) {
		if !has(name) {
			problems = append(problems, "there is no column "+name)
		}
	}
	for _, x := range d.columns {
		mapped := slices.ContainsFunc(sortedKeys(c.shape), func(name string) bool { return strings.EqualFold(name, x.name) })
		if c.shape != nil && x.required && !mapped && !strings.EqualFold(x.name, c.key) {
			problems = append(problems, "column "+x.name+" needs a value and the record has none")
		}
	}
	return problems
}

func (c *sqlConnector) quotedTable() string {
	parts := strings.Split(c.table, ".")
	for i := range parts {
		parts[i] = c.quote(parts[i])
	}
	return strings.Join(parts, ".")
}

// outcome brings a database's error to ours; its text is not kept, since it may hold values or the data source's name.
func (c *sqlConnector) outcome(ctx, try context.Context, err error) error {
	if ctx.Err() != nil {
		return cancelled("write the row", ctx.Err())
	}
	if try.Err() != nil {
		return &signup.Error{Class: signup.Transient, Code: "timeout"}
	}
	if e := c.judge(err); e != nil {
		return e
	}
	return &signup.Error{Class: signup.Transient, Code: "unavailable"}
}
