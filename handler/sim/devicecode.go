package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// GraphTools is the public client that is in every tenant, "Microsoft Graph Command Line Tools".
const GraphTools = "14d82eec-204b-4c2f-b7e8-296a70dab67e"

// Directory roles, by the ids of their templates (docs: Microsoft Entra built-in roles).
const (
	GlobalAdministrator         = "62e90394-69f5-4237-9190-012177145e10"
	PrivilegedRoleAdministrator = "e8611ab8-c189-46e8-94e1-60213ab1f814"
	UserFlowAdministrator       = "6e591065-9bad-43ed-90f3-e9424366d2f0" // External ID User Flow Administrator
	GuestInviter                = "95e79109-95c0-4d8e-aee3-d01accf2d47b"
	UserAdministrator           = "fe930be7-5e62-47db-91af-98c3a49a38b1"
)

// Login is the person who logs in with a browser: enters the device codes of this tenant (docs: OAuth 2.0 device
// authorization grant), or is sent to the authorization endpoint (docs: OAuth 2.0 authorization code flow).
type Login struct {
	Object  string   // the person's object id; "" = nobody comes, and codes expire
	Tenant  string   // that the token is for, which should not happen; "" = this one
	Roles   []string // directory roles, as the token's wids
	Consent []string // the delegated permissions of Graph that the client gets; who is asked for another declines
	Pending int      // so many polls come before the person has entered the code
	Slow    int      // of those, so many are told to slow down (RFC 8628, 3.5)
	Refuse  string   // the error that polls end with: authorization_declined, access_denied, expired_token, bad_verification_code
	Gone    bool     // refresh tokens are refused: the login has ended
}

// deviceCode is one that was given out, or an authorization code.
type deviceCode struct {
	client, scope string
	expires       time.Time
	polls         int
	challenge     string // of an authorization code: the hash that its verifier has (RFC 7636)
}

// codeLife is how long a code can be used (docs: 15 minutes).
const codeLife = 15 * time.Minute

// SetLogin says who enters the codes from now on.
func (e *Entra) SetLogin(l Login) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.login = l
}

// deviceCode answers the device authorization request.
func (e *Entra) deviceCode(w http.ResponseWriter, tenant, body string, now time.Time) {
	form, err := url.ParseQuery(body)
	var bad *aadsts
	switch {
	case err != nil:
		bad = &aadsts{400, "invalid_request", 900144, "The request body must be form-encoded."}
	case !e.knows(tenant):
		bad = unknownTenant(tenant)
	default:
		if bad = e.publicClient(form.Get("client_id"), tenant); bad == nil {
			_, bad = delegated(form.Get("scope"))
		}
	}
	if bad != nil {
		e.refuse(w, now, bad)
		return
	}
	e.mu.Lock()
	code, user := guid(e.ids), strings.ToUpper(guid(e.ids)[:8])
	e.codes[code] = &deviceCode{client: form.Get("client_id"), scope: form.Get("scope"), expires: now.Add(codeLife)}
	e.mu.Unlock()
	const page = "https://microsoft.com/devicelogin"
	writeJSONBody(w, http.StatusOK, map[string]any{"user_code": user, "device_code": code, "verification_uri": page, "expires_in": int(codeLife / time.Second), "interval": 5,
		"message": "To sign in, use a web browser to open the page " + page + " and enter the code " + user + " to authenticate."})
}

// authorize logs the person in at once, and sends the browser back with a code, by a form that submits itself
// (response_mode form_post).
func (e *Entra) authorize(w http.ResponseWriter, query url.Values, tenant string, now time.Time) {
	back, err := url.Parse(query.Get("redirect_uri"))
	names, bad := delegated(query.Get("scope"))
	switch {
	case !e.knows(tenant):
		bad = unknownTenant(tenant)
	case err != nil || back.Hostname() != "localhost" || query.Get("response_mode") != "form_post" || query.Get("code_challenge_method") != "S256":
		bad = &aadsts{400, "invalid_request", 50011, "The redirect URI specified in the request does not match the redirect URIs configured for the application."}
	case bad == nil:
		bad = e.publicClient(query.Get("client_id"), tenant)
	}
	if bad != nil {
		e.refuse(w, now, bad)
		return
	}
	e.mu.Lock()
	code := guid(e.ids)
	e.codes[code] = &deviceCode{client: query.Get("client_id"), scope: query.Get("scope"), expires: now.Add(codeLife), challenge: query.Get("code_challenge")}
	answer := "code"
	if e.login.Object == "" || slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(e.login.Consent, name) }) {
		answer, code = "error", "access_denied"
	}
	e.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<html><body onload="document.forms[0].submit()"><form method="POST" action="%s"><input type="hidden" name="%s" value="%s"/><input type="hidden" name="state" value="%s"/></form></body></html>`,
		html.EscapeString(back.String()), answer, code, html.EscapeString(query.Get("state")))
}

// redeem takes an authorization code.
func (e *Entra) redeem(form url.Values) (string, string, *aadsts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, sum := e.codes[form.Get("code")], sha256.Sum256([]byte(form.Get("code_verifier")))
	if d == nil || d.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) || d.client != form.Get("client_id") {
		return "", "", &aadsts{400, "invalid_grant", 501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request."}
	}
	delete(e.codes, form.Get("code"))
	return d.client, d.scope, nil
}

// publicClient refuses a client that may not log people in without a secret.
func (e *Entra) publicClient(id, tenant string) *aadsts {
	e.mu.Lock()
	app, known := e.apps[strings.ToLower(id)]
	e.mu.Unlock()
	switch {
	case strings.EqualFold(id, GraphTools):
		return nil
	case !known:
		return unknownClient(id, tenant)
	case !app.Public:
		return &aadsts{401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	return nil
}

// delegated are the permissions of Graph that a scope names, by their names.
func delegated(scope string) ([]string, *aadsts) {
	var names []string
	for s := range strings.FieldsSeq(scope) {
		name, graph := strings.CutPrefix(s, resources[0]+"/")
		switch {
		case slices.Contains([]string{"openid", "offline_access", "profile"}, s):
		case !graph || name == ".default":
			return nil, &aadsts{400, "invalid_scope", 70011, "The provided request must include a 'scope' input parameter. The scope " + s + " is not simulated."}
		default:
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, &aadsts{400, "invalid_scope", 70011, "The provided request must include a 'scope' input parameter."}
	}
	return names, nil
}

// deviceGrants are the names of the grant: that of RFC 8628, and the one that Microsoft's library for Go sends.
var deviceGrants = []string{"urn:ietf:params:oauth:grant-type:device_code", "device_code"}

// personToken answers the grants by which a person's client gets a token: a device code, an authorization code, and a
// refresh token.
func (e *Entra) personToken(w http.ResponseWriter, form url.Values, tenant string, now time.Time) {
	var bad *aadsts
	var client, scope string
	switch {
	case !e.knows(tenant):
		bad = unknownTenant(tenant)
	case slices.Contains(deviceGrants, form.Get("grant_type")):
		client, scope, bad = e.poll(form.Get("device_code"), form.Get("client_id"), now)
	case form.Get("grant_type") == "authorization_code":
		client, scope, bad = e.redeem(form)
	default:
		client, scope, bad = e.refresh(form)
	}
	if bad != nil {
		e.refuse(w, now, bad)
		return
	}
	names, bad := delegated(scope)
	if bad != nil {
		e.refuse(w, now, bad)
		return
	}
	e.mu.Lock()
	login := e.login
	e.mu.Unlock()
	setDefault(&login.Tenant, e.o.Tenant)
	life, enc := int(e.o.TokenLife/time.Second), base64.RawURLEncoding
	access := Claims{Audience: resources[0], Issuer: "https://sts.windows.net/" + login.Tenant + "/", Tenant: login.Tenant, App: client, Subject: login.Object,
		Object: login.Object, Scopes: strings.Join(names, " "), Directory: login.Roles, IssuedAt: now.Unix(), Expires: now.Add(e.o.TokenLife).Unix()}
	identity := access
	identity.Audience, identity.Scopes, identity.Directory = client, "", nil
	w.Header().Set("Cache-Control", "no-store, no-cache")
	writeJSONBody(w, http.StatusOK, map[string]any{"token_type": "Bearer", "scope": scope, "expires_in": life, "ext_expires_in": life, "access_token": Token(access),
		"refresh_token": "refresh " + client + " " + scope, "id_token": Token(identity),
		"client_info": enc.EncodeToString(mustJSON(map[string]string{"uid": login.Object, "utid": login.Tenant}))})
}

// poll is one request for the token of a device code.
func (e *Entra) poll(code, client string, now time.Time) (string, string, *aadsts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.codes[code]
	if d == nil || d.client != client || d.challenge != "" {
		return "", "", &aadsts{400, "bad_verification_code", 70018, "Invalid verification code due to User typing in wrong user code for device code flow."}
	}
	d.polls++
	names, _ := delegated(d.scope)
	refused := func(name string) bool { return !slices.Contains(e.login.Consent, name) }
	switch {
	case !now.Before(d.expires) || e.login.Refuse == "expired_token":
		return "", "", &aadsts{400, "expired_token", 70020, "The provided value for the input parameter 'device_code' is not valid. This device code has expired."}
	case d.polls <= e.login.Slow:
		return "", "", &aadsts{400, "slow_down", 70016, "OAuth 2.0 device flow: the client polls too often."}
	case d.polls <= e.login.Pending || e.login.Object == "" && e.login.Refuse == "":
		return "", "", &aadsts{400, "authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling."}
	case e.login.Refuse != "":
		return "", "", &aadsts{400, e.login.Refuse, 70018, "The login was ended."}
	case slices.ContainsFunc(names, refused):
		return "", "", &aadsts{400, "authorization_declined", 65004, "User declined to consent to access the app."}
	}
	delete(e.codes, code)
	return d.client, d.scope, nil
}

// refresh takes a refresh token.
func (e *Entra) refresh(form url.Values) (string, string, *aadsts) {
	parts := strings.SplitN(form.Get("refresh_token"), " ", 3)
	e.mu.Lock()
	gone := e.login.Gone || e.login.Object == ""
	e.mu.Unlock()
	if gone || len(parts) != 3 || parts[1] != form.Get("client_id") {
		return "", "", &aadsts{400, "invalid_grant", 700082, "The refresh token has expired due to inactivity."}
	}
	return parts[1], parts[2], nil
}
