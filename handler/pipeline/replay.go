package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// ReplayOptions say which associations are reopened: those that meet all of it.
type ReplayOptions struct {
	Users        []signup.UserID // nil = everyone in the ledger
	Destinations []string        // nil = all that are configured, and the profile
	State        signup.State
	Reason       string        // "" = any
	Older        time.Duration // 0, or it is in that state for at least so long; pending: since its first try
	Newer        time.Duration // 0, or for less than this
	Act          bool          // false = only say what would be done

	Read func(done, total int) // gets how many rows were looked at; the total is 0 where nobody knows it
	Show func(one Replayed)    // gets every user who is named, or of whom something is reopened, one after the other
}

// Replayed is what became of one user.
type Replayed struct {
	User     signup.UserID `json:"user"`
	State    Fate          `json:"state"`
	Reopened []Reopened    `json:"reopened,omitempty"`
	Err      error         `json:"-"` // why it failed
}

// Reopened is one association as it was before.
type Reopened struct {
	Destination string       `json:"destination"`
	State       signup.State `json:"was,omitempty"` // "" = the user had none there
	Reason      string       `json:"reason,omitempty"`
	With        bool         `json:"with,omitempty"` // not asked for: it was decided by one that is
}

// Replay reopens associations, which the next run then works with a look before anything is made. It holds the run lease
// while it acts. What is reopened no longer is in the state that was asked for, so that a Replay that was interrupted is
// finished by another. Its memory does not grow with the ledger.
//
// An error means that it did not come to the end; one user's failure is that user's.
func (e *Engine) Replay(ctx context.Context, o ReplayOptions) error {
	r := &replaying{run: e.newRun(Trigger{Invocation: "replay"}), ReplayOptions: o, names: o.Destinations}
	if o.Destinations == nil {
		r.names = append(e.destinationNames(), signup.Profile)
	}
	if !o.Act {
		return r.all(ctx)
	}
	return r.hold(ctx, r.all)
}

// replaying is one Replay on its way.
type replaying struct {
	*run
	ReplayOptions
	names []string
	done  int // rows looked at
}

func (r *replaying) all(ctx context.Context) error {
	if r.Users != nil {
		return r.named(ctx)
	}
	var page []signup.Row
	for row, err := range r.Ledger.All(ctx) {
		if err != nil {
			return err
		}
		if r.looked(1, 0); len(r.selected(row)) > 0 {
			page = append(page, row)
		}
		if len(page) == operateRows {
			if err := r.some(ctx, page); err != nil {
				return err
			}
			page = page[:0]
		}
	}
	return r.some(ctx, page)
}

func (r *replaying) named(ctx context.Context) error {
	ids := distinct(r.Users)
	for chunk := range slices.Chunk(ids, operateRows) {
		rows, err := r.Ledger.Get(ctx, chunk)
		if err != nil {
			return err
		}
		for _, id := range chunk {
			if !slices.ContainsFunc(rows, func(row signup.Row) bool { return row.User == id }) {
				r.show(Replayed{User: id, State: FateAbsent})
			}
		}
		if err := r.some(ctx, rows); err != nil {
			return err
		}
		r.looked(len(chunk), len(ids))
	}
	return nil
}

// some reopens what is asked for of some users, and shows them. After an error those are shown who are known to be written.
func (r *replaying) some(ctx context.Context, rows []signup.Row) error {
	results := make([]Replayed, len(rows))
	at := make(map[signup.UserID]int, len(rows))
	for i, row := range rows {
		at[row.User], results[i] = i, r.plan(row)
	}
	if r.Act {
		written, err := r.rewrite(ctx, rows, func(row signup.Row) (signup.Row, bool) {
			one := r.plan(row)
			results[at[row.User]] = one
			return r.reopen(row), one.State == FatePlanned
		})
		for _, id := range written {
			results[at[id]].State = FateReopened
		}
		if err != nil {
			for _, id := range written {
				r.show(results[at[id]])
			}
			return fmt.Errorf("reopen %d users: %w", len(rows)-len(written), err)
		}
	}
	for _, one := range results {
		if r.Act && one.State == FatePlanned {
			one.State, one.Err = FateFailed, fmt.Errorf("write it into the ledger: %w", signup.ErrConflict)
		}
		if r.Users != nil || one.State != FateNothing {
			r.show(one)
		}
	}
	return nil
}

// plan says what would be reopened of a user.
func (r *replaying) plan(row signup.Row) Replayed {
	one := Replayed{User: row.User, State: FateNothing}
	if !row.Forgotten.IsZero() {
		one.State = FateForgotten
		return one
	}
	selected := r.selected(row)
	if len(selected) == 0 {
		return one
	}
	one.State = FatePlanned
	for _, after := range r.reopen(row).Associations {
		before, ok := row.Association(after.Destination)
		if before != after || !ok {
			one.Reopened = append(one.Reopened, Reopened{Destination: after.Destination, State: before.State, Reason: before.Reason,
				With: !slices.Contains(selected, after.Destination)})
		}
	}
	return one
}

func (r *replaying) reopen(row signup.Row) signup.Row {
	return row.Replay(r.selected(row), r.Mapping.ProfileNeeds(), r.start)
}

// selected names the row's associations that are asked for, and those destinations that are asked for by name, for users
// asked for by name, and that the row lacks: they were configured later.
func (r *replaying) selected(row signup.Row) []string {
	var names []string
	for _, name := range r.names {
		a, ok := row.Association(name)
		if ok && r.wants(row, a) || !ok && r.Users != nil && r.Destinations != nil && r.Reason == "" && r.Older == 0 && r.Newer == 0 {
			names = append(names, name)
		}
	}
	return names
}

func (r *replaying) wants(row signup.Row, a signup.Association) bool {
	since := a.Settled
	switch {
	case a.State != r.State || r.Reason != "" && a.Reason != r.Reason:
		return false
	case a.Reason == signup.ReasonUndone && r.Reason != a.Reason && !slices.Contains(r.Destinations, a.Destination):
		return false // an operator has taken it back: nobody brings it back without naming it
	case a.State == signup.Pending && !a.Next.After(r.start):
		return false // it is due already
	case a.State == signup.Pending:
		since = row.Waiting(a)
	}
	age := r.start.Sub(since)
	return age >= r.Older && (r.Newer == 0 || age < r.Newer)
}

func (r *replaying) looked(rows, total int) {
	if r.done += rows; r.Read != nil {
		r.Read(r.done, total)
	}
}

func (r *replaying) show(one Replayed) {
	if r.Show != nil {
		r.Show(one)
	}
}
