package pipeline

import (
	"context"
	"time"

	"signup-sync/handler/signup"
)

// Status is how the installation is, as far as the ledger knows. It names no person.
type Status struct {
	Now          time.Time           `json:"now"`
	Since        time.Time           `json:"since,omitzero"`   // who signed up before is left alone; zero = there was no run yet
	Detectors    []DetectorStatus    `json:"detectors"`        // the configured ones
	Destinations []DestinationStatus `json:"destinations"`     // the configured ones, and behind them those of the ledger that are configured no longer
	Backlog      Backlog             `json:"backlog"`          //
	Run          *LeaseStatus        `json:"run,omitempty"`    // the run or command that holds the run lease; nil = nobody does
	Last         *Summary            `json:"last,omitempty"`   // of the last run that ended by itself; nil = there is none
	Census       *CensusStatus       `json:"census,omitempty"` // of the last census that came to its end; nil = there is none
}

// DestinationStatus is a destination, or signup.Profile, as the ledger knows it.
type DestinationStatus struct {
	Name    string         `json:"name"`
	Since   time.Time      `json:"since,omitzero"`    // the first run that knew of it; zero = there was none yet, and for the profile
	Removed bool           `json:"removed,omitempty"` // it is configured no longer
	Breaker *BreakerStatus `json:"breaker,omitempty"` // nil = it is closed
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

// Status reads the ledger, and nothing else. It takes no lease and changes nothing; its cost does not grow with what is
// settled, nor beyond a thousand rows with what is due.
func (e *Engine) Status(ctx context.Context) (Status, error) { return Status{}, nil }

// AttributeUse is an attribute of the user's record and what an expression takes its values for.
type AttributeUse struct {
	Name string               `json:"name"` // as the configuration has it
	Type signup.AttributeType `json:"type"` // of what it is compared with, or stands for
	Path string               `json:"path"` // where, as a YAMLPath: $.destinations[1].when
}

// AttributeUses returns what expressions take attributes for, as far as they tell, in the order of the document. An
// attribute whose type in the tenant is another one has no value that would ever be equal.
func (m *Mapping) AttributeUses() []AttributeUse { return nil }
