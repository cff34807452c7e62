package connector

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"

	"signup-sync/handler/signup"
)

const (
	salesforceTokenPath = "/services/oauth2/token"
	// assertionLife is how long a JWT is good for; Salesforce takes at most 3 to 5 minutes.
	assertionLife = 2 * time.Minute
)

// salesforceSession is the access token that all calls share. Its answer says neither when it expires nor gives a
// refresh token, so it is kept until the org refuses it.
type salesforceSession struct {
	rest *rest
	root string
	form func(now time.Time) (url.Values, error) // the grant

	fetching singleflight.Group
	mu       sync.Mutex
	token    string
}

// get returns the token; refused is the one that the org has just refused, "" for none. Callers at the same time share
// one fetch, which goes on when one of them is cancelled: it is the others' too, and bounded by the timeout.
func (s *salesforceSession) get(ctx context.Context, refused string) (string, error) {
	if ctx.Err() != nil {
		return "", cancelled("authenticate", ctx.Err())
	}
	if token := s.held(); token != "" && token != refused {
		return token, nil
	}
	shared := context.WithoutCancel(ctx)
	done := s.fetching.DoChan(refused, func() (any, error) {
		// Another fetch may have ended between the look above and this one.
		if token := s.held(); token != "" && token != refused {
			return token, nil
		}
		return s.fetch(shared)
	})
	select {
	case got := <-done:
		token, _ := got.Val.(string)
		return token, got.Err
	case <-ctx.Done():
		return "", cancelled("authenticate", ctx.Err())
	}
}

func (s *salesforceSession) held() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// fetch asks for a token. The answer also names an instance_url, which is left alone: calls with people in them go
// where the configuration says and nowhere else, and an org's My Domain serves its API.
func (s *salesforceSession) fetch(ctx context.Context) (string, error) {
	form, err := s.form(s.rest.clock.Now())
	if err != nil {
		return "", &signup.Error{Class: signup.Systemic, Code: "unauthorized", Detail: "settings.privateKey signs nothing"}
	}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}, "User-Agent": {"signup-sync"}}
	a, err := s.rest.call(ctx, request{method: http.MethodPost, url: s.root + salesforceTokenPath, header: header, body: []byte(form.Encode())})
	if err != nil {
		return "", err
	}
	var got struct {
		Token string `json:"access_token"`
		Type  string `json:"token_type"`
	}
	if json.Unmarshal(a.body, &got) != nil || len(got.Token) > 4096 || !bearerToken.MatchString(got.Token) || got.Type != "" && !strings.EqualFold(got.Type, "Bearer") {
		return "", errSalesforce
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = got.Token
	return got.Token, nil
}

// bearerToken is RFC 6750's, and Salesforce's, which has a ! in it.
var bearerToken = regexp.MustCompile(`^[A-Za-z0-9._~+/!=-]+$`)

// salesforceGrant is what is posted for a token, from the settings; the errors are about those.
func salesforceGrant(s salesforceSettings) (func(now time.Time) (url.Values, error), []error) {
	var errs []error
	want := func(ok bool, why string) {
		if !ok {
			errs = append(errs, errors.New("settings."+why))
		}
	}
	switch s.Auth {
	case "jwt", "":
		want(s.ClientSecret == "", "clientSecret: is for auth clientCredentials; remove it, or set that auth")
		want(s.Username != "", "username: missing; auth jwt wants the integration user's name")
		want(s.PrivateKey != "", "privateKey: missing; auth jwt wants the key whose certificate the app has")
		want(strings.HasPrefix(s.Audience, "https://"), "audience: wants https://login.salesforce.com, or https://test.salesforce.com for a sandbox")
		if s.PrivateKey == "" {
			return nil, errs
		}
		key, err := rsaKey(s.PrivateKey)
		want(err == nil, "privateKey: wants an RSA key in PEM, as PKCS#8 (BEGIN PRIVATE KEY) or PKCS#1 (BEGIN RSA PRIVATE KEY)")
		return func(now time.Time) (url.Values, error) {
			assertion, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
				"iss": s.ClientID, "sub": s.Username, "aud": s.Audience, "exp": now.Add(assertionLife).Unix(),
			}).SignedString(key)
			return url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}, err
		}, errs
	case "clientCredentials":
		want(s.ClientSecret != "", "clientSecret: missing; auth clientCredentials wants the app's secret")
		want(s.PrivateKey == "", "privateKey: is for auth jwt; remove it, or set that auth")
		want(s.Username == "", "username: is for auth jwt; clientCredentials runs as the user that is set in the app")
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.ClientID}, "client_secret": {s.ClientSecret}}
		return func(time.Time) (url.Values, error) { return form, nil }, errs
	}
	return nil, append(errs, errors.New("settings.auth: wants jwt or clientCredentials"))
}

// rsaKey reads a PEM key. An app setting that was pasted as one line has \n in it instead of line ends.
func rsaKey(text string) (*rsa.PrivateKey, error) {
	return jwt.ParseRSAPrivateKeyFromPEM([]byte(strings.ReplaceAll(text, `\n`, "\n")))
}

var oauthWord = regexp.MustCompile(`^[a-z][a-z_]{1,63}$`)

// tokenHints say what to do about a refused grant, by Salesforce's code word and a phrase of its description, which is
// looked for and not copied.
var tokenHints = []struct{ word, phrase, hint string }{
	{"invalid_grant", "approved this consumer", "pre-authorise the app: permitted users are admin-approved, and the integration user has its profile or permission set"},
	{"invalid_app_access", "", "pre-authorise the app: permitted users are admin-approved, and the integration user has its profile or permission set"},
	{"invalid_grant", "audience", "settings.audience is https://login.salesforce.com, or https://test.salesforce.com for a sandbox"},
	{"invalid_grant", "expired", "is the clock of this machine right?"},
	{"invalid_grant", "assertion", "is the app's certificate that of settings.privateKey?"},
	{"invalid_grant", "scope", "the app lacks the scope api"},
	{"invalid_grant", "client credentials user", "the app has no user to run as for the client credentials flow"},
	{"invalid_grant", "domain", "settings.url wants the org's own My Domain"},
	{"invalid_client_id", "", "settings.clientId is no app of this org; a new one takes some minutes"},
	{"invalid_client", "", "settings.clientSecret is not the app's"},
	{"inactive_org", "", "the org is locked, closed or suspended"},
	{"inactive_user", "", "the integration user is inactive"},
}

// judgeSalesforceToken reads the OAuth error of RFC 6749, section 5.2. A refused token is never one user's fault, and
// what is not Salesforce's answer says nothing about the credentials.
func judgeSalesforceToken(a answer, e *signup.Error) {
	if e.Class == signup.Throttled || a.status >= 500 {
		return
	}
	if a.status < 400 {
		e.Class, e.Detail = signup.Systemic, "settings.url wants the org's own My Domain"
		return
	}
	var body struct {
		Word        string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(a.body, &body) != nil || !oauthWord.MatchString(body.Word) {
		e.Class, e.Code = signup.Transient, "not-understood"
		return
	}
	e.Class, e.Code, e.Detail = signup.Systemic, "unauthorized", "salesforce: "+body.Word
	switch body.Word {
	case "rate_limit_exceeded":
		e.Class, e.Code, e.RetryAfter = signup.Throttled, "throttled", max(e.RetryAfter, salesforcePause)
		return
	case "unknown_error", "server_error", "temporarily_unavailable":
		e.Class, e.Code = signup.Transient, "unavailable"
		return
	}
	description := strings.ToLower(body.Description)
	for _, h := range tokenHints {
		if h.word == body.Word && strings.Contains(description, h.phrase) {
			e.Detail += "; " + h.hint
			return
		}
	}
}
