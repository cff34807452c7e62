package sim

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"signup-sync/handler/signup"
)

// Mail is an invitation that Microsoft has sent.
type Mail struct {
	To, Body, URL string
}

// Mails are those sent so far.
func (t *Tenant) Mails() []Mail {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.mails)
}

// invitation is what is asked for (docs: invitation resource).
type invitation struct {
	Address  string `json:"invitedUserEmailAddress"`
	Redirect string `json:"inviteRedirectUrl"`
	Name     string `json:"invitedUserDisplayName"`
	Send     bool   `json:"sendInvitationMessage"`
	Info     struct {
		Language *string `json:"messageLanguage"`
		Body     *string `json:"customizedMessageBody"`
	} `json:"invitedUserMessageInfo"`
}

// invite makes a guest, or invites one who is there once more (docs: Create invitation). What the pages do not say: the
// texts and codes of refusals, which are those seen in the field, and that who may not invite is refused by 401, as by the
// service behind Graph.
func (t *Tenant) invite(c *graphCall) reply {
	var in invitation
	if err := json.Unmarshal(c.body, &in); err != nil {
		return badRequest("Unable to read JSON request payload.")
	}
	if !t.mayInvite(c) {
		r := refuse(http.StatusUnauthorized, "Unauthorized", "Guest invitations not allowed for your company. Contact your company administrator for more details.")
		return r
	}
	local, domain, whole := strings.Cut(in.Address, "@")
	redirect, err := url.Parse(in.Redirect)
	switch {
	case !whole || local == "" || !strings.Contains(domain, ".") || strings.ContainsAny(in.Address, "~!#$%^&*()+=[]{}\\/|;:\"<>?, ") || strings.Trim(local, ".-") != local:
		return badRequest("The email address '" + in.Address + "' of the invited user is invalid.")
	case err != nil || redirect.Host == "":
		return badRequest("The inviteRedirectUrl is missing or invalid.")
	case slices.ContainsFunc(append(t.o.Domains, t.o.Domain), func(d string) bool { return strings.EqualFold(d, domain) }):
		return badRequest("The email address '" + in.Address + "' belongs to a verified domain of this directory.")
	case slices.Contains(t.o.BlockedDomains, strings.ToLower(domain)):
		return badRequest("This invitation is blocked by the policy of your organization: the domain of '" + in.Address + "' is not allowed.")
	}
	guest := t.addressed(in.Address)
	status := "PendingAcceptance"
	if guest == nil {
		guest = t.users[t.arrive(Person{How: Guest, Email: in.Address, DisplayName: in.Name})]
	} else if kind := guest.last()["creationType"]; kind != "Invitation" {
		return badRequest("The invited user already exists in the directory as object ID: " + string(guest.id) + ". They can use that account to sign in to shared apps and resources.")
	} else if guest.last()["externalUserState"] == "Accepted" {
		status = "Completed"
	}
	id := guid(t.ids)
	link := "https://login.microsoftonline.com/redeem?rd=https%3a%2f%2finvitations.microsoft.com%2fredeem%2f%3ftenant%3d" + t.o.ID + "%26user%3d" + id + "%26ticket%3d" + guid(t.ids)[:8] + "%26ver%3d2.0"
	if in.Send {
		body := ""
		if in.Info.Body != nil {
			body = *in.Info.Body
		}
		t.mails = append(t.mails, Mail{To: in.Address, Body: body, URL: link})
	}
	return reply{status: http.StatusCreated, body: map[string]any{
		"@odata.context": c.base() + "/$metadata#invitations/$entity", "id": id, "inviteRedeemUrl": link, "invitedUserDisplayName": in.Name, "invitedUserType": "Guest",
		"invitedUserEmailAddress": in.Address, "sendInvitationMessage": in.Send, "resetRedemption": false, "inviteRedirectUrl": in.Redirect, "status": status,
		"invitedUserMessageInfo": map[string]any{"messageLanguage": in.Info.Language, "customizedMessageBody": in.Info.Body,
			"ccRecipients": []any{map[string]any{"emailAddress": map[string]any{"name": nil, "address": nil}}}},
		"invitedUser": map[string]any{"id": string(guest.id)},
	}}
}

// mayInvite reads allowInvitesFrom (docs: authorizationPolicy). In an external tenant invitations are for administrators.
func (t *Tenant) mayInvite(c *graphCall) bool {
	inviters := []string{GlobalAdministrator, UserAdministrator, GuestInviter}
	admin := slices.ContainsFunc(c.directory, func(role string) bool { return slices.Contains(inviters, role) })
	switch {
	case t.o.InvitesFrom == "none":
		return false
	case t.o.InvitesFrom == "adminsAndGuestInviters" || t.o.Type == External && c.person != "":
		return admin
	}
	return true
}

// addressed finds who has an address, of mail, otherMails and the identities, whatever the replicas show.
func (t *Tenant) addressed(address string) *resident {
	for _, u := range t.order {
		props := u.last()
		mails, _ := props["otherMails"].([]any)
		identities, _ := props["identities"].([]any)
		same := func(v any) bool {
			text, _ := v.(string)
			return strings.EqualFold(text, address)
		}
		held := same(props["mail"]) || slices.ContainsFunc(mails, same) || slices.ContainsFunc(identities, func(i any) bool {
			m, _ := i.(map[string]any)
			return m["signInType"] == "emailAddress" && same(m["issuerAssignedId"])
		})
		if held && !u.deleted() {
			return u
		}
	}
	return nil
}

// Invited is the guest of an address; "" if there is none.
func (t *Tenant) Invited(address string) signup.UserID {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.addressed(address); u != nil {
		return u.id
	}
	return ""
}
