package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

type replayCommand struct {
	User        []string      `placeholder:"ID" help:"Only this user, by object id; may be repeated. Without it, everyone in the ledger."`
	Destination []string      `placeholder:"NAME" help:"Only at this destination; may be repeated. 'profile' is the user's own record. Without it, at all."`
	State       string        `default:"failed" enum:"failed,skipped,pending,associated" help:"What is so far (${enum}); ${default} if not said."`
	Reason      string        `placeholder:"CODE" help:"Only with this reason, as 'handler explain' shows it."`
	Older       time.Duration `placeholder:"TIME" help:"Only what has been so for at least this time, such as 36h; what is pending, since its first try."`
	Newer       time.Duration `placeholder:"TIME" help:"Only what has been so for less than this time."`
	acting
}

// Help is shown by `handler replay --help`.
func (replayCommand) Help() string {
	return `What is reopened is pending and due at once, with fourteen days ahead of it; the next run works it, and looks for an account before it makes one. What was skipped because it needs a destination reopens with that one, and the profile does if it shows its account. A profile that was undone reopens only when --destination profile or --reason undone says so; who was forgotten, never.

--state associated is for repair: an account that is not there any more is made again, and kinds that send events send once more. --state pending makes due now what waits for its next try. A destination that was configured after a user signed up is added when both are named; for everyone, that is what 'handler backfill' is for.

` + helpOfActing
}

// replayCount is how many users are reopened of what was in the same state.
type replayCount struct {
	Destination string       `json:"destination"`
	Was         signup.State `json:"was,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Users       int          `json:"users"`
}

type replayedUser struct {
	pipeline.Replayed
	Error string `json:"error,omitempty"`
}

// Run reopens associations.
func (c replayCommand) Run(ctx context.Context, s system) error {
	a, users, err := openForUsers(s, c.User)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	if err := c.check(a); err != nil {
		return refusal{err}
	}
	o := c.begin(s, "replay", pipeline.FateReopened, "There is nothing to reopen: nobody is so in the ledger.", "The next run works what is reopened.")
	counts := []replayCount{}
	err = a.engine.Replay(ctx, pipeline.ReplayOptions{
		Users: users, Destinations: c.Destination, State: signup.State(c.State), Reason: c.Reason, Older: c.Older, Newer: c.Newer, Act: c.Yes,
		Read: func(done, total int) { o.show.part(done, total, "users in the ledger looked at") },
		Show: func(one pipeline.Replayed) {
			o.took(one.State, replayedUser{one, text(one.Err)}, true)
			if one.State == pipeline.FatePlanned || one.State == pipeline.FateReopened {
				counts = count(counts, one.Reopened)
			}
		},
	})
	if o.counts = counts; !c.JSON && len(counts) > 0 {
		o.show.done()
		t := tabwriter.NewWriter(s.stdout, 0, 0, 3, ' ', 0)
		fmt.Fprintln(t, "\nDESTINATION\tWAS\tUSERS")
		for _, n := range counts {
			fmt.Fprintf(t, "%s\t%s\t%d\n", n.Destination, was(n.Was, n.Reason), n.Users)
		}
		err = errors.Join(t.Flush(), err)
	}
	return o.end(err)
}

// check refuses what can select nothing.
func (c replayCommand) check(a *app) error {
	var errs []error
	known := append(a.config.Mapping.Names(), signup.Profile)
	for _, name := range c.Destination {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("--destination %s: %s has no such destination; say one of %s", name, a.env.Config, strings.Join(known, ", ")))
		}
	}
	if c.Reason != "" && c.State == string(signup.Associated) {
		errs = append(errs, errors.New("--reason: what is associated has none; leave it out, or say another --state"))
	}
	if c.Older < 0 || c.Newer < 0 {
		errs = append(errs, errors.New("--older, --newer: want a time above zero, such as 36h"))
	} else if c.Newer > 0 && c.Newer <= c.Older {
		errs = append(errs, fmt.Errorf("nothing is older than %s and newer than %s: let --newer be the longer time", c.Older, c.Newer))
	}
	return errors.Join(errs...)
}

// count adds one user's associations, and keeps the counts in the order of names.
func count(counts []replayCount, reopened []pipeline.Reopened) []replayCount {
	for _, r := range reopened {
		n := replayCount{Destination: r.Destination, Was: r.State, Reason: r.Reason}
		at, found := slices.BinarySearchFunc(counts, n, func(a, b replayCount) int {
			return cmp.Or(cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Was, b.Was), cmp.Compare(a.Reason, b.Reason))
		})
		if !found {
			counts = slices.Insert(counts, at, n)
		}
		counts[at].Users++
	}
	return counts
}

// String is a user's line.
func (u replayedUser) String() string {
	var asked, with []string
	for _, r := range u.Reopened {
		part := fmt.Sprintf("%s (%s)", r.Destination, was(r.State, r.Reason))
		if r.With {
			with = append(with, part)
		} else {
			asked = append(asked, part)
		}
	}
	line := fmt.Sprintf("%s  %-8s  %s", u.User, u.State, strings.Join(asked, ", "))
	if len(with) > 0 {
		line += ", with " + strings.Join(with, ", ")
	}
	if u.Error != "" {
		line += "  " + u.Error
	}
	return strings.TrimRight(line, " ")
}

// was is what an association was, in words.
func was(state signup.State, reason string) string {
	switch {
	case state == "":
		return "not there"
	case reason == "":
		return string(state)
	}
	return string(state) + ": " + reason
}
