package sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// tokenKey signs the access tokens of every simulated tenant; it protects nothing.
const tokenKey = "the simulated tenants' token key"

// Claims are what an access token says: the part of the v1.0 access token format that Graph and Key Vault look at.
type Claims struct {
	Audience  string   `json:"aud"`             // https://graph.microsoft.com, https://vault.azure.net, …
	Issuer    string   `json:"iss"`             //
	Tenant    string   `json:"tid"`             // the tenant's id
	App       string   `json:"appid,omitempty"` // the client id
	Subject   string   `json:"sub,omitempty"`   // of an app or an identity: its object id
	Object    string   `json:"oid,omitempty"`   // the same
	Roles     []string `json:"roles,omitempty"` // application permissions
	Scopes    string   `json:"scp,omitempty"`   // of a person's login: delegated permissions, separated by blanks
	Directory []string `json:"wids,omitempty"`  // likewise: the person's directory roles, by template
	IssuedAt  int64    `json:"iat"`             // seconds since 1970
	Expires   int64    `json:"exp"`             // seconds since 1970
}

// Token makes an access token that the simulated Graph and Key Vault accept, without asking the token endpoint.
func Token(c Claims) string {
	body, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(body)
	return signed + "." + enc.EncodeToString(tokenMAC(signed))
}

func tokenMAC(signed string) []byte {
	m := hmac.New(sha256.New, []byte(tokenKey))
	m.Write([]byte(signed))
	return m.Sum(nil)
}

var (
	errTokenEmpty   = errors.New("access token is empty")
	errTokenInvalid = errors.New("access token is not one of ours")
	errTokenExpired = errors.New("access token is expired")
)

// readToken checks the value of an Authorization header against the clock, all but audience and tenant.
func readToken(header string, now time.Time) (Claims, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); token == "" || !strings.EqualFold(scheme, "Bearer") {
		return Claims{}, errTokenEmpty
	}
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 {
		return Claims{}, errTokenInvalid
	}
	mac, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || !hmac.Equal(mac, tokenMAC(token[:dot])) {
		return Claims{}, errTokenInvalid
	}
	_, body, _ := strings.Cut(token[:dot], ".")
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return Claims{}, errTokenInvalid
	}
	var c Claims
	if err := json.Unmarshal(raw, &c); err != nil {
		return Claims{}, errTokenInvalid
	}
	if now.Unix() >= c.Expires {
		return Claims{}, errTokenExpired
	}
	return c, nil
}
