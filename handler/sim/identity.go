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
		o.Resources = []string{resourceVault, resourceStorage, resourceServiceBus, resourceEventGrid}
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
		refuseIdentity(w, http.StatusBadRequest, "Unable to load the proper Managed Identity.")
	case !slices.Contains(i.o.Resources, strings.TrimSuffix(resource, "/")):
		refuseIdentity(w, http.StatusBadRequest, "AADSTS500011: The resource principal named "+resource+" was not found in the tenant.")
	default:
		c := Claims{Audience: resource, Issuer: "https://sts.windows.net/" + i.o.Tenant + "/", Tenant: i.o.Tenant, App: i.o.ClientID,
			IssuedAt: now.Unix(), Expires: now.Add(i.o.TokenLife).Unix()}
		// Clients keep a token by the machine's time, whatever the simulated one is.
		writeJSONBody(w, http.StatusOK, map[string]string{"access_token": Token(c), "resource": resource, "token_type": "Bearer",
			"client_id": i.o.ClientID, "expires_on": strconv.FormatInt(time.Now().Add(i.o.TokenLife).Unix(), 10)})
	}
}

func refuseIdentity(w http.ResponseWriter, status int, message string) {
	writeJSONBody(w, status, map[string]any{"statusCode": status, "message": message, "correlationId": "00000000-0000-4000-8000-00000000c0de"})
}

// admits reports that a call carries a token for this resource. A service takes its name with the slash and without.
func admits(r *http.Request, resource string, now time.Time) bool {
	claims, err := readToken(r.Header.Get("Authorization"), now)
	return err == nil && strings.TrimSuffix(claims.Audience, "/") == strings.TrimSuffix(resource, "/")
}
