package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

// OpenOwn is who this program is in Azure, for Storage, Key Vault and destinations: its managed identity (clientID "" is
// the system-assigned one), or the Azure CLI's login where managed is false. It does no I/O. The credential keeps its
// tokens and renews them ahead; its errors are *signup.Error with the codes no-identity, no-az and no-login.
func OpenOwn(managed bool, clientID string, hc *http.Client) (azcore.TokenCredential, error) {
	if !managed {
		return openCLI("")
	}
	o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: clientOptions(hc)}
	if clientID != "" {
		o.ID = azidentity.ClientID(clientID)
	}
	c, err := azidentity.NewManagedIdentityCredential(o)
	if err != nil {
		return nil, fmt.Errorf("make the managed identity credential: %w", err)
	}
	return newCached(c, identityError), nil
}

// Operator is the person at the keyboard, by the Azure CLI's login for a tenant: for the rare powerful permissions, which
// the app should not hold. Its errors are as those of OpenOwn, and say the command to log in by.
func Operator(tenant string) (azcore.TokenCredential, error) {
	return openCLI(tenant)
}

func openCLI(tenant string) (azcore.TokenCredential, error) {
	c, err := azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: tenant})
	if err != nil {
		return nil, fmt.Errorf("make the Azure CLI credential: %w", err)
	}
	return newCached(twice{c}, func(err error) *signup.Error { return cliError(tenant, err) }), nil
}

// twice is the Azure CLI's login, asked again where it fails: Microsoft's library gives up on an answer that comes a tenth of a
// second after the process has ended, as on a busy machine, and says nothing by which that could be told from no login.
type twice struct {
	cli *azidentity.AzureCLICredential
}

func (c twice) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.cli.GetToken(ctx, o)
	if err == nil || ctx.Err() != nil {
		return token, err
	}
	return c.cli.GetToken(ctx, o)
}

// identityError is about this program's own identity, not about the app in the tenant. While an identity is being changed
// its endpoint may say for minutes that there is none (404, 410).
func identityError(err error) *signup.Error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	e := &signup.Error{Class: signup.Transient, Code: "no-identity", Detail: "this program's Azure identity gives no token"}
	resp, _ := answerOf(err)
	if resp == nil {
		e.Err = noAnswer(err).Err
		return e
	}
	e.Status, e.RetryAfter = resp.StatusCode, retryAfterHeader(resp, time.Now())
	class, _, refused := signup.StatusClass(e.Status)
	absent := e.Status == http.StatusNotFound || e.Status == http.StatusGone
	switch {
	case class == signup.Throttled:
		e.Class = signup.Throttled
	case refused && !absent && (class == signup.Permanent || class == signup.Systemic):
		e.Class = signup.Systemic
		e.Detail = "the managed identity is refused: check AZURE_CLIENT_ID and that the identity is assigned to the Function App"
	}
	return e
}

// cliError says what the person has to run. The CLI knows no codes, and its text, which may name the person, is looked at
// for one thing alone: an AADSTS code means that there is a login which Entra does not accept any more.
func cliError(tenant string, err error) *signup.Error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	login := "az login"
	if tenant != "" {
		login += " --tenant " + tenant + " --allow-no-subscriptions"
	}
	e := &signup.Error{Class: signup.Systemic, Code: "no-login", Detail: "there is no login of the Azure CLI for this: run " + login}
	code := aadsts.FindString(err.Error())
	_, missing := exec.LookPath("az")
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Class, e.Detail, e.Err = signup.Transient, "the Azure CLI gave no token in time", noAnswer(err).Err
	case missing != nil:
		e.Code, e.Detail = "no-az", "the Azure CLI (az) is not found: install it, and run "+login
	case code != "":
		e.Detail = "the Azure CLI's login has expired or is not accepted (" + code + "): run " + login
	}
	return e
}
