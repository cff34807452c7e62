package signup

import (
	"errors"
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

// clip cuts a detail to what a row keeps, at a character's border.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxDetail)], "")
}
