package identity

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

var aadsts = regexp.MustCompile(`AADSTS(\d{4,9})`)

// hint says what to do about a code of Microsoft Entra's token endpoint (reference-error-codes).
func hint(code int) string {
	switch code {
	case 700016, 70001, 700011:
		return "the client id is not known in this tenant: wrong tenant or client id, or the app has no consent here"
	case 90002, 900023:
		return "there is no such tenant: check ENTRA_TENANT_ID"
	case 7000215:
		return "the client secret is wrong; take the secret's value, not its id"
	case 7000222:
		return "the client secret has expired: make a new one"
	case 700027:
		return "the certificate is not registered on the app, or has expired: upload its public part to the app registration"
	case 7000214:
		return "the certificate was revoked: register a new one"
	case 700030:
		return "the certificate's subject is not authorised on the app"
	case 700024, 500133:
		return "the assertion is outside of its time range: check this machine's clock"
	case 50012, 50013:
		return "the assertion's signature is not valid for the app"
	case 50194:
		return "the app is not multi-tenant"
	case 500011, 500014, 7000112:
		return "the app or Microsoft Graph is missing or disabled in the tenant"
	case 65001, 650056, 650057, 90094:
		return "admin consent is missing"
	case 53003, 530035:
		return "Conditional Access or security defaults block the app"
	case 700211, 700212, 700213:
		return "the federated credential's issuer, audience or subject does not match the managed identity"
	case 700236:
		return "an app registered in an external tenant cannot use this federated credential: use a certificate"
	case 70011, 1002012:
		return "the scope must be Graph's /.default: check GRAPH_URL"
	case 50196:
		return "the endpoint sees a loop of requests: wait"
	case 90055:
		return "the tenant's sign-ins are throttled"
	case 90038, 900382, 900432:
		return "the tenant is in another cloud: check ENTRA_AUTHORITY and GRAPH_URL"
	}
	return "see the code in Microsoft's list of error codes"
}

// tokenError classifies what a token credential returned. Its text is not kept: it may quote the request.
func tokenError(err error) *signup.Error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	status := 0
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && failed.RawResponse != nil {
		status = failed.RawResponse.StatusCode
	}
	if m := aadsts.FindStringSubmatch(err.Error()); m != nil {
		code, _ := strconv.Atoi(m[1])
		e := &signup.Error{Class: signup.Systemic, Code: "aadsts" + m[1], Status: status, Detail: hint(code)}
		switch code {
		case 90033, 90090, 90024, 90006:
			e.Class, e.Detail = signup.Transient, "Entra's token endpoint is unavailable for now"
		case 50196:
			e.Class, e.RetryAfter = signup.Transient, 5*time.Minute
		case 90055:
			e.Class, e.RetryAfter = signup.Throttled, time.Minute
		}
		return e
	}
	e := &signup.Error{Class: signup.Transient, Code: "no-token", Status: status}
	class, _, refused := signup.StatusClass(status)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Detail = "the token did not come in time"
	case status == 0:
		e.Detail = "the token endpoint cannot be reached"
	case !refused:
		e.Detail = "the token endpoint's answer is not a token"
	case class == signup.Permanent:
		e.Class, e.Detail = signup.Systemic, "the token endpoint refuses the app"
	default:
		e.Class, e.Detail = class, "the token endpoint answers with an error"
	}
	return e
}
