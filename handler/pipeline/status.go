package pipeline

import (
	"context"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// Status is how the installation is, as far as the ledger knows. It names no person.
type Status struct {
	Now          time.Time           `json:"now"`
	Since        time.Time           `json:"since,omitzero"`    // who signed up before is left alone; zero = there was no run yet
	Detectors    []DetectorStatus    `json:"detectors"`         // the configured ones
	Destinations []DestinationStatus `json:"destinations"`      // the configured ones, and behind them those of the ledger that are configured no longer
	Backlog      Backlog             `json:"backlog"`           //
	Run          *LeaseStatus        `json:"run,omitempty"`     // the run or command that holds the run lease; nil = nobody does
	Last         *Summary            `json:"last,omitempty"`    // of the last run that ended by itself; nil = there is none
	Census       *CensusStatus       `json:"census,omitempty"`  // of the last census that came to its end; nil = there is none
	Longest      *Unsettled          `json:"longest,omitempty"` // who has waited longest of the backlog, as far as it was counted; nil = nobody waits
}

// DestinationStatus is a destination, or signup.Profile, as the ledger knows it.
type DestinationStatus struct {
	Name    string         `json:"name"`
	Since   time.Time      `json:"since,omitzero"`    // the first run that knew of it; zero = there was none yet, and for the profile
	Removed bool           `json:"removed,omitempty"` // it is configured no longer
	Breaker *BreakerStatus `json:"breaker,omitempty"` // nil = it is closed
	Pending int            `json:"pending,omitempty"` // users of the backlog who wait for it, as far as it was counted
}

// BreakerStatus is a breaker that has opened and has not closed since.
type BreakerStatus struct {
	Since       time.Time `json:"since,omitzero"`       // when it opened first; zero = an older version opened it
	Until       time.Time `json:"until"`                // nobody passes before; then one call tries
	Opened      int       `json:"opened"`               // times in a row
	Code        string    `json:"code"`                 // of the answer that opened it
	LastSuccess time.Time `json:"lastSuccess,omitzero"` // zero = none that is known
}

// Backlog is what there is to do. Of more than a thousand rows it says so, and counts no further.
type Backlog struct {
	Due     int       `json:"due"`             // rows that could be worked now
	Oldest  time.Time `json:"oldest,omitzero"` // since when the first of them could be
	Waiting int       `json:"waiting"`         // rows that wait for a later time
	More    bool      `json:"more,omitempty"`  // there are more than those, due or waiting
	Next    time.Time `json:"next,omitzero"`   // when the first of those that wait is due
}

// LeaseStatus is who has the run lease.
type LeaseStatus struct {
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
	Died  bool      `json:"died,omitempty"` // it did not renew the lease, which anybody may take: the process was killed
}

// CensusStatus is what the last census found.
type CensusStatus struct {
	ID         string    `json:"id"`
	Ended      time.Time `json:"ended"`
	Users      int       `json:"users"`
	Missing    int       `json:"missing"` // should have been in the ledger, and are since
	Failed     int       `json:"failed"`
	Pending    int       `json:"pending"`
	PassedOver int64     `json:"passedOver"` // records of the directory that could not be decoded
}

// Unsettled is a user who is not settled yet.
type Unsettled struct {
	User         signup.UserID `json:"user"`
	SignedUp     time.Time     `json:"signedUp"`
	Due          time.Time     `json:"due"`
	Destinations []string      `json:"destinations"` // that are pending
}

// maxBacklog is how many rows are counted.
const maxBacklog = 1000

// Status reads the ledger, and nothing else. It takes no lease and changes nothing; its cost does not grow with what is
// settled, nor beyond a thousand rows with what is due.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	s := Status{Now: e.Clock.Now()}
	var state stateBody
	var lease leaseBody
	var census Census
	for _, n := range []struct {
		name string
		into any
	}{{stateNote, &state}, {leaseNote, &lease}, {certificateNote, &census}} {
		if _, err := e.readNote(ctx, n.name, n.into); err != nil {
			return s, err
		}
	}
	var err error
	if s.Detectors, err = e.Matrix(ctx); err != nil {
		return s, err
	}
	s.Since, s.Destinations, s.Last = state.Since, e.destinationStatus(state), lease.Last
	if err = e.backlog(ctx, &s); err != nil {
		return s, err
	}
	if lease.Owner != "" {
		s.Run = &LeaseStatus{Owner: lease.Owner, Until: lease.Expires, Died: !lease.held(s.Now)}
	}
	if census.ID != "" {
		s.Census = &CensusStatus{ID: census.ID, Ended: census.Ended, Users: census.Users, Missing: census.Missing,
			Pending: census.Pending, PassedOver: census.PassedOver}
		for _, t := range census.Failed {
			s.Census.Failed += t.Users
		}
	}
	return s, nil
}

// backlog counts the rows that are due, and behind them those that wait.
func (e *Engine) backlog(ctx context.Context, s *Status) error {
	b := &s.Backlog
	for row, err := range e.Ledger.Due(ctx, s.Now.AddDate(1, 0, 0)) { // nobody waits for longer
		switch {
		case err != nil:
			*b = Backlog{}
			return err
		case b.Due+b.Waiting == maxBacklog:
			b.More = true
			return nil
		case !row.Due.After(s.Now):
			if b.Due++; b.Due == 1 {
				b.Oldest = row.Due
			}
		default:
			if b.Waiting++; b.Waiting == 1 {
				b.Next = row.Due
			}
		}
		s.unsettled(row)
	}
	return nil
}

// unsettled takes one row of the backlog into account.
func (s *Status) unsettled(row signup.Row) {
	var names []string
	for _, a := range row.Associations {
		if a.State != signup.Pending {
			continue
		}
		names = append(names, a.Destination)
		if i := slices.IndexFunc(s.Destinations, func(d DestinationStatus) bool { return d.Name == a.Destination }); i >= 0 {
			s.Destinations[i].Pending++
		}
	}
	if s.Longest == nil || row.At.Before(s.Longest.SignedUp) {
		s.Longest = &Unsettled{User: row.User, SignedUp: row.At, Due: row.Due, Destinations: names}
	}
}

// destinationStatus is about the configured destinations, the profile, and those that only the ledger knows.
func (e *Engine) destinationStatus(state stateBody) []DestinationStatus {
	var all []DestinationStatus
	find := func(name string) *DestinationStatus {
		i := slices.IndexFunc(all, func(d DestinationStatus) bool { return d.Name == name })
		if i < 0 {
			i = len(all)
			all = append(all, DestinationStatus{Name: name, Removed: !slices.Contains(e.gateNames(), name)})
		}
		return &all[i]
	}
	for _, name := range e.gateNames() {
		find(name)
	}
	for _, d := range state.Destinations {
		find(d.Name).Since = d.Since
	}
	for _, b := range state.Breakers {
		if b.Opened > 0 {
			find(b.Name).Breaker = &BreakerStatus{Since: b.Since, Until: b.Until, Opened: b.Opened, Code: b.Code, LastSuccess: b.LastSuccess}
		}
	}
	return all
}
