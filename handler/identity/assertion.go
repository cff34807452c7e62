package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// asserted is a credential that proves itself by an assertion of our own making.
type asserted struct{ inner azcore.TokenCredential }

// assertionFailed is the context key under which the assertion leaves its error: MSAL would keep only its text.
type assertionFailed struct{}

// newAsserted makes the credential; make is called once for each token that is asked for at the endpoint.
func newAsserted(o AppOptions, make func(context.Context) (string, error)) (azcore.TokenCredential, error) {
	inner, err := azidentity.NewClientAssertionCredential(o.Tenant, o.ClientID, func(ctx context.Context) (string, error) {
		text, err := make(ctx)
		if failed, ok := ctx.Value(assertionFailed{}).(*error); ok && err != nil {
			*failed = err
		}
		return text, err
	}, &azidentity.ClientAssertionCredentialOptions{ClientOptions: o.client(), DisableInstanceDiscovery: true})
	return &asserted{inner}, err
}

// GetToken implements azcore.TokenCredential.
func (c *asserted) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	var failed error
	token, err := c.inner.GetToken(context.WithValue(ctx, assertionFailed{}, &failed), o)
	if failed != nil && err != nil {
		return azcore.AccessToken{}, failed
	}
	return token, err
}

// assertionLife is how long a signed assertion is good for.
const assertionLife = 10 * time.Minute

// signIn signs an assertion inside the vault (docs: Microsoft identity platform application authentication certificate
// credentials; RFC 7523), as azidentity does here with a key that it has.
func signIn(ctx context.Context, v *vault, m *material, o AppOptions) (string, error) {
	print := sha256.Sum256(m.chain[0].Raw)
	now := time.Now()
	head, err := json.Marshal(map[string]string{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(print[:])})
	if err != nil {
		return "", err // texts always marshal
	}
	claims, err := json.Marshal(map[string]any{
		"aud": o.Authority + "/" + o.Tenant + "/oauth2/v2.0/token", "iss": o.ClientID, "sub": o.ClientID, "jti": rand.Text(),
		"nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err // likewise
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(text))
	signature, err := v.sign(ctx, m.keyVersion, digest[:])
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
