package sim

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// EntraOptions describe the token endpoint.
type EntraOptions struct {
	Clock     signup.Clock  // of the tokens; nil = the wall clock
	Assertion signup.Clock  // by which assertions are judged, which clients date by the machine's time; nil = the wall clock
	Tenant    string        // the tenant's id
	Domain    string        // another name for it; may be ""
	Apps      []App         // that are registered
	TokenLife time.Duration // 0 = 3,599 s; credentials in the field never keep a token of 300 s or less
	Seed      uint64
}

// App is an app registration that the tenant knows.
type App struct {
	ID            string              // the client id
	Secret        string              // "" = none
	SecretExpires time.Time           // zero = never
	Certificates  []*x509.Certificate // public parts, RSA
	Revoked       []*x509.Certificate // those of them that their authority has revoked
	Federated     []FederatedCredential
	Home          string   // the tenant where it is registered; "" = this one
	Disabled      bool     // nobody may sign in to it
	Public        bool     // it logs people in without a secret: "Allow public client flows"
	Roles         []string // the granted application permissions on Graph, such as User.Read.All; none = consent was never given, or is withdrawn
}

// Entra is the tenant's token endpoint: for app-only access, client credentials with a secret or a signed assertion; for a
// person's, device codes, authorization codes and refresh tokens.
type Entra struct {
	Faults Faults
	journal

	o    EntraOptions
	mu   sync.Mutex
	apps map[string]App
	ids  *rand.Rand

	login Login                  // who enters device codes
	codes map[string]*deviceCode // that nobody has entered yet
}

// NewEntra makes a token endpoint.
func NewEntra(o EntraOptions) *Entra {
	e := &Entra{o: o, apps: map[string]App{}, codes: map[string]*deviceCode{}, ids: rand.New(rand.NewPCG(o.Seed, 5))}
	if o.Clock == nil {
		e.o.Clock = signup.ScaledClock{}
	}
	if o.Assertion == nil {
		e.o.Assertion = signup.ScaledClock{}
	}
	setDefault(&e.o.TokenLife, 3599*time.Second)
	e.Faults.Seed(o.Seed)
	for _, a := range o.Apps {
		e.apps[strings.ToLower(a.ID)] = a
	}
	return e
}

// SetApp registers an app, or changes its registration: a certificate is rotated, a permission is withdrawn.
func (e *Entra) SetApp(a App) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.apps[strings.ToLower(a.ID)] = a
}

// RemoveApp takes the app's service principal out of the tenant.
func (e *Entra) RemoveApp(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.apps, strings.ToLower(id))
}

// Throttle refuses so many token requests (negative: all until Faults.Clear) as those of a throttled tenant; 0 leaves the
// Retry-After out.
func (e *Entra) Throttle(calls int, wait time.Duration) {
	body := mustJSON(e.errorBody(e.o.Clock.Now().UTC(), &aadsts{429, "temporarily_unavailable", 90055, "There are too many incoming requests. Please try again later."}))
	e.Faults.Add(Fault{Path: "/oauth2/v2.0/token", Times: calls, Status: http.StatusTooManyRequests, Header: throttleHeader(wait), Body: string(body)})
}

// resources are what tokens can be had for; only Graph's have roles.
var resources = []string{"https://graph.microsoft.com", "https://vault.azure.net", "https://storage.azure.com"}

// ServeHTTP answers /{tenant}/oauth2/v2.0/token, …/devicecode, …/authorize and /{tenant}/v2.0/.well-known/openid-configuration.
func (e *Entra) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := readBody(r)
	now := e.o.Clock.Now().UTC()
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	note := &Call{At: now, Method: r.Method, Route: "/{tenant}/" + rest, URL: r.URL.RequestURI(), Header: r.Header.Clone(), Body: slices.Clone(body)}
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case rest == "oauth2/v2.0/token" && r.Method == http.MethodPost:
			e.token(w, r, tenant, string(body), now)
		case rest == "oauth2/v2.0/devicecode" && r.Method == http.MethodPost:
			e.deviceCode(w, tenant, string(body), now)
		case rest == "oauth2/v2.0/authorize" && r.Method == http.MethodGet:
			e.authorize(w, r.URL.Query(), tenant, now)
		case rest == "v2.0/.well-known/openid-configuration" && r.Method == http.MethodGet:
			e.configuration(w, r, tenant, now)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	e.record(note, now, e.Faults.Wrap(next), w, r)
}

func (e *Entra) knows(tenant string) bool {
	return strings.EqualFold(tenant, e.o.Tenant) || e.o.Domain != "" && strings.EqualFold(tenant, e.o.Domain)
}

// configuration is the part of OpenID Connect Discovery 1.0 that clients of client credentials look at.
func (e *Entra) configuration(w http.ResponseWriter, r *http.Request, tenant string, now time.Time) {
	if !e.knows(tenant) {
		e.refuse(w, now, unknownTenant(tenant))
		return
	}
	root := authority(r, tenant)
	writeJSONBody(w, http.StatusOK, map[string]any{
		"token_endpoint":                        root + "/oauth2/v2.0/token",
		"authorization_endpoint":                root + "/oauth2/v2.0/authorize",
		"jwks_uri":                              root + "/discovery/v2.0/keys",
		"issuer":                                root + "/v2.0",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
	})
}

// authority is the address that the client called, with the tenant.
func authority(r *http.Request, tenant string) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + "/" + tenant
}

// aadsts is an error of the token endpoint (docs: Microsoft Entra authentication and authorization error codes).
type aadsts struct {
	status int
	kind   string // of RFC 6749
	code   int
	text   string
}

func unknownTenant(tenant string) *aadsts {
	return &aadsts{400, "invalid_request", 90002, "Tenant '" + tenant + "' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."}
}

func unknownClient(id, tenant string) *aadsts {
	return &aadsts{400, "unauthorized_client", 700016, "Application with identifier '" + id + "' was not found in the directory '" + tenant + "'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant."}
}

// token answers the client credentials grant (RFC 6749, 4.4; docs: OAuth 2.0 client credentials flow).
func (e *Entra) token(w http.ResponseWriter, r *http.Request, tenant, body string, now time.Time) {
	form, err := url.ParseQuery(body)
	if err != nil {
		e.refuse(w, now, &aadsts{400, "invalid_request", 900144, "The request body must be form-encoded."})
		return
	}
	if grant := form.Get("grant_type"); slices.Contains(deviceGrants, grant) || grant == "authorization_code" || grant == "refresh_token" {
		e.personToken(w, form, tenant, now)
		return
	}
	e.mu.Lock()
	app, known := e.apps[strings.ToLower(form.Get("client_id"))]
	e.mu.Unlock()
	var bad *aadsts
	switch {
	case !e.knows(tenant):
		bad = unknownTenant(tenant)
	case form.Get("grant_type") != "client_credentials":
		bad = &aadsts{400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '" + form.Get("grant_type") + "'."}
	case !known:
		bad = unknownClient(form.Get("client_id"), tenant)
	case app.Disabled:
		bad = &aadsts{400, "unauthorized_client", 7000112, "Application '" + app.ID + "'(signup-sync) is disabled."}
	default:
		bad = e.authenticate(app, form, authority(r, tenant))
	}
	resource := ""
	if bad == nil {
		resource, bad = resourceOf(form.Get("scope"))
	}
	if bad != nil {
		e.refuse(w, now, bad)
		return
	}
	c := Claims{Audience: resource, Issuer: "https://sts.windows.net/" + e.o.Tenant + "/", Tenant: e.o.Tenant, App: app.ID, Subject: app.ID,
		IssuedAt: now.Unix(), Expires: now.Add(e.o.TokenLife).Unix()}
	if resource == resources[0] {
		c.Roles = app.Roles
	}
	life := int(e.o.TokenLife / time.Second)
	w.Header().Set("Cache-Control", "no-store, no-cache")
	writeJSONBody(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": Token(c)})
}

// authenticate checks the app's secret or assertion.
func (e *Entra) authenticate(app App, form url.Values, root string) *aadsts {
	switch {
	case form.Get("client_assertion") != "":
		if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			return &aadsts{400, "invalid_request", 50012, "Authentication failed: the client assertion type is not supported."}
		}
		return e.checkAssertion(app, form.Get("client_assertion"), root)
	case form.Get("client_secret") == "":
		return &aadsts{401, "invalid_client", 7000216, "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."}
	case app.Secret == "" || form.Get("client_secret") != app.Secret:
		return &aadsts{401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '" + app.ID + "'."}
	case !app.SecretExpires.IsZero() && !e.o.Clock.Now().Before(app.SecretExpires):
		return &aadsts{401, "invalid_client", 7000222, "The provided client secret keys for app '" + app.ID + "' are expired."}
	}
	return nil
}

// resourceOf is the resource that a scope names; scopes of OpenID Connect beside it are ignored.
func resourceOf(scope string) (string, *aadsts) {
	var wanted []string
	for s := range strings.FieldsSeq(scope) {
		if s != "openid" && s != "offline_access" && s != "profile" {
			wanted = append(wanted, s)
		}
	}
	if len(wanted) != 1 || !strings.HasSuffix(wanted[0], "/.default") {
		return "", &aadsts{400, "invalid_scope", 1002012, "The provided value for scope " + scope + " is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."}
	}
	resource := strings.TrimSuffix(strings.TrimSuffix(wanted[0], "/.default"), "/")
	if !slices.Contains(resources, resource) {
		return "", &aadsts{400, "invalid_resource", 500011, "The resource principal named " + resource + " was not found in the tenant."}
	}
	return resource, nil
}

func (e *Entra) refuse(w http.ResponseWriter, now time.Time, a *aadsts) {
	if a.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer error="`+a.kind+`"`)
	}
	writeJSONBody(w, a.status, e.errorBody(now, a))
}

// errorBody has the form of the published sample.
func (e *Entra) errorBody(now time.Time, a *aadsts) map[string]any {
	e.mu.Lock()
	trace, correlation := guid(e.ids), guid(e.ids)
	e.mu.Unlock()
	stamp := now.Format("2006-01-02 15:04:05Z")
	return map[string]any{
		"error":             a.kind,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", a.code, a.text, trace, correlation, stamp),
		"error_codes":       []int{a.code}, "timestamp": stamp, "trace_id": trace, "correlation_id": correlation,
		"error_uri": "https://login.microsoftonline.com/error?code=" + strconv.Itoa(a.code),
	}
}

func writeJSONBody(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(mustJSON(body))
}
