package connector_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// salesforceHarness puts the connector to the test under one policy for what the org's duplicate rules match.
func salesforceHarness(duplicates string) connectortest.Harness {
	return connectortest.Harness{
		New: func(t testing.TB) *connectortest.System { return salesforceSystem(t, duplicates) },
		Skip: map[string]string{
			connectortest.FailedLookup: "the upsert is one call; nothing is looked up",
			connectortest.SpentKey:     "there is no idempotency key: the record's external id is the user",
		},
	}
}

// appKey is the key of the app, made once, and as PEM.
var appKey = sync.OnceValues(func() (*rsa.PrivateKey, string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key, pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
})

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

const consumerKey = "3MVG9consumer"

// org is a simulated org with a connector to it.
type org struct {
	signup.Connector
	there *sim.Salesforce
	gate  *gate
	clock *sim.Clock
	log   *lockedBuffer
}

// all associates the users in one call.
func (o org) all(t testing.TB, reqs ...signup.Request) []signup.Result {
	t.Helper()
	results := o.Connector.(signup.Batcher).AssociateAll(t.Context(), reqs)
	if len(results) != len(reqs) {
		t.Fatalf("%d results for %d users", len(results), len(reqs))
	}
	return results
}

// salesforceOrg opens a connector to a simulated org; more are settings that differ.
func salesforceOrg(t testing.TB, o sim.SalesforceOptions, more map[string]any, shape map[string]any) org {
	t.Helper()
	key, text := appKey()
	x := org{clock: sim.NewClock(start), log: &lockedBuffer{}}
	o.Clock, o.ClientID, o.PublicKey, o.Username = x.clock, consumerKey, &key.PublicKey, "sync@example.org"
	x.there = sim.NewSalesforce(o)
	x.gate = &gate{next: x.there}
	root, client := serve(t, x.gate)
	settings := map[string]any{"url": root, "clientId": consumerKey, "privateKey": text, "username": "sync@example.org"}
	maps.Copy(settings, more)
	x.Connector = open(t, "salesforce", settings,
		connector.Env{HTTP: client, Clock: x.clock, Log: slog.New(slog.NewTextHandler(x.log, nil)), Shape: shape})
	return x
}

func salesforceSystem(t testing.TB, duplicates string) *connectortest.System {
	// The suite's users share an address, which only allow makes two records of where there is a rule.
	rule := map[string]string{"allow": "alert"}[duplicates]
	o := salesforceOrg(t, sim.SalesforceOptions{Duplicates: rule}, map[string]any{"duplicates": duplicates},
		map[string]any{"LastName": nil, "Email": nil, "Seats__c": nil, "VIP__c": nil})
	// A session is there already, so that what stalls is a call of its own.
	if err := o.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, text := appKey()
	s := &connectortest.System{
		Connector: o.Connector, Clock: o.clock, Log: o.log.String, Secrets: []string{text, "sync@example.org", "simulated_1"},
		Accounts: func(user signup.UserID) (n int) {
			for _, r := range o.there.Records() {
				if !r.Deleted && r.Fields["Entra_Object_Id__c"] == string(user) {
					n++
				}
			}
			return n
		},
		State: func() string { return asJSON(o.there.Records()) },
		Record: func(email, name string) map[string]any {
			return map[string]any{"Email": email, "LastName": name, "Seats__c": 3, "VIP__c": true}
		},
		Rejected: func(signup.UserID) map[string]any {
			return map[string]any{"LastName": "Lovelace", "Email": "ada.lovelace at example.com"}
		},
		Stranger: func() string {
			return o.there.Add(sim.SalesforceRecord{Object: "Contact", Fields: map[string]any{
				"LastName": "Stranger", "Email": "stranger@example.com", "Entra_Object_Id__c": "99999999-5eed-4000-8000-00000000beef",
			}})
		},
		Move: func(user signup.UserID, email string) {
			for _, r := range o.there.Records() {
				if r.Fields["Entra_Object_Id__c"] == string(user) {
					o.there.Edit(r.ID, func(r *sim.SalesforceRecord) { r.Fields["Email"] = email })
				}
			}
		},
	}
	overHTTP(s, &o.there.Faults, o.gate, "PATCH", "GET", func(r *http.Request) { r.Header.Set("Authorization", "Bearer 00D!other") })
	return s
}

func TestSalesforceKeepsThePromisesUnderEveryPolicyForDuplicates(t *testing.T) {
	for _, duplicates := range []string{"allow", "link"} {
		t.Run(duplicates, func(t *testing.T) { connectortest.Run(t, salesforceHarness(duplicates)) })
	}
}
