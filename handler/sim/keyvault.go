package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// KeyVaultOptions describe a vault.
type KeyVaultOptions struct {
	Clock  signup.Clock            // nil = the wall clock
	Tenant string                  // the id of the tenant whose tokens it takes
	Grants map[string][]DataAction // what the client ids may do; nil = everybody everything
	Seed   uint64
}

// DataAction is an operation that Azure's role-based access control allows (docs: Azure built-in roles, data actions).
type DataAction string

// The data actions that matter here. Key Vault Secrets User has the first two, Key Vault Certificate User the first three,
// Key Vault Crypto User the last.
const (
	GetSecret       DataAction = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	ListSecrets     DataAction = "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
	ReadCertificate DataAction = "Microsoft.KeyVault/vaults/certificates/read"
	SignWithKey     DataAction = "Microsoft.KeyVault/vaults/keys/sign/action"
)

// KeyVault is a vault's secrets, certificates and keys, as the data plane's REST API shows them (docs: Azure Key Vault
// REST API reference; the bodies are those of the specification's examples and of the SDKs' recorded tests).
type KeyVault struct {
	Faults Faults
	journal

	o       KeyVaultOptions
	mu      sync.Mutex
	objects map[string][]*vaultVersion // by name in lower case, oldest first
	ids     *rand.Rand
}

// vaultVersion is one of a secret, or of a certificate with the secret and the key of the same name and id.
type vaultVersion struct {
	id, contentType, value string
	made, changed          time.Time
	disabled               bool
	certificate            *Certificate // nil = it is a secret alone
}

// NewKeyVault makes an empty vault.
func NewKeyVault(o KeyVaultOptions) *KeyVault {
	v := &KeyVault{o: o, objects: map[string][]*vaultVersion{}, ids: rand.New(rand.NewPCG(o.Seed, 7))}
	if o.Clock == nil {
		v.o.Clock = signup.ScaledClock{}
	}
	v.Faults.Seed(o.Seed)
	return v
}

// SetSecret adds a version, which is then the latest, and returns its id. A certificate's secret has the content type
// application/x-pkcs12 (its value is base64 of a PKCS #12 file) or application/x-pem-file.
func (v *KeyVault) SetSecret(name, contentType, value string) string {
	return v.add(name, &vaultVersion{contentType: contentType, value: value})
}

func (v *KeyVault) add(name string, x *vaultVersion) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	x.id = strings.ReplaceAll(guid(v.ids), "-", "")
	x.made = v.o.Clock.Now()
	x.changed = x.made
	key := strings.ToLower(name)
	v.objects[key] = append(v.objects[key], x)
	return x.id
}

// Disable disables a version, and with a certificate its key and secret. Nothing older takes the place of the latest.
func (v *KeyVault) Disable(name, id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, x := range v.objects[strings.ToLower(name)] {
		if x.id == id {
			x.disabled, x.changed = true, v.o.Clock.Now()
		}
	}
}

// Delete deletes all versions, which stay recoverable for 90 days and are not shown meanwhile.
func (v *KeyVault) Delete(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.objects, strings.ToLower(name))
}

// Grant replaces what a client may do.
func (v *KeyVault) Grant(client string, actions ...DataAction) {
	v.mu.Lock()
	defer v.mu.Unlock()
	grants := map[string][]DataAction{client: actions}
	for k, a := range v.o.Grants {
		if k != client {
			grants[k] = a
		}
	}
	v.o.Grants = grants
}

// Throttle refuses so many calls (negative: all until Faults.Clear), and tells the callers to wait; 0 tells them nothing,
// which the documentation allows (docs: Azure Key Vault throttling guidance).
func (v *KeyVault) Throttle(calls int, wait time.Duration) {
	v.Faults.Add(Fault{Times: calls, Status: http.StatusTooManyRequests, Header: throttleHeader(wait), Body: `{"error":{"code":"Throttled",` +
		`"message":"Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"}}`})
}

// throttleHeader is that of a JSON answer with a Retry-After in seconds; 0 = without.
func throttleHeader(wait time.Duration) http.Header {
	h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	if wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
	return h
}

// vaultCall is one call on its way.
type vaultCall struct {
	request  *http.Request
	body     []byte
	now      time.Time
	name, id string // of the object and of its version; "" = the latest
}

// vaultReply is what the vault says to a call.
type vaultReply struct {
	status int
	body   map[string]any
}

type vaultRoute struct {
	method, template string
	action           DataAction
	serve            func(*KeyVault, *vaultCall) vaultReply
}

// vaultRoutes are matched in this order. The version of a key may be empty ("/keys/NAME//sign"), as the SDKs ask for the
// latest one.
var vaultRoutes = []vaultRoute{
	{"GET", "/secrets/{name}", GetSecret, (*KeyVault).getSecret},
	{"GET", "/secrets/{name}/versions", ListSecrets, (*KeyVault).listSecretVersions},
	{"GET", "/secrets/{name}/{version}", GetSecret, (*KeyVault).getSecret},
	{"GET", "/certificates/{name}", ReadCertificate, (*KeyVault).getCertificate},
	{"GET", "/certificates/{name}/versions", ReadCertificate, (*KeyVault).listCertificateVersions},
	{"GET", "/certificates/{name}/{version}", ReadCertificate, (*KeyVault).getCertificate},
	{"POST", "/keys/{name}/{version}/sign", SignWithKey, (*KeyVault).sign},
}

// ServeHTTP answers the calls of vaultRoutes, with or without a slash at the end.
func (v *KeyVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := readBody(r)
	c := &vaultCall{request: r, body: body, now: v.o.Clock.Now().UTC()}
	route := vaultRoute{template: "/other"}
	for _, x := range vaultRoutes {
		if vars, ok := matchPath(x.template, r.URL.Path); ok && x.method == r.Method {
			route, c.name = x, vars[0]
			if len(vars) > 1 {
				c.id = vars[1]
			}
			break
		}
	}
	note := &Call{At: c.now, Method: r.Method, Route: route.template, URL: r.URL.RequestURI(), Header: r.Header.Clone(), Body: slices.Clone(body)}
	v.record(note, c.now, v.Faults.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		v.mu.Lock()
		rep := v.decide(c, route)
		v.mu.Unlock()
		if rep.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://login.microsoftonline.com/%s", resource="https://vault.azure.net"`, v.o.Tenant))
		}
		writeJSONBody(w, rep.status, rep.body)
	})), w, r)
}

// matchPath compares a path with a template by segments, without regard to letter case, and returns what stands for the
// {…} of the template.
func matchPath(template, path string) ([]string, bool) {
	want, parts := strings.Split(template[1:], "/"), strings.Split(strings.Trim(path, "/"), "/")
	if len(want) != len(parts) {
		return nil, false
	}
	var vars []string
	for i, w := range want {
		if strings.HasPrefix(w, "{") {
			vars = append(vars, parts[i])
		} else if !strings.EqualFold(w, parts[i]) {
			return nil, false
		}
	}
	return vars, true
}

// decide is the way of every call: token, api-version, access, and then the route. Who lacks access does not learn
// whether there is such an object.
func (v *KeyVault) decide(c *vaultCall, route vaultRoute) vaultReply {
	claims, err := readToken(c.request.Header.Get("Authorization"), c.now)
	unauthorized := func(message string) vaultReply {
		return refuseVault(http.StatusUnauthorized, "Unauthorized", "", message)
	}
	switch {
	case errors.Is(err, errTokenEmpty):
		return unauthorized("AKV10000: Request is missing a Bearer or PoP token.")
	case err != nil:
		return unauthorized("[BearerReadAccessTokenFailed] Error validating token: 'S2S12086'.")
	case claims.Audience != resourceVault:
		return unauthorized("AKV10022: Invalid audience. Expected https://vault.azure.net, found: " + claims.Audience + ".")
	case claims.Tenant != v.o.Tenant:
		return unauthorized("AKV10032: Invalid issuer. Expected one of https://sts.windows.net/" + v.o.Tenant + "/, found " + claims.Issuer + ".")
	case route.serve == nil:
		return badParameter("The request URI or method is not supported.")
	case c.request.URL.Query().Get("api-version") == "":
		return badParameter("api-version must be specified")
	case v.o.Grants != nil && !slices.Contains(v.o.Grants[claims.App], route.action):
		return v.forbidden(c, claims, route.action)
	}
	return route.serve(v, c)
}

// forbidden is the refusal in the service's own words, line ends included; the names of subscription and group are made up.
func (v *KeyVault) forbidden(c *vaultCall, claims Claims, action DataAction) vaultReply {
	vault, _, _ := strings.Cut(c.request.Host, ".")
	kind, _, _ := strings.Cut(strings.TrimPrefix(c.request.URL.Path, "/"), "/")
	return refuseVault(http.StatusForbidden, "Forbidden", "ForbiddenByRbac", strings.Join([]string{
		"Caller is not authorized to perform action on resource.",
		"If role assignments, deny assignments or role definitions were changed recently, please observe propagation time.",
		"Caller: appid=" + claims.App + ";oid=" + claims.Subject + ";iss=https://sts.windows.net/" + claims.Tenant + "/",
		"Action: '" + string(action) + "'",
		"Resource: '/subscriptions/00000000-0000-4000-8000-000000005ab5/resourcegroups/signup-sync/providers/microsoft.keyvault/vaults/" + vault + "/" + kind + "/" + c.name + "'",
		"Assignment: (not found)",
		"DenyAssignmentId: null",
		"DecisionReason: 'DeniedWithNoValidRBAC' ",
		"Vault: " + vault + ";location=westeurope",
		"",
	}, "\r\n"))
}

func refuseVault(status int, code, inner, message string) vaultReply {
	e := map[string]any{"code": code, "message": message}
	if inner != "" {
		e["innererror"] = map[string]any{"code": inner}
	}
	return vaultReply{status, map[string]any{"error": e}}
}

func badParameter(message string) vaultReply {
	return refuseVault(http.StatusBadRequest, "BadParameter", "", message)
}

// missing is the 404 of a kind: secret, certificate or key.
func (c *vaultCall) missing(kind string) vaultReply {
	id := c.name
	if c.id != "" {
		id += "/" + c.id
	}
	return refuseVault(http.StatusNotFound, strings.ToUpper(kind[:1])+kind[1:]+"NotFound", "", "A "+kind+" with (name/id) "+id+
		" was not found in this key vault. If you recently deleted this "+kind+" you may be able to recover it using the correct recovery command."+
		" For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182")
}
