package pipeline

import (
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// job is one user being worked on.
type job struct {
	before   signup.Row        // with the intent, as it came
	row      signup.Row        // … with the origin, once the profile is read
	saved    signup.Row        // as it is in the ledger, where some of what follows may be known already
	user     signup.User       // as the directory has it
	order    []string          // the destinations, each behind those it needs, and the profile
	outcomes []*signup.Outcome // in that order; nil = none. Each element is written by one goroutine
}

func (j *job) set(o *signup.Outcome) {
	if o != nil {
		j.outcomes[slices.Index(j.order, o.Destination)] = o
	}
}

func (j *job) outcome(name string) *signup.Outcome {
	if i := slices.Index(j.order, name); i >= 0 {
		return j.outcomes[i]
	}
	return nil
}

// due returns the job's association if it is to be worked under this intent.
func (j *job) due(name string) (signup.Association, bool) {
	a, ok := j.row.Association(name)
	return a, ok && a.State == signup.Pending && !a.Next.After(j.row.Intent)
}

// state is how far a destination is, with what this intent has brought.
func (j *job) state(name string) (signup.State, string) {
	a, ok := j.row.Association(name)
	o := j.outcome(name)
	switch {
	case !ok:
		return signup.Skipped, ""
	case a.State != signup.Pending || o == nil || o.NotStarted:
		return a.State, a.Account
	case o.Err == nil:
		return signup.Associated, o.Account.ID
	}
	switch signup.ClassOf(o.Err) {
	case signup.Skip:
		return signup.Skipped, ""
	case signup.Permanent:
		return signup.Failed, ""
	}
	return signup.Pending, ""
}

// waits names those of the needed destinations that are still pending, and the first that failed.
func (j *job) waits(needs []string) (pending []string, failed string) {
	for _, n := range needs {
		switch s, _ := j.state(n); {
		case s == signup.Pending:
			pending = append(pending, n)
		case s == signup.Failed && failed == "":
			failed = n
		}
	}
	return pending, failed
}

// input is what expressions see.
func (j *job) input(accounts []string) Input {
	in := Input{
		User:     j.user,
		Signup:   Signup{Kind: j.row.Kind, Origin: j.row.Origin, Way: j.row.Way, At: j.row.At, Detected: j.row.Detected, Detector: j.row.Detector},
		Accounts: map[string]AccountView{}, Skipped: map[string]bool{},
	}
	for _, name := range accounts {
		switch s, id := j.state(name); s {
		case signup.Associated:
			in.Accounts[name] = AccountView{ID: id}
		case signup.Skipped, signup.Failed:
			in.Skipped[name] = true
		}
	}
	return in
}

// list returns the outcomes there are, in an order in which those who wait come after those they wait for.
func (j *job) list() []signup.Outcome {
	var out []signup.Outcome
	for _, o := range j.outcomes {
		if o != nil {
			out = append(out, *o)
		}
	}
	return out
}

// since is from when on another user's success shows that a 403 speaks of this user alone.
func (j *job) since(a signup.Association) time.Time {
	if !a.Forbidden.IsZero() {
		return a.Forbidden
	}
	return j.row.Intent
}
