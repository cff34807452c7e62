package sim

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// IdentityOptions describe the managed identity of a Function App.
type IdentityOptions struct {
	Clock     signup.Clock  // by which the tokens live; nil = the wall clock
	Tenant    string        // the id of the tenant of the subscription
	Header    string        // the value of IDENTITY_HEADER, which callers repeat
	ClientID  string        // of the identity; "" = one that is assigned by the system, and asked for without a name
	ObjectID  string        // of the identity: its principal id, the subject of its tokens
	TokenLife time.Duration // 0 = 24 hours, as in the field
	Resources []string      // what tokens can be had for; nil = those of the simulated Azure services
}

// Identity is the token endpoint that App Service and Functions put at IDENTITY_ENDPOINT (docs: How to use managed
// identities for App Service, REST endpoint reference, 2019-08-01), at any path.
type Identity struct {
	Faults Faults
	journal

	o IdentityOptions
}

// The resources of the simulated Azure services, without the slash that some of them end with.
const (
	resourceVault      = "https://vault.azure.net"
	resourceStorage    = "https://storage.azure.com"
	resourceServiceBus = "https://servicebus.azure.net"
	resourceEventGrid  = "https://eventgrid.azure.net"
)

// NewIdentity makes the endpoint.
func NewIdentity(o IdentityOptions) *Identity {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.TokenLife, 24*time.Hour)
	if o.Resources == nil {
		o.Resources = []string{resourceVault, resourceStorage, resourceServiceBus, resourceEventGrid, resourceExchange}
	}
	return &Identity{o: o}
}

// ServeHTTP answers GET ?api-version=2019-08-01&resource=…, with client_id for an identity that has one.
func (i *Identity) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := i.o.Clock.Now().UTC()
	note := &Call{At: now, Method: r.Method, Route: "/token", URL: r.URL.RequestURI(), Header: r.Header.Clone()}
	i.record(note, now, i.Faults.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.answer(w, r, now)
	})), w, r)
}

func (i *Identity) answer(w http.ResponseWriter, r *http.Request, now time.Time) {
	q := r.URL.Query()
	resource := q.Get("resource")
	switch {
	case i.o.Header == "" || r.Header.Get("X-Identity-Header") != i.o.Header:
		refuseIdentity(w, http.StatusUnauthorized, "Missing or invalid X-IDENTITY-HEADER.")
	case r.Method != http.MethodGet || q.Get("api-version") != "2019-08-01":
		refuseIdentity(w, http.StatusBadRequest, "The request's method or api-version is not supported.")
	case q.Get("client_id") != i.o.ClientID || q.Has("principal_id") || q.Has("object_id") || q.Has("mi_res_id"):
		refuseIdentity(w, http.StatusBadRequest, "No Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
	case !slices.Contains(i.o.Resources, strings.TrimSuffix(resource, "/")):
		refuseIdentity(w, http.StatusBadRequest, "AADSTS500011: The resource principal named "+resource+" was not found in the tenant.")
	default:
		c := Claims{Audience: resource, Issuer: "https://sts.windows.net/" + i.o.Tenant + "/", Tenant: i.o.Tenant, App: i.o.ClientID, Subject: i.o.ObjectID, Object: i.o.ObjectID,
			IssuedAt: now.Unix(), Expires: now.Add(i.o.TokenLife).Unix()}
		if resource == resourceExchange { // tokens for it are of version 2.0, and name it by its id
			c.Audience, c.Issuer = exchangeID, entraIssuer+i.o.Tenant+"/v2.0"
		}
		// Clients keep a token by the machine's time, whatever the simulated one is.
		writeJSONBody(w, http.StatusOK, map[string]string{"access_token": Token(c), "resource": resource, "token_type": "Bearer",
			"client_id": i.o.ClientID, "expires_on": strconv.FormatInt(time.Now().Add(i.o.TokenLife).Unix(), 10)})
	}
}

// identityFailures are the texts for what passes by itself. While an identity is being changed the endpoint says that there
// is none, and so does the one of a virtual machine while it is upgraded (docs: How to use managed identities on an Azure VM
// to acquire an access token, error handling); what App Service says then is not published.
var identityFailures = map[int]string{
	http.StatusNotFound:            "No Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
	http.StatusGone:                "The identity endpoint is being updated.",
	http.StatusTooManyRequests:     "Too many requests.",
	http.StatusInternalServerError: "An unexpected error occurred while fetching the token.",
}

// Fail answers so many calls (negative: all until Faults.Clear) with 404, 410, 429 or 500; wait is the Retry-After of a 429.
func (i *Identity) Fail(status, calls int, wait time.Duration) {
	if status != http.StatusTooManyRequests {
		wait = 0
	}
	i.Faults.Add(Fault{Times: calls, Status: status, Header: throttleHeader(wait), Body: string(mustJSON(identityError(status, identityFailures[status])))})
}

func refuseIdentity(w http.ResponseWriter, status int, message string) {
	writeJSONBody(w, status, identityError(status, message))
}

func identityError(status int, message string) map[string]any {
	return map[string]any{"statusCode": status, "message": message, "correlationId": "00000000-0000-4000-8000-00000000c0de"}
}

// admits reports that a call carries a token for this resource. A service takes its name with the slash and without.
func admits(r *http.Request, resource string, now time.Time) bool {
	claims, err := readToken(r.Header.Get("Authorization"), now)
	return err == nil && strings.TrimSuffix(claims.Audience, "/") == strings.TrimSuffix(resource, "/")
}
