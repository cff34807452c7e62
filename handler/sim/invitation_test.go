package sim_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

// asPerson gives the caller an administrator's token, by delegated permissions and directory roles.
func (r *rig) asPerson(scopes string, roles ...string) {
	r.token = r.tokenFor(func(c *sim.Claims) {
		c.Object, c.Scopes, c.Directory = "728309ae-1a37-4937-9afe-e35d964db09b", scopes, roles
	})
}

func invitation(address string, more string) string {
	return fmt.Sprintf(`{"invitedUserEmailAddress":%q,"inviteRedirectUrl":"https://myapp.contoso.com"%s}`, address, more)
}

func TestInvitation(t *testing.T) {
	o := calm()
	o.Type, o.BlockedDomains = sim.Workforce, []string{"blocked.example"}
	r := serve(t, o)
	r.asPerson("User.Invite.All User.Read.All", sim.GuestInviter)
	a := r.send("POST", "/v1.0/invitations", invitation("Jane@Fabrikam.com", `,"sendInvitationMessage":true,"invitedUserMessageInfo":{"customizedMessageBody":"Welcome"}`))
	if a.status != 201 || a.body["status"] != "PendingAcceptance" || a.body["inviteRedeemUrl"] == "" {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	id := a.body["invitedUser"].(map[string]any)["id"].(string)
	guest := r.get("/v1.0/users/"+id, "$select", "creationType,userType,externalUserState,mail")
	for name, want := range map[string]any{"creationType": "Invitation", "userType": "Guest", "externalUserState": "PendingAcceptance", "mail": "Jane@Fabrikam.com"} {
		if guest.body[name] != want {
			t.Errorf("%s: got %v, want %v", name, guest.body[name], want)
		}
	}
	for _, filter := range []string{"mail in ('jane@fabrikam.com','x@y.z')", "otherMails/any(o:o eq 'jane@fabrikam.com')"} {
		if rows := r.get("/v1.0/users", "$filter", filter).rows(); len(rows) != 1 || rows[0]["id"] != id {
			t.Errorf("%s: got %v", filter, rows)
		}
	}
	again := r.send("POST", "/v1.0/invitations", invitation("jane@fabrikam.com", ""))
	if again.status != 201 || again.body["invitedUser"].(map[string]any)["id"] != id || again.body["id"] == a.body["id"] {
		t.Errorf("once more: got %d %s", again.status, again.raw)
	}
	if diff := cmp.Diff(r.tenant.Mails(), []sim.Mail{{To: "Jane@Fabrikam.com", Body: "Welcome", URL: a.body["inviteRedeemUrl"].(string)}}); diff != "" {
		t.Errorf("mails (-got +want):\n%s", diff)
	}
	r.tenant.Redeem(r.tenant.Invited("jane@fabrikam.com"))
	if a := r.send("POST", "/v1.0/invitations", invitation("jane@fabrikam.com", "")); a.body["status"] != "Completed" {
		t.Errorf("after the redemption: got %s", a.raw)
	}
	member := r.tenant.SignUp(sim.Person{How: sim.Admin, Email: "boss@elsewhere.example"})
	for address, text := range map[string]string{"a+b@fabrikam.com": "invalid", ".a@fabrikam.com": "invalid", "a": "invalid", "a@contoso.onmicrosoft.com": "verified domain",
		"a@blocked.example": "not allowed", "Boss@elsewhere.example": string(member)} {
		a := r.send("POST", "/v1.0/invitations", invitation(address, ""))
		if r.want(a, 400, "BadRequest"); !strings.Contains(string(a.raw), text) {
			t.Errorf("%s: got %s", address, a.raw)
		}
	}
	if n := len(r.tenant.Users()); n != 2 {
		t.Errorf("%d users, want 2", n)
	}
}

func TestWhoMayInvite(t *testing.T) {
	tests := []struct {
		kind   sim.TenantType
		from   string
		scopes string
		roles  []string
		want   int
	}{
		{sim.Workforce, "", "User.Invite.All", nil, 201},
		{sim.Workforce, "", "User.Read.All", []string{sim.GlobalAdministrator}, 403},
		{sim.Workforce, "adminsAndGuestInviters", "User.Invite.All", nil, 401},
		{sim.Workforce, "adminsAndGuestInviters", "User.Invite.All", []string{sim.GuestInviter}, 201},
		{sim.Workforce, "none", "User.Invite.All", []string{sim.GlobalAdministrator}, 401},
		{sim.External, "", "User.Invite.All", nil, 401},
		{sim.External, "", "User.Invite.All", []string{sim.UserAdministrator}, 201},
	}
	for _, test := range tests {
		o := calm()
		o.Type, o.InvitesFrom = test.kind, test.from
		r := serve(t, o)
		r.asPerson(test.scopes, test.roles...)
		if a := r.send("POST", "/v1.0/invitations", invitation("jane@fabrikam.com", "")); a.status != test.want {
			t.Errorf("%+v: got %d %s", test, a.status, a.raw)
		}
	}
}
