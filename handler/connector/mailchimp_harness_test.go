package connector_test

import (
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	mailchimpKey = "5eed0000000000000000000000000000-us21"
	audience     = "1a2b3c4d5e"
	idField      = "ENTRAOID"
)

// mailchimpSkips are the checks that no audience can pass in which a contact is its address.
var mailchimpSkips = map[string]string{
	connectortest.TwoUsers:       "the suite gives both users one address, and an audience has one contact an address, which both share",
	connectortest.ChangedAddress: "without idField a contact is its address: with another one it cannot be found",
	connectortest.SpentKey:       "there is no idempotency key: the path of a PUT is the contact",
}

func TestMailchimpKeepsThePromisesWhenContactsCarryTheUser(t *testing.T) {
	skips := maps.Clone(mailchimpSkips)
	delete(skips, connectortest.ChangedAddress)
	skips[connectortest.TwoUsers] = "the suite gives both users one address, of which an audience has one contact: the second user is refused as taken"
	connectortest.Run(t, connectortest.Harness{New: mailchimpSystem(idField), Skip: skips})
}

// ofSuite has the address of the suite's users; its hash, by which Mailchimp's paths name a contact, is as good as that.
var ofSuite = sim.MailchimpMember{Email: "Ada.Lovelace+signup@example.com"}

// mailchimpSystem makes an empty audience; field is the setting idField.
func mailchimpSystem(field string) func(t testing.TB) *connectortest.System {
	return func(t testing.TB) *connectortest.System {
		clock := sim.NewClock(start)
		there := sim.NewMailchimp(sim.MailchimpOptions{
			Clock: clock, APIKey: mailchimpKey, Audience: audience, Fields: []sim.MailchimpField{{Tag: "FNAME"}, {Tag: idField}, {Tag: "COMPANY", Required: true}},
		})
		g := &gate{next: published(t, there)}
		root, client := serve(t, g)
		log := &lockedBuffer{}
		c := open(t, "mailchimp", map[string]any{"apiKey": mailchimpKey, "url": root, "audience": audience, "idField": field, "tags": "signed up"},
			connector.Env{HTTP: client, Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil))})
		const stranger = "stranger@example.com"
		s := &connectortest.System{
			Connector: c, Clock: clock, Log: log.String, Secrets: []string{mailchimpKey, ofSuite.Hash()}, NeedsAddress: true,
			Accounts: func(user signup.UserID) (n int) {
				for _, m := range there.Members() {
					if m.Email != stranger && (field == "" || m.Merge[field] == string(user)) {
						n++
					}
				}
				return n
			},
			State: func() string { return asJSON(there.Members()) },
			Record: func(email, name string) map[string]any {
				r := map[string]any{"status": "subscribed", "mergeFields": map[string]any{"FNAME": name}, "language": "de-AT", "ipSignup": "203.0.113.7"}
				if email != "" {
					r["email"] = email
				}
				return r
			},
			Rejected: func(signup.UserID) map[string]any {
				return map[string]any{"email": "ada.lovelace@example.invalid", "status": "subscribed"}
			},
			Stranger: func() string { return there.Add(sim.MailchimpMember{Email: stranger}) },
			Move: func(user signup.UserID, email string) {
				for _, m := range there.Members() {
					if m.Merge[idField] == string(user) {
						there.Edit(m.ID, func(m *sim.MailchimpMember) { m.Email = strings.Replace(email, "@", "+"+string(user)+"@", 1) })
					}
				}
			},
		}
		overHTTP(s, &there.Faults, g, "POST", "GET", func(r *http.Request) { r.SetBasicAuth("anystring", "5eed-us1") })
		return s
	}
}
