package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
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
