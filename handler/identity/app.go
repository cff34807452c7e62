// Package identity is who the program is: the app's credential in the tenant (a certificate whose key is in Key Vault, a
// managed identity as a federated credential, or a secret for local tests), its own identity in Azure, and the operator's
// login where a person runs it.
//
// It is the only package that imports azidentity, azsecrets and azkeys, and it knows nothing of Graph, so that its tests
// build in seconds. Inside the project it imports signup only.
package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

// The kinds of credential, values of ENTRA_CREDENTIAL.
const (
	Certificate = "certificate" // a client certificate from Key Vault
	Federated   = "federated"   // the managed identity's token as the assertion
	Secret      = "secret"      // a client secret, for local tests
)

// defaultAuthority is the token endpoint of the global cloud. App-only tokens for an external tenant come from here too,
// not from ciamlogin.com, which is for people.
const defaultAuthority = "https://login.microsoftonline.com"

// exchange is the audience that a federated credential's assertion must have.
const exchange = "api://AzureADTokenExchange/.default"

// AppOptions say by what the app proves itself to the tenant.
type AppOptions struct {
	Kind      string // Certificate, Federated or Secret; "" is Certificate
	Tenant    string // the External ID tenant's id
	ClientID  string // of the app registration
	Authority string // root of the token endpoint, https; "" is the global cloud's
	HTTP      *http.Client

	Secret   string                 // for Secret
	Vault    string                 // the Key Vault's URL, for Certificate
	Name     string                 // the certificate's name in it
	Identity azcore.TokenCredential // this program's own identity in Azure, for Certificate and Federated
}

// OpenApp makes the app's credential and does no I/O; a certificate is loaded with the first token. All errors in
// o are reported at once. The credential's own errors are *signup.Error and hold no secret and no assertion.
func OpenApp(o AppOptions) (azcore.TokenCredential, error) {
	if o.Kind == "" {
		o.Kind = Certificate
	}
	if o.Authority == "" {
		o.Authority = defaultAuthority
	}
	o.Authority = strings.TrimSuffix(o.Authority, "/")
	if err := o.check(); err != nil {
		return nil, err
	}
	options := clientOptions(o.HTTP)
	options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: o.Authority}
	custom := o.Authority != defaultAuthority // else MSAL would ask login.microsoftonline.com about it
	switch o.Kind {
	case Secret:
		inner, err := azidentity.NewClientSecretCredential(o.Tenant, o.ClientID, o.Secret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: custom})
		if err != nil {
			return nil, errors.New("the client secret credential cannot be made: check ENTRA_TENANT_ID and ENTRA_CLIENT_ID")
		}
		return &redacted{inner}, nil
	case Federated:
		inner, err := azidentity.NewClientAssertionCredential(o.Tenant, o.ClientID, assertion(o.Identity),
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: custom})
		if err != nil {
			return nil, errors.New("the federated credential cannot be made: check ENTRA_TENANT_ID and ENTRA_CLIENT_ID")
		}
		return &federated{inner}, nil
	default:
		return newCertificate(o, azidentity.ClientCertificateCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: custom,
		})
	}
}

func (o AppOptions) check() error {
	var errs []error
	require := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	require(o.Tenant != "", "ENTRA_TENANT_ID is not set")
	require(o.ClientID != "", "ENTRA_CLIENT_ID is not set")
	u, err := url.Parse(o.Authority)
	require(err == nil && u.Scheme == "https" && u.Host != "" && u.Path == "" && u.RawQuery == "" && u.User == nil,
		"ENTRA_AUTHORITY is not an https URL of a host without a path")
	switch o.Kind {
	case Secret:
		require(o.Secret != "", "ENTRA_CLIENT_SECRET is not set, which ENTRA_CREDENTIAL=secret needs")
	case Federated:
		require(o.Identity != nil, "there is no managed identity, which ENTRA_CREDENTIAL=federated needs")
	case Certificate:
		u, err := url.Parse(o.Vault)
		require(err == nil && u.Scheme == "https" && u.Host != "", "KEY_VAULT_URL is not an https URL")
		require(o.Name != "", "ENTRA_CERTIFICATE is not set: the certificate's name in the Key Vault")
		require(o.Identity != nil, "there is no Azure identity for the Key Vault")
	default:
		require(false, fmt.Sprintf("ENTRA_CREDENTIAL is %q, want certificate, federated or secret", o.Kind))
	}
	return errors.Join(errs...)
}

// clientOptions bound what the SDK's own pipeline does: its defaults keep a call to a dead endpoint for ten seconds, and
// a call that gets no answer for ever.
func clientOptions(hc *http.Client) azcore.ClientOptions {
	o := azcore.ClientOptions{Retry: policy.RetryOptions{
		MaxRetries: 2, RetryDelay: 300 * time.Millisecond, MaxRetryDelay: 2 * time.Second, TryTimeout: 5 * time.Second,
	}}
	if hc != nil {
		o.Transport = hc
	}
	return o
}

// OpenOwn is who this program is in Azure, for Storage and Key Vault: its managed identity (clientID "" is the
// system-assigned one), or the Azure CLI's login where managed is false.
func OpenOwn(managed bool, clientID string, hc *http.Client) (azcore.TokenCredential, error) {
	if !managed {
		c, err := azidentity.NewAzureCLICredential(nil)
		if err != nil {
			return nil, fmt.Errorf("make the Azure CLI credential: %w", err)
		}
		return c, nil
	}
	o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: clientOptions(hc)}
	if clientID != "" {
		o.ID = azidentity.ClientID(clientID)
	}
	c, err := azidentity.NewManagedIdentityCredential(o)
	if err != nil {
		return nil, fmt.Errorf("make the managed identity credential: %w", err)
	}
	return c, nil
}

// redacted turns a credential's errors into ours.
type redacted struct{ inner azcore.TokenCredential }

func (c *redacted) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.inner.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, tokenError(err)
	}
	return token, nil
}

// federated exchanges the identity's token for one of the tenant.
type federated struct{ inner azcore.TokenCredential }

// assertionFailed is the context key under which the assertion leaves its error: MSAL would keep only its text.
type assertionFailed struct{}

func (c *federated) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	var failed error
	token, err := c.inner.GetToken(context.WithValue(ctx, assertionFailed{}, &failed), o)
	if failed != nil && err != nil {
		return azcore.AccessToken{}, failed
	}
	if err != nil {
		return azcore.AccessToken{}, tokenError(err)
	}
	return token, nil
}

func assertion(identity azcore.TokenCredential) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		token, err := identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{exchange}})
		if err != nil {
			e := identityError(err)
			if failed, ok := ctx.Value(assertionFailed{}).(*error); ok {
				*failed = e
			}
			return "", e
		}
		return token.Token, nil
	}
}

// identityError is about this program's own identity, not about the app in the tenant. While an identity is being changed
// its endpoint may say for minutes that there is none (404, 410).
func identityError(err error) *signup.Error {
	e := &signup.Error{Class: signup.Transient, Code: "no-identity", Detail: "this program's Azure identity gives no token"}
	failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err)
	if !ok || failed.RawResponse == nil {
		return e
	}
	e.Status = failed.RawResponse.StatusCode
	class, _, refused := signup.StatusClass(e.Status)
	absent := e.Status == http.StatusNotFound || e.Status == http.StatusGone
	if refused && !absent && (class == signup.Permanent || class == signup.Systemic) {
		e.Class = signup.Systemic
		e.Detail = "the managed identity is refused: check AZURE_CLIENT_ID and that the identity is assigned to the app"
	}
	return e
}

// loopback reports that u leads to this machine, where simulators are.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
