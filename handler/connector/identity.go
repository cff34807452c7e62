package connector

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

// The scopes of Azure's services. The double slash belongs there: the resource's own name ends with one.
const (
	scopeStorage    = "https://storage.azure.com/.default"
	scopeServiceBus = "https://servicebus.azure.net//.default"
	scopeEventGrid  = "https://eventgrid.azure.net/.default"
	scopeDatabases  = "https://ossrdbms-aad.database.windows.net/.default" // PostgreSQL and MySQL
)

// tokenTimeout bounds a call to the credential, which knows no limit of its own.
const tokenTimeout = 20 * time.Second

// identity is the app's own identity at one of Azure's services.
type identity struct {
	credential azcore.TokenCredential // nil = the app has none
	scope      string
}

// bearer is the value of an Authorization header. The token is never asked for another scope than the service's, whatever
// the service says in a challenge.
func (i identity) bearer(ctx context.Context) (string, error) {
	token, err := i.token(ctx)
	if err != nil {
		return "", err
	}
	return "Bearer " + token, nil
}

// token is the token itself, which Azure's databases take as a password.
func (i identity) token(ctx context.Context) (string, error) {
	if i.credential == nil {
		return "", noToken(signup.Systemic, "the app has no Azure identity: give the Function App a managed identity, or sign in with the Azure CLI")
	}
	try, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	token, err := i.credential.GetToken(try, policy.TokenRequestOptions{Scopes: []string{i.scope}})
	if err != nil {
		return "", tokenError(ctx, err)
	}
	return token.Token, nil
}

func noToken(class signup.Class, detail string) *signup.Error {
	return &signup.Error{Class: class, Code: "no-token", Detail: detail}
}

// tokenError says whose fault it is that there is no token. The text of the cause is not kept: it repeats what the
// endpoint said.
func tokenError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return cancelled("get a token", ctx.Err())
	}
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	var (
		failed *azidentity.AuthenticationFailedError
		final  interface{ NonRetriable() } // of azcore: for a credential that is not there at all, it has no better name
	)
	switch {
	case errors.As(err, &failed):
		return tokenRefused(failed.RawResponse)
	case errors.As(err, &final):
		return noToken(signup.Systemic, "the app's Azure identity cannot be used here: give the Function App a managed identity, or sign in with the Azure CLI")
	}
	return noToken(signup.Transient, "the app's Azure identity gives no token")
}

// tokenRefused judges the answer of a token endpoint; nil if there was none. While an identity is being changed its
// endpoint may say for minutes that there is none (404, 410). The outcome does not have the status, which is not the
// destination's: a 403 or 404 of that would be about the user.
func tokenRefused(resp *http.Response) error {
	e := noToken(signup.Transient, "the app's Azure identity gives no token")
	if resp == nil {
		return e
	}
	class, _, refused := signup.StatusClass(resp.StatusCode)
	absent := resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone
	if refused && !absent && (class == signup.Permanent || class == signup.Systemic) {
		e.Class = signup.Systemic
		e.Detail = "the app's Azure identity is refused: check AZURE_CLIENT_ID and that the identity is assigned to the Function App"
	}
	e.Detail += " (HTTP " + strconv.Itoa(resp.StatusCode) + ")"
	return e
}
