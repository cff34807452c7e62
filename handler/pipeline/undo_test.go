package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// undo runs Undo and returns what it showed, as "…nn: state fields | kept", and its error.
func (w *world) undo(ctx context.Context, o pipeline.UndoOptions) ([]string, error) {
	w.t.Helper()
	var shown []string
	o.Show = func(done, total int, one pipeline.Undone) {
		if done != len(shown)+1 || done > total {
			w.t.Errorf("shown as %d of %d after %d", done, total, len(shown))
		}
		line := fmt.Sprintf("%s: %s %s", one.User[34:], one.State, strings.Join(one.Fields, " "))
		if len(one.Kept) > 0 {
			line += " | " + strings.Join(one.Kept, " ")
		}
		if (one.Err != nil) != (one.State == pipeline.FateFailed) {
			w.t.Errorf("%s: %v", line, one.Err)
		}
		shown = append(shown, strings.TrimSpace(line))
	}
	err := w.engine.Undo(ctx, o)
	return shown, err
}

func (w *world) wantUndo(o pipeline.UndoOptions, want ...string) {
	w.t.Helper()
	got, err := w.undo(context.Background(), o)
	if err != nil {
		w.t.Errorf("undo: %v", err)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("got %q, want %q", got, want)
	}
}

// asCreated is whether the user's record is what it was before anything was written to it.
func (w *world) asCreated(id signup.UserID) bool {
	u := w.users.all[id]
	return u.DisplayName == "unknown" && u.UserPrincipalName == string(id)+"@contoso.onmicrosoft.com" && len(u.Attributes) == 0
}

const everything = "displayName userPrincipalName attributes.billingId"

func TestUndoTakesBackWhatWasWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one, two := w.signUp(1), w.signUp(2)
		w.mustRun(time.Minute)
		before, patches := w.row(one), len(w.users.patches)
		plan := pipeline.UndoOptions{}
		start := time.Now()
		for range 2 {
			w.wantUndo(plan, "01: planned "+everything, "02: planned "+everything)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("a plan has waited for %v, as if it were to act", took)
		}
		if diff := cmp.Diff(before, w.row(one)); diff != "" || len(w.users.patches) != patches || w.users.all[one].DisplayName != "Ana Nr1" {
			t.Errorf("a plan has changed something: %d patches\n%s", len(w.users.patches)-patches, diff)
		}
		act := pipeline.UndoOptions{Act: true}
		w.wantUndo(act, "01: undone "+everything, "02: undone "+everything)
		for _, id := range []signup.UserID{one, two} {
			if !w.asCreated(id) {
				t.Errorf("got %+v", w.users.all[id])
			}
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: skipped undone")
		}
		w.wantUndo(act) // there is nobody left
		w.wantUndo(pipeline.UndoOptions{Act: true, Users: []signup.UserID{two, one, two}}, "01: nothing", "02: nothing")
		patches = len(w.users.patches)
		w.mustRun(time.Minute)
		w.mustRun(48 * time.Hour)
		if len(w.users.patches) != patches || !w.asCreated(one) {
			t.Errorf("a later run has written again: %+v", w.users.all[one])
		}

		row := w.row(one).Reopen(signup.Profile, time.Now().UTC())
		if _, err := w.ledger.Replace(t.Context(), []signup.Row{row}); err != nil {
			t.Fatal(err)
		}
		w.mustRun(time.Minute)
		if u := w.users.all[one]; u.DisplayName != "Ana Nr1" || u.Attributes["billingId"] != row.Associations[0].Account || w.systems["billing"].made != 2 {
			t.Errorf("reopened: got %+v, %d accounts", u, w.systems["billing"].made)
		}
	})
}

func TestUndoLeavesAloneWhatAPersonHasChanged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		change := map[signup.UserID]func(*signup.User){
			w.signUp(1): func(u *signup.User) { u.DisplayName = "Ana the First" },
			w.signUp(2): func(u *signup.User) { u.UserPrincipalName = "ana@contoso.onmicrosoft.com" },
			w.signUp(3): func(u *signup.User) { u.UserPrincipalName = "ana.nr3@contoso.com" }, // the name is still ours
			w.signUp(4): func(u *signup.User) { u.Attributes = map[string]any{"billingId": "cus_other", "more": "x"} },
			w.signUp(5): func(u *signup.User) { u.DisplayName, u.Attributes = "unknown", nil },
			w.signUp(6): func(u *signup.User) { u.UserPrincipalName = "ANA.NR6@Contoso.onmicrosoft.com" },
		}
		w.mustRun(time.Minute)
		for id, f := range change {
			u := w.users.all[id]
			f(&u)
			w.users.put(u)
		}
		w.wantUndo(pipeline.UndoOptions{Act: true},
			"01: undone userPrincipalName attributes.billingId | displayName",
			"02: undone displayName attributes.billingId | userPrincipalName",
			"03: undone "+everything,
			"04: undone displayName userPrincipalName | attributes.billingId",
			"05: undone userPrincipalName",
			"06: undone "+everything)
		var kept []string
		for _, id := range slices.Sorted(maps.Keys(change)) {
			u := w.users.all[id]
			local, domain, _ := strings.Cut(strings.Replace(u.UserPrincipalName, string(id), "id", 1), "@")
			kept = append(kept, fmt.Sprintf("%s, %s at %s, %v", u.DisplayName, local, domain, u.Attributes))
		}
		const initial = "contoso.onmicrosoft.com"
		want := []string{"Ana the First, id at " + initial + ", map[]", "unknown, ana at " + initial + ", map[]", "unknown, id at contoso.com, map[]",
			"unknown, id at " + initial + ", map[billingId:cus_other more:x]", "unknown, id at " + initial + ", map[]", "unknown, id at Contoso.onmicrosoft.com, map[]"}
		if diff := cmp.Diff(want, kept); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRevert(t *testing.T) {
	user := signup.User{ID: janeID, DisplayName: "Jane Doe", UserPrincipalName: "jane.doe@contoso.com", Attributes: map[string]any{"a": "1", "b": "2", "c": true}}
	generated := janeID + "@contoso.com"
	written := func(p signup.Patch) []signup.Patch { return []signup.Patch{p} }
	for name, c := range map[string]struct {
		change  func(*signup.User)
		written []signup.Patch
		want    signup.Patch
	}{
		"nothing was written": {nil, nil, signup.Patch{}},
		"all of it": {nil, written(signup.Patch{DisplayName: "Jane Doe", UserPrincipalName: "jane.doe@contoso.com", Attributes: map[string]string{"b": "2", "a": "1"}}),
			signup.Patch{DisplayName: "unknown", UserPrincipalName: generated, Clear: []string{"a", "b"}}},
		"the empty patch":                     {func(u *signup.User) { u.DisplayName = "" }, written(signup.Patch{}), signup.Patch{}},
		"other values":                        {nil, written(signup.Patch{DisplayName: "jane doe", UserPrincipalName: "jane@contoso.com", Attributes: map[string]string{"a": "2", "c": "true", "d": "4"}}), signup.Patch{}},
		"a name that is the placeholder":      {func(u *signup.User) { u.DisplayName = "unknown" }, written(signup.Patch{DisplayName: "unknown"}), signup.Patch{}},
		"a generated name that is a desired":  {func(u *signup.User) { u.UserPrincipalName = generated }, written(signup.Patch{UserPrincipalName: generated}), signup.Patch{}},
		"with 2":                              {func(u *signup.User) { u.UserPrincipalName = "jane.doe2@contoso.com" }, written(signup.Patch{UserPrincipalName: "jane.doe@contoso.com"}), signup.Patch{UserPrincipalName: generated}},
		"with 3, in capitals":                 {func(u *signup.User) { u.UserPrincipalName = "Jane.Doe3@Contoso.com" }, written(signup.Patch{UserPrincipalName: "jane.doe@contoso.com"}), signup.Patch{UserPrincipalName: janeID + "@Contoso.com"}},
		"with 4, which is nobody's candidate": {func(u *signup.User) { u.UserPrincipalName = "jane.doe4@contoso.com" }, written(signup.Patch{UserPrincipalName: "jane.doe@contoso.com"}), signup.Patch{}},
		"with the id":                         {func(u *signup.User) { u.UserPrincipalName = "jane.doe-1a2b3c4d@contoso.com" }, written(signup.Patch{UserPrincipalName: "jane.doe@contoso.com"}), signup.Patch{UserPrincipalName: generated}},
		"either of two": {nil, []signup.Patch{{Attributes: map[string]string{"a": "x", "b": "2"}}, {DisplayName: "Jane Doe", Attributes: map[string]string{"a": "1", "b": "2"}}},
			signup.Patch{DisplayName: "unknown", Clear: []string{"a", "b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			u := user
			if c.change != nil {
				c.change(&u)
			}
			if diff := cmp.Diff(c.want, pipeline.Revert(u, c.written...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What the mapping makes may depend on what it has written, or on what stood there before.
func TestUndoKnowsWhatDependsOnWhatWasWritten(t *testing.T) {
	for name, c := range map[string]struct {
		spec   pipeline.Spec
		before func(*signup.User)
		want   string
	}{
		"the name in itself":          {pipeline.Spec{DisplayName: `user.displayName == "unknown" ? user.givenName : user.displayName`}, nil, "undone displayName"},
		"a person's own name":         {pipeline.Spec{DisplayName: `user.displayName == "unknown" ? user.givenName : user.displayName`}, func(u *signup.User) { u.DisplayName = "Ana" + "!" }, "undone | displayName"},
		"an attribute in itself":      {pipeline.Spec{Attributes: map[string]string{"plan": `user.attributes.plan ?? "free"`}}, nil, "undone attributes.plan"},
		"a person's own attribute":    {pipeline.Spec{Attributes: map[string]string{"plan": `user.attributes.plan ?? "free"`}}, func(u *signup.User) { u.Attributes["plan"] = "gold" }, "undone | attributes.plan"},
		"an attribute of another one": {pipeline.Spec{Attributes: map[string]string{"copy": "user.attributes.plan"}}, func(u *signup.User) { u.Attributes["plan"] = "gold" }, "undone attributes.copy"},
		"the name in an attribute": {pipeline.Spec{DisplayName: "user.givenName", Attributes: map[string]string{"nick": "lower(user.displayName)"}}, nil,
			"undone displayName attributes.nick"},
		"a person's own name in an attribute": {pipeline.Spec{DisplayName: "user.givenName", Attributes: map[string]string{"nick": "lower(user.displayName)"}},
			func(u *signup.User) { u.DisplayName = "Jo" }, "undone attributes.nick | displayName"},
		"a person's own name in the principal name": {pipeline.Spec{UserPrincipalName: "slug(user.displayName)"}, func(u *signup.User) { u.DisplayName = "Jo" }, "undone userPrincipalName"},
		"the principal name in an attribute": {pipeline.Spec{UserPrincipalName: "slug(user.givenName)", Attributes: map[string]string{"login": "user.userPrincipalName"}}, nil,
			"undone userPrincipalName attributes.login"},
		"a chosen principal name in an attribute": {pipeline.Spec{UserPrincipalName: "slug(user.givenName)", Attributes: map[string]string{"login": "user.userPrincipalName"}},
			func(u *signup.User) { u.UserPrincipalName = "jo@contoso.com" }, "undone attributes.login | userPrincipalName"},
		"the principal name in itself": {pipeline.Spec{UserPrincipalName: `user.userPrincipalName startsWith user.id ? slug(user.givenName) : split(user.userPrincipalName, "@")[0]`},
			nil, "undone userPrincipalName"},
		"a person's own principal name in itself": {pipeline.Spec{UserPrincipalName: `user.userPrincipalName startsWith user.id ? slug(user.givenName) : split(user.userPrincipalName, "@")[0]`},
			func(u *signup.User) { u.UserPrincipalName = "jo@contoso.com" }, "undone | userPrincipalName"},
		"a configured domain":     {pipeline.Spec{UserPrincipalName: "slug(user.givenName)", Domain: "contoso.com"}, nil, "undone userPrincipalName"},
		"an extension attribute":  {pipeline.Spec{Attributes: map[string]string{"extensionAttribute1": "user.givenName"}}, nil, "undone attributes.extensionAttribute1"},
		"nothing for this person": {pipeline.Spec{DisplayName: "user.city", Attributes: map[string]string{"a": "user.city"}}, nil, "undone"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, c.spec)
				id := w.signUp(1)
				before := w.users.all[id]
				if c.before != nil {
					c.before(&before)
				}
				w.users.put(before)
				w.mustRun(time.Minute)
				w.wantUndo(pipeline.UndoOptions{Act: true}, strings.TrimSpace("01: "+strings.Replace(c.want, "undone |", "undone  |", 1)))
				after := w.users.all[id]
				_, domain, _ := strings.Cut(after.UserPrincipalName, "@")
				if before.HasGeneratedUPN() { // it stays in the domain where it is
					before.UserPrincipalName = string(id) + "@" + domain
				}
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A link-back that waits, and one that failed, are undone as well: what was written so far is taken back, and nothing follows.
func TestUndoTakesBackHalfAProfile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].before = always(errors.New("down"))
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.want(id, "billing: pending transient", "crm: pending", "news: skipped rule", "profile: pending")
		w.wantUndo(pipeline.UndoOptions{Act: true}, "01: undone displayName userPrincipalName")
		w.systems["billing"].before = nil
		w.mustRun(time.Hour)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: skipped undone")
		if !w.asCreated(id) {
			t.Errorf("got %+v", w.users.all[id])
		}
	})
}

func TestUndoIsFinishedByAnother(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world, cancel func())
		want  []string // what the first one shows; nil = anything
		fails bool
	}{
		"a patch's answer is lost": {func(w *world, _ func()) {
			lost := true
			w.users.patch = func(id signup.UserID, p signup.Patch) error {
				if !lost {
					return nil
				}
				lost = false
				u := w.users.all[id] // the effect
				u.DisplayName, u.UserPrincipalName, u.Attributes = p.DisplayName, p.UserPrincipalName, map[string]any{}
				w.users.all[id] = u
				return errors.New("no answer")
			}
		}, []string{"01: undone " + everything, "02: undone " + everything}, false},
		"one user is refused": {func(w *world, _ func()) {
			w.users.patch = func(id signup.UserID, _ signup.Patch) error {
				if strings.HasSuffix(string(id), "1") {
					return &signup.Error{Class: signup.Systemic, Code: "forbidden", Status: 403}
				}
				return nil
			}
		}, []string{"01: failed " + everything, "02: undone " + everything}, false},
		"the ledger is away": {func(w *world, _ func()) {
			w.users.patch = func(signup.UserID, signup.Patch) error { w.faults.set("Replace"); return nil }
		}, nil, true},
		"it is stopped": {func(w *world, cancel func()) {
			w.users.patch = func(signup.UserID, signup.Patch) error { cancel(); return context.Canceled }
		}, nil, true},
		"the ledger's row is changed": {func(w *world, _ func()) {
			w.users.patch = func(id signup.UserID, _ signup.Patch) error {
				if strings.HasSuffix(string(id), "1") {
					if _, err := w.ledger.Replace(context.Background(), []signup.Row{w.row(id)}); err != nil {
						t.Error(err)
					}
				}
				return nil
			}
		}, []string{"01: failed " + everything, "02: undone " + everything}, false},
		"nobody can be read": {func(w *world, _ func()) { w.users.down = &signup.Error{Class: signup.Transient, Code: "unavailable"} }, []string{}, true},
		"throttled": {func(w *world, _ func()) {
			var n atomic.Int32
			w.users.patch = func(signup.UserID, signup.Patch) error {
				if n.Add(1) <= 4 {
					return &signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 20 * time.Second}
				}
				return nil
			}
		}, []string{"01: undone " + everything, "02: undone " + everything}, false},
		"one profile cannot be decoded": {func(w *world, _ func()) { w.users.unreadable = "75b523ca-d064-4ddf-80af-000000000001" },
			[]string{"01: failed", "02: undone " + everything}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, spec())
				one, two := w.signUp(1), w.signUp(2)
				w.mustRun(time.Minute)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				c.spoil(w, cancel)
				shown, err := w.undo(ctx, pipeline.UndoOptions{Act: true})
				if (err != nil) != c.fails || c.want != nil && !slices.Equal(shown, c.want) {
					t.Errorf("got %q, %v", shown, err)
				}
				w.users.patch, w.users.down, w.users.unreadable = nil, nil, ""
				w.faults.set()
				if _, err := w.undo(context.Background(), pipeline.UndoOptions{Act: true}); err != nil {
					t.Error(err)
				}
				for _, id := range []signup.UserID{one, two} {
					if a, _ := w.row(id).Association(signup.Profile); !w.asCreated(id) || a.Reason != "undone" {
						t.Errorf("got %+v, %+v", w.users.all[id], a)
					}
				}
			})
		})
	}
}

// Whose profile was taken back before the undo was stopped is noted and shown all the same.
func TestUndoNotesWhatItHasDoneWhenItIsStopped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one, two := w.signUp(1), w.signUp(2)
		w.mustRun(time.Minute)
		ctx, cancel := context.WithCancel(context.Background())
		w.users.patch = func(id signup.UserID, _ signup.Patch) error {
			if cancel(); id == one {
				return context.Canceled
			}
			return nil
		}
		if shown, err := w.undo(ctx, pipeline.UndoOptions{Act: true}); !errors.Is(err, context.Canceled) || !slices.Equal(shown, []string{"02: undone " + everything}) {
			t.Errorf("got %v and %q", err, shown)
		}
		w.want(one, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		w.want(two, "billing: associated", "crm: associated", "news: skipped rule", "profile: skipped undone")
	})
}

func TestUndoStopsWhenItIsNotAboutTheUsers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		for n := range 100 {
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		tried := 0
		w.users.patch = func(signup.UserID, signup.Patch) error {
			tried++
			return &signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401}
		}
		shown, err := w.undo(context.Background(), pipeline.UndoOptions{Act: true})
		if err == nil || len(shown) != 5 || tried > 15 {
			t.Errorf("got %v after %d users and %d patches", err, len(shown), tried)
		}
	})
}

func TestUndoOfNamedUsers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one, two, three := w.signUp(1), w.signUp(2), w.signUp(3)
		w.mustRun(time.Minute)
		delete(w.users.all, three)
		stranger := signup.UserID("75b523ca-d064-4ddf-80af-000000000099")
		w.wantUndo(pipeline.UndoOptions{Act: true, Users: []signup.UserID{stranger, three, one}}, "01: undone "+everything, "03: gone", "99: absent")
		if w.asCreated(two) || !w.asCreated(one) {
			t.Error("somebody else was undone")
		}
		w.want(three, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

// The run lease is held: a run meanwhile does nothing, one that is at work is waited for, and the last summary stays.
func TestUndoHoldsTheRunLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		last := w.mustRun(time.Minute)
		noteOf := func() string {
			n, err := w.ledger.Note(t.Context(), "run")
			if err != nil {
				t.Fatal(err)
			}
			return string(n.Body)
		}
		before := noteOf()
		start, tries := time.Now(), 0
		w.users.patch = func(signup.UserID, signup.Patch) error {
			if tries++; tries == 1 { // longer than a lease lives without renewal
				if took := time.Since(start); took != time.Minute {
					t.Errorf("begun after %v: what the last run wrote shows everywhere after a minute", took)
				}
				return &signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 5 * time.Minute}
			}
			sum, err := w.engine.Run(context.Background(), pipeline.Trigger{})
			if !sum.Busy || err != nil {
				t.Errorf("a run meanwhile: %+v, %v", sum, err)
			}
			return nil
		}
		w.wantUndo(pipeline.UndoOptions{Act: true}, "01: undone "+everything)
		if after := noteOf(); after != before || !strings.Contains(after, last.Run) {
			t.Errorf("the lease's note was\n%s and is\n%s", before, after)
		}
		w.users.patch = nil

		id := w.signUp(2)
		w.systems["billing"].before = func(ctx context.Context, _ signup.Request) error { return w.engine.Clock.Sleep(ctx, 90*time.Second) }
		ran := make(chan error)
		go func() { _, err := w.run(time.Second); ran <- err }()
		time.Sleep(30 * time.Second)
		w.wantUndo(pipeline.UndoOptions{Act: true}, "02: undone "+everything)
		if err := <-ran; err != nil || !w.asCreated(id) {
			t.Errorf("%v; got %+v", err, w.users.all[id])
		}
	})
}

// The host's clock may be far ahead of the operator's.
func TestUndoWaitsNoLongerThanAMinuteForAnotherClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		last := w.mustRun(time.Minute)
		last.Ended = last.Ended.Add(24 * time.Hour)
		n, err := w.ledger.Note(t.Context(), "run")
		if err != nil {
			t.Fatal(err)
		}
		if n.Body, err = json.Marshal(map[string]any{"last": last}); err != nil {
			t.Fatal(err)
		}
		n.Name = "run"
		if _, err = w.ledger.PutNote(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w.wantUndo(pipeline.UndoOptions{Act: true}, "01: undone "+everything)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v, want a minute", took)
		}
	})
}

func TestUndoEndsWithoutTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.mustRun(time.Minute)
		steal := func(expires time.Duration) {
			n, _ := w.ledger.Note(context.Background(), "run")
			n.Name, n.Body = "run", fmt.Appendf(nil, `{"owner":"thief","expires":%q}`, time.Now().Add(expires).UTC().Format(time.RFC3339))
			if _, err := w.ledger.PutNote(context.Background(), n); err != nil {
				t.Error(err)
			}
		}
		patches := 0
		w.users.patch = func(signup.UserID, signup.Patch) error {
			patches++
			steal(6 * time.Minute)
			return &signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 10 * time.Minute}
		}
		if _, err := w.undo(context.Background(), pipeline.UndoOptions{Act: true}); !errors.Is(err, pipeline.ErrLeaseLost) {
			t.Errorf("got %v, want the lease lost", err)
		}
		if patches != 1 {
			t.Errorf("got %d patches, want it to drop what it is at", patches)
		}
		w.users.patch = nil
		if shown, err := w.undo(context.Background(), pipeline.UndoOptions{Act: true}); !errors.Is(err, pipeline.ErrBusy) || len(shown) > 0 {
			t.Errorf("got %q, %v, want it busy", shown, err)
		}
		if w.asCreated(id) {
			t.Error("it has acted without the lease")
		}
	})
}
