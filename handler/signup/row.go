package signup

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// State is how far one association is.
type State string

const (
	Pending    State = "pending"
	Associated State = "associated"
	Skipped    State = "skipped"
	Failed     State = "failed"

	// Forgotten is of whole rows only: nothing but the user's id is kept, so that the user stays left alone.
	Forgotten State = "forgotten"
)

// Profile is the name under which a row keeps the patch of the user's own record; no destination may have it.
const Profile = "profile"

// Reasons that decide what a replay reopens.
const (
	// ReasonNeeds is of an association that was skipped because another one, which the detail names, has no account.
	ReasonNeeds = "needs"
	// ReasonUndone is of a profile that was taken back, so that nobody writes it again without being told to.
	ReasonUndone = "undone"
)

const (
	// Horizon is how long an association is tried, from its first try or last reopening.
	Horizon = 14 * 24 * time.Hour
	// ForbiddenFor is how long one user may be refused where others are accepted.
	ForbiddenFor = 24 * time.Hour
	// maxPause caps the pause between two tries.
	maxPause = time.Hour
	// maxDetail is how much of an error's detail a row keeps, in bytes.
	maxDetail = 200
)

// Association is one user at one destination.
//
//	pending ──► associated ──► skipped: undone (the profile's, by undo)
//	   │  ▲ ──► skipped: reason
//	   │  └──── reopen (replay)
//	   └──────► failed: reason
type Association struct {
	Destination string    `json:"destination"`
	State       State     `json:"state"`
	Account     string    `json:"account,omitempty"`    // the destination's own id
	Reason      string    `json:"reason,omitempty"`     // a code: why skipped or failed, or why the last try did not succeed
	Detail      string    `json:"detail,omitempty"`     // at most 200 redacted characters
	Generation  int       `json:"generation,omitempty"` // of the idempotency key
	Spent       time.Time `json:"spent,omitzero"`       // since when that key is known to be spent
	Forbidden   time.Time `json:"forbidden,omitzero"`   // since when every answer was 403
	Attempts    int       `json:"attempts,omitempty"`   // tries that failed; throttled ones are not counted
	FirstTry    time.Time `json:"firstTry,omitzero"`    // the intent: from here on an effect may exist
	Opened      time.Time `json:"opened,omitzero"`      // when it was last reopened, or added to the row; zero = made with the row
	Next        time.Time `json:"next,omitzero"`        // when it is due, while pending
	Settled     time.Time `json:"settled,omitzero"`     // when it left pending
}

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

// Outcome is what became of one association of a row under an intent.
type Outcome struct {
	Destination string
	Account     Account
	Err         error
	NotStarted  bool          // nothing was sent
	Wait        time.Duration // … and it is left alone for so long
	For         []string      // … or, if set, until one of these is due
	LastSuccess time.Time     // when this destination last accepted anybody; for a 403
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

func (a *Association) settle(now, intent time.Time, o Outcome, jitter func(time.Duration) time.Duration) {
	if o.NotStarted {
		if a.FirstTry.Equal(intent) {
			a.FirstTry = time.Time{}
		}
		if a.Next = now.Add(o.Wait); a.beyondHorizon(now) {
			a.finish(Failed, "horizon", "last: "+a.Reason, now)
		}
		return
	}
	if o.Err == nil {
		a.finish(Associated, "", "", now)
		a.Account = o.Account.ID
		return
	}
	e, ok := errors.AsType[*Error](o.Err)
	if !ok {
		e = &Error{Class: Transient, Code: "transient"}
	}
	a.Reason, a.Detail = e.Code, clip(e.Detail)
	switch {
	case e.Status != 403:
		a.Forbidden = time.Time{}
	case a.Forbidden.IsZero():
		a.Forbidden = now
	}
	switch e.Class {
	case Skip:
		a.finish(Skipped, e.Code, e.Detail, now)
		return
	case Permanent:
		a.finish(Failed, e.Code, e.Detail, now)
		return
	case Throttled:
		a.Next = now.Add(max(e.RetryAfter, jitter(10*time.Second)))
	case Systemic:
		if e.Status == 403 && o.LastSuccess.After(a.Forbidden) && now.Sub(a.Forbidden) >= ForbiddenFor {
			a.finish(Failed, e.Code, e.Detail, now)
			return
		}
		a.Next = now.Add(max(e.RetryAfter, jitter(time.Minute)))
	default:
		switch {
		case e.Code == "key-spent":
			a.Generation, a.Spent = a.Generation+1, time.Time{}
		case e.Code == "key-settling" && a.Spent.IsZero():
			a.Spent = now
		}
		a.Attempts++
		a.Next = now.Add(max(e.RetryAfter, Backoff(a.Attempts, jitter)))
	}
	if a.beyondHorizon(now) {
		a.finish(Failed, "horizon", "last: "+e.Code, now)
	}
}

func (a *Association) beyondHorizon(now time.Time) bool {
	return !a.FirstTry.IsZero() && now.Sub(a.FirstTry) >= Horizon
}

// Backoff is the pause after the nth failed try: 5 s, doubled each time, at most an hour, spread by jitter, which
// takes the full pause and returns the one to use.
func Backoff(n int, jitter func(time.Duration) time.Duration) time.Duration {
	d := maxPause
	if n < 11 {
		d = min(d, 5*time.Second<<max(n-1, 0))
	}
	return jitter(d)
}

func (a *Association) finish(s State, reason, detail string, now time.Time) {
	a.State, a.Reason, a.Detail, a.Next, a.Settled = s, reason, clip(detail), time.Time{}, now
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

// clip cuts a detail to what a row keeps, at a character's border.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxDetail)], "")
}
