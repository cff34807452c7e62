package connector

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/signup"
)

// The scopes of Azure's services. The double slash belongs there: the resource's own name ends with one.
const (
	scopeStorage    = "https://storage.azure.com/.default"
	scopeServiceBus = "https://servicebus.azure.net//.default"
	scopeEventGrid  = "https://eventgrid.azure.net/.default"
	scopeDatabases  = "https://ossrdbms-aad.database.windows.net/.default" // PostgreSQL and MySQL
)

// tokenTimeout bounds a call to the credential, which may wait for a renewal that takes longer.
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

// tokenError is the outcome of a call for which there is no token: what the credential says about it, without the status,
// which is not the destination's: a 403 or 404 of that would be about the user. Of a credential that says nothing we know,
// the text is not kept, since it repeats what the endpoint said.
func tokenError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return cancelled("get a token", ctx.Err())
	}
	known, ok := errors.AsType[*signup.Error](err)
	if !ok {
		return noToken(signup.Transient, "the app's Azure identity gives no token")
	}
	e := noToken(known.Class, known.Detail)
	e.RetryAfter = known.RetryAfter
	if known.Status != 0 {
		e.Detail += " (HTTP " + strconv.Itoa(known.Status) + ")"
	}
	return e
}
