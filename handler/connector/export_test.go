package connector

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
