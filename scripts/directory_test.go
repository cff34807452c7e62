package scripts_test

import (
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// directory is what an administrator sees of a tenant's app registrations over Microsoft Graph v1.0, as far as the scripts
// look (docs: application, servicePrincipal, appRoleAssignment, keyCredential, federatedIdentityCredential). Where the
// documentation is silent it does the worse thing.
type directory struct {
	tenant       string
	others       []*directory // whose multi-tenant apps may come here
	applications map[string]*application
	principals   map[string]*principal
	lag          int             // so many reads of what is new find nothing
	denied       map[string]bool // kinds that the login may not change: applications, servicePrincipals, appRoleAssignments
	made         int
}

type application struct {
	ID       string          `json:"id"`
	AppID    string          `json:"appId"`
	Unique   string          `json:"uniqueName"`
	Name     string          `json:"displayName"`
	Audience string          `json:"signInAudience"`
	Required []resource      `json:"requiredResourceAccess"`
	Keys     []keyCredential `json:"keyCredentials"`

	trusts []trust
	unseen int // reads that still find nothing
}

type resource struct {
	ResourceAppID  string `json:"resourceAppId"`
	ResourceAccess []struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	} `json:"resourceAccess"`
}

type keyCredential struct {
	KeyID  string  `json:"keyId"`
	Custom string  `json:"customKeyIdentifier"`
	Key    *string `json:"key"`
	Name   *string `json:"displayName"`
	Type   string  `json:"type"`
	Usage  string  `json:"usage"`
	Starts string  `json:"startDateTime"`
	Ends   string  `json:"endDateTime"`
}

type trust struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Issuer    string   `json:"issuer"`
	Subject   string   `json:"subject"`
	Audiences []string `json:"audiences"`
}

type principal struct {
	ID    string `json:"id"`
	AppID string `json:"appId"`

	assignments []assignment
	unseen      int
}

type assignment struct {
	ID          string `json:"id"`
	PrincipalID string `json:"principalId"`
	ResourceID  string `json:"resourceId"`
	AppRoleID   string `json:"appRoleId"`
}

// The application id of Microsoft Graph, and the permissions that these tests know of it, by their ids.
const graphApp = "00000003-0000-0000-c000-000000000000"

var permissions = map[string]string{
	"b0afded3-3588-46d8-8b3d-9842eff778da": "AuditLog.Read.All",
	"741f803b-c850-494e-b5df-cde7c675a1ca": "User.ReadWrite.All",
	"9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30": "Application.Read.All",
	"7ab1d382-f21e-4acd-a863-ba3e13f7da61": "Directory.Read.All",
}

func newDirectory(tenant string) *directory {
	d := &directory{tenant: tenant, applications: map[string]*application{}, principals: map[string]*principal{}, denied: map[string]bool{}}
	d.principals["graph"] = &principal{ID: d.id(), AppID: graphApp}
	return d
}

func (d *directory) id() string {
	d.made++
	return fmt.Sprintf("%s-%012d", d.tenant[:23], d.made)
}

// reply is an answer of Graph; a nil body is none.
type reply struct {
	status int
	body   any
}

func refuse(status int, code, text string) reply {
	return reply{status, map[string]any{"error": map[string]any{"code": code, "message": text}}}
}

func absent(id string) reply {
	return refuse(http.StatusNotFound, "Request_ResourceNotFound", "Resource '"+id+"' does not exist or one of its queried reference-property objects are not present.")
}

func bad(text string) reply { return refuse(http.StatusBadRequest, "Request_BadRequest", text) }

var path = regexp.MustCompile(`^/v1\.0/(applications|servicePrincipals)(?:\((\w+)='([^']*)'\)|/([^/()]+))?(?:/(\w+))?$`)

// answer is Graph's answer to a call.
func (d *directory) answer(r *http.Request, body []byte) reply {
	m := path.FindStringSubmatch(r.URL.Path)
	if m == nil {
		return bad("Resource not found for the segment.")
	}
	kind, key, value, id, below := m[1], m[2], m[3], m[4], m[5]
	if what := cmpOr(below, kind); r.Method != http.MethodGet && d.denied[what] {
		return refuse(http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
	}
	if kind == "servicePrincipals" {
		return d.answerPrincipal(r, key, value, id, below, body)
	}
	a := d.findApplication(key, value, id)
	switch {
	case a == nil && r.Method == http.MethodPatch && key == "uniqueName" && r.Header.Get("Prefer") == "create-if-missing":
		a = &application{ID: d.id(), AppID: d.id(), Unique: value, Audience: "AzureADandPersonalMicrosoftAccount", unseen: d.lag}
		d.applications[a.ID] = a
		if rep := a.patch(body); rep.status >= 400 {
			return rep
		}
		return reply{http.StatusCreated, a.shown(nil)}
	case a == nil:
		return absent(value + id)
	case a.unseen > 0:
		a.unseen--
		return absent(value + id)
	case below == "federatedIdentityCredentials":
		return d.answerTrusts(a, r, body)
	case r.Method == http.MethodGet && below == "":
		return reply{http.StatusOK, a.shown(strings.Split(r.URL.Query().Get("$select"), ","))}
	case r.Method == http.MethodPatch && below == "":
		return a.patch(body)
	}
	return bad("Specified HTTP method is not allowed for the request target.")
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (d *directory) findApplication(key, value, id string) *application {
	for _, a := range d.applications {
		if key == "uniqueName" && a.Unique == value || key == "appId" && a.AppID == value || key == "" && a.ID == id {
			return a
		}
	}
	return nil
}

// shown is the registration as it is read: the keys' material comes only when keyCredentials was selected.
func (a *application) shown(selected []string) *application {
	c := *a
	c.Keys = slices.Clone(a.Keys)
	if !slices.Contains(selected, "keyCredentials") {
		for i := range c.Keys {
			c.Keys[i].Key = nil
		}
	}
	return &c
}

// patch replaces the properties that the body names, each collection as a whole.
func (a *application) patch(body []byte) reply {
	var in struct {
		Name     *string         `json:"displayName"`
		Audience *string         `json:"signInAudience"`
		Required []resource      `json:"requiredResourceAccess"`
		Keys     []keyCredential `json:"keyCredentials"`
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return bad("Unable to read JSON request payload. " + err.Error())
	}
	if in.Keys != nil {
		if rep := a.replaceKeys(in.Keys); rep.status != http.StatusNoContent {
			return rep
		}
	}
	if in.Name != nil {
		a.Name = *in.Name
	}
	if in.Audience != nil {
		a.Audience = *in.Audience
	}
	if in.Required != nil {
		a.Required = in.Required
	}
	return reply{status: http.StatusNoContent}
}

// replaceKeys takes the new collection. A key that is there already is known by its id, and need not be sent again.
func (a *application) replaceKeys(keys []keyCredential) reply {
	var all []keyCredential
	for _, k := range keys {
		at := slices.IndexFunc(a.Keys, func(x keyCredential) bool { return x.KeyID == k.KeyID && k.KeyID != "" })
		if at >= 0 {
			if k.Key != nil && *k.Key != *a.Keys[at].Key {
				return bad("Update to existing credential with KeyId '" + k.KeyID + "' is not allowed.")
			}
			all = append(all, a.Keys[at])
			continue
		}
		if k.Key == nil || k.Type != "AsymmetricX509Cert" || k.Usage != "Verify" {
			return bad("New credential is invalid.")
		}
		der, err := base64.StdEncoding.DecodeString(*k.Key)
		if err != nil {
			return bad("Key credential is not base64.")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return bad("Key value is invalid certificate.")
		}
		ends, err := time.Parse(time.RFC3339, k.Ends)
		if err != nil || ends.After(cert.NotAfter) || ends.Before(time.Now()) {
			return refuse(http.StatusBadRequest, "KeyCredentialsInvalidEndDate", "Key credential end date is invalid.")
		}
		if starts, err := time.Parse(time.RFC3339, k.Starts); err != nil || starts.Before(cert.NotBefore) || !starts.Before(ends) {
			return refuse(http.StatusBadRequest, "KeyCredentialsInvalidStartDate", "Key credential start date is invalid.")
		}
		print := sha1.Sum(der)
		k.KeyID, k.Custom = hex.EncodeToString(print[:8]), strings.ToUpper(hex.EncodeToString(print[:]))
		all = append(all, k)
	}
	a.Keys = all
	return reply{status: http.StatusNoContent}
}

func (d *directory) answerTrusts(a *application, r *http.Request, body []byte) reply {
	if r.Method == http.MethodGet {
		return reply{http.StatusOK, map[string]any{"value": slices.Concat([]trust{}, a.trusts)}}
	}
	var t trust
	if json.Unmarshal(body, &t) != nil || t.Name == "" || len(t.Name) > 120 || len(t.Audiences) != 1 {
		return bad("The federated identity credential is not valid.")
	}
	if slices.ContainsFunc(a.trusts, func(x trust) bool { return x.Name == t.Name || x.Issuer == t.Issuer && x.Subject == t.Subject }) {
		return refuse(http.StatusConflict, "Request_MultipleObjectsWithSameKeyValue", "FederatedIdentityCredential with name or subject already exists.")
	}
	t.ID = d.id()
	a.trusts = append(a.trusts, t)
	return reply{http.StatusCreated, t}
}

// home is the registration of an app that may be used here.
func (d *directory) home(appID string) *application {
	for _, where := range append([]*directory{d}, d.others...) {
		if a := where.findApplication("appId", appID, ""); a != nil && (where == d || a.Audience == "AzureADMultipleOrgs") {
			return a
		}
	}
	return nil
}

func (d *directory) answerPrincipal(r *http.Request, key, value, id, below string, body []byte) reply {
	if r.Method == http.MethodPost && value+id == "" {
		var in struct{ AppID string }
		_ = json.Unmarshal(body, &in)
		a := d.home(in.AppID)
		if a == nil || a.unseen > 0 {
			if a != nil {
				a.unseen--
			}
			return bad("The appId '" + in.AppID + "' of the service principal does not reference a valid application object.")
		}
		if d.findPrincipal("appId", in.AppID, "") != nil {
			return refuse(http.StatusConflict, "Request_MultipleObjectsWithSameKeyValue", "The service principal cannot be created, updated, or restored because the service principal name is already in use.")
		}
		p := &principal{ID: d.id(), AppID: in.AppID, unseen: d.lag}
		d.principals[p.ID] = p
		return reply{http.StatusCreated, p}
	}
	p := d.findPrincipal(key, value, id)
	switch {
	case p == nil:
		return absent(value + id)
	case p.unseen > 0:
		p.unseen--
		return absent(value + id)
	case below == "appRoleAssignments" && r.Method == http.MethodGet:
		return reply{http.StatusOK, map[string]any{"value": slices.Concat([]assignment{}, p.assignments)}}
	case below == "appRoleAssignments" && r.Method == http.MethodPost:
		return d.assign(p, body)
	case below == "" && r.Method == http.MethodGet:
		return reply{http.StatusOK, p}
	}
	return bad("Specified HTTP method is not allowed for the request target.")
}

func (d *directory) findPrincipal(key, value, id string) *principal {
	for _, p := range d.principals {
		if key == "appId" && p.AppID == value || key == "" && p.ID == id {
			return p
		}
	}
	return nil
}

func (d *directory) assign(p *principal, body []byte) reply {
	var in assignment
	if json.Unmarshal(body, &in) != nil || in.PrincipalID != p.ID || in.ResourceID != d.principals["graph"].ID || permissions[in.AppRoleID] == "" {
		return bad("Not a valid reference update.")
	}
	if slices.ContainsFunc(p.assignments, func(x assignment) bool { return x.AppRoleID == in.AppRoleID }) {
		return bad("Permission being assigned already exists on the object")
	}
	in.ID = d.id()
	p.assignments = append(p.assignments, in)
	return reply{http.StatusCreated, in}
}

// state is all that scripts have made here, without ids that differ from run to run.
func (d *directory) state() (all []string) {
	for _, a := range d.applications {
		text := fmt.Sprintf("application %s %s", a.Unique, a.Audience)
		for _, r := range a.Required {
			for _, x := range r.ResourceAccess {
				text += fmt.Sprintf(" %s %s", permissions[x.ID], x.Type)
			}
		}
		text += fmt.Sprintf(" keys %d", len(a.Keys))
		for _, t := range a.trusts {
			text += fmt.Sprintf(" trusts %s of %s for %v", t.Subject, t.Issuer, t.Audiences)
		}
		all = append(all, text)
	}
	for key, p := range d.principals {
		if key == "graph" {
			continue
		}
		var roles []string
		for _, x := range p.assignments {
			roles = append(roles, permissions[x.AppRoleID])
		}
		slices.Sort(roles)
		all = append(all, fmt.Sprintf("principal %v", roles))
	}
	slices.Sort(all)
	return all
}
