package sim_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"signup-sync/handler/sim"
)

// sample is a published answer.
func sample(t *testing.T, name string) []byte {
	t.Helper()
	b, err := sim.Samples.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}

func TestSamplesAreJSON(t *testing.T) {
	names, err := fs.Glob(sim.Samples, "testdata/*.json")
	if err != nil || len(names) < 14 {
		t.Fatalf("got %d samples, %v", len(names), err)
	}
	for _, n := range names {
		if !json.Valid(sample(t, strings.TrimPrefix(n, "testdata/"))) {
			t.Errorf("%s is not JSON", n)
		}
	}
}

// A published record comes out of the simulated log byte for byte.
func TestSamplesGoThroughUnchanged(t *testing.T) {
	var page struct{ Value []json.RawMessage }
	var pair, documented []json.RawMessage
	for name, into := range map[string]any{"audit-add-user-selfservice.json": &page, "audit-invite-redeem.json": &pair, "audit-documented.json": &documented} {
		if err := json.Unmarshal(sample(t, name), into); err != nil {
			t.Fatal(err)
		}
	}
	records := append(append(page.Value, pair...), sample(t, "audit-add-user-guest.json"))
	if len(records) != 4 || len(documented) != 2 {
		t.Fatalf("got %d and %d records", len(records), len(documented))
	}
	o := calm()
	o.Retention = 20 * 365 * 24 * 3600e9
	r := serve(t, o)
	for _, raw := range append(records, documented...) {
		r.tenant.AddAudit(raw)
	}
	a := r.get(audits)
	for _, raw := range append(records, documented...) {
		if !bytes.Contains(a.raw, raw) {
			t.Errorf("changed on its way: %s", raw)
		}
	}
	if n := len(r.get(audits, "$filter", "activityDisplayName eq 'Add user' and loggedByService eq 'Core Directory'").rows()); n != 2 {
		t.Errorf("got %d of the two Add user records", n)
	}
	if n := len(r.get(audits, "$filter", "targetResources/any(t:t/id eq 'ef7e527d-6c92-4234-8c6d-cf6fdfb57f95')").rows()); n != 1 {
		t.Errorf("got %d records about the group", n)
	}
}

// What the simulation makes itself has the same shape as what was published: no name more, none less.
func TestGeneratedShapesAreThePublishedOnes(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{Email: "jane@example.com"})
	var page struct{ Value []map[string]any }
	if err := json.Unmarshal(sample(t, "audit-add-user-selfservice.json"), &page); err != nil {
		t.Fatal(err)
	}
	sameKeys(t, "audit row", r.get(audits).rows()[0], page.Value[0])
	made := r.get(audits).rows()[0]["targetResources"].([]any)[0].(map[string]any)
	sameKeys(t, "target", made, page.Value[0]["targetResources"].([]any)[0].(map[string]any))
	page.Value = nil
	if err := json.Unmarshal(sample(t, "signups.json"), &page); err != nil {
		t.Fatal(err)
	}
	sameKeys(t, "sign-up row", r.get("/beta/auditLogs/signUps").rows()[0], page.Value[0])
	var user map[string]any
	if err := json.Unmarshal(sample(t, "user.json"), &user); err != nil {
		t.Fatal(err)
	}
	delete(user, "extension_6ea3bc85aec24b1c92ff4a117afb6621_Favoritecolor")
	sameKeys(t, "user", r.get(users+"/"+string(id), "$select", "id,displayName,userPrincipalName,mail,otherMails,identities,creationType,userType,externalUserState,createdDateTime,accountEnabled").body, user)
	var failure map[string]any
	if err := json.Unmarshal(sample(t, "error-not-found.json"), &failure); err != nil {
		t.Fatal(err)
	}
	a := r.get(users + "/75b523ca-d064-4ddf-80af-87738f504026")
	sameKeys(t, "error", a.body["error"].(map[string]any), failure["error"].(map[string]any))
	if a.message() != failure["error"].(map[string]any)["message"] {
		t.Errorf("got %q", a.message())
	}
}

func sameKeys(t *testing.T, what string, got, want map[string]any) {
	t.Helper()
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s has %s, which no sample has", what, k)
		}
	}
	for k := range want {
		if _, ok := got[k]; !ok {
			t.Errorf("%s has no %s", what, k)
		}
	}
}
