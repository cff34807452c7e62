package pipeline

import (
	"context"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// Explanation is all that the ledger says of one user, beside what it says of the installation as far as it concerns
// the user. It names no person.
type Explanation struct {
	User      signup.UserID    `json:"user"`
	Now       time.Time        `json:"now"`
	State     signup.State     `json:"state,omitempty"` // as a whole; "" = the user is not in the ledger
	Row       *signup.Row      `json:"row,omitempty"`
	Waits     []Wait           `json:"waits,omitempty"`  // of the pending associations, in the row's order
	Since     time.Time        `json:"since,omitzero"`   // who signed up before is left alone; zero = there was no run yet
	Detectors []DetectorStatus `json:"detectors"`        // the configured ones
	AtWork    string           `json:"atWork,omitempty"` // the run or command that holds the run lease
}

// Wait is what a pending association waits for beside its time.
type Wait struct {
	Destination string    `json:"destination"`
	For         []string  `json:"for,omitempty"`     // destinations whose accounts it needs, and which are pending
	Open        time.Time `json:"open,omitzero"`     // until then the destination's breaker is open
	Code        string    `json:"code,omitempty"`    // … since this answer
	Removed     bool      `json:"removed,omitempty"` // the destination is configured no longer
}

// Explain reads the ledger, and nothing else.
func (e *Engine) Explain(ctx context.Context, id signup.UserID) (Explanation, error) {
	x := Explanation{User: id, Now: e.Clock.Now()}
	var state stateBody
	var lease leaseBody
	if _, err := e.readNote(ctx, stateNote, &state); err != nil {
		return x, err
	}
	if _, err := e.readNote(ctx, leaseNote, &lease); err != nil {
		return x, err
	}
	x.Since = state.Since
	if lease.held(x.Now) {
		x.AtWork = lease.Owner
	}
	var err error
	if x.Detectors, err = e.Matrix(ctx); err != nil {
		return x, err
	}
	rows, err := e.Ledger.Get(ctx, []signup.UserID{id})
	if err != nil || len(rows) == 0 {
		return x, err
	}
	x.Row = &rows[0]
	x.State, _ = x.Row.State()
	for _, a := range x.Row.Associations {
		if a.State == signup.Pending {
			x.Waits = append(x.Waits, e.waitOf(*x.Row, a, state.Breakers, x.Now))
		}
	}
	return x, nil
}

// waitOf says what a pending association waits for.
func (e *Engine) waitOf(row signup.Row, a signup.Association, breakers []namedBreaker, now time.Time) Wait {
	w := Wait{Destination: a.Destination, Removed: a.Destination != signup.Profile && !slices.Contains(e.destinationNames(), a.Destination)}
	needs := e.Mapping.Needs(a.Destination)
	if a.Destination == signup.Profile {
		needs = e.Mapping.ProfileNeeds()
	}
	for _, name := range needs {
		if other, ok := row.Association(name); ok && other.State == signup.Pending {
			w.For = append(w.For, name)
		}
	}
	for _, b := range breakers {
		if b.Name == a.Destination && b.Open(now) {
			w.Open, w.Code = b.Until, b.Code
		}
	}
	return w
}
