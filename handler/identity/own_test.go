package identity_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

var storageToken = policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}}

const header = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"

// someClient is a client id that no other test has: Microsoft's library keeps the tokens of managed identities for the
// whole process.
func someClient() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// managed is the real credential of a Function App.
func (w world) managed(endpoint *sim.Identity, client string) azcore.TokenCredential {
	w.t.Helper()
	*w.identity = endpoint
	w.t.Setenv("IDENTITY_ENDPOINT", authority+"/msi/token")
	w.t.Setenv("IDENTITY_HEADER", header)
	c, err := identity.OpenOwn(true, client, w.client)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestManyCallersAskTheManagedIdentityOnce(t *testing.T) {
	client := someClient()
	inBubble(t, func(t *testing.T, w world) {
		there := sim.NewIdentity(sim.IdentityOptions{Tenant: tenantID, Header: header, ClientID: client})
		c := w.managed(there, client)
		together(64, func() {
			if token, err := c.GetToken(t.Context(), storageToken); err != nil || token.Token == "" {
				t.Error(err)
			}
		})
		if n := len(there.Requests()); n != 1 {
			t.Errorf("got %d requests, want 1", n)
		}
		// It lives for a day. The library names its half as the time to renew it, and then gives the same one again
		// until five minutes before its end.
		there.Faults.Add(sim.Fault{Delay: time.Second, Times: -1, Status: 500})
		time.Sleep(13 * time.Hour)
		for range 3 {
			if _, err := c.GetToken(t.Context(), storageToken); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if n := len(there.Requests()); n != 1 {
			t.Errorf("got %d requests at half of its life, want 1", n)
		}
		time.Sleep(11*time.Hour - 4*time.Minute)
		before := time.Now()
		if _, err := c.GetToken(t.Context(), storageToken); err != nil || time.Since(before) > 0 {
			t.Errorf("got %v after %v", err, time.Since(before))
		}
		time.Sleep(time.Minute)
		if n := len(there.Requests()); n < 2 {
			t.Errorf("got %d requests, want a renewal", n)
		}
	})
}

func TestTheManagedIdentityGivesNoToken(t *testing.T) {
	const (
		gives   = "this program's Azure identity gives no token"
		refused = "check AZURE_CLIENT_ID and that the identity is assigned"
	)
	tests := []struct {
		name, client, header string
		fault                *sim.Fault
		class                signup.Class
		status               int
		text                 string
	}{
		{name: "not assigned", client: "22222222-5eed-4000-8000-0000000000bb", class: signup.Systemic, status: 400, text: refused},
		{name: "wrong header", header: "other", class: signup.Systemic, status: 401, text: refused},
		{name: "forbidden", fault: &sim.Fault{Times: -1, Status: 403}, class: signup.Systemic, status: 403, text: refused},
		{name: "being changed", fault: &sim.Fault{Times: -1, Status: 404}, class: signup.Transient, status: 404, text: gives},
		{name: "being upgraded", fault: &sim.Fault{Times: -1, Status: 410}, class: signup.Transient, status: 410, text: gives},
		{name: "throttled", fault: &sim.Fault{Times: -1, Status: 429, Header: http.Header{"Retry-After": {"60"}}}, class: signup.Throttled, status: 429, text: gives},
		{name: "outage", fault: &sim.Fault{Times: -1, Status: 500}, class: signup.Transient, status: 500, text: gives},
		{name: "unavailable", fault: &sim.Fault{Times: -1, Status: 503}, class: signup.Transient, status: 503, text: gives},
		{name: "cut off", fault: &sim.Fault{Times: -1}, class: signup.Transient, text: gives},
		{name: "HTML", fault: &sim.Fault{Times: -1, Status: 200, Body: html}, class: signup.Transient, text: gives},
		{name: "hanging", fault: &sim.Fault{Times: -1, Delay: day}, class: signup.Transient, text: gives},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				client := someClient()
				if test.client == "" {
					test.client = client
				}
				there := sim.NewIdentity(sim.IdentityOptions{Tenant: tenantID, Header: header + test.header, ClientID: client})
				if test.fault != nil {
					there.Faults.Add(*test.fault)
				}
				c := w.managed(there, test.client)
				before := time.Now()
				_, err := c.GetToken(t.Context(), storageToken)
				e, ok := errors.AsType[*signup.Error](err)
				if !ok || e.Class != test.class || e.Code != "no-identity" || e.Status != test.status || !strings.Contains(e.Detail, test.text) {
					t.Errorf("got %v, want %v with %q", err, test.class, test.text)
				}
				if d := time.Since(before); d > 20*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// The whole way of a Function App: managed identity, vault, token.
func TestTheManagedIdentityOpensTheVault(t *testing.T) {
	client := someClient()
	inBubble(t, func(t *testing.T, w world) {
		there := sim.NewIdentity(sim.IdentityOptions{Tenant: tenantID, Header: header, ClientID: client})
		cert := certify(t, rsaKey(t, 0), 60*day)
		w.register(cert)
		w.vault.Grant(client, sim.GetSecret, sim.ListSecrets)
		w.vault.AddCertificate(name, sim.Certificate{Key: rsaKey(t, 0), Chain: []*x509.Certificate{cert}})
		o := w.options(identity.Certificate)
		o.Identity = w.managed(there, client)
		c := open(t, o)
		together(8, func() { w.token(c) })
		if n := len(there.Requests()); n != 1 {
			t.Errorf("got %d requests, want 1", n)
		}
	})
}

// fakeAz puts a script on PATH in place of the Azure CLI; without one there is none.
func fakeAz(t *testing.T, script string) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	if script != "" {
		text := "#!/bin/sh\necho \"$@\" >> " + log + "\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(dir, "az"), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return func() []string {
		text, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

func TestTheOperatorsLogin(t *testing.T) {
	calls := fakeAz(t, `echo '{"accessToken":"theirs","expires_on":4102444800}'`)
	c, err := identity.Operator(tenantID)
	if err != nil {
		t.Fatal(err)
	}
	together(8, func() {
		if token, err := c.GetToken(t.Context(), graphToken); err != nil || token.Token != "theirs" {
			t.Errorf("got %v, %v", token, err)
		}
	})
	want := "account get-access-token -o json --resource https://graph.microsoft.com --tenant " + tenantID
	if got := calls(); len(got) != 1 || got[0] != want {
		t.Errorf("called az with %q, want %q once", got, want)
	}
}

// TestAnAnswerOfTheCLIThatComesLate is one that somebody else's process keeps back when its own has ended.
func TestAnAnswerOfTheCLIThatComesLate(t *testing.T) {
	calls := fakeAz(t, `if [ ! -e "$0.late" ]; then : > "$0.late"; /bin/sleep 2 & exit 0; fi; echo '{"accessToken":"theirs","expires_on":4102444800}'`)
	c, err := identity.Operator(tenantID)
	if err != nil {
		t.Fatal(err)
	}
	if token, err := c.GetToken(t.Context(), graphToken); err != nil || token.Token != "theirs" || len(calls()) != 2 {
		t.Errorf("got %v, %v after %d calls", token, err, len(calls()))
	}
}

func TestTheOperatorIsToldWhatToRun(t *testing.T) {
	login := "az login --tenant " + tenantID + " --allow-no-subscriptions"
	tests := []struct{ name, script, code, text string }{
		{"no az", "", "no-az", "is not found: install it, and run " + login},
		{"not logged in", `echo "ERROR: Please run 'az login' to setup account. jane@fabrikam.com" >&2; exit 1`, "no-login", "there is no login of the Azure CLI for this: run " + login},
		{"expired", `echo "ERROR: AADSTS70043: The refresh token has expired, jane@fabrikam.com. Interactive authentication is needed." >&2; exit 1`,
			"no-login", "has expired or is not accepted (AADSTS70043): run " + login},
		{"an answer that is none", "echo hello", "no-login", "run " + login},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fakeAz(t, test.script)
			c, err := identity.Operator(tenantID)
			if err != nil {
				t.Fatal(err)
			}
			e := failure(t, c)
			if e.Class != signup.Systemic || e.Code != test.code || !strings.Contains(e.Detail, test.text) || strings.Contains(e.Error(), "jane") {
				t.Errorf("got %v, want %s with %q", e, test.code, test.text)
			}
			if len(e.Detail) > 200 {
				t.Errorf("%d characters: %v", len(e.Detail), e)
			}
		})
	}
}

func TestAnAzThatHangs(t *testing.T) {
	fakeAz(t, "exec /bin/sleep 60")
	c, err := identity.OpenOwn(false, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.GetToken(ctx, storageToken)
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Transient || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestOutsideAzureItIsTheCLIsLogin(t *testing.T) {
	fakeAz(t, `echo "ERROR: Please run 'az login' to setup account." >&2; exit 1`)
	c, err := identity.OpenOwn(false, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := failure(t, c); e.Code != "no-login" || !strings.HasSuffix(e.Detail, "run az login") {
		t.Errorf("got %v", e)
	}
	if _, err := identity.Operator("no tenant; rm"); err == nil {
		t.Error("a tenant that is none was accepted")
	}
}
