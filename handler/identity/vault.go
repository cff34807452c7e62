package identity

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"software.sslmate.com/src/go-pkcs12"

	"signup-sync/handler/signup"
)

// The roles that allow what is asked of a Key Vault (docs: Azure built-in roles).
const (
	SecretsUser     = "Key Vault Secrets User"
	CertificateUser = "Key Vault Certificate User"
	CryptoUser      = "Key Vault Crypto User"
)

// vault is a Key Vault as far as one certificate of it goes: with it come a secret and a key of its name.
type vault struct {
	vaultObject
	secrets      *azsecrets.Client
	certificates *azcertificates.Client
	keys         *azkeys.Client
}

func openVault(root, name string, own azcore.TokenCredential, hc *http.Client) (*vault, error) {
	v := &vault{vaultObject: vaultObject{host: hostOf(root), kind: "certificate", name: name}}
	options := clientOptions(hc)
	unverified := loopback(v.host) // a simulated vault on this machine names the real one's audience
	var errs [3]error
	v.secrets, errs[0] = azsecrets.NewClient(root, own, &azsecrets.ClientOptions{ClientOptions: options, DisableChallengeResourceVerification: unverified})
	v.certificates, errs[1] = azcertificates.NewClient(root, own, &azcertificates.ClientOptions{ClientOptions: options, DisableChallengeResourceVerification: unverified})
	v.keys, errs[2] = azkeys.NewClient(root, own, &azkeys.ClientOptions{ClientOptions: options, DisableChallengeResourceVerification: unverified})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("make the Key Vault client: %w", err)
	}
	return v, nil
}

// list is the certificate's versions, newest first, without what is in them. They are those of its secret, since every
// role that lets read one lists them too.
func (v *vault) list(ctx context.Context) ([]*version, error) {
	var all []*version
	for pager := v.secrets.NewListSecretPropertiesVersionsPager(v.name, nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, v.explain(err, SecretsUser)
		}
		for _, s := range page.Value {
			if s == nil || s.ID.Version() == "" {
				continue
			}
			x := &version{id: s.ID.Version()}
			if a := s.Attributes; a != nil {
				x.disabled = a.Enabled != nil && !*a.Enabled
				x.created, x.notBefore, x.notAfter = value(a.Created), value(a.NotBefore), value(a.Expires)
			}
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return nil, v.failed(signup.Systemic, http.StatusNotFound, noneOfThatName)
	}
	slices.SortStableFunc(all, func(a, b *version) int {
		return cmp.Or(b.created.Compare(a.created), b.notBefore.Compare(a.notBefore))
	})
	return all, nil
}

func value[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

// material is what a version of the certificate is made of.
type material struct {
	id         string
	chain      []*x509.Certificate // its own first
	key        *rsa.PrivateKey     // nil = it never leaves the vault
	keyVersion string              // of the key in the vault
}

// errNoKey is of what was read from a secret and holds no key that can be used here.
var errNoKey = errors.New("no private key")

// load reads a version; id "" is the latest. The secret holds the private key, unless that is not exportable, or this
// program may not read secrets: then the certificate itself is read, and the key stays where it is.
func (v *vault) load(ctx context.Context, id string) (*material, error) {
	m, err := v.loadSecret(ctx, id)
	if err == nil || !errors.Is(err, errNoKey) {
		return m, err
	}
	answer, certErr := v.certificates.GetCertificate(ctx, v.name, id, nil)
	if e := (*azcore.ResponseError)(nil); errors.As(certErr, &e) && e.StatusCode == http.StatusNotFound {
		return nil, err // it is a secret and no certificate
	}
	if certErr != nil {
		if known := v.explain(certErr, CertificateUser+" (the secret has no private key)"); known.Status != http.StatusForbidden || !forbidden(err) {
			return nil, known
		}
		return nil, err // neither may be read; one role is enough
	}
	leaf, parseErr := x509.ParseCertificate(answer.CER)
	if parseErr != nil {
		return nil, v.failed(signup.Systemic, 0, "it is not an X.509 certificate")
	}
	if _, isRSA := leaf.PublicKey.(*rsa.PublicKey); !isRSA {
		return nil, v.failed(signup.Systemic, 0, errNotRSA.Error())
	}
	m = &material{id: answer.ID.Version(), chain: []*x509.Certificate{leaf}, keyVersion: answer.KID.Version()}
	if m.keyVersion == "" {
		m.keyVersion = m.id
	}
	return m, nil
}

// loadSecret reads a version with its private key. Its error is of errNoKey where the certificate itself may do.
func (v *vault) loadSecret(ctx context.Context, id string) (*material, error) {
	answer, err := v.secrets.GetSecret(ctx, v.name, id, nil)
	if err != nil {
		e := v.explain(err, SecretsUser)
		if e.Status == http.StatusForbidden {
			e.Err = errNoKey
		}
		return nil, e
	}
	chain, key, err := parseCertificate(value(answer.ContentType), value(answer.Value))
	if err != nil {
		e := v.failed(signup.Systemic, 0, err.Error())
		if !errors.Is(err, errNotRSA) {
			e.Err = errNoKey
		}
		return nil, e
	}
	return &material{id: answer.ID.Version(), chain: chain, key: key}, nil
}

// sign signs a SHA-256 digest by the key in the vault (PS256 of RFC 7518).
func (v *vault) sign(ctx context.Context, keyVersion string, digest []byte) ([]byte, error) {
	algorithm := azkeys.SignatureAlgorithmPS256
	answer, err := v.keys.Sign(ctx, v.name, keyVersion, azkeys.SignParameters{Algorithm: &algorithm, Value: digest}, nil)
	if err != nil {
		return nil, v.explain(err, CryptoUser)
	}
	return answer.Result, nil
}

// vaultObject is what errors call a certificate or secret by.
type vaultObject struct{ host, kind, name string }

func (v vaultObject) String() string { return v.kind + " " + v.name + " in " + v.host }

func (v vaultObject) failed(class signup.Class, status int, why string) *signup.Error {
	return &signup.Error{Class: class, Code: "key-vault", Status: status, Detail: v.String() + ": " + why}
}

const noneOfThatName = "there is none of that name"

// explain makes an error of ours from one of a Key Vault client; role is what a forbidden call takes.
func (v vaultObject) explain(err error, role string) *signup.Error {
	if own, ok := errors.AsType[*signup.Error](err); ok { // of the identity that the vault is asked by
		e := v.failed(own.Class, own.Status, own.Detail)
		e.RetryAfter = own.RetryAfter
		return e
	}
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		e := v.failed(signup.Transient, 0, "Key Vault cannot be reached")
		if ended := noAnswer(err).Err; ended != nil {
			e.Detail, e.Err = v.String()+": Key Vault did not answer in time", ended
		}
		return e
	}
	class, _, _ := signup.StatusClass(answer.StatusCode)
	if class == signup.Permanent {
		class = signup.Systemic
	}
	why := "Key Vault answers with an error"
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		why = "Key Vault refuses the identity's token; is the vault in another tenant?"
	case http.StatusForbidden:
		why = forbiddenBecause(answer, role)
	case http.StatusNotFound:
		why = noneOfThatName
	case http.StatusTooManyRequests:
		why = "Key Vault is throttled: look for what else asks it"
	}
	e := v.failed(class, answer.StatusCode, why)
	if answer.RawResponse != nil {
		e.RetryAfter = retryAfterHeader(answer.RawResponse, time.Now())
	}
	return e
}

func forbiddenBecause(answer *azcore.ResponseError, role string) string {
	switch code := innerCode(answer); {
	case strings.HasSuffix(code, "Disabled"):
		return "it is disabled"
	case code == "ForbiddenByFirewall" || code == "ForbiddenByConnection":
		return "the vault's network rules do not let this program in: add its network, or a private endpoint"
	}
	return "forbidden: give the identity the role " + role + ", and look at the vault's network rules"
}

// innerCode is the code that tells one 403 of Key Vault from another.
func innerCode(answer *azcore.ResponseError) string {
	var body struct {
		Error struct {
			Inner struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if answer.RawResponse != nil {
		if raw, err := runtime.Payload(answer.RawResponse); err == nil {
			_ = json.Unmarshal(raw, &body) // an answer in another form has none
		}
	}
	return body.Error.Inner.Code
}

// forbidden reports that Key Vault does not allow what was asked for.
func forbidden(err error) bool {
	e, ok := errors.AsType[*signup.Error](err)
	return ok && e.Status == http.StatusForbidden
}

var errNotRSA = errors.New("its key is not RSA, which Microsoft Entra requires")

// parseCertificate reads what Key Vault keeps behind a certificate: PKCS#12 in base64 without a password, or PEM, by
// content type. The certificate of the key comes first, whatever the order in the file. Errors name no content.
func parseCertificate(contentType, text string) ([]*x509.Certificate, *rsa.PrivateKey, error) {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "\ufeff"))
	if text == "" {
		return nil, nil, errors.New("it is empty")
	}
	var chain []*x509.Certificate
	var key any
	if contentType == "application/x-pem-file" || strings.Contains(text, "-----BEGIN") {
		var err error
		if chain, key, err = azidentity.ParseCertificates([]byte(text), nil); err != nil {
			return nil, nil, errors.New("it is not PEM with a certificate and an unencrypted private key")
		}
	} else {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, nil, errors.New("it is neither PEM nor PKCS#12 in base64")
		}
		var leaf *x509.Certificate
		if key, leaf, chain, err = pkcs12.DecodeChain(der, ""); err != nil {
			return nil, nil, errors.New("it is not PKCS#12 with a private key and without a password")
		}
		chain = append([]*x509.Certificate{leaf}, chain...)
	}
	own, isRSA := key.(*rsa.PrivateKey)
	if !isRSA {
		return nil, nil, errNotRSA
	}
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return own.PublicKey.Equal(c.PublicKey) })
	if i < 0 {
		return nil, nil, errors.New("the key does not belong to the certificate")
	}
	chain[0], chain[i] = chain[i], chain[0]
	return chain, own, nil
}
