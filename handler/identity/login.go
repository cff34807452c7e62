package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

// GraphTools is the client id of "Microsoft Graph Command Line Tools", the public client of Connect-MgGraph, which every
// tenant knows and to which an administrator can give any delegated permission of Graph. The Azure CLI's own client has a
// fixed set of them, without those that change policies or invite (AADSTS65002, azure-cli#33062).
const GraphTools = "14d82eec-204b-4c2f-b7e8-296a70dab67e"

// LoginOptions say whom an administrator logs in to, for what.
type LoginOptions struct {
	Tenant    string   // its id
	ClientID  string   // of a public client; "" is GraphTools
	Authority string   // root of the token endpoint, https; "" is the global cloud's
	Graph     string   // root of Microsoft Graph in that cloud, to which the scopes belong
	Scopes    []string // delegated permissions of Graph, such as User.Invite.All
	Browser   bool     // by a browser on this machine, where a tenant does not allow device codes
	HTTP      *http.Client
	Show      func(text string) // tells the person where to enter which code
}

// Login is an administrator who has logged in. It asks nobody anything: when the login has ended its errors have the code
// no-login.
type Login struct {
	*cached
}

var _ azcore.TokenCredential = (*Login)(nil)

// loginTime is how long a person has, as with a device code.
const loginTime = 15 * time.Minute

// LogIn lets an administrator log in, by a device code that is entered in any browser, or by a browser on this machine.
// The credential knows those scopes alone, whatever it is asked for. Nothing is kept on disk.
// Errors are *signup.Error with the code no-login, or those of a token endpoint.
func LogIn(ctx context.Context, o LoginOptions) (*Login, error) {
	if o.ClientID == "" {
		o.ClientID = GraphTools
	}
	if o.Authority == "" {
		o.Authority = defaultAuthority
	}
	wanted := policy.TokenRequestOptions{}
	for _, s := range o.Scopes {
		wanted.Scopes = append(wanted.Scopes, strings.TrimSuffix(o.Graph, "/")+"/"+s)
	}
	heard := &hearing{inner: http.DefaultClient}
	if o.HTTP != nil {
		heard.inner = o.HTTP
	}
	inner, err := o.open(heard)
	if err != nil {
		return nil, errors.New("the login cannot be made: check the tenant and the client id")
	}
	patient, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	if _, err := inner.Authenticate(patient, &wanted); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, heard.explain(err)
	}
	return &Login{newCached(silent{inner, wanted.Scopes}, heard.explain)}, nil
}

// hearing keeps the latest refusal of the token endpoint: the library reads it to know whether to go on, and hands on
// nothing of it.
type hearing struct {
	inner policy.Transporter

	mu   sync.Mutex
	lost bool    // the latest call got no answer, or one that says nothing of the login
	last refusal // the latest answer, if it refuses something
}

func (h *hearing) Do(r *http.Request) (*http.Response, error) {
	resp, err := h.inner.Do(r)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost, h.last = err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, refusal{}
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	_ = json.Unmarshal(body, &h.last) // an answer in another form says nothing
	return resp, err
}

// interactive is a credential that a person gives.
type interactive interface {
	azcore.TokenCredential
	Authenticate(context.Context, *policy.TokenRequestOptions) (azidentity.AuthenticationRecord, error)
}

// open has instance discovery off, as AppOptions.client says.
func (o LoginOptions) open(heard *hearing) (interactive, error) {
	client := clientOptions(nil)
	client.Transport = heard
	client.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: strings.TrimSuffix(o.Authority, "/")}
	if o.Browser {
		return azidentity.NewInteractiveBrowserCredential(&azidentity.InteractiveBrowserCredentialOptions{ClientOptions: client, TenantID: o.Tenant, ClientID: o.ClientID,
			DisableInstanceDiscovery: true, DisableAutomaticAuthentication: true})
	}
	return azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{ClientOptions: client, TenantID: o.Tenant, ClientID: o.ClientID,
		DisableInstanceDiscovery: true, DisableAutomaticAuthentication: true,
		UserPrompt: func(_ context.Context, m azidentity.DeviceCodeMessage) error {
			o.Show(m.Message)
			return nil
		}})
}

// silent asks for the login's own scopes, and never for the person.
type silent struct {
	inner  azcore.TokenCredential
	scopes []string
}

func (s silent) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return s.inner.GetToken(ctx, policy.TokenRequestOptions{Scopes: s.scopes, Claims: o.Claims})
}

// explain says what the person can do.
func (h *hearing) explain(err error) *signup.Error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := &signup.Error{Class: signup.Systemic, Code: "no-login"}
	_, ended := errors.AsType[*azidentity.AuthenticationRequiredError](err)
	code := h.last.code()
	i := slices.IndexFunc(loginAdvices, func(a advice) bool { return slices.Contains(a.codes, code) })
	switch {
	case h.lost:
		return noAnswer(err)
	case ended:
		e.Detail = "the login has ended: run the command again, and log in once more"
	case h.last.Kind == "authorization_declined", h.last.Kind == "access_denied":
		e.Detail = "the login was declined, or gives no such permissions: an administrator has to log in, and accept"
	case h.last.Kind == "expired_token", h.last.Kind == "authorization_pending", h.last.Kind == "slow_down":
		e.Detail = "nobody has logged in with the code in time: run the command again"
	case h.last.Kind == "bad_verification_code":
		e.Detail = "the code is not known any more: run the command again"
	case i >= 0:
		e.Code, e.Detail = fmt.Sprintf("aadsts%d", code), loginAdvices[i].text
	case code != 0:
		e.Code, e.Detail = fmt.Sprintf("aadsts%d", code), fmt.Sprintf("look the code up at https://login.microsoftonline.com/error?code=%d", code)
	default:
		e.Detail = "the login did not come to an end: run the command again"
	}
	return e
}

// loginAdvices are for the person who logs in, where those for the app would mislead.
var loginAdvices = []advice{
	{codes: []int{90002, 900023}, text: "there is no such tenant: check ENTRA_TENANT_ID"},
	{codes: []int{700016, 70001}, text: "the client id is not known in the tenant: check --client-id"},
	{codes: []int{7000218}, text: "the client wants a secret: allow public client flows on its app registration, under Authentication"},
	{codes: []int{65001, 90094}, text: "nobody has given the client these permissions: an administrator has to log in, and accept"},
	{codes: []int{65002}, text: "Microsoft does not let this client have these permissions: leave --client-id out, or name an app registration of your own"},
	{codes: []int{53003, 530035}, text: "Conditional Access blocks this login: where it blocks device codes, use --browser"},
}
