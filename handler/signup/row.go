package signup

import (
	"slices"
	"time"
)

// Row is all that the ledger knows of one user. It names the person by object id only.
type Row struct {
	User         UserID        `json:"user"`
	Kind         Kind          `json:"kind"`
	At           time.Time     `json:"at"`       // when the user signed up, by the first detector that saw it
	Detected     time.Time     `json:"detected"` // when this row was made
	Detector     string        `json:"detector"` // which detector saw the user first
	Origin       Origin        `json:"origin,omitempty"`
	Way          Way           `json:"way,omitempty"`
	Evidence     string        `json:"evidence,omitempty"` // for the origin
	Associations []Association `json:"associations"`
	Due          time.Time     `json:"due,omitzero"`       // when there is something to do; zero = settled
	Owner        string        `json:"owner"`              // the run that wrote the row last
	Intent       time.Time     `json:"intent,omitzero"`    // when the open intent was made; zero = none
	Starts       int           `json:"starts,omitempty"`   // intents since the last settle: above 1 a process died at work
	Unsure       bool          `json:"unsure,omitempty"`   // from backfill, census or replay, for good: effects may exist without an intent
	Missing      time.Time     `json:"missing,omitzero"`   // since when the directory answers that there is no such user
	Forgotten    time.Time     `json:"forgotten,omitzero"` // a tombstone since then: there is nothing else but User and Owner

	Version string `json:"-"` // the ledger's, for compare-and-swap
}

// NewRow is the row of a sign-up just detected, with every destination pending and the profile last.
func NewRow(e Event, detector string, destinations []string, now time.Time) Row {
	r := Row{User: e.User, Kind: e.Kind, At: e.At, Detected: now, Detector: detector, Due: now}
	for _, d := range destinations {
		r.Associations = append(r.Associations, Association{Destination: d, State: Pending, Next: now})
	}
	r.Associations = append(r.Associations, Association{Destination: Profile, State: Pending, Next: now})
	return r
}

// Association returns the one of that destination, and whether there is one.
func (r Row) Association(destination string) (Association, bool) {
	for _, a := range r.Associations {
		if a.Destination == destination {
			return a, true
		}
	}
	return Association{}, false
}

// Waiting is since when a pending association waits: since its first try, or if nothing was sent yet since it was opened.
func (r Row) Waiting(a Association) time.Time {
	switch {
	case !a.FirstTry.IsZero():
		return a.FirstTry
	case !a.Opened.IsZero():
		return a.Opened
	}
	return r.Detected
}

// Intend opens an intent: everything that is pending and due may have an effect from now on.
func (r Row) Intend(owner string, now time.Time) Row {
	r = r.clone()
	r.Owner, r.Intent = owner, now
	r.Starts++
	for i := range r.Associations {
		a := &r.Associations[i]
		if a.State == Pending && !a.Next.After(now) && a.FirstTry.IsZero() {
			a.FirstTry = now
		}
	}
	return r
}

// Tried reports that an effect at the destination may exist from before this row's open intent.
func (r Row) Tried(a Association) bool {
	return r.Unsure || r.Starts > 1 || !a.FirstTry.IsZero() && !a.FirstTry.Equal(r.Intent)
}

// Learn takes outcomes into account while the intent stays open: others are still to come.
func (r Row) Learn(now time.Time, outcomes []Outcome, jitter func(time.Duration) time.Duration) Row {
	r = r.clone()
	for _, o := range outcomes {
		for i := range r.Associations {
			if a := &r.Associations[i]; a.Destination == o.Destination && a.State == Pending {
				if len(o.For) > 0 {
					o.Wait = r.nextOf(o.For, now)
				}
				a.settle(now, r.Intent, o, jitter)
			}
		}
	}
	return r
}

// Settle closes the intent with what is now known. Associations without an outcome are left as they are, as tried ones:
// a cancelled call may have taken effect. Outcomes that wait for others come after theirs.
func (r Row) Settle(now time.Time, outcomes []Outcome, jitter func(time.Duration) time.Duration) Row {
	r = r.Learn(now, outcomes, jitter)
	r.Intent, r.Starts = time.Time{}, 0
	return r.schedule()
}

// nextOf is how long it is until the first pending one of the named destinations is due.
func (r Row) nextOf(names []string, now time.Time) time.Duration {
	wait := maxPause
	for _, name := range names {
		if a, ok := r.Association(name); ok && a.State == Pending {
			wait = min(wait, a.Next.Sub(now))
		} else {
			wait = 0 // settled just now: its dependents can be decided
		}
	}
	return max(wait, time.Second)
}

// SettleAll gives every pending association the same end, and closes the intent, under which nothing was sent.
func (r Row) SettleAll(s State, reason, detail string, now time.Time) Row {
	r = r.clone()
	for i := range r.Associations {
		if a := &r.Associations[i]; a.State == Pending {
			if r.Starts == 1 && a.FirstTry.Equal(r.Intent) {
				a.FirstTry = time.Time{}
			}
			a.finish(s, reason, detail, now)
		}
	}
	r.Intent, r.Starts = time.Time{}, 0
	return r.schedule()
}

// Begun reports that there may be an account somewhere.
func (r Row) Begun() bool {
	return slices.ContainsFunc(r.Associations, func(a Association) bool { return !a.FirstTry.IsZero() || !a.Opened.IsZero() })
}

// Postpone leaves everything pending as it is until now+d, and closes the intent: nothing was sent.
func (r Row) Postpone(now time.Time, d time.Duration) Row {
	outcomes := make([]Outcome, 0, len(r.Associations))
	for _, a := range r.Associations {
		if a.State == Pending && !a.Next.After(r.Intent) {
			outcomes = append(outcomes, Outcome{Destination: a.Destination, NotStarted: true, Wait: d})
		}
	}
	return r.Settle(now, outcomes, func(d time.Duration) time.Duration { return d })
}

// Reopen makes an association pending again, as one whose effect may exist, and starts anew everything that is counted
// towards its end. The user is unsure from then on, for good: that costs a look-up where none is needed, and nothing
// else. A tombstone stays as it is.
func (r Row) Reopen(destination string, now time.Time) Row {
	if !r.Forgotten.IsZero() {
		return r
	}
	r = r.clone()
	for i := range r.Associations {
		if a := &r.Associations[i]; a.Destination == destination {
			a.State, a.Reason, a.Detail, a.Attempts = Pending, "", "", 0
			a.FirstTry, a.Forbidden, a.Settled = time.Time{}, time.Time{}, time.Time{}
			a.Opened, a.Next = now, now
		}
	}
	r.Unsure, r.Missing = true, time.Time{}
	return r.schedule()
}

// Replay reopens the named associations, or gives the row those that it lacks, and with each what was decided by it: the
// associations that were skipped because they need it, those that need these, and so on, and the profile if it has
// settled and shows one of their accounts. An undone profile stays so unless it is named. A tombstone stays as it is.
func (r Row) Replay(destinations, shown []string, now time.Time) Row {
	for next := slices.Clone(destinations); len(next) > 0; next = next[1:] {
		name := next[0]
		r = r.Add(name, now).Reopen(name, now)
		for _, a := range r.Associations {
			needs := a.State == Skipped && a.Reason == ReasonNeeds && a.Detail == name
			shows := a.Destination == Profile && a.State != Pending && a.Reason != ReasonUndone && slices.Contains(shown, name)
			if needs || shows {
				next = append(next, a.Destination)
			}
		}
	}
	return r
}

// Add gives the row an association that it lacks, with a destination that was configured after the row was made, before
// the profile. One that it has is left as it is, and so is a tombstone.
func (r Row) Add(destination string, now time.Time) Row {
	if _, ok := r.Association(destination); ok || !r.Forgotten.IsZero() {
		return r
	}
	at := slices.IndexFunc(r.Associations, func(a Association) bool { return a.Destination == Profile })
	if at < 0 {
		at = len(r.Associations)
	}
	r.Associations = slices.Insert(slices.Clone(r.Associations), at, Association{Destination: destination, State: Pending, Opened: now, Next: now})
	r.Unsure = true
	return r.schedule()
}

// Forget makes the row a tombstone.
func (r Row) Forget(now time.Time) Row {
	return Row{User: r.User, Forgotten: now, Owner: r.Owner, Version: r.Version}
}

// State is how far the user is as a whole: Pending while anything is, else Failed if anything has, else Skipped if
// everything was, else Associated. The reason is that of the first failed association, or the one that all skipped ones
// share, "mixed" if they share none.
func (r Row) State() (s State, reason string) {
	s, reasons := Skipped, []string(nil)
	for _, a := range r.Associations {
		switch {
		case !r.Forgotten.IsZero():
		case a.State == Pending:
			return Pending, ""
		case a.State == Failed && s != Failed:
			s, reason = Failed, a.Reason
		case a.State == Associated && s != Failed:
			s = Associated
		case a.State == Skipped:
			reasons = append(reasons, a.Reason)
		}
	}
	switch {
	case !r.Forgotten.IsZero():
		return Forgotten, ""
	case s != Skipped:
		return s, reason
	case len(slices.Compact(slices.Sorted(slices.Values(reasons)))) == 1:
		return Skipped, reasons[0]
	}
	return Skipped, "mixed"
}

// Skip ends an association, whatever its state, and leaves the others as they are. It stays skipped until it is
// reopened; one that is skipped already keeps its reason.
func (r Row) Skip(destination, reason string, now time.Time) Row {
	r = r.clone()
	for i := range r.Associations {
		if a := &r.Associations[i]; a.Destination == destination && a.State != Skipped {
			a.finish(Skipped, reason, "", now)
		}
	}
	return r.schedule()
}

// schedule sets Due from the pending associations.
func (r Row) schedule() Row {
	r.Due = time.Time{}
	for _, a := range r.Associations {
		if a.State == Pending && (r.Due.IsZero() || a.Next.Before(r.Due)) {
			r.Due = a.Next
		}
	}
	return r
}

func (r Row) clone() Row {
	r.Associations = append([]Association(nil), r.Associations...)
	return r
}
