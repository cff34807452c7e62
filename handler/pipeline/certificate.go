package pipeline

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	// exceptionsKept is how many users a certificate names; the others are counted.
	exceptionsKept = 100
	// pendingLong is how long a user may be pending without being an exception.
	pendingLong = 24 * time.Hour
	// certificateBytes is what a note of the ledger holds.
	certificateBytes = 30_000
)

// Census is a walk through the whole directory that compares it with the ledger: while it is under way how far it is,
// and then the certificate. Its counts speak of the users whom the directory has shown with a creation time in
// [From, Cursor), each in exactly one of Before to Missing.
type Census struct {
	ID      string        `json:"id,omitempty"`
	Started time.Time     `json:"started,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`  // zero while it is under way
	Acted   bool          `json:"acted,omitempty"` // what was missing is taken in; otherwise nothing was changed
	Since   time.Time     `json:"since,omitzero"`  // who signed up earlier is Before
	From    time.Time     `json:"from,omitzero"`
	To      time.Time     `json:"to,omitzero"`     // younger users are the detectors' business
	Cursor  time.Time     `json:"cursor,omitzero"` // how far the walk is
	Step    time.Duration `json:"step,omitempty"`  // of the next slice, nanoseconds

	Users      int     `json:"users"`
	Before     int     `json:"before"` // signed up before Since, and were not looked for in the ledger
	Associated int     `json:"associated"`
	Pending    int     `json:"pending"`
	Skipped    []Tally `json:"skipped,omitempty"` // by reason
	Failed     []Tally `json:"failed,omitempty"`  // by the first destination that failed, and its reason
	Forgotten  int     `json:"forgotten"`
	Backfilled int     `json:"backfilled"` // were Before until Since was lowered, and are in the ledger since this census
	Missing    int     `json:"missing"`    // should have been in the ledger, and are since this census

	Redeemed   int     `json:"redeemed"`        // of the above, opened again: invitations accepted after all
	Restored   int     `json:"restored"`        // … and users who were taken for deleted
	Added      []Tally `json:"added,omitempty"` // … given a destination that their row lacked
	PassedOver int64   `json:"passedOver"`      // records of the directory that could not be decoded: of nobody above

	Detectors     []FirstSeen      `json:"detectors,omitempty"`    // who of the above was seen first by which detector
	Matrix        []DetectorStatus `json:"matrix,omitempty"`       // whom each detector has shown, first or after which other, when the census ended
	OldestPending time.Time        `json:"oldestPending,omitzero"` // since when somebody is pending
	Exceptions    []Exception      `json:"exceptions,omitempty"`   // missing, then failed, then pending for more than a day
	Unnamed       int              `json:"unnamed,omitempty"`      // exceptions beyond those

	Idle string `json:"idle,omitempty"` // why nothing was done
	Busy bool   `json:"busy,omitempty"` // another census is under way and has gone on
}

// Tally is a number of users with something in common.
type Tally struct {
	Destination string `json:"destination,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Users       int    `json:"users"`
}

// FirstSeen is how many users one detector saw before the others did, and how late.
type FirstSeen struct {
	Detector string  `json:"detector"`
	Users    int     `json:"users"`
	Lags     Lags    `json:"lags"` // from sign-up to row
	P50      float64 `json:"p50Seconds"`
	P99      float64 `json:"p99Seconds"`
}

// Exception is a user at whom a person may want to look.
type Exception struct {
	User        signup.UserID `json:"user"`
	State       string        `json:"state"` // missing, failed, pending
	Destination string        `json:"destination,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	Since       time.Time     `json:"since"` // missing: when the user signed up
}

const stateMissing = "missing"

// CheckSum is an error unless every user is counted exactly once.
func (c Census) CheckSum() error {
	sum := c.Before + c.Associated + c.Pending + c.Forgotten + c.Backfilled + c.Missing + Total(c.Skipped) + Total(c.Failed)
	if sum != c.Users {
		return fmt.Errorf("add up the census: %d users were walked, and %d are accounted for", c.Users, sum)
	}
	seen := c.Before + c.Forgotten
	for _, d := range c.Detectors {
		seen += d.Users
	}
	if seen != c.Users {
		return fmt.Errorf("add up the census: %d users were walked, and %d were seen by a detector, forgotten or before", c.Users, seen)
	}
	if !c.Ended.IsZero() && !c.Cursor.Equal(c.To) {
		return fmt.Errorf("add up the census: it has ended at %s of %s", c.Cursor.Format(time.RFC3339), c.To.Format(time.RFC3339))
	}
	return nil
}

// Total is the number of users in a list of tallies.
func Total(list []Tally) int {
	n := 0
	for _, t := range list {
		n += t.Users
	}
	return n
}

// encode is the census as it is stored: it adds up, and names as many users as fit.
func (c Census) encode() ([]byte, error) {
	if err := c.CheckSum(); err != nil {
		return nil, err
	}
	for {
		body, err := json.Marshal(c)
		if err != nil || len(body) <= certificateBytes {
			return body, err
		}
		if len(c.Exceptions) == 0 {
			return nil, errors.New("encode the census: it has too many destinations and reasons")
		}
		left := len(c.Exceptions) / 2
		c.Unnamed += len(c.Exceptions) - left
		c.Exceptions = c.Exceptions[:left]
	}
}

// clone shares nothing that counting changes.
func (c Census) clone() Census {
	c.Skipped, c.Failed, c.Added = slices.Clone(c.Skipped), slices.Clone(c.Failed), slices.Clone(c.Added)
	c.Exceptions, c.Detectors = slices.Clone(c.Exceptions), slices.Clone(c.Detectors)
	for i := range c.Detectors {
		c.Detectors[i].Lags.Counts = slices.Clone(c.Detectors[i].Lags.Counts)
	}
	return c
}

// count takes one user who has a row, or would have one, into account.
func (c *Census) count(row signup.Row, now time.Time) {
	c.Users++
	state, reason := row.State()
	if state == signup.Forgotten {
		c.Forgotten++
		return
	}
	c.saw(row)
	switch {
	case c.tookIn(row) && row.Detector == detectorBackfill:
		c.Backfilled++
	case c.tookIn(row):
		c.Missing++
		c.except(Exception{User: row.User, State: stateMissing, Since: row.At})
	case state == signup.Associated:
		c.Associated++
	case state == signup.Skipped:
		c.Skipped = tally(c.Skipped, Tally{Reason: reason})
	case state == signup.Failed:
		a := row.Associations[slices.IndexFunc(row.Associations, func(a signup.Association) bool { return a.State == signup.Failed })]
		c.Failed = tally(c.Failed, Tally{Destination: a.Destination, Reason: a.Reason})
		c.except(Exception{User: row.User, State: string(signup.Failed), Destination: a.Destination, Reason: a.Reason, Since: a.Settled})
	default:
		c.Pending++
		c.pending(row, now)
	}
}

// tookIn reports that the row is this census's own. That the time is asked, and not who wrote the row last, makes it so
// also when the row has been worked since, or the process that made it died before it could count it.
func (c *Census) tookIn(row signup.Row) bool {
	return (row.Detector == detectorCensus || row.Detector == detectorBackfill) && !row.Detected.Before(c.Started)
}

// pending notes since when the user waits: for the one of the pending associations that has waited longest.
func (c *Census) pending(row signup.Row, now time.Time) {
	var oldest Exception
	for _, a := range row.Associations {
		since := row.Waiting(a)
		if a.State == signup.Pending && (oldest.User == "" || since.Before(oldest.Since)) {
			oldest = Exception{User: row.User, State: string(signup.Pending), Destination: a.Destination, Reason: a.Reason, Since: since}
		}
	}
	if c.OldestPending.IsZero() || oldest.Since.Before(c.OldestPending) {
		c.OldestPending = oldest.Since
	}
	if now.Sub(oldest.Since) > pendingLong {
		c.except(oldest)
	}
}

// saw counts which detector was the first to see a user.
func (c *Census) saw(row signup.Row) {
	i, ok := slices.BinarySearchFunc(c.Detectors, row.Detector, func(d FirstSeen, name string) int { return cmp.Compare(d.Detector, name) })
	if !ok {
		c.Detectors = slices.Insert(c.Detectors, i, FirstSeen{Detector: row.Detector})
	}
	d := &c.Detectors[i]
	d.Users++
	if redeemedLater := row.Detected.Before(row.At) && row.Kind == signup.Redeemed; !redeemedLater {
		d.Lags.Add(row.Detected.Sub(row.At))
	}
	d.P50, d.P99 = d.Lags.Quantile(0.50).Seconds(), d.Lags.Quantile(0.99).Seconds()
}

// except names a user while there is room, or in place of one of less weight.
func (c *Census) except(e Exception) {
	order := []string{stateMissing, string(signup.Failed), string(signup.Pending)}
	at := len(c.Exceptions)
	for at > 0 && slices.Index(order, c.Exceptions[at-1].State) > slices.Index(order, e.State) {
		at--
	}
	c.Exceptions = slices.Insert(c.Exceptions, at, e)
	if n := len(c.Exceptions); n > exceptionsKept {
		c.Exceptions = c.Exceptions[:n-1]
		c.Unnamed++
	}
}

// tally counts one more user in the list, which stays sorted.
func tally(list []Tally, one Tally) []Tally {
	i, ok := slices.BinarySearchFunc(list, one, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Reason, b.Reason))
	})
	if !ok {
		list = slices.Insert(list, i, one)
	}
	list[i].Users++
	return list
}
