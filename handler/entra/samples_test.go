package entra_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// published is one published sample, as it is.
func published(t *testing.T, name string) string {
	t.Helper()
	data, err := sim.Samples.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sample reads the audit records of one published sample, whatever they are wrapped in.
func sample(t *testing.T, name string) []json.RawMessage {
	t.Helper()
	data := []byte(published(t, name))
	var list []json.RawMessage
	if json.Unmarshal(data, &list) == nil {
		return list
	}
	var page struct{ Value []json.RawMessage }
	if err := json.Unmarshal(data, &page); err != nil {
		t.Fatal(err)
	}
	if page.Value == nil {
		page.Value = []json.RawMessage{data}
	}
	return page.Value
}

func TestPublishedSamplesGoThroughUnchanged(t *testing.T) {
	audits, err := json.Marshal(map[string]any{"value": slices.Concat(sample(t, "audit-add-user-selfservice.json"),
		sample(t, "audit-add-user-guest.json"), sample(t, "audit-invite-redeem.json"), sample(t, "audit-documented.json"))})
	if err != nil {
		t.Fatal(err)
	}
	g := newGraph(t, refusal(400, "BadRequest", "Invalid filter clause"), answer(200, string(audits)))
	tenant := g.open()
	// The window takes in the records of 2018 and 2024 as well.
	got, err := events(t, tenant.Audit(), signup.Window{From: start.AddDate(-10, 0, 0), To: start.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	want := []signup.Event{
		created(jane, time.Date(2026, 1, 2, 3, 4, 5, 123456700, time.UTC)),
		created(joan, time.Date(2026, 1, 2, 3, 10, 0, 0, time.UTC)),
		{User: joan, Kind: signup.Redeemed, At: time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	if n := tenant.Counts().Undecodable; n != 0 {
		t.Errorf("got %d undecodable records: %s", n, &g.log)
	}

	user, err := sim.Samples.ReadFile("testdata/user.json")
	if err != nil {
		t.Fatal(err)
	}
	users, err := newGraph(t, answer(200, string(user))).open(withAttributes).Users(t.Context(), []signup.UserID{jane})
	if u := users[jane]; err != nil || u.Email != "jane@fabrikam.com" || u.DisplayName != "unknown" || !u.HasGeneratedUPN() || u.Attributes["Favoritecolor"] != "green" {
		t.Errorf("got %+v, %v", u, err)
	}
}
