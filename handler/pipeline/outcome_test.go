package pipeline_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func always(err error) func(context.Context, signup.Request) error {
	return func(context.Context, signup.Request) error { return err }
}

func TestWhoNeedsAFailedDestinationIsSkipped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].before = always(&signup.Error{Class: signup.Permanent, Code: "rejected", Status: 400})
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.want(id, "billing: failed rejected", "crm: skipped needs", "news: skipped rule", "profile: associated")
		if len(w.systems["crm"].requests) != 0 {
			t.Error("crm was called")
		}
	})
}

func TestWhoNeedsAFailedDestinationIsSkippedHoweverItAsks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Destinations[1].Record = map[string]any{"billing": "accounts.billing?.id", "id": "user.id"}
		w := newWorld(t, s)
		w.systems["billing"].before = always(&signup.Error{Class: signup.Permanent, Code: "rejected", Status: 400})
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.want(id, "billing: failed rejected", "crm: skipped needs", "news: skipped rule", "profile: associated")
	})
}

func TestOneDeadDestinationDoesNotKeepTheOthersBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Destinations = append(s.Destinations, pipeline.DestinationSpec{Name: "dead", Record: map[string]any{"x": "user.id"}})
		w := newWorld(t, s)
		var log bytes.Buffer // which a handler of slog's writes to line by line
		w.engine.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		w.systems["dead"].before = func(context.Context, signup.Request) error {
			time.Sleep(time.Second) // so that those who are let in together are there together
			return &signup.Error{Class: signup.Transient, Code: "unavailable", Status: 503, Detail: "the shop is closed"}
		}
		w.mustRun(0)
		for n := range 60 {
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		if got := len(w.systems["billing"].accounts); got != 60 {
			t.Errorf("billing has %d of 60", got)
		}
		calls := len(w.systems["dead"].requests)
		if got := strings.Count(log.String(), `msg="destination left alone for a while" run=`); got != 1 || !strings.Contains(log.String(), " destination=dead ") || !strings.Contains(log.String(), ` reason=unavailable detail="the shop is closed"`) {
			t.Errorf("the log says %d times that a destination is left alone, want once, with its name and the reason:\n%s", got, log.String())
		}
		if calls > 20 {
			t.Errorf("the dead destination was called %d times; want its breaker to open after 5 failures and what was on its way", calls)
		}
		for range 10 {
			w.mustRun(time.Minute)
		}
		if got := len(w.systems["dead"].requests) - calls; got < 2 || got > 10 {
			t.Errorf("while half-open it was called %d times in ten runs, want a few, and at most one a run", got)
		}
		w.systems["dead"].before = nil
		for range 80 {
			w.mustRun(time.Minute)
		}
		if d := w.systems["dead"]; len(d.accounts) != 60 || d.made != 60 {
			t.Errorf("after it came back: %d users, %d accounts; want 60", len(d.accounts), d.made)
		}
	})
}

func TestThrottlingHoldsTheWholeDestinationBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		until := time.Now().Add(4 * time.Minute)
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			if time.Now().Before(until) && w.systems["billing"].calls() > 8 {
				t.Error("called before the pause was over")
			}
			if time.Now().Before(until) {
				return &signup.Error{Class: signup.Throttled, Code: "throttled", Status: 429, RetryAfter: time.Until(until)}
			}
			return nil
		}
		for n := range 30 {
			w.signUp(n)
		}
		for range 10 {
			w.mustRun(time.Minute)
		}
		if got := len(w.systems["billing"].accounts); got != 30 {
			t.Errorf("got %d of 30", got)
		}
	})
}

func TestANewUserIsUnreadableAtFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		u := w.users.all[id]
		delete(w.users.all, id)
		w.mustRun(time.Minute)
		w.mustRun(time.Minute)
		w.want(id, "billing: pending", "crm: pending", "news: pending", "profile: pending")
		w.users.put(u)
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if reqs := w.systems["billing"].requests; reqs[0].Unsure {
			t.Error("nothing had been sent before: want sure")
		}
	})
}

func TestADeletedUserIsSkippedAndReopenedWhenRestored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		u := w.users.all[id]
		delete(w.users.all, id)
		seen := w.directory.events
		w.directory.events = nil
		for range 29 {
			w.mustRun(time.Minute)
		}
		w.want(id, "billing: pending", "crm: pending", "news: pending", "profile: pending")
		for range 6 {
			w.mustRun(time.Minute)
		}
		w.want(id, "billing: skipped deleted", "crm: skipped deleted", "news: skipped deleted", "profile: skipped deleted")
		w.users.put(u)
		w.mustRun(time.Minute)
		w.want(id, "billing: skipped deleted", "crm: skipped deleted", "news: skipped deleted", "profile: skipped deleted")
		w.directory.events = seen
		w.mustRun(time.Minute)
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestOtherOriginsAreSkippedAndUnknownOnesFail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		admin, odd := w.signUp(1), w.signUp(2)
		u := w.users.all[admin]
		u.CreationType, u.UserPrincipalName, u.Identities = "", "boss@contoso.onmicrosoft.com", []signup.Identity{{SignInType: "userPrincipalName"}}
		w.users.put(u)
		u = w.users.all[odd]
		u.Identities = nil
		w.users.put(u)
		w.mustRun(time.Minute)
		w.want(admin, "billing: skipped origin", "crm: skipped origin", "news: skipped origin", "profile: skipped origin")
		w.want(odd, "billing: failed origin-unknown", "crm: failed origin-unknown", "news: failed origin-unknown", "profile: failed origin-unknown")
		if len(w.systems["billing"].requests)+len(w.users.patches) != 0 {
			t.Error("something was sent")
		}
		if got := w.row(admin).Origin; got != signup.Admin {
			t.Errorf("got origin %q", got)
		}
	})
}

func TestAGuestIsAssociatedWhenTheInvitationIsRedeemed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Settings.Origins = append(w.engine.Settings.Origins, signup.Invitation)
		id := w.signUp(1)
		u := w.users.all[id]
		u.CreationType, u.UserType, u.ExternalUserState = "Invitation", "Guest", "PendingAcceptance"
		w.users.put(u)
		w.mustRun(time.Minute)
		w.want(id, "billing: skipped not-redeemed", "crm: skipped not-redeemed", "news: skipped not-redeemed", "profile: skipped not-redeemed")
		u.ExternalUserState = "Accepted"
		w.users.put(u)
		time.Sleep(3 * 24 * time.Hour)
		w.audit.see(signup.Event{User: id, Kind: signup.Redeemed, At: time.Now().UTC()})
		w.mustRun(time.Minute)
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestAUserThatKillsTheProgramIsWorkedAloneAndThenNotAtAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		poison := w.signUp(1)
		var others []signup.UserID
		for n := 2; n < 6; n++ {
			others = append(others, w.signUp(n))
		}
		crashes := 0
		for range 12 {
			// The process dies in the call: nothing is settled, and the lease stays.
			ctx, die := context.WithCancel(context.Background())
			w.systems["billing"].before = func(_ context.Context, req signup.Request) error {
				if req.User == poison {
					crashes++
					w.faults.set("Insert", "Replace", "PutNote")
					die()
					return ctx.Err()
				}
				return nil
			}
			_, _ = w.engine.Run(ctx, pipeline.Trigger{})
			die()
			w.faults.set()
			w.configure(spec())
			time.Sleep(3 * time.Minute)
			if crashes == 5 { // they do not wait until the one is given up
				for _, id := range others {
					w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
				}
			}
		}
		w.want(poison, "billing: failed crash", "crm: failed crash", "news: failed crash", "profile: failed crash")
		for _, id := range others {
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
		if crashes > 6 {
			t.Errorf("got %d crashes, want at most 6", crashes)
		}
		if made := len(w.systems["crm"].accounts); made != 4 || w.systems["crm"].made != 4 {
			t.Errorf("got %d accounts for %d users, want 4 for 4", w.systems["crm"].made, made)
		}
	})
}

func TestATakenNameDoesNotWithholdTheLinkBack(t *testing.T) {
	const domain = "@contoso.onmicrosoft.com"
	const generated = "75b523ca-d064-4ddf-80af-000000000001"
	long := strings.Repeat("x", 62)
	for name, c := range map[string]struct {
		upn     string // the expression
		taken   []string
		want    string
		patches int
	}{
		"not":               {"", nil, "ana.nr1", 1},
		"once":              {"", []string{"ana.nr1"}, "ana.nr12", 2},
		"twice":             {"", []string{"ana.nr1", "ana.nr12"}, "ana.nr13", 3},
		"three times":       {"", []string{"ana.nr1", "ana.nr12", "ana.nr13"}, "ana.nr1-75b523ca", 4},
		"always":            {"", []string{"ana.nr1", "ana.nr12", "ana.nr13", "ana.nr1-75b523ca"}, generated, 5},
		"with the id":       {`"ana." + short(user.id)`, []string{"ana.75b523ca"}, "ana.75b523ca2", 2},
		"always, with it":   {`"ana." + short(user.id)`, []string{"ana.75b523ca", "ana.75b523ca2", "ana.75b523ca3"}, generated, 4},
		"as long as can be": {`"` + long + `.y"`, []string{long + ".y"}, long + "2", 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := spec()
				s.UserPrincipalName = cmp.Or(c.upn, s.UserPrincipalName)
				w := newWorld(t, s)
				w.users.patch = func(_ signup.UserID, p signup.Patch) error {
					if local, _, _ := strings.Cut(p.UserPrincipalName, "@"); slices.Contains(c.taken, local) {
						return &signup.Error{Class: signup.Permanent, Code: "upn-taken", Status: 400}
					}
					return nil
				}
				id := w.signUp(1)
				w.mustRun(time.Minute)
				u := w.users.all[id]
				if u.UserPrincipalName != c.want+domain || u.DisplayName != "Ana Nr1" || u.Attributes["billingId"] != "billing_1" {
					t.Errorf("got %+v", u)
				}
				w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
				if n := len(w.users.patches); n != c.patches {
					t.Errorf("got %d patches, want %d", n, c.patches)
				}
			})
		})
	}
}

// A lost answer does not cost the user a second name: the one that was written is no longer generated.
func TestANameThatWasWrittenBeforeTheAnswerWasLostStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		lost := true
		w.users.patch = func(_ signup.UserID, p signup.Patch) error {
			switch local, _, _ := strings.Cut(p.UserPrincipalName, "@"); {
			case local == "ana.nr1":
				return &signup.Error{Class: signup.Permanent, Code: "upn-taken", Status: 400}
			case lost:
				lost = false
				u := w.users.all[id] // the effect, without the rest of it
				u.UserPrincipalName = p.UserPrincipalName
				w.users.all[id] = u
				return errors.New("the answer is lost")
			}
			return nil
		}
		w.mustRun(time.Minute)
		w.mustRun(time.Hour)
		if u := w.users.all[id]; u.UserPrincipalName != "ana.nr12@contoso.onmicrosoft.com" || u.DisplayName != "Ana Nr1" || u.Attributes["billingId"] != "billing_1" {
			t.Errorf("got %+v", u)
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

// A name that the directory does not take is told of, and the rest, if there is any, is written all the same.
func TestARefusedNameDoesNotWithholdTheLinkBack(t *testing.T) {
	alone := spec()
	alone.DisplayName, alone.Attributes = "", nil
	for name, c := range map[string]struct {
		spec    pipeline.Spec
		want    string
		patches int
	}{
		"with more": {spec(), "Ana Nr1 map[billingId:billing_1]", 2},
		"alone":     {alone, "unknown map[]", 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, c.spec)
				w.users.patch = func(_ signup.UserID, p signup.Patch) error {
					if p.UserPrincipalName != "" {
						return &signup.Error{Class: signup.Permanent, Code: "upn-invalid", Status: 400}
					}
					return nil
				}
				id := w.signUp(1)
				w.mustRun(time.Minute)
				u := w.users.all[id]
				if got := fmt.Sprint(u.DisplayName, " ", u.Attributes); got != c.want || !u.HasGeneratedUPN() || len(w.users.patches) != c.patches {
					t.Errorf("got %s, %s after %d patches", got, u.UserPrincipalName, len(w.users.patches))
				}
				w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: failed upn-invalid")
			})
		})
	}
}

// A link-back that is not there yet when the name is refused is not withheld either, and the refusal is told of at the end.
func TestARefusedNameDoesNotWithholdALaterLinkBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].before = always(errors.New("down"))
		w.users.patch = func(_ signup.UserID, p signup.Patch) error {
			if p.UserPrincipalName != "" {
				return &signup.Error{Class: signup.Permanent, Code: "upn-invalid", Status: 400}
			}
			return nil
		}
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.want(id, "billing: pending transient", "crm: pending", "news: skipped rule", "profile: pending")
		w.systems["billing"].before = nil
		w.mustRun(time.Hour)
		if u := w.users.all[id]; u.DisplayName != "Ana Nr1" || u.Attributes["billingId"] != "billing_1" {
			t.Errorf("got %+v", u)
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: failed upn-invalid")
	})
}

// An account id that stands on the record is handed to its destination, wherever the link-back lives.
func TestALinkBackOnTheRecordIsHandedToItsDestination(t *testing.T) {
	for _, attribute := range []string{"billingId", "extensionAttribute7"} {
		t.Run(attribute, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := spec()
				s.Attributes = map[string]string{attribute: "accounts.billing?.id"}
				w := newWorld(t, s)
				id := w.signUp(1)
				u := w.users.all[id]
				u.Attributes = map[string]any{attribute: "billing_9"}
				w.users.put(u)
				w.mustRun(time.Minute)
				if got := w.systems["billing"].requests[0].Known; got != "billing_9" {
					t.Errorf("billing is told of %q", got)
				}
				if got := w.systems["crm"].requests[0].Known; got != "" {
					t.Errorf("crm is told of %q", got)
				}
			})
		})
	}
}

// What the record says of an account that will never be is written when that is known.
func TestTheRecordCanSayThatAnAccountHasFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Attributes = map[string]string{"billingId": `accounts.billing?.id ?? "none"`}
		w := newWorld(t, s)
		w.systems["billing"].before = always(&signup.Error{Class: signup.Permanent, Code: "rejected"})
		id := w.signUp(1)
		w.mustRun(time.Minute)
		if got := w.users.all[id].Attributes["billingId"]; got != "none" {
			t.Errorf("got %v", got)
		}
		w.want(id, "billing: failed rejected", "crm: skipped needs", "news: skipped rule", "profile: associated")
	})
}

func TestObserveSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		for i := range w.engine.Destinations {
			w.engine.Destinations[i].Observe = true
		}
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.want(id, "billing: skipped observe", "crm: skipped needs", "news: skipped rule", "profile: associated")
		if a, _ := w.row(id).Association("billing"); a.Detail != "would send email, name" || strings.Contains(fmt.Sprint(w.row(id)), "example.com") {
			t.Errorf("got %+v; want the fields' names and no value", a)
		}
		if len(w.systems["billing"].requests) != 0 {
			t.Error("something was sent")
		}
	})
}

func TestAPendingAssociationWhoseDestinationIsGoneIsSkipped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["crm"].before = always(errors.New("down"))
		id := w.signUp(1)
		w.mustRun(time.Minute)
		s := spec()
		s.Destinations = append(s.Destinations[:1], s.Destinations[2])
		w.configure(s)
		w.mustRun(time.Hour)
		w.want(id, "billing: associated", "crm: skipped removed", "news: skipped rule", "profile: associated")
	})
}

func TestTimeUpHandsBackWhatWasNotBegun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		for n := range 300 {
			w.signUp(n)
		}
		w.systems["billing"].before = func(ctx context.Context, _ signup.Request) error {
			select {
			case <-time.After(50 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		start := time.Now()
		w.mustRun(time.Minute)
		if took := time.Since(start) - time.Minute; took > 4*time.Minute {
			t.Errorf("the run took %v, longer than it had", took)
		}
		for row, err := range w.ledger.All(context.Background()) {
			if a, _ := row.Association("billing"); err != nil || a.Attempts > 0 {
				t.Fatalf("a call that was cut short is no attempt: %+v, %v", a, err)
			}
		}
		w.systems["billing"].before = nil
		for range 10 {
			w.mustRun(time.Minute)
		}
		if s := w.systems["billing"]; len(s.accounts) != 300 || s.made != 300 {
			t.Errorf("got %d users with %d accounts, want 300 and 300", len(s.accounts), s.made)
		}
		for row, err := range w.ledger.All(context.Background()) {
			if err != nil || !row.Due.IsZero() {
				t.Fatalf("not settled: %+v, %v", row, err)
			}
		}
	})
}

func TestAnUnreadableProfileDoesNotHoldTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		odd, good := w.signUp(1), w.signUp(2)
		w.users.unreadable = odd
		w.mustRun(time.Minute)
		w.want(odd, "billing: pending bad-answer", "crm: pending bad-answer", "news: pending bad-answer", "profile: pending bad-answer")
		w.want(good, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestADirectoryThatIsDownIsNotAskedForEveryone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		for n := range 600 {
			w.signUp(n)
		}
		w.users.down = &signup.Error{Class: signup.Transient, Code: "unavailable", Status: 503}
		w.mustRun(time.Minute)
		if w.users.reads > 12 { // three in a row, and what was on its way
			t.Errorf("got %d reads", w.users.reads)
		}
		w.users.down = nil
		for range 4 {
			w.mustRun(time.Minute)
		}
		if s := w.systems["billing"]; len(s.accounts) != 600 || s.made != 600 || s.requests[0].Unsure {
			t.Errorf("got %d users with %d accounts, the first unsure %t; want 600, and sure since nothing was sent before", len(s.accounts), s.made, s.requests[0].Unsure)
		}
	})
}

func TestASpentKeyMovesToTheNextGeneration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		var since time.Time
		w.systems["billing"].before = func(_ context.Context, req signup.Request) error {
			switch {
			case req.Key != pipeline.Key(tenantID, req.User, "billing", 0):
				return nil
			case req.Spent.IsZero():
				since = time.Now().UTC()
				return &signup.Error{Class: signup.Transient, Code: "key-settling", RetryAfter: 10 * time.Minute}
			case !req.Spent.Equal(since):
				t.Errorf("got spent since %v, want %v", req.Spent, since)
			case time.Since(since) < time.Hour:
				return &signup.Error{Class: signup.Transient, Code: "key-settling", RetryAfter: 10 * time.Minute}
			}
			return &signup.Error{Class: signup.Transient, Code: "key-spent"}
		}
		id := w.signUp(1)
		for range 180 {
			w.mustRun(time.Minute)
			w.configure(spec()) // a new process each time
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestWhatIsInProgressIsFollowedForDays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		until := time.Now().Add(13 * 24 * time.Hour)
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			if time.Now().Before(until) {
				return &signup.Error{Class: signup.Transient, Code: "in-progress", RetryAfter: time.Minute}
			}
			return nil
		}
		ids := make([]signup.UserID, 8)
		for n := range ids {
			ids[n] = w.signUp(n)
		}
		w.mustRun(time.Minute)
		if got := w.systems["billing"].calls(); got != len(ids) {
			t.Errorf("got %d calls for %d users: what is in progress is no failure of the destination", got, len(ids))
		}
		for time.Now().Before(until.Add(2 * time.Hour)) {
			w.mustRun(time.Hour)
		}
		for _, id := range ids {
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
	})
}

func TestAPanicIsOneUsersOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		odd, good := w.signUp(1), w.signUp(2)
		w.systems["billing"].after = func(_ context.Context, req signup.Request) error {
			if req.User == odd {
				panic("index out of range")
			}
			return nil
		}
		w.mustRun(time.Minute)
		w.want(odd, "billing: pending panic", "crm: pending", "news: skipped rule", "profile: pending")
		w.want(good, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		w.systems["billing"].after = nil
		w.mustRun(time.Minute)
		w.want(odd, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if w.systems["billing"].made != 2 {
			t.Errorf("got %d accounts for 2 users", w.systems["billing"].made)
		}
	})
}
