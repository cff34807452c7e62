package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// acting are the flags of a command that changes something.
type acting struct {
	Yes  bool `help:"Do it; otherwise only the plan is shown."`
	JSON bool `name:"json" help:"Print one JSON object; progress goes to stderr."`
}

// helpOfActing is what the help of every such command ends with.
const helpOfActing = `Without --yes nothing is changed. With it the run lease is held: a run that is at work is waited for, five minutes at most, one that has died for two, and other runs and commands wait or do nothing meanwhile. It may be stopped at any time; run again, it finishes.

Exit codes: 0 done, or the plan is shown; 1 it did not come to the end, or some users failed or are not in the ledger, each with a line of its own; 2 the command line or the configuration is wrong, and nothing was begun.`

// operation is one such command on its way: it tells of each user, counts them, and says what it came to.
type operation struct {
	acting
	name   string        // the command's
	does   pipeline.Fate // what becomes of a user when it acts
	nobody string        // said when there is nobody to do it for
	after  string        // said when it was done

	out    io.Writer
	show   *progress
	fates  map[pipeline.Fate]int
	users  []any
	counts any // printed by --json beside the users
}

const takingLease = "Taking the run lease; a run that is at work is waited for."

func (a acting) begin(s system, name string, does pipeline.Fate, nobody, after string) *operation {
	o := &operation{acting: a, name: name, does: does, nobody: nobody, after: after, out: s.stdout, show: newProgress(s, a.JSON), fates: map[pipeline.Fate]int{}, users: []any{}}
	if a.Yes {
		o.show.say(takingLease)
	}
	return o
}

// openCommand wires the program for a command whose stdout is its own; what there is to log beside it concerns only
// whoever looks.
func openCommand(s system) (*app, error) {
	a, err := openApp(s.getenv, slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return nil, refusal{err}
	}
	return a, nil
}

// openForUsers opens the app and takes the object ids.
func openForUsers(s system, texts []string) (*app, []signup.UserID, error) {
	var users []signup.UserID
	var errs []error
	for i, text := range texts {
		id, err := signup.ParseUserID(text)
		if err != nil { // which does not repeat what may be somebody's address
			errs = append(errs, fmt.Errorf("user %d: %w", i+1, err))
		}
		users = append(users, id)
	}
	a, err := openCommand(s)
	if errs = append(errs, err); errors.Join(errs...) == nil {
		return a, users, nil
	}
	if a != nil {
		a.ledger.Close()
	}
	return nil, nil, refusal{errors.Join(errs...)}
}

// took counts a user. Whom there is something to tell of gets a line.
func (o *operation) took(fate pipeline.Fate, user fmt.Stringer, tell bool) {
	o.fates[fate]++
	if o.JSON {
		o.users = append(o.users, user)
	} else if tell {
		o.show.say("%s", user)
	}
}

// end says what it came to, and makes of that the command's error.
func (o *operation) end(err error) error {
	o.show.done()
	failed, absent := o.fates[pipeline.FateFailed], o.fates[pipeline.FateAbsent]
	if o.JSON {
		object := map[string]any{"acted": o.Yes, "users": o.users}
		if o.counts != nil {
			object["counts"] = o.counts
		}
		err = errors.Join(json.NewEncoder(o.out).Encode(object), err)
	} else if err == nil || len(o.fates) > 0 { // otherwise it did not come to know of anybody
		fmt.Fprintln(o.out, o)
	}
	switch {
	case err != nil:
		return errors.Join(err, fmt.Errorf("%s did not come to the end: run it again to finish", o.name))
	case failed > 0:
		return fmt.Errorf("%s failed for %d users; run it again to finish", o.name, failed)
	case absent > 0:
		return fmt.Errorf("%d users are not in the ledger; 'handler explain ID' says what that can mean", absent)
	}
	return nil
}

// String is the last line.
func (o *operation) String() string {
	var parts []string
	for _, fate := range []pipeline.Fate{pipeline.FatePlanned, pipeline.FateUndone, pipeline.FateReopened, pipeline.FateForgotten,
		pipeline.FateNothing, pipeline.FateAbsent, pipeline.FateGone, pipeline.FateFailed} {
		if n := o.fates[fate]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", fate, n))
		}
	}
	switch {
	case len(parts) == 0:
		return o.nobody
	case !o.Yes && o.fates[pipeline.FatePlanned] > 0:
		return strings.Join(parts, ", ") + ". Nothing was changed: add --yes to do it."
	case !o.Yes || o.fates[o.does] == 0:
		return strings.Join(parts, ", ") + "."
	}
	return strings.Join(parts, ", ") + ". " + o.after
}

// text is an error's, "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
