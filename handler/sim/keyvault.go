package sim

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// KeyVaultOptions describe a vault.
type KeyVaultOptions struct {
	Clock   signup.Clock // nil = the wall clock
	Tenant  string       // the id of the tenant whose tokens it takes
	Readers []string     // the client ids that may read secrets; nil = any
	Seed    uint64
}

// KeyVault is a vault's secrets, as the data plane's REST API shows them (docs: Get Secret).
type KeyVault struct {
	Faults Faults
	journal

	o       KeyVaultOptions
	mu      sync.Mutex
	secrets map[string][]secret // versions, oldest first
	ids     *rand.Rand
}

type secret struct {
	version, contentType, value string
	made                        time.Time
}

// NewKeyVault makes an empty vault.
func NewKeyVault(o KeyVaultOptions) *KeyVault {
	v := &KeyVault{o: o, secrets: map[string][]secret{}, ids: rand.New(rand.NewPCG(o.Seed, 7))}
	if o.Clock == nil {
		v.o.Clock = signup.ScaledClock{}
	}
	v.Faults.Seed(o.Seed)
	return v
}

// SetSecret adds a version, which is then the latest, and returns its id. A certificate's secret has the content type
// application/x-pkcs12 (its value is base64 of a PKCS #12 file) or application/x-pem-file.
func (v *KeyVault) SetSecret(name, contentType, value string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := strings.ReplaceAll(guid(v.ids), "-", "")
	key := strings.ToLower(name)
	v.secrets[key] = append(v.secrets[key], secret{id, contentType, value, v.o.Clock.Now()})
	return id
}

// ServeHTTP answers GET /secrets/{name}, with or without a slash at its end, and /secrets/{name}/{version}.
func (v *KeyVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := v.o.Clock.Now().UTC()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	name := "/other"
	if parts[0] == "secrets" && len(parts) > 1 && len(parts) < 4 {
		name = "/secrets/{name}" + []string{"", "/{version}"}[len(parts)-2]
	}
	note := &Call{At: now, Method: r.Method, Route: name, URL: r.URL.RequestURI(), Header: r.Header.Clone()}
	v.record(note, now, v.Faults.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		v.answer(w, r, parts, now)
	})), w, r)
}

func (v *KeyVault) answer(w http.ResponseWriter, r *http.Request, parts []string, now time.Time) {
	claims, err := readToken(r.Header.Get("Authorization"), now)
	if err != nil || claims.Audience != "https://vault.azure.net" || claims.Tenant != v.o.Tenant {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://login.microsoftonline.com/%s", resource="https://vault.azure.net"`, v.o.Tenant))
		refuseVault(w, http.StatusUnauthorized, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
		return
	}
	switch {
	case r.Method != http.MethodGet || parts[0] != "secrets" || len(parts) < 2 || len(parts) > 3:
		refuseVault(w, http.StatusBadRequest, "BadParameter", "The request URI or method is not supported.")
		return
	case r.URL.Query().Get("api-version") == "":
		refuseVault(w, http.StatusBadRequest, "BadParameter", "api-version must be specified")
		return
	case v.o.Readers != nil && !slices.Contains(v.o.Readers, claims.App):
		refuseVault(w, http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource.")
		return
	}
	v.mu.Lock()
	versions := slices.Clone(v.secrets[strings.ToLower(parts[1])])
	v.mu.Unlock()
	if len(parts) == 3 {
		versions = slices.DeleteFunc(versions, func(s secret) bool { return s.version != parts[2] })
	}
	if len(versions) == 0 {
		refuseVault(w, http.StatusNotFound, "SecretNotFound", "A secret with (name/id) "+strings.Join(parts[1:], "/")+" was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command.")
		return
	}
	s := versions[len(versions)-1]
	body := map[string]any{"value": s.value, "id": "https://" + r.Host + "/secrets/" + parts[1] + "/" + s.version,
		"attributes": map[string]any{"enabled": true, "created": s.made.Unix(), "updated": s.made.Unix(), "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90}}
	if s.contentType != "" {
		body["contentType"] = s.contentType
	}
	writeJSONBody(w, http.StatusOK, body)
}

func refuseVault(w http.ResponseWriter, status int, code, message string) {
	writeJSONBody(w, status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}
