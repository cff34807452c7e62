package entra_test

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

// The records in testdata are as published (directoryaudit-list, reports of what tenants sent), or, the self-service
// sign-up and the user, put together from the published schema.
func TestPublishedSamplesGoThroughUnchanged(t *testing.T) {
	audits, err := os.ReadFile("testdata/audit_samples.json")
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

	user, err := os.ReadFile("testdata/user_sample.json")
	if err != nil {
		t.Fatal(err)
	}
	users, err := newGraph(t, answer(200, string(user))).open(withAttributes).Users(t.Context(), []signup.UserID{jane})
	if u := users[jane]; err != nil || u.Email != "jane@fabrikam.com" || u.DisplayName != "unknown" || !u.HasGeneratedUPN() || u.Attributes["Favoritecolor"] != "green" {
		t.Errorf("got %+v, %v", u, err)
	}
}
