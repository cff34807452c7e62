package entra_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

// graphOutcome is what is compared of an error.
type graphOutcome struct {
	Class      signup.Class
	Code       string
	Status     int
	RetryAfter time.Duration
	Calls      int64
	Slept      time.Duration
}

const html = `<html><body>Service Unavailable jane@fabrikam.com</body></html>`

func TestAnswers(t *testing.T) {
	profile := answer(200, `{"value":[{"id":"`+string(jane)+`"}]}`)
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		want    graphOutcome // Code "" = success
	}{
		{"HTML 502 is tried three times and keeps its status", []http.HandlerFunc{answer(502, html)},
			graphOutcome{signup.Transient, "unavailable", 502, 0, 3, 3 * time.Second}},
		{"{} with 500 keeps its status", []http.HandlerFunc{answer(500, `{}`)},
			graphOutcome{signup.Transient, "unavailable", 500, 0, 3, 3 * time.Second}},
		{"a list for an error body", []http.HandlerFunc{answer(500, `[]`)},
			graphOutcome{signup.Transient, "unavailable", 500, 0, 3, 3 * time.Second}},
		{"a gateway's error body", []http.HandlerFunc{answer(400, `{"statusCode":400,"message":"no"}`)},
			graphOutcome{signup.Permanent, "rejected", 400, 0, 1, 0}},
		{"an error that is a string", []http.HandlerFunc{answer(403, `{"error":"invalid"}`)},
			graphOutcome{signup.Systemic, "forbidden", 403, 0, 1, 0}},
		{"an error whose message is null", []http.HandlerFunc{answer(403, `{"error":{"code":"x","message":null}}`)},
			graphOutcome{signup.Systemic, "forbidden", 403, 0, 1, 0}},
		{"an error without a body", []http.HandlerFunc{answer(404, ``)},
			graphOutcome{signup.Permanent, "rejected", 404, 0, 1, 0}},
		{"a redirect is not followed", []http.HandlerFunc{answer(302, ``, "Location", "/elsewhere")},
			graphOutcome{signup.Systemic, "redirected", 302, 0, 1, 0}},
		{"empty 200", []http.HandlerFunc{answer(200, ``)},
			graphOutcome{signup.Transient, "bad-answer", 200, 0, 1, 0}},
		{"200 that is HTML", []http.HandlerFunc{answer(200, html)},
			graphOutcome{signup.Transient, "bad-answer", 200, 0, 1, 0}},
		{"a lost connection is tried again", []http.HandlerFunc{cut(`{"val`), profile}, graphOutcome{Calls: 2, Slept: time.Second}},
		{"503 and then an answer", []http.HandlerFunc{answer(503, html), profile}, graphOutcome{Calls: 2, Slept: time.Second}},
		{"429 for two seconds is waited for", []http.HandlerFunc{answer(429, `{}`, "Retry-After", "2"), profile},
			graphOutcome{Calls: 2, Slept: 2 * time.Second}},
		{"fractional Retry-After is rounded up", []http.HandlerFunc{answer(429, `{}`, "Retry-After", "2.128"), profile},
			graphOutcome{Calls: 2, Slept: 3 * time.Second}},
		{"429 for five minutes is returned", []http.HandlerFunc{answer(429, `{}`, "Retry-After", "300")},
			graphOutcome{signup.Throttled, "throttled", 429, 300 * time.Second, 1, 0}},
		{"huge Retry-After is capped", []http.HandlerFunc{answer(429, `{}`, "Retry-After", "99999999999999999999")},
			graphOutcome{signup.Throttled, "throttled", 429, time.Hour, 1, 0}},
		{"Retry-After as a date, by the answer's own clock", []http.HandlerFunc{answer(503, ``,
			"Date", "Fri, 02 Jan 2026 09:00:00 GMT", "Retry-After", "Fri, 02 Jan 2026 09:01:30 GMT")},
			graphOutcome{signup.Transient, "unavailable", 503, 90 * time.Second, 1, 0}},
		{"senseless Retry-After", []http.HandlerFunc{answer(503, ``, "Retry-After", "soon"), profile},
			graphOutcome{Calls: 2, Slept: time.Second}},
		{"negative Retry-After", []http.HandlerFunc{answer(503, ``, "Retry-After", "-5"), profile},
			graphOutcome{Calls: 2, Slept: time.Second}},
		{"429 without Retry-After gets our own pause and is returned", []http.HandlerFunc{answer(429, `{}`)},
			graphOutcome{signup.Throttled, "throttled", 429, 20 * time.Second, 1, 0}},
		{"401 is systemic at once", []http.HandlerFunc{refusal(401, "InvalidAuthenticationToken", "Access token is empty.")},
			graphOutcome{signup.Systemic, "unauthorized", 401, 0, 1, 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answers...)
			tenant := g.open()
			err := tenant.Check(t.Context())
			got := graphOutcome{Calls: tenant.Calls()}
			for _, d := range g.clock.slept {
				got.Slept += d
			}
			if e, ok := errors.AsType[*signup.Error](err); ok {
				got.Class, got.Code, got.Status, got.RetryAfter = e.Class, e.Code, e.Status, e.RetryAfter
			}
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("%v\ngot, want:\n%s", err, diff)
			}
			for _, text := range []string{g.log.String(), errorText(err)} {
				for _, secret := range []string{"jane@", "secret-token", "$select", "127.0.0.1"} {
					if strings.Contains(text, secret) {
						t.Errorf("%q is in %q", secret, text)
					}
				}
			}
		})
	}
}

// A wait that would not leave room before the deadline is returned, and so is one for our own pace.
func TestThrottlingIsReturnedNotSleptBeyondTheDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	g := newGraph(t, answer(429, `{}`, "Retry-After", "9"))
	tenant := g.open()
	err := tenant.Check(ctx)
	e, ok := errors.AsType[*signup.Error](err)
	if !ok || e.Class != signup.Throttled || e.RetryAfter != 9*time.Second || len(g.clock.slept) > 0 {
		t.Errorf("got %v after sleeping %v, want a throttling for 9s and no sleep", err, g.clock.slept)
	}
	if n := tenant.Counts().Throttled; n != 1 {
		t.Errorf("got %d throttled calls, want 1", n)
	}

	g = newGraph(t, page(""))
	tenant = g.open()
	for range 2 { // two queries each
		if _, err := events(t, tenant.Audit(), window); err != nil {
			t.Fatal(err)
		}
	}
	for _, err = range tenant.Audit().Events(ctx, window) {
	}
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Throttled || e.RetryAfter != 10*time.Second {
		t.Errorf("got %v, want a throttling for 10s", err)
	}
	if len(g.clock.slept) > 0 || tenant.Calls() != 4 {
		t.Errorf("slept %v in %d calls, want no sleep in 4", g.clock.slept, tenant.Calls())
	}
}

// The last calls before a deadline are made as long as nothing has to be waited for.
func TestACallCloseToTheDeadlineIsMade(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	g := newGraph(t, answer(204, ""))
	if err := g.open().Update(ctx, jane, signup.Patch{DisplayName: "x"}); err != nil {
		t.Error(err)
	}
	g = newGraph(t, answer(503, html))
	tenant := g.open()
	if err := tenant.Update(ctx, jane, signup.Patch{DisplayName: "x"}); err == nil || tenant.Calls() != 1 || len(g.clock.slept) > 0 {
		t.Errorf("got %v after %d calls and sleeping %v, want an error after 1", err, tenant.Calls(), g.clock.slept)
	}
}

func TestAnEndedContextIsTheError(t *testing.T) {
	g := newGraph(t, answer(503, html))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.open().Check(ctx); !errors.Is(err, context.Canceled) || len(g.clock.slept) > 0 {
		t.Errorf("got %v after sleeping %v, want context.Canceled at once", err, g.clock.slept)
	}
}

func TestATryThatHangsIsTriedAgain(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
	g := newGraph(t, hang, page(""))
	tenant := g.open(func(o *entra.Options) { o.Timeout = time.Second })
	before := time.Now()
	if err := tenant.Check(t.Context()); err != nil || tenant.Calls() != 2 {
		t.Errorf("got %v after %d calls, want success after 2", err, tenant.Calls())
	}
	if d := time.Since(before); d > 10*time.Second {
		t.Errorf("it took %v, want little more than the second of a try", d)
	}
}

func TestRequestsCarryWhatGraphAsksFor(t *testing.T) {
	g := newGraph(t, page(""))
	if err := g.open().Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := g.asked()[0]
	got := []string{r.Method, r.Path, r.RawQuery, r.Header.Get("Authorization"), r.Header.Get("User-Agent"), r.Header.Get("Accept")}
	want := []string{"GET", "/v1.0/users", "$select=id&$top=1", "Bearer secret-token", "signup-sync", "application/json"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	if _, err := signup.ParseUserID(r.Header.Get("client-request-id")); err != nil {
		t.Errorf("client-request-id: %v", err)
	}
	if got, want := g.credential.asked[0].Scopes, []string{"https://graph.microsoft.com/.default"}; !cmp.Equal(got, want) {
		t.Errorf("got scopes %v, want %v", got, want)
	}
}

func TestAChallengeIsAnsweredOnceWithItsClaims(t *testing.T) {
	claims := `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
	challenge := refusal(401, "InvalidAuthenticationToken", "Continuous access evaluation resulted in challenge", "WWW-Authenticate",
		`Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="`+
			base64.StdEncoding.EncodeToString([]byte(claims))+`"`)
	t.Run("then accepted", func(t *testing.T) {
		g := newGraph(t, challenge, page(""))
		if err := g.open().Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := g.asked()[1].Header.Get("Authorization"), "Bearer token-with-claims"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		last := g.credential.asked[len(g.credential.asked)-1]
		if last.Claims != claims {
			t.Errorf("got claims %q", last.Claims)
		}
		if slices.ContainsFunc(g.credential.asked, func(o policy.TokenRequestOptions) bool { return o.EnableCAE }) {
			t.Error("it asked for continuous access evaluation: such a token may live for a day, without what was granted meanwhile")
		}
	})
	t.Run("then refused", func(t *testing.T) {
		g := newGraph(t, challenge)
		tenant := g.open()
		err := tenant.Check(t.Context())
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Systemic || tenant.Calls() != 2 {
			t.Errorf("got %v after %d calls, want systemic after 2", err, tenant.Calls())
		}
	})
}

// The SDK's authentication provider is silent when it has no token to add.
func TestNothingIsSentWithoutAToken(t *testing.T) {
	g := newGraph(t, page(""))
	g.credential.empty = true
	tenant := g.open()
	err := tenant.Check(t.Context())
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Systemic || e.Code != "no-token" || tenant.Calls() != 0 || len(g.asked()) != 0 {
		t.Errorf("got %v after %d calls, want no-token after none", err, tenant.Calls())
	}
	g.credential.err = errors.New("POST https://login.example/?client_assertion=secret-token")
	err = tenant.Check(t.Context())
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Transient || strings.Contains(err.Error(), "secret-token") {
		t.Errorf("got %v, want a transient error without the cause's text", err)
	}
}

func TestErrorsNameCodeStatusRequestAndPermission(t *testing.T) {
	g := newGraph(t, refusal(403, "Authorization_RequestDenied", "Insufficient privileges, jane@fabrikam.com."))
	for _, err := range g.open().Audit().Events(t.Context(), window) {
		want := "read the audit log: forbidden (HTTP 403): Authorization_RequestDenied; grant the app the application permission " +
			"AuditLog.Read.All with admin consent; request-id 94fb3b52-452a-4535-a601-69e0a90e3aa2"
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	}
}

func TestOpenReportsAllErrorsAtOnce(t *testing.T) {
	_, err := entra.Open(entra.Options{GraphURL: "https://graph.microsoft.com/v1.0", ExtensionsApp: "x"})
	for _, want := range []string{"more than scheme and host", "credential is missing", "clock is missing", "extensions app"} {
		if !strings.Contains(errorText(err), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	for _, u := range []string{"", "graph.microsoft.com", "http://graph.microsoft.com", "https://user@graph.microsoft.com", "https://g?x=1"} {
		if _, err := entra.Open(entra.Options{GraphURL: u, Credential: &credential{}, Clock: &clock{}}); err == nil {
			t.Errorf("%q is accepted", u)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
