package identity

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"software.sslmate.com/src/go-pkcs12"

	"signup-sync/handler/signup"
)

// certificate is a client certificate that is in Key Vault, as the secret of the same name. It is loaded with the first
// token and kept.
type certificate struct {
	o       AppOptions
	options azidentity.ClientCertificateCredentialOptions
	secrets *azsecrets.Client
	host    string // of the vault

	turn   chan struct{} // holds one element; whoever took it may load, so that waiting ends with the caller's context
	loaded azcore.TokenCredential
}

func newCertificate(o AppOptions, options azidentity.ClientCertificateCredentialOptions) (*certificate, error) {
	u, err := url.Parse(o.Vault)
	if err != nil {
		return nil, errors.New("KEY_VAULT_URL is not a URL")
	}
	secrets, err := azsecrets.NewClient(o.Vault, o.Identity, &azsecrets.ClientOptions{
		ClientOptions: clientOptions(o.HTTP),
		// A simulated vault on loopback names the real one's audience.
		DisableChallengeResourceVerification: loopback(u),
	})
	if err != nil {
		return nil, fmt.Errorf("make the Key Vault client: %w", err)
	}
	c := &certificate{o: o, options: options, secrets: secrets, host: u.Host, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c, nil
}

// GetToken implements azcore.TokenCredential.
func (c *certificate) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	inner, err := c.load(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	token, err := inner.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, tokenError(err)
	}
	return token, nil
}

func (c *certificate) load(ctx context.Context) (azcore.TokenCredential, error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return nil, tokenError(ctx.Err())
	}
	defer func() { c.turn <- struct{}{} }()
	if c.loaded != nil {
		return c.loaded, nil
	}
	answer, err := c.secrets.GetSecret(ctx, c.o.Name, "", nil)
	if err != nil {
		return nil, c.vaultError(err)
	}
	if answer.Value == nil {
		return nil, c.failed(signup.Systemic, 0, "it is empty")
	}
	kind := ""
	if answer.ContentType != nil {
		kind = *answer.ContentType
	}
	chain, key, err := parseCertificate(kind, *answer.Value)
	if err != nil {
		return nil, c.failed(signup.Systemic, 0, err.Error())
	}
	loaded, err := azidentity.NewClientCertificateCredential(c.o.Tenant, c.o.ClientID, chain, key, &c.options)
	if err != nil {
		return nil, c.failed(signup.Systemic, 0, "the key does not belong to the certificate")
	}
	c.loaded = loaded
	return loaded, nil
}

func (c *certificate) failed(class signup.Class, status int, why string) *signup.Error {
	return &signup.Error{
		Class: class, Code: "key-vault", Status: status,
		Detail: "certificate " + c.o.Name + " in " + c.host + ": " + why,
	}
}

func (c *certificate) vaultError(err error) *signup.Error {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		class, _, _ := signup.StatusClass(answer.StatusCode)
		why := "Key Vault answers with an error"
		switch answer.StatusCode {
		case 401:
			why = "Key Vault refuses the identity's token; is the vault in another tenant?"
		case 403:
			why = "forbidden: give the identity the role Key Vault Secrets User, and the vault's firewall a rule"
		case 404:
			why = "there is none of that name"
		}
		if class == signup.Permanent {
			class = signup.Systemic
		}
		return c.failed(class, answer.StatusCode, why)
	}
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		e := identityError(failed)
		return c.failed(e.Class, e.Status, e.Detail)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return c.failed(signup.Transient, 0, "Key Vault did not answer in time")
	}
	return c.failed(signup.Transient, 0, "Key Vault, or the identity for it, cannot be reached")
}

// parseCertificate reads what Key Vault keeps behind a certificate: PKCS#12 in base64 without a password, or PEM, by
// content type. Only RSA keys can sign the assertion. Errors name no content.
func parseCertificate(contentType, value string) ([]*x509.Certificate, crypto.PrivateKey, error) {
	value = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(value), "\ufeff"))
	var (
		chain []*x509.Certificate
		key   crypto.PrivateKey
		err   error
	)
	if contentType == "application/x-pem-file" || strings.Contains(value, "-----BEGIN") {
		chain, key, err = azidentity.ParseCertificates([]byte(value), nil)
		if err != nil {
			return nil, nil, errors.New("it is not PEM with a certificate and an unencrypted private key")
		}
	} else {
		der, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return nil, nil, errors.New("it is neither PEM nor PKCS#12 in base64")
		}
		private, leaf, ca, err := pkcs12.DecodeChain(der, "")
		if err != nil {
			return nil, nil, errors.New("it is not PKCS#12 without a password")
		}
		chain, key = append([]*x509.Certificate{leaf}, ca...), private
	}
	if _, ok := key.(*rsa.PrivateKey); !ok {
		return nil, nil, errors.New("its key is not RSA, which Microsoft Entra requires")
	}
	return chain, key, nil
}
