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
	Type       string `json:"typ"`
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

// refuseClient is an error about the client's own proof.
func refuseClient(code int, text string) *aadsts { return &aadsts{401, "invalid_client", code, text} }

// certificateDocs ends most of the texts about assertions.
const certificateDocs = " Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."

// checkAssertion verifies a client assertion (docs: certificate credentials, with the texts of MSAL's recorded answers): the
// certificate is registered and valid, the signature is its, and the claims name the app and this token endpoint. One whose
// issuer is not the app itself is somebody else's token, for which the app may have a federated credential.
//
// An assertion may live as long as it likes ("Microsoft Entra ID doesn't place restrictions on the exp time currently"), and
// nothing says that its jti may come once only. That typ must be there and be JWT is the worse reading of "should be JWT".
func (e *Entra) checkAssertion(app App, assertion, root string) *aadsts {
	var head assertionHeader
	var claims assertionClaims
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || !decodePart(parts[0], &head) || !decodePart(parts[1], &claims) || head.Type != "JWT" {
		return refuseClient(50027, "JWT token is invalid or malformed.")
	}
	if strings.HasPrefix(claims.Issuer, "https://") {
		return e.checkFederated(app, assertion, claims)
	}
	if head.Algorithm != "RS256" && head.Algorithm != "PS256" {
		return refuseClient(5002738, "Invalid JWT token. '"+head.Algorithm+"' is not a supported signature algorithm. Supported signing algorithms are: 'RS256,RS384,RS512'")
	}
	if head.Thumbprint == "" && head.OldPrint == "" {
		return refuseClient(5002723, "Invalid JWT token. No certificate SHA-1 thumbprint, certificate SHA-256 thumbprint, nor keyId specified in token header.")
	}
	if !strings.EqualFold(claims.Issuer, app.ID) || claims.Subject != claims.Issuer {
		return refuseClient(700021, "Client assertion application identifier doesn't match 'client_id' parameter."+certificateDocs)
	}
	now := e.o.Assertion.Now()
	if bad := checkSignature(app, head, parts, now); bad != nil {
		return bad
	}
	if bad := checkTimes(claims, now); bad != nil {
		return bad
	}
	if !slices.Contains([]string{root + "/oauth2/v2.0/token", root + "/v2.0"}, claims.Audience) {
		return refuseClient(700023, "Client assertion audience claim does not match Realm issuer."+certificateDocs)
	}
	return nil
}

// checkSignature verifies that a registered certificate signed the assertion.
func checkSignature(app App, head assertionHeader, parts []string, now time.Time) *aadsts {
	cert, print := registered(app, head)
	bad := func(reason, found string) *aadsts {
		return refuseClient(700027, "Client assertion contains an invalid signature. [Reason - "+reason+", Thumbprint of key used by client: '"+print+"'"+found+
			", Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '"+app.ID+"'.]")
	}
	if cert == nil {
		return bad("The key was not found.", "")
	}
	const layout = "01/02/2006 15:04:05"
	found := ", Found key 'Start=" + cert.NotBefore.UTC().Format(layout) + ", End=" + cert.NotAfter.UTC().Format(layout) + "'"
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	switch {
	case now.After(cert.NotAfter) || now.Before(cert.NotBefore):
		return bad("The key used is expired.", found)
	case slices.ContainsFunc(app.Revoked, cert.Equal):
		return refuseClient(7000214, "Certificate has been revoked.")
	case err != nil || !signedBy(cert, head.Algorithm, parts[0]+"."+parts[1], signature):
		return bad("Key was found, but use of the key to verify the signature failed.", found)
	}
	return nil
}

// checkTimes compares the assertion's lifetime with the clock.
func checkTimes(claims assertionClaims, now time.Time) *aadsts {
	from, to := time.Unix(claims.NotBefore, 0), time.Unix(claims.Expires, 0)
	if !now.After(to.Add(assertionSkew)) && !from.After(now.Add(assertionSkew)) {
		return nil
	}
	const layout = "2006-01-02T15:04:05.0000000Z"
	return refuseClient(700024, "Client assertion is not within its valid time range. Current time: "+now.UTC().Format(layout)+
		", assertion valid from "+from.UTC().Format(layout)+", expiry time of assertion "+to.UTC().Format(layout)+"."+certificateDocs)
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
