package connector_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestSalesforceOpenReportsAllThatIsWrong(t *testing.T) {
	_, key := appKey()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, _ := appKey()
	der8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	const hunter = "hunter2"
	good := map[string]any{"url": "https://acme.my.salesforce.com", "clientId": "3MVG9x", "privateKey": key, "username": "sync@example.org"}
	secret := map[string]any{"url": "https://acme.my.salesforce.com", "clientId": "3MVG9x", "auth": "clientCredentials", "clientSecret": hunter}
	tests := []struct {
		name string
		base map[string]any
		more map[string]any
		want []string
	}{
		{"nothing", nil, nil, []string{
			"settings.clientId: missing", "settings.url: missing", "settings.username: missing; auth jwt wants the integration user's name",
			"settings.privateKey: missing; auth jwt wants the key whose certificate the app has",
		}},
		{"good", good, nil, nil},
		{"good with a secret", secret, nil, nil},
		{"key as PKCS#8", good, map[string]any{"privateKey": pemOf("PRIVATE KEY", der8)}, nil},
		{"key on one line", good, map[string]any{"privateKey": strings.ReplaceAll(key, "\n", `\n`)}, nil},
		{"key of another kind", good, map[string]any{"privateKey": pemOf("PRIVATE KEY", der)}, []string{"settings.privateKey: wants an RSA key in PEM, as PKCS#8 (BEGIN PRIVATE KEY) or PKCS#1 (BEGIN RSA PRIVATE KEY)"}},
		{"no key", good, map[string]any{"privateKey": hunter}, []string{"settings.privateKey: wants an RSA key in PEM, as PKCS#8 (BEGIN PRIVATE KEY) or PKCS#1 (BEGIN RSA PRIVATE KEY)"}},
		{"jwt with a secret", good, map[string]any{"clientSecret": hunter}, []string{"settings.clientSecret: is for auth clientCredentials; remove it, or set that auth"}},
		{"a secret with a key", secret, map[string]any{"privateKey": key, "username": "x"}, []string{
			"settings.privateKey: is for auth jwt; remove it, or set that auth", "settings.username: is for auth jwt; clientCredentials runs as the user that is set in the app",
		}},
		{"no secret", secret, map[string]any{"clientSecret": ""}, []string{"settings.clientSecret: missing; auth clientCredentials wants the app's secret"}},
		{"audience", good, map[string]any{"audience": "login.salesforce.com"}, []string{"settings.audience: wants https://login.salesforce.com, or https://test.salesforce.com for a sandbox"}},
		{"names", good, map[string]any{"object": "Contact/x", "externalId": "a b", "apiVersion": "v62", "auth": "password", "duplicates": "merge", "apiUsageLimit": 101}, []string{
			"settings.object: wants an API name of letters, digits and _", "settings.externalId: wants an API name of letters, digits and _", "settings.apiUsageLimit: wants 1 to 100",
			"settings.duplicates: wants fail, allow or link", "settings.apiVersion: wants a version such as 62.0", "settings.auth: wants jwt or clientCredentials",
		}},
		{"old version", good, map[string]any{"apiVersion": "51.0"}, []string{"settings.apiVersion: wants 52.0 or later"}},
		{"login host", good, map[string]any{"url": "https://login.salesforce.com"}, []string{"settings.url: wants the org's My Domain, https://NAME.my.salesforce.com"}},
		{"browser's host", good, map[string]any{"url": "https://acme.Lightning.force.com/"}, []string{"settings.url: wants the org's My Domain, https://NAME.my.salesforce.com"}},
		{"path", good, map[string]any{"url": "https://acme.my.salesforce.com/services"}, []string{"settings.url: wants the root only, without a path or query"}},
		{"plain", good, map[string]any{"url": "http://acme.my.salesforce.com"}, []string{"settings.url: http:// is for this machine only; use https://"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settings := maps.Clone(tt.base)
			if settings == nil {
				settings = map[string]any{}
			}
			maps.Copy(settings, tt.more)
			c, errs := kindOf(t, "salesforce").Open(settings, connector.Env{})
			var got []string
			for _, err := range errs {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(got, tt.want); diff != "" || (c == nil) != (len(errs) > 0) {
				t.Errorf("errors (-got +want):\n%s", diff)
			}
			if strings.Contains(strings.Join(got, "\n"), hunter) {
				t.Error("an error holds a value")
			}
		})
	}
	_, errs := kindOf(t, "salesforce").Open(good, connector.Env{Shape: map[string]any{"LastName": nil, "entra_object_id__c": nil}})
	if len(errs) != 1 || errs[0].Error() != "record.entra_object_id__c: is set by the connector itself" {
		t.Errorf("got %v", errs)
	}
}

func TestSalesforceByClientCredentials(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{ClientSecret: "s3cret"},
		map[string]any{"auth": "clientCredentials", "clientSecret": "s3cret", "privateKey": "", "username": ""}, nil)
	if r := o.all(t, person(1))[0]; r.Err != nil || o.holder(r.Account.ID) != person(1).User {
		t.Errorf("got %+v", r)
	}
}

func TestSalesforceSessionThatEndedIsRenewedOnce(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	o.all(t, person(1))
	o.there.EndSessions()
	for i := range 2 {
		if r := o.all(t, person(i))[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if got := o.there.Calls(); got["token"] != 2 || got["collection"] != 3 {
		t.Errorf("calls %v, want 2 tokens and 3 collections", got)
	}
}

func TestSalesforceSessionsOfOneCall(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{SessionCalls: 1, Duplicates: "block"}, map[string]any{"duplicates": "link"}, nil)
	id := o.there.Add(there("user1@example.com", "X", ""))
	if r := o.all(t, person(1))[0]; r.Err != nil || r.Account.ID != id {
		t.Errorf("got %+v", r)
	}
	if got := o.there.Calls()["token"]; got != 5 {
		t.Errorf("%d tokens for 5 calls", got)
	}
}

func TestSalesforceRefusedForGoodIsAskedTwice(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, nil, nil)
	refused := 0
	o.gate.set(func(r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			refused++
			r.Header.Set("Authorization", "Bearer 00D!other")
		}
	}, nil)
	wantErr(t, o.all(t, person(1))[0].Err, signup.Systemic, "unauthorized")
	if got := o.there.Calls()["token"]; got != 2 || refused != 2 {
		t.Errorf("%d tokens and %d calls, want 2 and 2", got, refused)
	}
}

func TestSalesforceTokenRefusals(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		more map[string]any
		late time.Duration // how late the connector's clock is
		want string
	}{
		{"consumer", map[string]any{"clientId": "3MVG9other"}, 0, "salesforce: invalid_client_id; settings.clientId is no app of this org; a new one takes some minutes"},
		{"user", map[string]any{"username": "other@example.org"}, 0, "salesforce: invalid_grant; pre-authorise the app: permitted users are admin-approved, and the integration user has its profile or permission set"},
		{"audience", map[string]any{"audience": "https://test.salesforce.com"}, 0, "salesforce: invalid_grant; settings.audience is https://login.salesforce.com, or https://test.salesforce.com for a sandbox"},
		{"key", map[string]any{"privateKey": pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(other))}, 0, "salesforce: invalid_grant; is the app's certificate that of settings.privateKey?"},
		{"late clock", nil, 3 * time.Minute, "salesforce: invalid_grant; is the clock of this machine right?"},
		{"early clock", nil, -4 * time.Minute, "salesforce: invalid_grant; is the clock of this machine right?"},
		{"secret", map[string]any{"auth": "clientCredentials", "clientSecret": "other", "privateKey": "", "username": ""}, 0, "salesforce: invalid_client; settings.clientSecret is not the app's"},
	}
	key, text := appKey()
	for _, tt := range tests {
		clock := sim.NewClock(start)
		system := sim.NewSalesforce(sim.SalesforceOptions{Clock: clock, ClientID: consumerKey, ClientSecret: "s3cret", PublicKey: &key.PublicKey, Username: "sync@example.org"})
		root, client := serve(t, system)
		settings := map[string]any{"url": root, "clientId": consumerKey, "privateKey": text, "username": "sync@example.org"}
		maps.Copy(settings, tt.more)
		c := open(t, "salesforce", settings, connector.Env{HTTP: client, Clock: sim.NewClock(start.Add(-tt.late))})
		if e := call(t, c, person(1)); e.Class != signup.Systemic || e.Code != "unauthorized" || e.Detail != tt.want || len(e.Detail) > 200 {
			t.Errorf("%s: got %s, %v", tt.name, e.Class, e)
		}
	}
}

func TestSalesforceTokenAnswers(t *testing.T) {
	refused := func(word, description string) string {
		return `{"error":"` + word + `","error_description":"` + description + `"}`
	}
	tests := []struct {
		status int
		body   string
		class  signup.Class
		code   string
		detail string
	}{
		{503, "<html>", signup.Transient, "unavailable", ""},
		{500, refused("unknown_error", "retry your request"), signup.Transient, "unavailable", ""},
		{400, refused("unknown_error", "retry your request"), signup.Transient, "unavailable", "salesforce: unknown_error"},
		{400, refused("inactive_org", "organization locked"), signup.Systemic, "unauthorized", "salesforce: inactive_org; the org is locked, closed or suspended"},
		{400, refused("invalid_grant", "about sync@example.org"), signup.Systemic, "unauthorized", "salesforce: invalid_grant"},
		{400, refused("rate_limit_exceeded", "login rate exceeded"), signup.Throttled, "throttled", "salesforce: rate_limit_exceeded"},
		{400, refused("sync@example.org", ""), signup.Transient, "not-understood", ""},
		{400, "<html>", signup.Transient, "not-understood", ""}, {401, "", signup.Transient, "not-understood", ""}, {404, "no such page", signup.Transient, "not-understood", ""},
		{302, "", signup.Systemic, "redirected", "settings.url wants the org's own My Domain"},
		{429, "", signup.Throttled, "throttled", ""},
		{200, "<html>", signup.Transient, "not-understood", "the answer is not Salesforce's"}, {200, "{}", signup.Transient, "not-understood", "the answer is not Salesforce's"},
		{200, `{"access_token":"a b\r\nX: y"}`, signup.Transient, "not-understood", "the answer is not Salesforce's"},
		{200, `{"access_token":"00D!token","token_type":"mac"}`, signup.Transient, "not-understood", "the answer is not Salesforce's"},
		{200, "", signup.Transient, "not-understood", "the answer is not Salesforce's"},
	}
	_, key := appKey()
	for _, tt := range tests {
		calls := 0
		root, client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls++
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		}))
		c := open(t, "salesforce", map[string]any{"url": root, "clientId": consumerKey, "privateKey": key, "username": "sync@example.org"},
			connector.Env{HTTP: client, Clock: sim.NewClock(start)})
		e := call(t, c, person(1))
		if e.Class != tt.class || e.Code != tt.code || e.Detail != tt.detail || calls != 1 {
			t.Errorf("%d %s: got %s, %v in %d calls; want %s, %s: %s", tt.status, tt.body, e.Class, e, calls, tt.class, tt.code, tt.detail)
		}
		if tt.status == 400 && tt.class == signup.Throttled && e.RetryAfter != 15*time.Minute {
			t.Errorf("%s: retry after %s", tt.body, e.RetryAfter)
		}
	}
}

// heldTokens answers the token endpoint only once it is let.
func heldTokens(t *testing.T) (c signup.Connector, asked <-chan struct{}, let func(), tokens *atomic.Int32) {
	arrived, free := make(chan struct{}, 100), make(chan struct{})
	tokens = &atomic.Int32{}
	_, key := appKey()
	root, client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/services/oauth2/token" {
			tokens.Add(1)
			arrived <- struct{}{}
			<-free
			_, _ = w.Write([]byte(`{"access_token":"00D1!token"}`))
			return
		}
		_, _ = w.Write([]byte(`[{"id":"0035f0000000001AAA","success":true,"errors":[]}]`))
	}))
	let = sync.OnceFunc(func() { close(free) })
	t.Cleanup(let)
	c = open(t, "salesforce", map[string]any{"url": root, "clientId": consumerKey, "privateKey": key, "username": "sync@example.org"},
		connector.Env{HTTP: client, Clock: sim.NewClock(start)})
	return c, arrived, let, tokens
}

func TestSalesforceCallersShareOneToken(t *testing.T) {
	c, asked, let, tokens := heldTokens(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := c.Associate(t.Context(), person(i)); err != nil {
				t.Error(err)
			}
		})
	}
	<-asked
	let()
	wg.Wait()
	if got := tokens.Load(); got != 1 {
		t.Errorf("%d tokens, want 1", got)
	}
}

func TestSalesforceCancelledCallerLeavesTheTokenToTheOthers(t *testing.T) {
	c, asked, let, tokens := heldTokens(t)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.Associate(ctx, person(1))
		first <- err
	}()
	<-asked
	second := make(chan error, 1)
	go func() {
		_, err := c.Associate(t.Context(), person(2))
		second <- err
	}()
	cancel()
	err := <-first
	if _, isOutcome := errors.AsType[*signup.Error](err); isOutcome || !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled one: %v", err)
	}
	let()
	if err := <-second; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if got := tokens.Load(); got != 1 {
		t.Errorf("%d tokens, want 1", got)
	}
}
