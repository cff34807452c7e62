package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	stdhtml "html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const adminObject = "728309ae-1a37-4937-9afe-e35d964db09b"

// administrator is who logs in, and may do it all.
var administrator = sim.Login{Object: adminObject, Roles: []string{sim.GlobalAdministrator}, Consent: []string{"User.Invite.All", "Policy.Read.All"}}

func (w world) login(shown *[]string) identity.LoginOptions {
	return identity.LoginOptions{Tenant: tenantID, Authority: authority, Graph: "https://graph.microsoft.com", HTTP: w.client,
		Scopes: []string{"User.Invite.All", "Policy.Read.All"}, Show: func(text string) { *shown = append(*shown, text) }}
}

// claimsOf reads a token.
func claimsOf(t *testing.T, token string) (c sim.Claims) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnAdministratorLogsInByADeviceCode(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		person := administrator
		person.Slow, person.Pending = 2, 5
		w.entra.SetLogin(person)
		var shown []string
		login, err := identity.LogIn(t.Context(), w.login(&shown))
		if err != nil {
			t.Fatal(err)
		}
		if len(shown) != 1 || !strings.Contains(shown[0], "https://microsoft.com/devicelogin") {
			t.Errorf("shown: %q", shown)
		}
		c := claimsOf(t, w.token(login).Token)
		if got, want := []string{c.Tenant, c.App, c.Object, c.Scopes, c.Audience}, []string{tenantID, identity.GraphTools, adminObject, "User.Invite.All Policy.Read.All", "https://graph.microsoft.com"}; !cmp.Equal(got, want) {
			t.Errorf("the token (-got +want):\n%s", cmp.Diff(got, want))
		}
	})
}

func TestALoginThatFailsSaysWhatToDo(t *testing.T) {
	other := func(o *identity.LoginOptions) { o.ClientID = clientID }
	tests := []struct {
		name   string
		person func(*sim.Login)
		change func(*identity.LoginOptions)
		code   string
		text   string
	}{
		{"declined", func(p *sim.Login) { p.Refuse = "authorization_declined" }, nil, "no-login", "declined"},
		{"access denied", func(p *sim.Login) { p.Refuse = "access_denied" }, nil, "no-login", "declined"},
		{"expired", func(p *sim.Login) { p.Refuse = "expired_token" }, nil, "no-login", "in time"},
		{"an unknown code", func(p *sim.Login) { p.Refuse = "bad_verification_code" }, nil, "no-login", "not known any more"},
		{"nobody comes", func(p *sim.Login) { p.Object = "" }, nil, "no-login", "in time"},
		{"no consent", func(p *sim.Login) { p.Consent = nil }, nil, "no-login", "administrator has to log in"},
		{"a client that wants a secret", nil, other, "aadsts7000218", "allow public client flows"},
		{"an unknown client", nil, func(o *identity.LoginOptions) { o.ClientID = identityID }, "aadsts700016", "--client-id"},
		{"an unknown tenant", nil, func(o *identity.LoginOptions) { o.Tenant = identityID }, "aadsts90002", "no such tenant"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				person := administrator
				if test.person != nil {
					test.person(&person)
				}
				w.entra.SetLogin(person)
				var shown []string
				o := w.login(&shown)
				if test.change != nil {
					test.change(&o)
				}
				_, err := identity.LogIn(t.Context(), o)
				e, ok := errors.AsType[*signup.Error](err)
				if !ok || e.Code != test.code || e.Class != signup.Systemic || !strings.Contains(e.Detail, test.text) {
					t.Errorf("got %v, want %s … %s", err, test.code, test.text)
				}
			})
		})
	}
}

func TestALoginIsLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		var shown []string
		if _, err := identity.LogIn(ctx, w.login(&shown)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// A token ends midway, and is renewed without a word; when the login itself has ended nobody is asked again in the middle of
// the work.
func TestALoginIsRenewedWithoutAWordAndEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.entra.SetLogin(administrator)
		var shown []string
		login, err := identity.LogIn(t.Context(), w.login(&shown))
		if err != nil {
			t.Fatal(err)
		}
		first := w.token(login).Token
		time.Sleep(2 * time.Hour)
		if second := w.token(login).Token; second == first || claimsOf(t, second).Object != adminObject {
			t.Error("the token was not renewed")
		}
		person := administrator
		person.Gone = true
		w.entra.SetLogin(person)
		w.token(login) // which is still good
		time.Sleep(2 * time.Hour)
		if e := failure(t, login); e.Code != "no-login" || e.Class != signup.Systemic {
			t.Errorf("got %v", e)
		}
		if codes := w.entra.Counts()["POST /{tenant}/oauth2/v2.0/devicecode"]; codes != 1 || len(shown) != 1 {
			t.Errorf("%d device codes, %d texts", codes, len(shown))
		}
	})
}

// The token endpoint is down when a token is to be renewed: that is not the end of the login.
func TestALoginOutlivesAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.entra.SetLogin(administrator)
		var shown []string
		login, err := identity.LogIn(t.Context(), w.login(&shown))
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range []sim.Fault{{Path: "/token", Times: -1, Status: 503, Body: html}, {Path: "/token", Times: -1, Status: 429}, {Path: "/token", Times: -1}} {
			time.Sleep(2 * time.Hour)
			w.entra.Faults.Add(fault)
			if e := failure(t, login); e.Class != signup.Transient {
				t.Errorf("%+v: got %v", fault, e)
			}
			w.entra.Faults.Clear()
			time.Sleep(time.Minute)
			w.token(login)
		}
	})
}

// browser stands in for the person's own: it is started with the address, follows it, and submits the form that comes.
func (w world) browser() {
	dir := w.t.TempDir()
	page := filepath.Join(dir, "page")
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\nprintf %s \"$1\" > "+page+".part && mv "+page+".part "+page+"\n"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	input := regexp.MustCompile(`name="(\w+)" value="([^"]*)"`)
	go func() {
		var address []byte
		for len(address) == 0 && w.t.Context().Err() == nil {
			time.Sleep(5 * time.Millisecond)
			address, _ = os.ReadFile(page)
		}
		req, err := http.NewRequestWithContext(w.t.Context(), "GET", string(address), nil)
		if err != nil {
			return // the test has ended
		}
		resp, err := w.client.Do(req)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		form := url.Values{}
		for _, m := range input.FindAllStringSubmatch(string(body), -1) {
			form.Set(m[1], stdhtml.UnescapeString(m[2]))
		}
		action := regexp.MustCompile(`action="([^"]*)"`).FindStringSubmatch(string(body))
		if action == nil {
			return
		}
		back, err := http.PostForm(stdhtml.UnescapeString(action[1]), form)
		if err == nil {
			_ = back.Body.Close()
		}
	}()
}

func TestAnAdministratorLogsInWithABrowser(t *testing.T) {
	for _, accepts := range []bool{true, false} {
		w := newWorld(t)
		person := administrator
		if !accepts {
			person.Consent = nil
		}
		w.entra.SetLogin(person)
		w.browser()
		o := w.login(nil)
		o.Browser = true
		login, err := identity.LogIn(t.Context(), o)
		if e, _ := errors.AsType[*signup.Error](err); !accepts {
			if e == nil || e.Code != "no-login" || e.Class != signup.Systemic {
				t.Errorf("declined: got %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if c := claimsOf(t, w.token(login).Token); c.Scopes != "User.Invite.All Policy.Read.All" || c.Tenant != tenantID {
			t.Errorf("got %+v", c)
		}
	}
}
