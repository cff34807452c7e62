package main

import (
	"context"
	"database/sql"
	"strings"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// holdings is what a destination has: the account ids of each user.
type holdings map[signup.UserID][]string

func (h holdings) add(user, account string) {
	h[signup.UserID(user)] = append(h[signup.UserID(user)], account)
}

// place is a destination of local.yaml, as the run looks at it from outside.
type place struct {
	name  string
	only  sim.TenantType                 // the kind of tenant that has it; "" = both
	wants func(u sim.DirectoryUser) bool // of the people who are to be associated; nil = everyone
	held  func(l *local) holdings
}

var places = []place{
	{name: "billing", held: func(l *local) holdings {
		h := holdings{}
		for _, c := range l.Stripe.Customers() {
			if !c.Deleted {
				h.add(c.Metadata["entra_object_id"], c.ID)
			}
		}
		return h
	}},
	{name: "newsletter", wants: consents, held: func(l *local) holdings {
		// A contact is its address; whose that is, the tenant knows.
		owners := map[string]string{}
		for _, u := range l.Tenant.Users() {
			owners[strings.ToLower(addressOf(u))] = string(u.ID)
		}
		h := holdings{}
		for _, m := range l.Mailchimp.Members() {
			for range max(m.Welcomes, 1) { // a second welcome is as bad as a second contact
				h.add(owners[strings.ToLower(m.Email)], m.ID)
			}
		}
		return h
	}},
	{name: "crm", held: func(l *local) holdings {
		h := holdings{}
		for _, r := range l.Salesforce.Records() {
			if user, _ := r.Fields["Entra_Object_Id__c"].(string); !r.Deleted {
				h.add(user, r.ID)
			}
		}
		return h
	}},
	{name: "welcome", held: func(l *local) holdings {
		h := holdings{}
		for _, d := range l.Webhook.Deliveries() {
			h.add(d.Subject, d.Account)
		}
		return h
	}},
	{name: "customers"}, // read by held, with the column that repeats billing's id
	{name: "queue", held: func(l *local) holdings {
		var events []sim.CloudEvent
		for _, m := range l.Queue.Messages() {
			events = append(events, m.Event)
		}
		return once(events)
	}},
	{name: "bus", held: func(l *local) holdings {
		var events []sim.CloudEvent
		for _, m := range l.ServiceBus.Messages() {
			events = append(events, m.Event)
		}
		return once(events)
	}},
	{name: "topic", held: func(l *local) holdings {
		var events []sim.CloudEvent
		for _, e := range l.EventGrid.Events() {
			events = append(events, e.CloudEvent)
		}
		return once(events)
	}},
	{name: "members", held: func(l *local) holdings {
		h := holdings{}
		for _, id := range l.Tenant.Members(simGroup) {
			h.add(string(id), string(id))
		}
		return h
	}},
	{name: "starter", only: sim.Workforce, held: func(l *local) holdings {
		h := holdings{}
		for _, a := range l.Tenant.Assignments() {
			if a.State == "delivered" && a.AccessPackage == simPackage {
				h.add(string(a.User), a.ID)
			}
		}
		return h
	}},
}

// once is what a reader of messages has who takes each id once, as readers must.
func once(events []sim.CloudEvent) holdings {
	h, seen := holdings{}, map[string]bool{}
	for _, e := range events {
		if !seen[e.ID] {
			seen[e.ID] = true
			h.add(e.Subject, e.ID)
		}
	}
	return h
}

// consents reports that a person wants the newsletter and can be written to.
func consents(u sim.DirectoryUser) bool {
	return addressOf(u) != "" && attributeOf(u, "marketingOptIn") == true
}

const stripeColumn = "customers.stripe_id"

// linkBacks are the attributes of local.yaml that hold a destination's account id.
var linkBacks = map[string]string{"stripeCustomerId": "billing", "salesforceId": "crm", "welcomeId": "welcome", "extensionAttribute1": "newsletter"}

// held reads every destination.
func (l *local) held(ctx context.Context) (map[string]holdings, error) {
	all := map[string]holdings{"customers": {}, stripeColumn: {}}
	for _, p := range places {
		if p.held != nil {
			all[p.name] = p.held(l)
		}
	}
	db, err := sql.Open("sqlite", l.path("customers.db"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT entra_id, stripe_id FROM customers")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var user, stripe string
		if err := rows.Scan(&user, &stripe); err != nil {
			return nil, err
		}
		all["customers"].add(user, user)
		all[stripeColumn].add(user, stripe)
	}
	return all, rows.Err()
}

// attributeOf is an attribute as it stands on the user, nil if it does not.
func attributeOf(u sim.DirectoryUser, short string) any {
	if more, ok := u.Properties["onPremisesExtensionAttributes"].(map[string]any); ok && more[short] != nil {
		return more[short]
	}
	for name, v := range u.Properties {
		if strings.HasPrefix(name, "extension_") && strings.HasSuffix(name, "_"+short) {
			return v
		}
	}
	return nil
}

// addressOf is the address by which a user can be written to, "" if there is none.
func addressOf(u sim.DirectoryUser) string {
	mail, _ := u.Properties["mail"].(string)
	identities, _ := u.Properties["identities"].([]any)
	for _, identity := range identities {
		if id, ok := identity.(map[string]any); ok && id["signInType"] == "emailAddress" {
			address, _ := id["issuerAssignedId"].(string)
			return address
		}
	}
	return mail
}
