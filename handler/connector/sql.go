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
	Driver    string        `json:"driver" doc:"The database; mysql is MariaDB too, sqlserver Azure SQL." required:"true" enum:"mysql,postgres,sqlite,sqlserver"`
	DSN       string        `json:"dsn" doc:"The data source name of that driver. For mysql user:password@tcp(host:3306)/database; another machine is spoken to over TLS, and its certificate is checked unless tls= says otherwise; times are in UTC. For postgres a postgres:// URL or key=value pairs; another machine is spoken to over TLS only, and sslmode=verify-full has its certificate checked too. For sqlite a file's path or file: URI. For sqlserver a connection string or sqlserver:// URL, with server and database; another machine is spoken to over TLS, and its certificate is checked." required:"true" secret:"true"`
	Table     string        `json:"table" doc:"The table, with its schema if need be: crm.customers. The login needs the rights INSERT, UPDATE and SELECT on this one table. postgres: names are as they are stored, mostly in lower case. sqlserver: texts want nvarchar columns; in a varchar one SQL Server writes ? for what its code page lacks."`
	Key       string        `json:"key" doc:"The column that holds the user's object id, as a text in lower case or a type of its own (uuid, uniqueidentifier); it needs a unique index of its own."`
	Statement string        `json:"statement" doc:"Instead of table and key: one statement of your own, with parameters :name from the record, :user_id and :tenant_id. An empty field is NULL. It must insert or update by :user_id, since it may run again for the same user. sqlserver takes a MERGE only; WITH (HOLDLOCK) keeps two at a time apart. The login needs the rights for this statement and no others."`
	Auth      string        `json:"auth" doc:"password: as the data source name says. entra: as the Function App's managed identity, whose token is the password." default:"password" enum:"password,entra"`
	Timeout   time.Duration `json:"timeout" doc:"How long one user's statements may take." default:"15s"`
}

func sqlKind() Kind {
	return Kind{
		Name:     "sql",
		Doc:      "A row in a table, by the user's object id; the record's fields are columns. A field that is empty for a user leaves its column alone. Or what a statement of your own makes of it.",
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
	// store stands for exists and upsert where no single statement of the database does it right. The values are
	// the key and then the columns, which are quoted.
	store  func(ctx context.Context, c *sqlConnector, columns []string, values []any) (created bool, err error)
	value  func(v any) any // a parameter as the database wants it; nil = as it is
	syntax syntax          // how statements are written; without one there are none but our own
}

// description is what Check needs to know of a table.
type description struct {
	found   bool
	view    bool
	exact   bool // names that differ in case are different names
	columns []column
	unique  []string // the columns that have a unique index or primary key of their own, in lower case unless exact
}

type column struct {
	name     string
	required bool // not null, and without a default
	number   bool // holds numbers and no text
}

func dialects() map[string]dialect {
	return map[string]dialect{
		"mysql":     mysqlDialect(),
		"postgres":  postgresDialect(),
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

// sqlPool is a database and how to speak to it.
type sqlPool struct {
	dialect
	db      *sql.DB
	timeout time.Duration
	shape   map[string]any
}

// Close gives the connections back.
func (p *sqlPool) Close() error { return p.db.Close() }

// sqlConnector keeps a row a user by insert-or-update: nothing has to be known first, and the same call again, also at
// the same time and from another process, leaves the same row.
type sqlConnector struct {
	sqlPool
	table string
	key   string
}

var _ signup.Connector = (*sqlConnector)(nil)

func openSQL(s sqlSettings, env Env) (signup.Connector, []error) {
	pool, errs := openPool(s, env)
	if s.Statement != "" {
		c, more := openStatement(pool, s)
		return c, append(errs, more...)
	}
	switch {
	case s.Table == "":
		errs = append(errs, errors.New("settings.table: missing; name the table, or write settings.statement"))
	case !tableName.MatchString(s.Table):
		errs = append(errs, errors.New("settings.table: wants a name of letters, digits and _, or schema.name"))
	}
	switch {
	case s.Key == "":
		errs = append(errs, errors.New("settings.key: missing; name the column of the user's object id, or write settings.statement"))
	case !identifier.MatchString(s.Key):
		errs = append(errs, errors.New("settings.key: wants a name of letters, digits and _"))
	}
	return &sqlConnector{sqlPool: pool, table: s.Table, key: s.Key}, errs
}

func openPool(s sqlSettings, env Env) (sqlPool, []error) {
	var errs []error
	known := dialects()
	d, ok := known[s.Driver]
	if !ok && s.Driver != "" {
		errs = append(errs, fmt.Errorf("settings.driver: not known; there are %s", strings.Join(sortedKeys(known), ", ")))
	}
	if s.Auth != "" && s.Auth != "password" && s.Auth != "entra" {
		errs = append(errs, errors.New("settings.auth: wants password or entra"))
	}
	pool := sqlPool{dialect: d, timeout: s.Timeout, shape: env.Shape}
	if !ok || s.DSN == "" {
		return pool, errs
	}
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
		db.SetMaxOpenConns(4)
		db.SetMaxIdleConns(2)
		db.SetConnMaxIdleTime(5 * time.Minute)
		pool.db = db
	}
	return pool, errs
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

// Associate writes the row. Account.ID is the object id, since that is the row's key.
func (c *sqlConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	columns := []string{}
	values := []any{string(req.User)}
	for _, name := range sortedKeys(req.Record) {
		v, err := c.bind(req.Record[name])
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
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	store := upsertRow
	if c.store != nil {
		store = c.store
	}
	created, err := store(try, c, columns, values)
	if err != nil {
		return signup.Account{}, c.outcome(ctx, try, err)
	}
	return signup.Account{ID: string(req.User), Created: created}, nil
}

// upsertRow writes the row by one statement. That it was created is only a hint for the counts: another process may be
// between the two statements.
func upsertRow(ctx context.Context, c *sqlConnector, columns []string, values []any) (created bool, err error) {
	table, key := c.quotedTable(), c.quote(c.key)
	var one int
	err = c.db.QueryRowContext(ctx, c.exists(table, key), values[0]).Scan(&one)
	created = errors.Is(err, sql.ErrNoRows)
	if err != nil && !created {
		return false, err
	}
	return created, c.write(ctx, c.upsert(table, key, columns), values)
}

// write carries a statement out, and once more when another row was in the way: if that was this user's, of another
// writer, it is found now. What is still in the way is somebody else's, and stays there until a person changes it.
func (p *sqlPool) write(ctx context.Context, statement string, values []any) error {
	_, err := p.db.ExecContext(ctx, statement, values...)
	if p.conflict(err) {
		_, err = p.db.ExecContext(ctx, statement, values...)
	}
	return err
}

// conflict reports that another row was in the way.
func (p *sqlPool) conflict(err error) bool {
	e := p.judge(err)
	return e != nil && e.Code == "conflict"
}

// bind is a record's value as this database takes it.
func (p *sqlPool) bind(v any) (any, error) {
	v, err := sqlValue(v)
	if err != nil || p.value == nil {
		return v, err
	}
	return p.value(v), nil
}

// sqlValue is a record's value as a parameter: a list or map becomes JSON text, a time RFC 3339 text in UTC. A user's
// attributes hold every number as a float64; a whole one is made an int, since a column of texts would get 1e15 or 4.0.
func sqlValue(v any) (any, error) {
	if n, whole := integer(v); whole {
		return n, nil
	}
	switch v := v.(type) {
	case nil, string, bool, float64:
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
	same := strings.EqualFold
	if d.exact {
		same = func(a, b string) bool { return a == b }
	}
	has := func(name string) bool {
		return slices.ContainsFunc(d.columns, func(x column) bool { return same(x.name, name) })
	}
	if i := slices.IndexFunc(d.columns, func(x column) bool { return same(x.name, c.key) }); i < 0 {
		problems = append(problems, "there is no column "+c.key)
	} else if d.columns[i].number {
		problems = append(problems, "column "+c.key+" holds numbers, and an object id is a text")
	} else if !slices.ContainsFunc(d.unique, func(name string) bool { return same(name, c.key) }) {
		problems = append(problems, fmt.Sprintf("column %s is not unique: CREATE UNIQUE INDEX %s_%s ON %s (%s)",
			c.key, strings.ReplaceAll(c.table, ".", "_"), c.key, c.table, c.key))
	}
	for _, name := range sortedKeys(c.shape) {
		if !has(name) {
			problems = append(problems, "there is no column "+name)
		}
	}
	for _, x := range d.columns {
		mapped := slices.ContainsFunc(sortedKeys(c.shape), func(name string) bool { return same(name, x.name) })
		if c.shape != nil && x.required && !mapped && !same(x.name, c.key) {
			problems = append(problems, "column "+x.name+" needs a value and the record has none")
		}
	}
	return problems
}

func (c *sqlConnector) quotedTable() string { return quoteTable(c.quote, c.table) }

// quoteTable quotes a table's name, and its schema's if it has one.
func quoteTable(quote func(string) string, table string) string {
	parts := strings.Split(table, ".")
	for i := range parts {
		parts[i] = quote(parts[i])
	}
	return strings.Join(parts, ".")
}

// outcome brings a database's error to ours; its text is not kept, since it may hold values or the data source's name.
func (p *sqlPool) outcome(ctx, try context.Context, err error) error {
	if ctx.Err() != nil {
		return cancelled("write the row", ctx.Err())
	}
	if try.Err() != nil {
		return &signup.Error{Class: signup.Transient, Code: "timeout"}
	}
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	if p.conflict(err) {
		return refusedData("a unique column")
	}
	if e := p.judge(err); e != nil {
		return e
	}
	return &signup.Error{Class: signup.Transient, Code: "unavailable"}
}

// The outcomes that databases have in common.
func refusedData(by string) *signup.Error {
	return &signup.Error{Class: signup.Permanent, Code: "data", Detail: "refused by " + by}
}

func wrongSchema(detail string) *signup.Error {
	return &signup.Error{Class: signup.Permanent, Code: "schema", Detail: detail + ": the table, its columns or the statement do not fit; see check"}
}

// lacksRights is what a check says, before a row is refused.
func lacksRights() *signup.Error {
	return &signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "the login lacks INSERT, UPDATE or SELECT on the table"}
}
