package connector

import (
	"cmp"
	"crypto/tls"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/microsoft/go-mssqldb/msdsn"

	"signup-sync/handler/signup"
)

// IsPublic is tested address by address.
var IsPublic = isPublic

// Sign is a webhook's signature with these secrets.
func Sign(id, at, body string, secrets ...string) (string, error) {
	c := &webhookConnector{}
	for _, s := range secrets {
		key, err := signingKey(s)
		if err != nil {
			return "", err
		}
		c.keys = append(c.keys, key)
	}
	return c.sign(id, at, []byte(body)), nil
}

// SQLServerToken is tested host by host.
var SQLServerToken = sqlServerToken

// SQLServerConfig is what the driver is told of a data source name.
func SQLServerConfig(dsn string, timeout time.Duration) (msdsn.Config, error) {
	return sqlServerConfig(sqlSettings{DSN: dsn, Timeout: timeout})
}

// Connections says how each of the attempts to connect would be made: with a host's name after "verified" its certificate is checked.
func Connections(driver, dsn, auth string) ([]string, error) {
	said := func(t *tls.Config) string {
		switch {
		case t == nil:
			return "plain"
		case t.VerifyPeerCertificate != nil:
			return "verified"
		case t.InsecureSkipVerify:
			return "tls"
		}
		return "verified " + t.ServerName
	}
	s := sqlSettings{Driver: driver, DSN: dsn, Auth: cmp.Or(auth, "password")}
	if driver == "postgres" {
		c, err := postgresConfig(s)
		if err != nil {
			return nil, err
		}
		all := []string{said(c.TLSConfig)}
		for _, f := range c.Fallbacks {
			all = append(all, said(f.TLSConfig))
		}
		return all, nil
	}
	c, err := mysqlConfig(s)
	if err != nil {
		return nil, err
	}
	dialect := mysqlDialect()
	db, err := dialect.open(s, Env{})
	if err != nil {
		return nil, err
	}
	_ = db.Close()
	how := map[string]string{"": "plain", "false": "plain", "true": "verified", "skip-verify": "tls", "preferred": "tls"}[c.TLSConfig]
	if c.TLS != nil {
		how = said(c.TLS)
	}
	if c.AllowFallbackToPlaintext {
		how += " or plain"
	}
	if c.AllowCleartextPasswords {
		how += ", password in clear"
	}
	return []string{how}, nil
}

// MySQLConfig is how a connection to MySQL is made.
func MySQLConfig(dsn string) (*mysql.Config, error) { return mysqlConfig(sqlSettings{DSN: dsn}) }

// JudgePostgres and JudgeMySQL are what the databases' error codes come to.
func JudgePostgres(code string) *signup.Error { return judgePostgres(&pgconn.PgError{Code: code}) }

func JudgeMySQL(number uint16, state string) *signup.Error {
	e := &mysql.MySQLError{Number: number}
	copy(e.SQLState[:], state)
	return judgeMySQL(e)
}

// ParseStatement cuts a statement of a driver at its parameters, and writes it with the driver's own.
func ParseStatement(driver, text string) (pieces, names []string, query string, err error) {
	x := dialects()[driver].syntax
	s, err := parseStatement(text, x)
	if err != nil {
		return nil, nil, "", err
	}
	return s.pieces, s.names, s.text(x.parameter), nil
}
