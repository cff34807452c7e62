// Package identity is who the program is: the app's credential in the tenant (a certificate whose key is in Key Vault, a
// managed identity as a federated credential, or a secret for local tests), its own identity in Azure, and the operator's
// login where a person runs it.
//
// It is the only package that imports azidentity and the clients of Key Vault, and it knows nothing of Graph, so that its tests
// build in seconds. Inside the project it imports signup only.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
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

// exchange is the audience that a federated credential's assertion must have, by the cloud of the token endpoint (docs:
// Configure an app to trust a managed identity).
func exchange(authority string) string {
	switch hostOf(authority) {
	case "login.microsoftonline.us":
		return "api://AzureADTokenExchangeUSGov/.default"
	case "login.partner.microsoftonline.cn", "login.chinacloudapi.cn":
		return "api://AzureADTokenExchangeChina/.default"
	}
	return "api://AzureADTokenExchange/.default"
}

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
	Log      *slog.Logger           // for Certificate: what a person should know of its versions
	Identity azcore.TokenCredential // this program's own identity in Azure, for Certificate and Federated
}

// App is the app's credential in the tenant.
type App struct {
	*cached
	certificate *certificate // nil for another kind
}

var _ azcore.TokenCredential = (*App)(nil)

// OpenApp makes the app's credential and does no I/O; a certificate is loaded with the first token. All errors in
// o are reported at once. The credential keeps its tokens and renews them ahead; its errors are *signup.Error and hold no
// secret and no assertion.
func OpenApp(o AppOptions) (*App, error) {
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
	switch o.Kind {
	case Secret:
		inner, err := azidentity.NewClientSecretCredential(o.Tenant, o.ClientID, o.Secret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: o.client(), DisableInstanceDiscovery: true})
		if err != nil {
			return nil, errors.New("the client secret credential cannot be made: check ENTRA_TENANT_ID and ENTRA_CLIENT_ID")
		}
		return &App{cached: newCached(inner, tokenError)}, nil
	case Federated:
		inner, err := newAsserted(o, o.identityToken)
		if err != nil {
			return nil, errors.New("the federated credential cannot be made: check ENTRA_TENANT_ID and ENTRA_CLIENT_ID")
		}
		return &App{cached: newCached(inner, tokenError)}, nil
	default:
		inner, err := newCertificate(o)
		if err != nil {
			return nil, err
		}
		return &App{cached: newCached(inner, tokenError), certificate: inner}, nil
	}
}

// identityToken is the managed identity's token, which a federated credential takes as the assertion.
func (o AppOptions) identityToken(ctx context.Context) (string, error) {
	token, err := o.Identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{exchange(o.Authority)}})
	if err != nil {
		return "", identityError(err)
	}
	return token.Token, nil
}

// client are the options of a client of the token endpoint. Each such client has instance discovery off, by which the library
// would first ask login.microsoftonline.com whether the authority is one of Microsoft's: the operator has set it, and one more
// call for each version of a certificate, which can hang, would say nothing new.
func (o AppOptions) client() azcore.ClientOptions {
	options := clientOptions(o.HTTP)
	options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: o.Authority}
	return options
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
		require(err == nil && u.Scheme == "https" && u.Host != "" && strings.Trim(u.Path, "/") == "", "KEY_VAULT_URL is not an https URL of a host without a path")
		require(secretName.MatchString(o.Name), "ENTRA_CERTIFICATE is not a certificate's name in the Key Vault: letters, digits and hyphens")
		require(o.Identity != nil, "there is no Azure identity for the Key Vault")
		require(o.Log != nil, "the logger is missing")
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

// loopback reports that a host, with or without a port, is this machine by its very name; simulators are there.
func loopback(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
