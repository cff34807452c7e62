package sim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// salesforceAssertion is how long a JWT may be good for.
const salesforceAssertion = 5 * time.Minute

// token answers the two flows for servers: JWT bearer (RFC 7523) and client credentials. The errors are those of
// RFC 6749, section 5.2, with Salesforce's own words.
func (s *Salesforce) token(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(r)
	form, err := url.ParseQuery(string(body))
	word, description := "", ""
	mime, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch {
	case !ok || err != nil || mime != "application/x-www-form-urlencoded":
		word, description = "invalid_request", "the body is not form-encoded"
	case form.Get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
		word, description = s.refuseAssertion(form.Get("assertion"))
	case form.Get("grant_type") == "client_credentials":
		word, description = s.refuseSecret(form.Get("client_id"), form.Get("client_secret"))
	default:
		word, description = "unsupported_grant_type", "grant type not supported"
	}
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-cache, no-store")
	if word != "" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": word, "error_description": description}) // whoever has gone away comes again
		return
	}
	s.mu.Lock()
	s.tokens++
	s.calls["token"]++
	token := fmt.Sprintf("00D000000000001!AQ.simulated_%d", s.tokens)
	s.sessions[token] = 0
	s.mu.Unlock()
	// The host of instance_url is nobody's: whoever sends a token there is found out.
	_ = json.NewEncoder(w).Encode(map[string]string{
		"access_token": token, "token_type": "Bearer", "scope": "api", "instance_url": "https://instance.invalid",
		"id": s.o.Audience + "/id/00D000000000001EAA/005000000000001AAA",
	})
}

func (s *Salesforce) refuseSecret(id, secret string) (word, description string) {
	switch {
	case id != s.o.ClientID:
		return "invalid_client_id", "client identifier invalid"
	case s.o.ClientSecret == "":
		return "invalid_grant", "no client credentials user enabled"
	case secret != s.o.ClientSecret:
		return "invalid_client", "invalid client credentials"
	}
	return "", ""
}

// refuseAssertion says what is wrong with a JWT, "" if it is good.
func (s *Salesforce) refuseAssertion(assertion string) (word, description string) {
	var head struct{ Alg string }
	var claims struct {
		Iss, Sub, Aud string
		Exp           int64
	}
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || !decodePart(parts[0], &head) || !decodePart(parts[1], &claims) || head.Alg != "RS256" {
		return "invalid_grant", "invalid assertion"
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	left := time.Unix(claims.Exp, 0).Sub(s.o.Clock.Now())
	switch {
	case claims.Iss != s.o.ClientID:
		return "invalid_client_id", "client identifier invalid"
	case err != nil || s.o.PublicKey == nil || rsa.VerifyPKCS1v15(s.o.PublicKey, crypto.SHA256, sum[:], signature) != nil:
		return "invalid_grant", "invalid assertion"
	case claims.Aud != s.o.Audience:
		return "invalid_grant", "audience is invalid"
	case left <= 0 || left > salesforceAssertion:
		return "invalid_grant", "expired authorization code"
	case claims.Sub != s.o.Username:
		return "invalid_grant", "user hasn't approved this consumer"
	}
	return "", ""
}
