package sim_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

func TestToken(t *testing.T) {
	r := serve(t, calm())
	tests := []struct {
		name, token, message string
	}{
		{"none", "", "Access token is empty."},
		{"not a token", "abc", "Invalid signature"},
		{"forged", r.token + "x", "Invalid signature"},
		{"expired", r.tokenFor(func(c *sim.Claims) { c.Expires = start.Unix() }), "Lifetime validation failed, the token is expired."},
		{"another audience", r.tokenFor(func(c *sim.Claims) { c.Audience = "https://vault.azure.net" }), "Invalid audience"},
		{"another tenant", r.tokenFor(func(c *sim.Claims) { c.Tenant = "x" }), "Invalid tenant"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.token = tt.token
			a := r.get(users)
			r.want(a, 401, "InvalidAuthenticationToken")
			if !strings.Contains(a.message(), tt.message) || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("got %q and %v", a.message(), a.header)
			}
		})
	}
}

func TestHeadersAndErrorBody(t *testing.T) {
	o := calm()
	o.DateSkew = -5 * time.Minute
	r := serve(t, o)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", r.server.URL+users+"/x", nil)
	req.Header.Set("client-request-id", "b9d44ab6-8021-438a-8449-97062f1573af")
	a := r.do(req)
	r.want(a, 404, "Request_ResourceNotFound")
	inner, _ := a.body["error"].(map[string]any)["innerError"].(map[string]any)
	want := map[string]any{"date": "2026-01-02T03:04:05", "request-id": a.header.Get("request-id"), "client-request-id": "b9d44ab6-8021-438a-8449-97062f1573af"}
	if diff := cmp.Diff(inner, want); diff != "" {
		t.Errorf("innerError (-got +want):\n%s", diff)
	}
	if got := a.header.Get("Date"); got != "Fri, 02 Jan 2026 02:59:05 GMT" {
		t.Errorf("got Date %s", got)
	}
	for _, h := range []string{"x-ms-ags-diagnostic", "OData-Version", "Cache-Control", "Strict-Transport-Security", "client-request-id"} {
		if a.header.Get(h) == "" {
			t.Errorf("no %s", h)
		}
	}
	if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "application/json;odata.metadata=minimal") {
		t.Errorf("got %s", got)
	}
	r.tenant.Faults.Add(sim.Fault{Status: 503, Body: "<html>Service Unavailable</html>"})
	if a := r.get(users); a.status != 503 || a.header.Get("Date") != "Fri, 02 Jan 2026 02:59:05 GMT" {
		t.Errorf("a fault has the simulated date too: got %d %v", a.status, a.header.Get("Date"))
	}
}

func TestUnknownPaths(t *testing.T) {
	r := serve(t, calm())
	for _, path := range []string{"/v1.0/shoes", "/v1.0/users/x/shoes", "/beta/", "/v1.0"} {
		r.want(r.get(path), 400, "BadRequest")
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", r.server.URL+users, strings.NewReader("{}"))
	r.want(r.do(req), 400, "BadRequest")
	req, _ = http.NewRequestWithContext(t.Context(), "HEAD", r.server.URL+users, nil)
	if a := r.do(req); a.status != 405 {
		t.Errorf("HEAD: got %d", a.status)
	}
	if a := r.get("/v1.0/auditlogs/DIRECTORYAUDITS"); a.status != 200 {
		t.Errorf("segments in another letter case: got %d", a.status)
	}
}

func TestCompression(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	for i := range 10 {
		r.tenant.SignUp(sim.Person{Email: fmt.Sprintf("u%d@example.com", i)})
	}
	send := func(body io.Reader) answer {
		req, _ := http.NewRequestWithContext(t.Context(), "PATCH", r.server.URL+users+"/"+string(id), body)
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
		req.Header.Set("Content-Encoding", "gzip")
		return r.do(req)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(`{"displayName":"Jane"}`))
	_ = z.Close()
	whole := b.Bytes()
	if a := send(bytes.NewReader(whole)); a.status != 204 {
		t.Errorf("compressed: got %d %s", a.status, a.raw)
	}
	if a := send(io.MultiReader(bytes.NewReader(whole[:5]), bytes.NewReader(whole[5:]))); a.status != 204 { // without a length: chunked
		t.Errorf("compressed and chunked: got %d %s", a.status, a.raw)
	}
	r.want(send(strings.NewReader(`{"displayName":"Retried"}`)), 400, "BadRequest")
	if u, _ := r.tenant.User(id); u.Properties["displayName"] != "Jane" {
		t.Errorf("the name is %v", u.Properties["displayName"])
	}
	calls := r.tenant.Requests()
	if got := string(calls[0].Body); got != `{"displayName":"Jane"}` || calls[0].Status != 204 {
		t.Errorf("the journal has %q, %d", got, calls[0].Status)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", r.server.URL+audits, nil)
	req.Header.Set("Accept-Encoding", "gzip")
	a := r.do(req)
	plain, err := gzip.NewReader(bytes.NewReader(a.raw))
	if err != nil || a.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("answer is not compressed: %v", err)
	}
	if err := json.NewDecoder(plain).Decode(&a.body); err != nil || len(a.rows()) < 11 {
		t.Errorf("got %v and %d rows", err, len(a.rows()))
	}
}

func TestAuditThrottle(t *testing.T) {
	o := calm()
	o.Throttle = sim.ThrottleDocumented
	r := serve(t, o)
	for i := range 5 {
		if a := r.get([]string{audits, "/beta/auditLogs/signUps"}[i%2]); a.status != 200 {
			t.Fatalf("call %d: got %d", i+1, a.status)
		}
		r.clock.Advance(time.Second)
	}
	a := r.get(audits)
	r.want(a, 429, "TooManyRequests")
	if a.header.Get("Retry-After") != "6" { // a throttled call counts: two must leave the window, and then one may come
		t.Errorf("got Retry-After %q", a.header.Get("Retry-After"))
	}
	inner := a.body["error"].(map[string]any)["innerError"].(map[string]any)
	if inner["code"] != "429" || inner["status"] != "429" || inner["message"] != "Please retry after" {
		t.Errorf("got %v", inner)
	}
	mine := r.token
	r.token = r.tokenFor(func(c *sim.Claims) { c.App, c.Roles = "another", []string{"AuditLog.Read.All"} })
	if a := r.get(audits); a.status != 200 {
		t.Errorf("another app has its own limit: got %d", a.status)
	}
	r.token = mine
	if a := r.get(users); a.status != 200 {
		t.Errorf("users have another limit: got %d", a.status)
	}
	r.clock.Advance(6*time.Second - time.Nanosecond)
	r.want(r.get(audits), 429, "TooManyRequests")
	r.clock.Advance(10 * time.Second)
	if a := r.get(audits); a.status != 200 {
		t.Errorf("10 s later: got %d", a.status)
	}
	if got := r.tenant.MaxAuditCallsIn10s(); got != 7 {
		t.Errorf("got at most %d in 10 s, want 7", got)
	}
	if got := r.tenant.Counts()["GET "+audits]; got != 7 {
		t.Errorf("counted %d", got)
	}
}

func TestRetryAfterForms(t *testing.T) {
	date := start.Add(10 * time.Second).Format(http.TimeFormat)
	for form, want := range map[sim.RetryAfter]string{sim.RetryInteger: "10", sim.RetryFractional: "9.500", sim.RetryMissing: "", sim.RetryDate: date, sim.RetryHuge: "300"} {
		o := calm()
		o.Throttle, o.RetryAfter = sim.ThrottleDocumented, form
		r := serve(t, o)
		for range 5 {
			r.get(audits)
		}
		r.clock.Advance(500 * time.Millisecond)
		a := r.get(audits)
		if got := a.header.Get("Retry-After"); a.status != 429 || got != want {
			t.Errorf("form %d: got %d %q, want %q", form, a.status, got, want)
		}
	}
}

func TestResourceUnits(t *testing.T) {
	o := calm()
	o.Throttle = sim.ThrottleDocumented
	r := serve(t, o)
	for query, want := range map[string]string{"": "2", "$select=id": "1", "$top=5": "1", "$select=id&$top=5": "1", "$expand=x": "3"} {
		if got := r.get(users + "?" + query).header.Get("x-ms-resource-unit"); got != want {
			t.Errorf("%s costs %s, want %s", query, got, want)
		}
	}
	o.Throttle = sim.ThrottleTight
	r = serve(t, o) // 350 units in 10 s, 300 writes in 150 s
	id := r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	share := ""
	for range 300 {
		a := r.patch(id, `{"displayName":"x"}`)
		if a.status != 204 {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		share = a.header.Get("x-ms-throttle-limit-percentage")
	}
	if share != "1.00" {
		t.Errorf("share is %q at the limit", share)
	}
	a := r.patch(id, `{"displayName":"x"}`)
	r.want(a, 429, "TooManyRequests")
	if a.header.Get("x-ms-throttle-information") != "WriteLimitExceeded" || a.header.Get("Retry-After") != "150" ||
		a.header.Get("x-ms-throttle-scope") != "Tenant_Application/ReadWrite/"+client+"/"+r.tenant.ID() {
		t.Errorf("got %v", a.header)
	}
	for range 24 {
		r.get(users)
	}
	a = r.get(users) // 301 + 50 units
	r.want(a, 429, "TooManyRequests")
	if a.header.Get("x-ms-throttle-information") != "ResourceUnitLimitExceeded" || a.header.Get("Retry-After") != "10" {
		t.Errorf("got %v", a.header)
	}
}

// The most valuable fault: the write took effect, and the caller is told that it did not.
func TestFaultAfterTheEffect(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{Email: "a@example.com"})
	r.tenant.Faults.Add(sim.Fault{Method: "PATCH", After: true, Status: 503, Header: http.Header{"Retry-After": {"1"}}})
	a := r.patch(id, `{"displayName":"Jane"}`)
	if u, _ := r.tenant.User(id); a.status != 503 || u.Properties["displayName"] != "Jane" {
		t.Errorf("got %d, and the name is %v", a.status, u.Properties["displayName"])
	}
	r.tenant.Faults.Add(sim.Fault{Path: "/users"})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", r.server.URL+users, nil)
	req.Header.Set("Authorization", "Bearer "+r.token)
	if res, err := r.http.Do(req); err == nil {
		res.Body.Close()
		t.Errorf("got %d, want a cut connection", res.StatusCode)
	}
	calls := r.tenant.Requests()
	if n := len(calls); n < 2 || calls[0].Status != 503 || calls[n-1].Status != 0 {
		t.Errorf("the journal has %d calls", n)
	}
}

func TestDirectory(t *testing.T) {
	o := calm()
	o.Attributes = []string{"stripeCustomerId"}
	o.Domains = []string{"contoso.example"}
	r := serve(t, o)
	r.tenant.SignUp(sim.Person{Email: "a@example.com", Attributes: map[string]any{"marketingOptIn": true}})
	apps := r.get("/v1.0/applications", "$filter", "startswith(displayName,'b2c-extensions-app')", "$select", "id,appId").rows()
	if len(apps) != 1 || apps[0]["appId"] != "6ea3bc85-aec2-4b1c-92ff-4a117afb6621" || len(apps[0]) != 2 {
		t.Fatalf("got %v", apps)
	}
	r.want(r.get("/v1.0/applications", "$filter", "contains(displayName,'b2c')"), 400, "Request_UnsupportedQuery")
	rows := r.get(fmt.Sprintf("/v1.0/applications/%v/extensionProperties", apps[0]["id"])).rows()
	got := map[string]any{}
	for _, row := range rows {
		got[row["name"].(string)] = row["dataType"]
	}
	if diff := cmp.Diff(got, map[string]any{r.tenant.Extension("stripeCustomerId"): "String", r.tenant.Extension("marketingOptIn"): "Boolean"}); diff != "" {
		t.Errorf("extensions (-got +want):\n%s", diff)
	}
	r.want(r.get("/v1.0/applications/x/extensionProperties"), 404, "Request_ResourceNotFound")
	org := r.get("/v1.0/organization", "$select", "verifiedDomains").rows()
	text := fmt.Sprint(org[0]["verifiedDomains"])
	if len(org) != 1 || strings.Count(text, "isDefault:true") != 1 || !strings.Contains(text, "isDefault:true isInitial:false name:contoso.example") {
		t.Errorf("got %s", text)
	}
	domains := r.get("/v1.0/domains").rows()
	if len(domains) != 3 || domains[0]["isVerified"] != false {
		t.Errorf("got %v", domains)
	}
	if n, _ := strconv.Atoi(r.get("/v1.0/users").header.Get("x-ms-resource-unit")); n != 0 {
		t.Errorf("units are told although nothing is limited: %d", n)
	}
}
