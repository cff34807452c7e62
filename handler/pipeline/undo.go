package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

const (
	// shows is how long a change of a user may take to show in every read. Who reads earlier could take for unwritten
	// what was written.
	shows = time.Minute
	// undoTries is how often one read or write is tried.
	undoTries = 4
)

// UndoOptions say whose profiles are undone.
type UndoOptions struct {
	Users []signup.UserID                   // nil = everyone in the ledger whose profile is not skipped
	Act   bool                              // false = only say what would be done
	Show  func(done, total int, one Undone) // gets every user, one after the other
}

// Undone is what became of one user. It names fields, never what is in them.
type Undone struct {
	User   signup.UserID `json:"user"`
	State  Fate          `json:"state"`
	Fields []string      `json:"fields,omitempty"` // that are taken back: displayName, userPrincipalName, attributes.NAME
	Kept   []string      `json:"kept,omitempty"`   // that hold something else than the mapping makes, and are left alone
	Err    error         `json:"-"`                // why it failed
}

// Undo takes back what the profile's mapping has written, as far as it still stands there, and sees to it that later
// runs do not write it again. It holds the run lease while it acts. Nothing tells it what was written but the mapping
// itself: what differs from what that makes of a user now, a person has changed, and it stays.
//
// Every step may be repeated, so that an Undo that was interrupted is finished by another. An error means that it did
// not come to the end; one user's failure is that user's.
func (e *Engine) Undo(ctx context.Context, o UndoOptions) error {
	u := &undoing{run: e.newRun(Trigger{Invocation: "undo"}), UndoOptions: o}
	if !o.Act {
		return u.all(ctx)
	}
	return u.hold(ctx, func(ctx context.Context) error {
		if last := u.lease.last; last != nil {
			if err := u.Clock.Sleep(ctx, min(last.Ended.Add(shows).Sub(u.Clock.Now()), shows)); err != nil {
				return err
			}
		}
		return u.all(ctx)
	})
}

// undoing is one Undo on its way.
type undoing struct {
	*run
	UndoOptions
	done, total int
	failures    int // in a row
}

func (u *undoing) all(ctx context.Context) error {
	ids := distinct(u.Users)
	if u.Users == nil {
		for row, err := range u.Ledger.All(ctx) {
			if err != nil {
				return err
			}
			if a, ok := row.Association(signup.Profile); ok && a.State != signup.Skipped {
				ids = append(ids, row.User)
			}
		}
	}
	u.total = len(ids)
	for chunk := range slices.Chunk(ids, batchUsers) {
		if err := u.some(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

// some undoes up to 15 users: one read of their profiles, one patch each, and then the ledger.
func (u *undoing) some(ctx context.Context, ids []signup.UserID) error {
	rows, err := u.Ledger.Get(ctx, ids)
	if err != nil {
		return err
	}
	var users map[signup.UserID]signup.User
	err = u.patiently(ctx, func() (err error) {
		users, err = u.users(ctx, ids)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && codeOf(err) == "bad-answer" && len(ids) > 1: // one profile that nobody can read is not to hold the others
		for i := range ids {
			if err := u.some(ctx, ids[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	case err != nil && codeOf(err) != "bad-answer":
		return fmt.Errorf("read profiles: %w", err)
	}
	results := make([]Undone, len(ids))
	u.Each(len(ids), func(i int) {
		at := slices.IndexFunc(rows, func(r signup.Row) bool { return r.User == ids[i] })
		results[i] = Undone{User: ids[i], State: FateFailed, Err: err}
		switch {
		case at < 0:
			results[i] = Undone{User: ids[i], State: FateAbsent}
		case err == nil:
			results[i] = u.one(ctx, rows[at], users)
		}
	})
	if err := u.write(ctx, rows, results); err != nil {
		return err
	}
	return u.show(ctx, results)
}

// one takes back one user's patch.
func (u *undoing) one(ctx context.Context, row signup.Row, users map[signup.UserID]signup.User) Undone {
	out := Undone{User: row.User, State: FateNothing}
	if a, ok := row.Association(signup.Profile); !ok || a.State == signup.Skipped {
		return out
	}
	user, ok := users[row.User]
	if !ok {
		out.State = FateGone
		return out
	}
	p := u.Mapping.revert(&job{row: row, user: user})
	out.Fields, out.Kept = fields(p), u.Mapping.kept(user, p)
	if out.State = FatePlanned; !u.Act {
		return out
	}
	out.State = FateUndone
	if !p.Empty() {
		if out.Err = u.patiently(ctx, func() error { return u.Directory.Update(ctx, row.User, p) }); out.Err != nil {
			out.State = FateFailed
		}
	}
	return out
}

// write notes in the ledger who was undone.
func (u *undoing) write(ctx context.Context, rows []signup.Row, results []Undone) error {
	var skipped []signup.Row
	for _, row := range rows {
		if i := slices.IndexFunc(results, func(o Undone) bool { return o.User == row.User }); results[i].State == FateUndone {
			row = row.Skip(signup.Profile, signup.ReasonUndone, u.Clock.Now())
			row.Owner = u.id
			skipped = append(skipped, row)
		}
	}
	if len(skipped) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	written, err := u.Ledger.Replace(ctx, skipped)
	if err != nil && !errors.Is(err, signup.ErrConflict) {
		return fmt.Errorf("note who was undone: %w", err)
	}
	for i, o := range results {
		there := slices.ContainsFunc(written, func(r signup.Row) bool { return r.User == o.User })
		if o.State == FateUndone && !there {
			results[i].State, results[i].Err = FateFailed, fmt.Errorf("note it in the ledger: %w", signup.ErrConflict)
		}
	}
	return nil
}

// show hands the results over. When user after user fails it is not about the users.
func (u *undoing) show(ctx context.Context, results []Undone) error {
	var cut error
	for _, one := range results {
		if ctx.Err() != nil && one.State == FateFailed {
			cut = ctx.Err() // which says nothing of the user
			continue
		}
		if u.failures++; one.State != FateFailed {
			u.failures = 0
		}
		if u.done++; u.Show != nil {
			u.Show(u.done, u.total, one)
		}
		if u.failures == DefaultFuse.Failures && u.done < u.total {
			return fmt.Errorf("%d users in a row have failed: %w", u.failures, one.Err)
		}
	}
	return cut
}

// patiently repeats a call that may do better later.
func (r *run) patiently(ctx context.Context, call func() error) error {
	for try := 1; ; try++ {
		err := call()
		class := signup.ClassOf(err)
		if err == nil || class != signup.Transient && class != signup.Throttled || codeOf(err) == "bad-answer" || try == undoTries {
			return err
		}
		if err := r.Clock.Sleep(ctx, max(retryAfter(err), signup.Backoff(try, r.jitter))); err != nil {
			return err
		}
	}
}

// revert is the patch that takes back what the mapping has made of a user. What that was depends on what stood in the
// record then, which nobody remembers: it may have had neither of our names yet, or one, or both. No expression sees what
// it is asked about, nor any attribute that the mapping writes: it would only confirm itself.
func (m *Mapping) revert(j *job) signup.Patch {
	user := j.user
	before := *j
	_, domain, _ := strings.Cut(user.UserPrincipalName, "@")
	before.user.DisplayName, before.user.UserPrincipalName = notCollected, string(user.ID)+"@"+domain
	before.user.Attributes = maps.Clone(user.Attributes)
	for _, a := range m.attributes {
		delete(before.user.Attributes, a.name)
	}
	needs := m.ProfileNeeds()
	made, _ := m.Profile(before.input(needs)) // what an error leaves out was not written either

	before.user.DisplayName = user.DisplayName
	named, _ := m.Profile(before.input(needs))
	named.DisplayName = ""

	before.user.UserPrincipalName = user.UserPrincipalName
	both, _ := m.Profile(before.input(needs))
	both.DisplayName, both.UserPrincipalName = "", ""
	return Revert(user, made, named, both)
}

// Revert is what takes back a patch that was written, as far as the user's record still holds it: a display name becomes
// External ID's own placeholder, since it cannot be cleared, a user principal name the generated one, attributes lose
// their value. Where it is not known which of several patches was written, each counts.
func Revert(u signup.User, written ...signup.Patch) signup.Patch {
	var p signup.Patch
	_, domain, _ := strings.Cut(u.UserPrincipalName, "@")
	for _, w := range written {
		if w.DisplayName == u.DisplayName && !replaceable(u.DisplayName) {
			p.DisplayName = notCollected
		}
		if w.UserPrincipalName != "" && !u.HasGeneratedUPN() && isCandidate(u.UserPrincipalName, w.UserPrincipalName, u.ID) {
			p.UserPrincipalName = string(u.ID) + "@" + domain
		}
		for name, v := range w.Attributes {
			if u.Attributes[name] == v && !slices.Contains(p.Clear, name) {
				p.Clear = append(p.Clear, name)
			}
		}
	}
	slices.Sort(p.Clear)
	return p
}

// WritesProfile reports that the mapping writes anything to the user's own record.
func (m *Mapping) WritesProfile() bool {
	return m.displayName != nil || m.principal != nil || len(m.attributes) > 0
}

// kept names what the mapping writes and the user's record holds, and the patch does not take back.
func (m *Mapping) kept(u signup.User, p signup.Patch) []string {
	var kept []string
	if m.displayName != nil && p.DisplayName == "" && !replaceable(u.DisplayName) {
		kept = append(kept, "displayName")
	}
	if m.principal != nil && p.UserPrincipalName == "" && !u.HasGeneratedUPN() {
		kept = append(kept, "userPrincipalName")
	}
	for _, a := range m.attributes {
		if _, has := u.Attributes[a.name]; has && !slices.Contains(p.Clear, a.name) {
			kept = append(kept, "attributes."+a.name)
		}
	}
	return kept
}

// fields names what a patch that takes back changes.
func fields(p signup.Patch) []string {
	var names []string
	if p.DisplayName != "" {
		names = append(names, "displayName")
	}
	if p.UserPrincipalName != "" {
		names = append(names, "userPrincipalName")
	}
	for _, a := range p.Clear {
		names = append(names, "attributes."+a)
	}
	return names
}
