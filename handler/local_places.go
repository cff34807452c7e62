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
	wants func(u sim.DirectoryUser) bool // of the people who signed up themselves; nil = everyone
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
	{name: "welcome", held: func(l *local) holdings {
		h := holdings{}
		for _, d := range l.Webhook.Deliveries() {
			h.add(d.Subject, d.Account)
		}
		return h
	}},
	{name: "customers"}, // read by customers, with the column that repeats billing's id
}

const stripeColumn = "customers.stripe_id"

// linkBacks are the attributes of local.yaml that hold a destination's account id.
var linkBacks = map[string]string{"stripeCustomerId": "billing", "welcomeId": "welcome"}

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

// attributeOf is a custom attribute as it stands on the user, "" if it does not.
func attributeOf(u sim.DirectoryUser, short string) string {
	for name, v := range u.Properties {
		if strings.HasPrefix(name, "extension_") && strings.HasSuffix(name, "_"+short) {
			text, _ := v.(string)
			return text
		}
	}
	return ""
}
