package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

// advice is what a code of Microsoft Entra's token endpoint means for the work, and what to do about it (docs: Microsoft
// Entra authentication and authorization error codes). What is not in the table is for a person to look up.
type advice struct {
	codes []int
	class signup.Class
	wait  time.Duration
	text  string
}

var advices = []advice{
	{[]int{700016, 70001, 700011, 7000229}, signup.Systemic, 0,
		"the client id is not known in this tenant: check ENTRA_CLIENT_ID and ENTRA_TENANT_ID; the app must be registered in the External ID tenant, or have admin consent there"},
	{[]int{90002, 900023}, signup.Systemic, 0,
		"there is no such tenant: set ENTRA_TENANT_ID to the id on the overview page of the External ID tenant"},
	{[]int{7000215}, signup.Systemic, 0, "the client secret is wrong: set ENTRA_CLIENT_SECRET to the secret's value, not its id"},
	{[]int{7000222}, signup.Systemic, 0, "the client secret has expired: make a new one on the app registration, and set ENTRA_CLIENT_SECRET"},
	{[]int{700027}, signup.Systemic, 0, "the certificate is not registered on the app, or has expired: upload its public part to the app registration"},
	{[]int{7000214}, signup.Systemic, 0, "the certificate was revoked: make a new version and upload its public part to the app registration"},
	{[]int{700030}, signup.Systemic, 0, "the certificate's subject is not authorised on the app: upload the certificate's public part itself to the app registration"},
	{[]int{700024, 500133}, signup.Systemic, 0, "the assertion is outside of its time range: set this machine's clock"},
	{[]int{50012, 50013, 50027}, signup.Systemic, 0, "the assertion or its signature is not valid for the app: check that ENTRA_CLIENT_ID is the app whose certificate this is"},
	{[]int{700021, 700023, 5002723, 5002738}, signup.Systemic, 0, "the assertion is not for this app and token endpoint: check ENTRA_CLIENT_ID, ENTRA_TENANT_ID and ENTRA_AUTHORITY"},
	{[]int{50194}, signup.Systemic, 0, "the app is for another tenant alone: make its registration multi-tenant, or register one in the External ID tenant"},
	{[]int{500011}, signup.Systemic, 0, "Microsoft Graph is not known in the tenant: check GRAPH_URL and ENTRA_TENANT_ID"},
	{[]int{500014}, signup.Systemic, 0, "Microsoft Graph is disabled in the tenant: enable it under Enterprise applications, or see to the tenant's subscription"},
	{[]int{7000112}, signup.Systemic, 0, "the app is disabled in the tenant: enable it under Enterprise applications"},
	{[]int{65001, 650056, 650057, 90094}, signup.Systemic, 0, "admin consent is missing: grant it under API permissions of the app registration"},
	{[]int{53003, 530035}, signup.Systemic, 0, "Conditional Access or security defaults block the app: exclude it from the policy for workload identities"},
	{[]int{70025}, signup.Systemic, 0, "the app has no federated credential: add one for the managed identity to its registration"},
	{[]int{700211}, signup.Systemic, 0,
		"the app has no federated credential with the identity's issuer: set it to https://login.microsoftonline.com/TENANT/v2.0 with the id of the identity's tenant"},
	{[]int{700212}, signup.Systemic, 0, "the federated credential has another audience: set it to api://AzureADTokenExchange, which has names of its own in national clouds"},
	{[]int{700213, 7002138}, signup.Systemic, 0, "the federated credential has another subject: set it to the object id (principal id) of the managed identity, letter for letter"},
	{[]int{700236}, signup.Systemic, 0,
		"an app of an external tenant cannot trust another tenant's identity: register it, multi-tenant, in the identity's own tenant, or use a certificate"},
	{[]int{70011, 1002012}, signup.Systemic, 0, "the scope is not one of Microsoft Graph: check GRAPH_URL"},
	{[]int{90038, 900382, 900432}, signup.Systemic, 0, "the tenant is in another cloud: set ENTRA_AUTHORITY and GRAPH_URL to that cloud's"},
	{[]int{90033, 90090, 90024, 90006}, signup.Transient, 0, "the token endpoint is unavailable for now: nothing, unless it stays"},
	{[]int{50196}, signup.Transient, 5 * time.Minute, "the token endpoint sees a loop of requests: look for other programs with the same app"},
	{[]int{90055}, signup.Throttled, time.Minute, "the tenant's tokens are throttled: look for other programs with the same app"},
}

// errRefused is the cause of an error by which Entra refuses this very secret or assertion, so that another may do.
var errRefused = errors.New("the token endpoint refuses the client's credential")

// notOfTheCredential are the codes of invalid_client that another credential of the app would meet as well.
var notOfTheCredential = []int{700024, 500133, 700021, 700023, 7000112}

// refusal is the answer of the token endpoint to a request that it does not grant (RFC 6749, 5.2, and Entra's own fields).
type refusal struct {
	Kind  string `json:"error"`
	Codes []int  `json:"error_codes"`
	Text  string `json:"error_description"`
}

var aadsts = regexp.MustCompile(`AADSTS(\d{4,9})`)

// code is the first AADSTS code of the answer; 0 if it has none.
func (r refusal) code() int {
	if len(r.Codes) > 0 {
		return r.Codes[0]
	}
	if m := aadsts.FindStringSubmatch(r.Text); m != nil {
		code, _ := strconv.Atoi(m[1])
		return code
	}
	return 0
}

// answerOf is what the endpoint has answered, if there was an answer.
func answerOf(err error) (resp *http.Response, r refusal) {
	failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err)
	if !ok || failed.RawResponse == nil {
		return nil, refusal{}
	}
	if body, err := runtime.Payload(failed.RawResponse); err == nil {
		_ = json.Unmarshal(body, &r) // an answer in another form says nothing
	}
	return failed.RawResponse, r
}

// tokenError classifies what a token credential returned. Its text is not kept: it may quote the request.
func tokenError(err error) *signup.Error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	resp, refused := answerOf(err)
	if resp == nil {
		return noAnswer(err)
	}
	e := &signup.Error{Class: signup.Transient, Code: "no-token", Status: resp.StatusCode, RetryAfter: retryAfterHeader(resp, time.Now())}
	code := refused.code()
	if refused.Kind == "invalid_client" && !slices.Contains(notOfTheCredential, code) {
		e.Err = errRefused
	}
	class, _, bad := signup.StatusClass(resp.StatusCode)
	final := class == signup.Permanent || class == signup.Systemic
	switch {
	case code != 0:
		e.Class, e.Code, e.Detail = class, fmt.Sprintf("aadsts%d", code), fmt.Sprintf("look the code up at https://login.microsoftonline.com/error?code=%d", code)
		if final {
			e.Class = signup.Systemic
		}
		if i := slices.IndexFunc(advices, func(a advice) bool { return slices.Contains(a.codes, code) }); i >= 0 {
			e.Class, e.Detail, e.RetryAfter = advices[i].class, advices[i].text, max(e.RetryAfter, advices[i].wait)
		}
	case !bad:
		e.Detail = "the token endpoint's answer is not a token"
	case final:
		e.Class, e.Detail = signup.Systemic, "the token endpoint refuses the app"
	default:
		e.Class, e.Detail = class, "the token endpoint answers with an error"
	}
	return e
}

// noAnswer is for a token endpoint that has not been heard.
func noAnswer(err error) *signup.Error {
	e := &signup.Error{Class: signup.Transient, Code: "no-token", Detail: "the token endpoint cannot be reached"}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			e.Detail, e.Err = "the token did not come in time", ended
		}
	}
	return e
}

// retryAfterHeader is how long an answer asks to wait (RFC 9110, 10.2.3: seconds, or a date); 0 if it does not say.
func retryAfterHeader(resp *http.Response, now time.Time) time.Duration {
	v := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// retryAfter is how long an error of ours says to wait; 0 if it does not.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e.RetryAfter
	}
	return 0
}
