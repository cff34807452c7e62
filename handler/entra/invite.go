package entra

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	abstractions "github.com/microsoft/kiota-abstractions-go"

	"signup-sync/handler/signup"
)

// Invitation asks somebody to become a guest of the tenant.
type Invitation struct {
	Address  string //
	Redirect string // where the guest goes after accepting
	Name     string // display name; "" = none is given
	Message  string // in Microsoft's mail; "" = Microsoft's own words
	Language string // of Microsoft's own words, such as de-DE; "" = English
	Mail     bool   // Microsoft sends it; otherwise RedeemURL is all there is of it
}

// Invited is what became of an invitation.
type Invited struct {
	User      signup.UserID // the guest
	RedeemURL string        // by which anybody can become that guest: a secret
	Accepted  bool          // by somebody who was a guest already
}

// invitationBody is the part of Graph's invitation that is sent.
type invitationBody struct {
	Address  string         `json:"invitedUserEmailAddress"`
	Redirect string         `json:"inviteRedirectUrl"`
	Name     string         `json:"invitedUserDisplayName,omitempty"`
	Mail     bool           `json:"sendInvitationMessage"`
	Info     *invitationMsg `json:"invitedUserMessageInfo,omitempty"`
}

type invitationMsg struct {
	Language string `json:"messageLanguage,omitempty"`
	Message  string `json:"customizedMessageBody,omitempty"`
}

// Invite makes a guest, or sends a new invitation to the same one. An error that is transient may have had its effect, mail
// included; after one that is throttled nothing was done. One that is permanent is about this address: its code is
// "exists", "own-domain", "domain-blocked", "bad-address" or "rejected". It needs a person's login with User.Invite.All, and
// mostly the role Guest Inviter (Create invitation).
func (t *Tenant) Invite(ctx context.Context, in Invitation) (Invited, error) {
	body := invitationBody{Address: in.Address, Redirect: in.Redirect, Name: in.Name, Mail: in.Mail}
	if in.Message != "" || in.Language != "" {
		body.Info = &invitationMsg{Language: in.Language, Message: in.Message}
	}
	var g struct {
		URL    string `json:"inviteRedeemUrl"`
		Status string `json:"status"`
		User   struct {
			ID string `json:"id"`
		} `json:"invitedUser"`
	}
	var out Invited
	c := t.client
	err := c.do(ctx, request{
		kind: inviteCall, once: true,
		info: c.direct(abstractions.POST, c.link("/invitations"), body),
		decode: func(d *decoder) error {
			if err := d.whole(&g); err != nil {
				return err
			}
			id, err := signup.ParseUserID(g.User.ID)
			if err != nil || g.URL == "" {
				return badPage("the answer is no invitation")
			}
			out = Invited{User: id, RedeemURL: g.URL, Accepted: g.Status == "Completed"}
			return nil
		},
		refine: func(e *signup.Error, ge graphError) {
			if e.Class == signup.Systemic { // the service behind Graph says by 401 that somebody may not invite
				e.Detail = inviteCall.remedy() + ", or the tenant lets nobody invite (allowInvitesFrom); " + e.Detail
			}
			if e.Class == signup.Permanent {
				e.Code = reasonOf(ge.Message)
			}
		},
	})
	if err != nil {
		return Invited{}, fmt.Errorf("invite: %w", err)
	}
	return out, nil
}

// refusals are the words by which Graph tells why an address is not invited; it has no codes for that.
var refusals = []struct{ words, code string }{
	{"already exists", "exists"},
	{"verified domain", "own-domain"},
	{"blocked", "domain-blocked"},
	{"not allowed", "domain-blocked"},
	{"invalid", "bad-address"},
}

func reasonOf(message string) string {
	for _, r := range refusals {
		if strings.Contains(strings.ToLower(message), r.words) {
			return r.code
		}
	}
	return "rejected"
}

// Holder is a user of the tenant who has an e-mail address.
type Holder struct {
	User    signup.UserID
	Guest   bool // by an invitation
	Pending bool // that was not accepted yet
}

// holder is a user as Graph shows one.
type holder struct {
	ID           signup.UserID `json:"id"`
	Mail         string        `json:"mail"`
	CreationType string        `json:"creationType"`
	State        string        `json:"externalUserState"`
}

func (h holder) is() Holder {
	return Holder{User: h.ID, Guest: h.CreationType == "Invitation", Pending: h.State == "PendingAcceptance"}
}

const (
	// maxIn is how many values Graph's "in" takes.
	maxIn = 15
	// lookers is how many look-ups go on at the same time.
	lookers = 8
)

// Holders finds who has the addresses: as mail, among otherMails, or to sign in by. The addresses are in lower case, and so
// are the keys of the result; show is told after each how many are done. A user who came into being a moment ago may be
// missing. It needs the permission to read users.
func (t *Tenant) Holders(ctx context.Context, addresses []string, show func(done int)) (map[string]Holder, error) {
	org, err := t.Organization(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan []string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	found, done := map[string]Holder{}, 0
	for range lookers {
		wg.Go(func() {
			for chunk := range chunks {
				some, err := t.holders(ctx, chunk, org.Initial)
				if err != nil {
					cancel(err)
				}
				mu.Lock()
				for address, h := range some {
					found[address] = h
				}
				done += len(chunk)
				if err == nil {
					show(done)
				}
				mu.Unlock()
			}
		})
	}
	for len(addresses) > 0 && ctx.Err() == nil {
		n := min(maxIn, len(addresses))
		chunks <- addresses[:n]
		addresses = addresses[n:]
	}
	close(chunks)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("look up who has the addresses: %w", err)
	}
	return found, nil
}

// holders looks up one chunk: all by mail at once, and who is not found there one by one.
func (t *Tenant) holders(ctx context.Context, addresses []string, issuer string) (map[string]Holder, error) {
	found := map[string]Holder{}
	var quoted []string
	for _, a := range addresses {
		quoted = append(quoted, quote(a))
	}
	all, err := t.findHolders(ctx, "mail in ("+strings.Join(quoted, ",")+")")
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		found[strings.ToLower(h.Mail)] = h.is()
	}
	for _, a := range addresses {
		filters := []string{"otherMails/any(o:o eq " + quote(a) + ")"}
		if issuer != "" {
			filters = append(filters, "identities/any(c:c/issuerAssignedId eq "+quote(a)+" and c/issuer eq "+quote(issuer)+")")
		}
		for _, filter := range filters {
			if _, is := found[a]; is {
				break
			}
			all, err := t.findHolders(ctx, filter)
			if err != nil {
				return nil, err
			}
			if len(all) > 0 {
				found[a] = all[0].is()
			}
		}
	}
	return found, nil
}

func (t *Tenant) findHolders(ctx context.Context, filter string) ([]holder, error) {
	return readAll[holder](ctx, t.client, directoryCall, t.client.link("/users", "$filter", filter, "$select", "id,mail,creationType,externalUserState"))
}

// quote writes a string literal of OData, in which a quote is doubled.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Unsure reports that a call which ended with this error may have had its effect all the same.
func Unsure(err error) bool {
	e, ok := errors.AsType[*signup.Error](err)
	return ok && e.Class == signup.Transient && e.Code != "no-token"
}
