package bench_test

import (
	"fmt"

	"signup-sync/handler/pipeline"
)

// burstMix is a mix of destinations.
type burstMix struct {
	name    string
	with    []string // the destinations
	needs   bool     // each needs the account of the one before
	rules   bool     // the newsletter and the welcome have rules
	tags    bool     // contacts get tags, by a call of their own
	quick   bool     // all calls take half as long
	observe string   // this one is only observed
}

var (
	burstAll = []string{"billing", "newsletter", "crm", "members", "welcome"}

	burstMixes = []burstMix{
		{name: "profile"},
		{name: "stripe", with: burstAll[:1]},
		{name: "mailchimp", with: burstAll[1:2]},
		{name: "mailchimp, quick", with: burstAll[1:2], quick: true},
		{name: "mailchimp with tags", with: burstAll[1:2], tags: true},
		{name: "salesforce", with: burstAll[2:3]},
		{name: "group", with: burstAll[3:4]},
		{name: "webhook", with: burstAll[4:]},
		{name: "stripe and mailchimp", with: burstAll[:2]},
		{name: "all", with: burstAll},
		{name: "all, one after the other", with: burstAll, needs: true},
		{name: "all, by rules, one observed", with: burstAll, rules: true, observe: "crm"},
	}
)

// spec is the mix as a configuration.
func (m burstMix) spec() pipeline.Spec {
	s := pipeline.Spec{DisplayName: `user.givenName + " " + user.surname`,
		UserPrincipalName: `slug(user.givenName + "." + user.surname) + "." + short(user.id)`, Attributes: map[string]string{}}
	before := ""
	need := func(record map[string]any, field string) map[string]any {
		if m.needs && before != "" {
			record[field] = fmt.Sprintf(`accounts.%s?.id`, before)
		}
		return record
	}
	for _, name := range m.with {
		d := pipeline.DestinationSpec{Name: name}
		switch name {
		case "billing":
			d.Record = map[string]any{"email": "user.email", "name": "user.displayName"}
			s.Attributes["stripeCustomerId"] = "accounts.billing?.id"
		case "newsletter":
			d.Record = map[string]any{"status": `"subscribed"`, "mergeFields": need(map[string]any{"FNAME": "user.givenName"}, "LNAME")}
			s.Attributes["mailchimpId"] = "accounts.newsletter?.id"
			if m.rules {
				d.When = "user.attributes.marketingOptIn == true"
			}
		case "crm":
			d.Record = need(map[string]any{"LastName": `user.surname != "" ? clip(user.surname, 80) : "(unknown)"`, "Email": "user.email"}, "Legacy_Id__c")
			s.Attributes["salesforceId"] = "accounts.crm?.id"
		case "welcome":
			d.Record = need(map[string]any{"name": "user.displayName"}, "crm")
			s.Attributes["welcomeId"] = "accounts.welcome?.id"
			if m.rules {
				d.When = `user.email endsWith ".com"`
			}
		}
		if name != "members" { // who takes no record
			before = name
		}
		s.Destinations = append(s.Destinations, d)
	}
	return s
}

// settings are a destination's kind and settings.
func (m burstMix) settings(name string) (kind string, all map[string]any) {
	switch name {
	case "billing":
		return "stripe", map[string]any{"url": burstRoot, "apiKey": "sk_test_burst"}
	case "newsletter":
		s := map[string]any{"url": burstRoot, "apiKey": "burst-us1", "audience": "1a2b3c4d5e"}
		if m.tags {
			s["tags"] = []any{"Welcome"}
		}
		return "mailchimp", s
	case "crm":
		return "salesforce", map[string]any{"url": burstRoot, "auth": "clientCredentials", "clientId": "burst", "clientSecret": "burst"}
	}
	return "webhook", map[string]any{"url": burstRoot + "/webhook", "secret": burstHook, "allowPrivate": true}
}
