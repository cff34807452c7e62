package sim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// assertionHeader and assertionClaims are what a client assertion says (RFC 7523; docs: certificate credentials).
type assertionHeader struct {
	Algorithm  string `json:"alg"`
	Thumbprint string `json:"x5t#S256"` // SHA-256 of the certificate, in either base64 alphabet
	OldPrint   string `json:"x5t"`      // SHA-1
}

type assertionClaims struct {
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Expires   int64  `json:"exp"`
	NotBefore int64  `json:"nbf"`
}

// assertionSkew is how far the clocks may differ.
const assertionSkew = 5 * time.Minute

// checkAssertion verifies a client assertion: the certificate is registered and valid, the signature is its, and the
// claims name the app and this token endpoint.
func (e *Entra) checkAssertion(app App, assertion, root string) *aadsts {
	var head assertionHeader
	var claims assertionClaims
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || !decodePart(parts[0], &head) || !decodePart(parts[1], &claims) {
		return &aadsts{401, "invalid_client", 50027, "JWT token is invalid or malformed."}
	}
	now := e.o.Assertion.Now()
	cert, print := registered(app, head)
	if cert == nil {
		return &aadsts{401, "invalid_client", 700027, "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The key was not found., Thumbprint of key used by client: '" + print + "'.]"}
	}
	if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return &aadsts{401, "invalid_client", 700027, "Client assertion failed signature validation. [Reason - The key used is expired., Thumbprint of key used by client: '" + print + "'.]"}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !signedBy(cert, head.Algorithm, parts[0]+"."+parts[1], signature) {
		return &aadsts{401, "invalid_client", 50013, "Assertion failed signature validation. [Reason - The provided signature value did not match the expected signature value., Thumbprint of key used by client: '" + print + "'.]"}
	}
	if claims.Expires == 0 || now.After(time.Unix(claims.Expires, 0).Add(assertionSkew)) || time.Unix(claims.NotBefore, 0).After(now.Add(assertionSkew)) {
		return &aadsts{401, "invalid_client", 700024, "Client assertion is not within its valid time range."}
	}
	if !strings.EqualFold(claims.Issuer, app.ID) || claims.Subject != claims.Issuer {
		return &aadsts{401, "invalid_client", 50013, "Assertion failed issuer validation: iss and sub must be the client id."}
	}
	tenants := []string{root + "/oauth2/v2.0/token", root + "/v2.0"}
	if !slices.Contains(tenants, claims.Audience) {
		return &aadsts{401, "invalid_client", 50013, "Assertion failed audience validation: '" + claims.Audience + "' is not this token endpoint."}
	}
	return nil
}

func decodePart(part string, v any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(raw, v) == nil
}

// registered finds the certificate of a header's thumbprint, which it also returns in hexadecimal.
func registered(app App, head assertionHeader) (*x509.Certificate, string) {
	want, old := decodeEither(head.Thumbprint), decodeEither(head.OldPrint)
	for _, c := range app.Certificates {
		s256, s1 := sha256.Sum256(c.Raw), sha1.Sum(c.Raw)
		if slices.Equal(want, s256[:]) || want == nil && slices.Equal(old, s1[:]) {
			return c, strings.ToUpper(hex.EncodeToString(s1[:]))
		}
	}
	return nil, strings.ToUpper(hex.EncodeToString(slices.Concat(want, old)))
}

// decodeEither decodes either base64 alphabet, padded or not; nil if it is neither.
func decodeEither(s string) []byte {
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "="))
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) == 0 {
		return nil
	}
	return raw
}

// signedBy knows the two algorithms that Entra takes, RS256 and PS256 (RFC 7518); its keys are RSA only.
func signedBy(cert *x509.Certificate, algorithm, signed string, signature []byte) bool {
	key, isRSA := cert.PublicKey.(*rsa.PublicKey)
	if !isRSA {
		return false
	}
	sum := sha256.Sum256([]byte(signed))
	switch algorithm {
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}
