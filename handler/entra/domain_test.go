package entra_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

const organizations = `{"verifiedDomains":[{"name":"contoso.onmicrosoft.com","isInitial":true},{"name":"Contoso.com","isDefault":true}]}`

func TestTheDomainIsVerifiedBeforeTheFirstNameIsWritten(t *testing.T) {
	name := func(domain string) signup.Patch {
		return signup.Patch{UserPrincipalName: "jane@" + domain, Attributes: map[string]string{"a": "1"}}
	}
	tests := []struct {
		name, domain string
		patch        signup.Patch
		answers      []http.HandlerFunc
		class        signup.Class
		code         string
		asked        string // the last segments of the paths
	}{
		{"verified", "contoso.com", name("contoso.com"), []http.HandlerFunc{page("", organizations), answer(204, "")}, 0, "", "organization PATCH"},
		{"not verified", "contoso.org", name("contoso.org"), []http.HandlerFunc{page("", organizations)}, signup.Systemic, "domain-unverified", "organization"},
		{"another domain than the configured one", "contoso.org", name("contoso.com"), []http.HandlerFunc{answer(204, "")}, 0, "", "PATCH"},
		{"none configured", "", name("contoso.org"), []http.HandlerFunc{answer(204, "")}, 0, "", "PATCH"},
		{"no name in the patch", "contoso.org", signup.Patch{DisplayName: "Jane"}, []http.HandlerFunc{answer(204, "")}, 0, "", "PATCH"},
		{"unavailable", "contoso.com", name("contoso.com"), []http.HandlerFunc{answer(503, html)}, signup.Transient, "unavailable", "organization organization organization"},
		{"an answer without domains", "contoso.com", name("contoso.com"), []http.HandlerFunc{page("", `{}`)}, signup.Transient, "bad-answer", "organization"},
		{"an empty answer", "contoso.com", name("contoso.com"), []http.HandlerFunc{page("")}, signup.Transient, "bad-answer", "organization"},
		{"not Graph's answer", "contoso.com", name("contoso.com"), []http.HandlerFunc{answer(200, html)}, signup.Transient, "bad-answer", "organization"},
		{"forbidden", "contoso.com", name("contoso.com"), []http.HandlerFunc{refusal(403, "Authorization_RequestDenied", "")}, signup.Systemic, "forbidden", "organization"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answers...)
			tenant := g.open(known, func(o *entra.Options) { o.Domain = test.domain })
			err := tenant.Update(t.Context(), jane, test.patch)
			e, ok := errors.AsType[*signup.Error](err)
			if ok != (test.code != "") || ok && (e.Class != test.class || e.Code != test.code || len(e.Detail) > 200) || !ok && err != nil {
				t.Errorf("got %v, want %v %s", err, test.class, test.code)
			}
			if test.code == "domain-unverified" && !strings.Contains(e.Detail, "contoso.org; verify it under") {
				t.Errorf("got %q", e.Detail)
			}
			var asked []string
			for _, r := range g.asked() {
				if r.Method == http.MethodPatch {
					asked = append(asked, r.Method)
					continue
				}
				asked = append(asked, r.Path[strings.LastIndexByte(r.Path, '/')+1:])
				if r.Path != "/v1.0/organization" || r.Query.Get("$select") != "verifiedDomains" {
					t.Errorf("asked for %s %s", r.Path, r.RawQuery)
				}
			}
			if got := strings.Join(asked, " "); got != test.asked {
				t.Errorf("asked %q, want %q", got, test.asked)
			}
		})
	}
}

func TestTheDomainIsAskedForOnce(t *testing.T) {
	g := newGraph(t, page("", `{"verifiedDomains":[{"name":"contoso.onmicrosoft.com"}]}`), page("", organizations), answer(204, ""))
	tenant := g.open(func(o *entra.Options) { o.Domain = "contoso.com" })
	patch := signup.Patch{UserPrincipalName: "jane@contoso.com"}
	if err := tenant.Update(t.Context(), jane, patch); err == nil {
		t.Error("got no error")
	}
	var wg sync.WaitGroup // it was verified meanwhile
	for range 8 {
		wg.Go(func() {
			if err := tenant.Update(t.Context(), jane, patch); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := tenant.Counts(); got.Profiles != 2 || got.Updates != 8 {
		t.Errorf("got %+v, want the domains read twice", got)
	}
}

func TestCheckLooksAtTheDomain(t *testing.T) {
	for domain, good := range map[string]bool{"": true, "contoso.com": true, "contoso.org": false} {
		g := newGraph(t, page("", `{"id":"`+string(jane)+`"}`), page("", organizations))
		err := g.open(func(o *entra.Options) { o.Domain = domain }).Check(t.Context())
		if (err == nil) != good {
			t.Errorf("%q: got %v", domain, err)
		}
	}
}
