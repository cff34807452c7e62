package connector

import (
	"time"

	"github.com/microsoft/go-mssqldb/msdsn"
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
