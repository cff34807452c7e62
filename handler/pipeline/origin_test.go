package pipeline_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// entitlements are the requests of entitlement management: whom a request has let in, and who was asked about.
type entitlements struct {
	mu    sync.Mutex
	in    map[signup.UserID]bool
	asked []signup.UserID
	fail  error
}

func (e *entitlements) Requested(_ context.Context, u signup.User) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, u.ID)
	return e.in[u.ID], e.fail
}

func (w *world) wantWay(id signup.UserID, origin signup.Origin, way signup.Way, evidence string) {
	w.t.Helper()
	if row := w.row(id); row.Origin != origin || row.Way != way || !strings.Contains(row.Evidence, evidence) {
		w.t.Errorf("got %s, %q by %s; want %s, %q, … %s", row.Origin, row.Way, row.Evidence, origin, way, evidence)
	}
}

func TestRulesKnowTheWayAndTheIdentityProvider(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Destinations[0].When, s.Destinations[1] = `signup.way == "federated" and signup.identityProvider == "google.com"`, pipeline.DestinationSpec{Name: "crm", When: `signup.identityProvider == "email"`}
		w := newWorld(t, s)
		mail, google := w.signUp(1), w.signUp(2)
		u := w.users.all[google]
		u.Identities = []signup.Identity{{SignInType: "federated", Issuer: "google.com"}}
		w.users.put(u)
		w.mustRun(time.Minute)
		w.want(mail, "billing: skipped rule", "crm: associated", "news: skipped rule", "profile: associated")
		w.want(google, "billing: associated", "crm: skipped rule", "news: skipped rule", "profile: associated")
		w.wantWay(mail, signup.SelfService, signup.ByUserFlow, "identity=emailAddress")
		w.wantWay(google, signup.SelfService, signup.ByFederation, "provider=google.com")
	})
}

func TestAGuestWhoIsAssociatedWhenInvitedIsNotRepeatedWhenAccepting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Settings.Origins, w.engine.Settings.Invited = append(w.engine.Settings.Origins, signup.Invitation), true
		id := w.invite(1)
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		before, requests, patches := w.row(id), len(w.systems["billing"].requests), len(w.users.patches)
		time.Sleep(time.Hour)
		w.accept(id)
		w.accept(id) // the log shows it twice
		w.mustRun(time.Minute)
		w.mustRun(time.Minute)
		if got := w.row(id); got.Version != before.Version || len(w.systems["billing"].requests) != requests || len(w.users.patches) != patches {
			t.Errorf("something was repeated: got %+v, want %+v; %d requests, %d patches", got, before, len(w.systems["billing"].requests), len(w.users.patches))
		}
	})
}

// TestAGuestWhoAcceptsWhileATryIsOpenIsBroughtOnce: the invitation is accepted while a destination is down.
func TestAGuestWhoAcceptsWhileATryIsOpenIsBroughtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Settings.Origins, w.engine.Settings.Invited = append(w.engine.Settings.Origins, signup.Invitation), true
		id := w.invite(1)
		lose := func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Transient, Code: "lost"}
		}
		w.systems["billing"].after = lose
		w.mustRun(time.Minute)
		w.accept(id)
		w.systems["billing"].after = nil
		for range 5 {
			w.mustRun(time.Minute)
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if made := w.systems["billing"].made; made != 1 {
			t.Errorf("%d accounts were made, want 1", made)
		}
	})
}

func TestWhoWasImportedIsSaidByTheConfiguration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Migrated = "user.attributes.requiresMigration != nil"
		w := newWorld(t, s)
		customer, moved, done, guest := w.signUp(1), w.signUp(2), w.signUp(3), w.invite(4)
		for id, left := range map[signup.UserID]bool{moved: true, done: false, guest: true} {
			u := w.users.all[id]
			u.Attributes = map[string]any{"requiresMigration": left}
			w.users.put(u)
		}
		w.mustRun(time.Minute)
		w.want(customer, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		for _, id := range []signup.UserID{moved, done} {
			w.want(id, "billing: skipped origin", "crm: skipped origin", "news: skipped origin", "profile: skipped origin")
			w.wantWay(id, signup.Admin, signup.ByMigration, "rule=signups.migrated")
		}
		w.wantWay(guest, signup.Invitation, signup.ByInvitation, "creationType=Invitation")
		if got := w.engine.Mapping.Attributes(); !slices.Contains(got, "requiresMigration") {
			t.Errorf("the profile is read without the attribute that the rule is about: %q", got)
		}
	})
}

func TestARuleForTheImportedThatCannotBeEvaluatedFailsTheUser(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Migrated = `user.attributes.legacy startsWith "x"`
		w := newWorld(t, s)
		id, plain := w.signUp(1), w.signUp(2)
		u := w.users.all[id]
		u.Attributes = map[string]any{"legacy": 7.0}
		w.users.put(u)
		w.mustRun(time.Minute)
		w.want(id, "billing: failed mapping", "crm: failed mapping", "news: failed mapping", "profile: failed mapping")
		w.want(plain, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if a, _ := w.row(id).Association("billing"); !strings.Contains(a.Detail, "signups.migrated") {
			t.Errorf("got detail %q", a.Detail)
		}
	})
}

func TestTheRuleForTheImportedKnowsNoAccounts(t *testing.T) {
	s := spec()
	s.Migrated = `accounts.billing.id != ""`
	if _, problems := pipeline.Compile(s); len(problems) != 1 || problems[0].Path != "$.signups.migrated" {
		t.Errorf("got %v", problems)
	}
}

func TestAGuestWhomAnAccessPackageLetInIsToldFromAnInvitedOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Destinations[2].When = `signup.way == "entitlement"`
		w := newWorld(t, s)
		e := &entitlements{in: map[signup.UserID]bool{}}
		w.engine.Settings.Origins, w.engine.Entitlements = append(w.engine.Settings.Origins, signup.Invitation), e
		customer, partner, guest := w.signUp(1), w.invite(2), w.invite(3)
		e.in[partner] = true
		w.mustRun(time.Minute)
		w.want(partner, "billing: skipped not-redeemed", "crm: skipped not-redeemed", "news: skipped not-redeemed", "profile: skipped not-redeemed")
		if len(e.asked) > 0 {
			t.Errorf("asked about %q, who wait or are no guests", e.asked)
		}
		time.Sleep(time.Hour)
		e.fail = &signup.Error{Class: signup.Systemic, Code: "forbidden", Status: 403}
		w.accept(partner)
		w.accept(guest)
		w.mustRun(time.Minute)
		w.want(partner, "billing: pending", "crm: pending", "news: pending", "profile: pending")
		if len(w.systems["billing"].requests) != 1 {
			t.Error("a guest was brought somewhere before it was known how they came in")
		}
		e.fail = nil
		w.mustRun(time.Minute)
		w.want(partner, "billing: associated", "crm: associated", "news: associated", "profile: associated")
		w.want(guest, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		w.wantWay(partner, signup.Invitation, signup.ByEntitlement, "request=approved")
		w.wantWay(guest, signup.Invitation, signup.ByInvitation, "externalUserState=Accepted")
		w.wantWay(customer, signup.SelfService, signup.ByUserFlow, "")
		if slices.Contains(e.asked, customer) {
			t.Error("asked about somebody who is no guest")
		}
	})
}

func TestAGuestIsAskedAboutOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		e := &entitlements{in: map[signup.UserID]bool{}}
		w.engine.Settings.Origins, w.engine.Entitlements = append(w.engine.Settings.Origins, signup.Invitation), e
		id := w.invite(1)
		w.mustRun(20 * time.Minute)
		w.accept(id)
		w.systems["crm"].before = func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Transient, Code: "down"}
		}
		for range 10 {
			w.mustRun(time.Minute)
		}
		if len(e.asked) != 1 {
			t.Errorf("asked %d times, want once", len(e.asked))
		}
	})
}

// TestAYoungGuestIsNotDecidedTooEarly: a request names the account that it has brought some minutes after that is there.
func TestAYoungGuestIsNotDecidedTooEarly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		e := &entitlements{in: map[signup.UserID]bool{}}
		w.engine.Settings.Origins, w.engine.Settings.Invited, w.engine.Entitlements = append(w.engine.Settings.Origins, signup.Invitation), true, e
		partner, guest := w.invite(1), w.invite(2)
		w.mustRun(time.Minute)
		w.want(partner, "billing: pending", "crm: pending", "news: pending", "profile: pending")
		e.in = maps.Clone(e.in)
		e.in[partner] = true
		for range 12 {
			w.mustRun(time.Minute)
		}
		w.wantWay(partner, signup.Invitation, signup.ByEntitlement, "")
		w.wantWay(guest, signup.Invitation, signup.ByInvitation, "")
		w.want(guest, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestARowOfAFormerVersionKeepsItsOriginAndGetsTheWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		same, other := w.signUp(1), w.signUp(2)
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Transient, Code: "down"}
		}
		w.mustRun(time.Minute)
		var rows []signup.Row
		for _, id := range []signup.UserID{same, other} {
			row := w.row(id)
			row.Way = ""
			if id == other {
				row.Origin, row.Evidence = signup.EmailVerified, "as it was"
			}
			rows = append(rows, row)
		}
		if _, err := w.ledger.Replace(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
		w.systems["billing"].before = nil
		w.engine.Settings.Origins = append(w.engine.Settings.Origins, signup.EmailVerified)
		for range 3 {
			w.mustRun(time.Minute)
		}
		w.wantWay(same, signup.SelfService, signup.ByUserFlow, "")
		w.wantWay(other, signup.EmailVerified, "", "as it was")
		w.want(other, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}
