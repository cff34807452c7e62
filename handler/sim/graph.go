package sim

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// graphAudience are the names under which a token may be meant for Graph: its URL and its app id.
var graphAudience = []string{"https://graph.microsoft.com", "https://graph.microsoft.com/", "00000003-0000-0000-c000-000000000000"}

// graphCall is one call to Graph on its way.
type graphCall struct {
	request   *http.Request
	version   string     // v1.0 or beta
	route     route      //
	vars      []string   // what the {…} of the route stand for
	query     url.Values //
	body      []byte     //
	readable  bool       // the body is what its Content-Encoding says
	now       time.Time  //
	app       string     // the client id, from the token
	roles     []string   // the app's permissions, or the person's, likewise
	person    string     // the object id of the person who calls by the app; "" = the app itself
	directory []string   // the person's directory roles
	replica   int        // which replica serves it
}

// reply is what Graph says to a call.
type reply struct {
	status int
	body   any         // nil = none; []byte is sent as it is
	header http.Header // of its own
}

// graphError is an error answer (docs: Microsoft Graph error responses and resource types).
type graphError struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code    string        `json:"code"`
	Message string        `json:"message"`
	Details []errorDetail `json:"details,omitempty"`
	Inner   innerError    `json:"innerError"`
}

type errorDetail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Target  string `json:"target"`
}

type innerError struct {
	Code            string `json:"code,omitempty"`
	Date            string `json:"date"`
	Message         string `json:"message,omitempty"`
	RequestID       string `json:"request-id"`
	ClientRequestID string `json:"client-request-id"`
	Status          string `json:"status,omitempty"`
}

func refuse(status int, code, message string, details ...errorDetail) reply {
	return reply{status: status, body: &graphError{errorBody{Code: code, Message: message, Details: details}}}
}

func ok(body any) reply { return reply{status: http.StatusOK, body: body} }

func badRequest(message string) reply { return refuse(http.StatusBadRequest, "BadRequest", message) }

func badFilter() reply { return badRequest("Invalid filter clause") }

func unsupported(message string) reply {
	return refuse(http.StatusBadRequest, "Request_UnsupportedQuery", message)
}

func forbidden() reply {
	return refuse(http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
}

func notFound(id string) reply {
	return refuse(http.StatusNotFound, "Request_ResourceNotFound",
		"Resource '"+id+"' does not exist or one of its queried reference-property objects are not present.")
}

// answer decides on a call and writes the reply with the headers that Graph always sends.
func (t *Tenant) answer(w http.ResponseWriter, c *graphCall) {
	t.mu.Lock()
	rep := t.decide(c)
	requestID := guid(t.ids)
	t.mu.Unlock()

	h := w.Header()
	h.Set("request-id", requestID)
	clientID := c.request.Header.Get("client-request-id")
	setDefault(&clientID, requestID)
	h.Set("client-request-id", clientID)
	h.Set("x-ms-ags-diagnostic", `{"ServerInfo":{"DataCenter":"West Europe","Slice":"E","Ring":"5","ScaleUnit":"003","RoleInstance":"AM1PEPF00027E4F"}}`)
	h.Set("OData-Version", "4.0")
	h.Set("Cache-Control", "no-cache")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	for k, v := range rep.header {
		h[k] = v
	}
	if e, ok := rep.body.(*graphError); ok {
		e.Error.Inner.Date = c.now.Format("2006-01-02T15:04:05")
		e.Error.Inner.RequestID, e.Error.Inner.ClientRequestID = requestID, clientID
	}
	writeGraph(w, c.request, rep)
}

// writeGraph sends the body, compressed if the client takes that.
func writeGraph(w http.ResponseWriter, r *http.Request, rep reply) {
	if rep.body == nil {
		w.WriteHeader(rep.status)
		return
	}
	raw, ok := rep.body.([]byte)
	if !ok {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(rep.body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		raw = b.Bytes()
	}
	w.Header().Set("Content-Type", "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8")
	if len(raw) < 1400 || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.WriteHeader(rep.status)
		_, _ = w.Write(raw)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Vary", "Accept-Encoding")
	w.WriteHeader(rep.status)
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = z.Write(raw)
	_ = z.Close()
}

// decide is the way of every call: token, limits, permission, and then the route.
func (t *Tenant) decide(c *graphCall) reply {
	c.replica = t.turn % t.o.Replicas
	t.turn++
	claims, err := readToken(c.request.Header.Get("Authorization"), c.now)
	switch {
	case errors.Is(err, errTokenEmpty):
		return unauthenticated("Access token is empty.")
	case errors.Is(err, errTokenExpired):
		return unauthenticated("Lifetime validation failed, the token is expired.")
	case err != nil:
		return unauthenticated("Access token validation failure. Invalid signature.")
	case !slices.Contains(graphAudience, claims.Audience):
		return unauthenticated("Access token validation failure. Invalid audience.")
	case claims.Tenant != t.o.ID:
		return unauthenticated("Access token validation failure. Invalid tenant.")
	}
	c.app = claims.App
	if c.version != "v1.0" && c.version != "beta" {
		return badRequest("Invalid version: " + c.version)
	}
	if c.request.Method == http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
	}
	if c.route.serve == nil {
		return badRequest("Resource not found for the segment '" + lastSegment(c.request.URL.Path) + "'.")
	}
	header, throttled := t.limit(c)
	if throttled != nil {
		return *throttled
	}
	permissions := claims.Roles
	if claims.Scopes != "" {
		permissions, c.person, c.directory = strings.Fields(claims.Scopes), claims.Object, claims.Directory
	}
	rep := t.permitted(c, permissions)
	if rep.header == nil {
		rep.header = http.Header{}
	}
	for k, v := range header {
		rep.header[k] = v
	}
	return rep
}

func (t *Tenant) permitted(c *graphCall, roles []string) reply {
	entitlement := strings.HasPrefix(c.route.template, entitlementPath)
	switch granted := slices.ContainsFunc(c.route.roles, func(r string) bool { return slices.Contains(roles, r) }); {
	case entitlement && !(granted && t.o.EntitlementManagement):
		return refuse(http.StatusForbidden, "UnAuthorized", "User is not authorized to perform the operation.")
	case !granted && strings.HasPrefix(c.route.template, flowsPath): // as the service that was Azure AD B2C's words it, which user flows belong to
		return refuse(http.StatusForbidden, "AADB2C", "The application does not have any of the required application permissions ("+
			strings.Join(c.route.roles, ", ")+") to access the resource.")
	case !granted:
		return forbidden()
	}
	c.roles = roles
	if !c.readable {
		return badRequest("The request body is not encoded as its Content-Encoding header says.")
	}
	if c.route.beta && c.version != "beta" {
		return badRequest("Resource not found for the segment '" + lastSegment(c.route.template) + "'.")
	}
	return c.route.serve(t, c)
}

func unauthenticated(message string) reply {
	r := refuse(http.StatusUnauthorized, "InvalidAuthenticationToken", message)
	r.header = http.Header{"Www-Authenticate": {`Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`}}
	return r
}

func lastSegment(path string) string {
	path = strings.TrimSuffix(path, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// A route is an endpoint, with the application permissions of which one is enough (docs: permissions reference).
type route struct {
	method   string
	template string
	class    class
	units    int // resource units (docs: throttling limits, identity and access)
	beta     bool
	roles    []string
	serve    func(*Tenant, *graphCall) reply
}

type class int

const (
	readClass class = iota
	writeClass
	logClass // the identity and access reports, which have a limit of their own
)

var (
	logReaders   = []string{"AuditLog.Read.All", "Directory.Read.All"}
	userReaders  = []string{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	userWriters  = []string{"User.ReadWrite.All", "Directory.ReadWrite.All"}
	appReaders   = []string{"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All"}
	orgReaders   = []string{"User.Read.All", "User.ReadWrite.All", "Organization.Read.All", "Directory.Read.All"}
	orgWholes    = orgReaders[2:] // who sees all of it
	domReaders   = []string{"Domain.Read.All", "Directory.Read.All"}
	signUpReader = []string{"AuditLog.Read.All"}
	groupReaders = []string{"GroupMember.Read.All", "GroupMember.ReadWrite.All", "Group.Read.All", "Group.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}
	groupWriters = []string{"GroupMember.ReadWrite.All", "Group.ReadWrite.All", "Directory.ReadWrite.All"}
	polReaders   = []string{"Policy.Read.All", "Policy.ReadWrite.Authorization"}
	polWriters   = polReaders[1:]
	flowReaders  = []string{"EventListener.Read.All", "EventListener.ReadWrite.All"}
	flowWriters  = flowReaders[1:]
	inviters     = []string{"User.Invite.All", "User.ReadWrite.All", "Directory.ReadWrite.All"}
	packReaders  = []string{"EntitlementManagement.Read.All", "EntitlementManagement.ReadWrite.All"}
	packWriters  = []string{"EntitlementManagement.ReadWrite.All"}
)

// entitlementPath begins the endpoints of entitlement management, flowsPath is that of the user flows.
const (
	entitlementPath = "/identityGovernance/entitlementManagement"
	flowsPath       = "/identity/authenticationEventsFlows"
)

// routes are the endpoints.
var routes = []route{
	{"GET", "/auditLogs/directoryAudits", logClass, 0, false, logReaders, (*Tenant).listAudits},
	{"GET", "/auditLogs/directoryAudits/{id}", logClass, 0, false, logReaders, (*Tenant).getAudit},
	{"GET", "/auditLogs/signUps", logClass, 0, true, signUpReader, (*Tenant).listSignUps},
	{"GET", "/users", readClass, 2, false, userReaders, (*Tenant).listUsers},
	{"GET", "/users/delta", readClass, 2, false, userReaders, (*Tenant).delta},
	{"GET", "/users/{id}", readClass, 2, false, userReaders, (*Tenant).getUser},
	{"PATCH", "/users/{id}", writeClass, 1, false, userWriters, (*Tenant).patchUser},
	{"GET", "/applications", readClass, 2, false, appReaders, (*Tenant).listApplications},
	{"GET", "/applications/{id}/extensionProperties", readClass, 2, false, appReaders, (*Tenant).listExtensions},
	{"GET", "/organization", readClass, 1, false, orgReaders, (*Tenant).organization},
	{"GET", "/domains", readClass, 1, false, domReaders, (*Tenant).listDomains},
	{"GET", "/policies/authorizationPolicy", readClass, 1, false, polReaders, (*Tenant).authorizationPolicy},
	{"PATCH", "/policies/authorizationPolicy", writeClass, 1, false, polWriters, (*Tenant).patchAuthorization},
	{"GET", flowsPath, readClass, 1, false, flowReaders, (*Tenant).listFlows},
	{"PATCH", flowsPath + "/{id}", writeClass, 1, false, flowWriters, (*Tenant).patchFlow},
	{"POST", "/invitations", writeClass, 1, false, inviters, (*Tenant).invite},
	{"GET", "/groups/{id}", readClass, 1, false, groupReaders, (*Tenant).getGroup},
	{"PATCH", "/groups/{id}", writeClass, 1, false, groupWriters, (*Tenant).patchGroup},
	{"POST", "/groups/{id}/members/$ref", writeClass, 1, false, groupWriters, (*Tenant).addMember},
	{"POST", "/users/{id}/checkMemberGroups", readClass, 4, false, groupReaders, (*Tenant).checkMemberGroups},
	{"GET", entitlementPath + "/accessPackages/{id}", readClass, 1, false, packReaders, (*Tenant).getAccessPackage},
	{"GET", entitlementPath + "/assignmentPolicies/{id}", readClass, 1, false, packReaders, (*Tenant).getPolicy},
	{"GET", entitlementPath + "/assignments", readClass, 1, false, packReaders, (*Tenant).listAssignments},
	{"GET", entitlementPath + "/assignmentRequests", readClass, 1, false, packReaders, (*Tenant).listRequests},
	{"POST", entitlementPath + "/assignmentRequests", writeClass, 1, false, packWriters, (*Tenant).requestAssignment},
}

// findRoute finds the endpoint of a path with its version; segments are compared without regard to letter case. A path
// without one gets a route that serves nothing.
func findRoute(method, path string) (route, []string) {
	_, rest, _ := strings.Cut(strings.Trim(path, "/"), "/")
	for _, r := range routes {
		if vars, ok := matchPath(r.template, rest); ok && r.method == method {
			return r, vars
		}
	}
	return route{template: "/other"}, nil
}

// top reads $top; 0 when there is none.
func (c *graphCall) top() (int, bool) {
	s := c.query.Get("$top")
	if s == "" {
		return 0, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0
}

// selected reads $select; nil when there is none.
func (c *graphCall) selected() []string {
	s := c.query.Get("$select")
	if s == "" {
		return nil
	}
	names := strings.Split(s, ",")
	for i, n := range names {
		names[i] = strings.TrimSpace(n)
	}
	return names
}

// base is the root that the client called, for links and contexts: its own host, or it would leave the simulation.
func (c *graphCall) base() string {
	scheme := "http"
	if c.request.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.request.Host + "/" + c.version
}
