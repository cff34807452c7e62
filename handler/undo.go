package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

type undoCommand struct {
	User []string `placeholder:"ID" help:"Only this user, by object id; may be repeated. Without it, everyone in the ledger."`
	Yes  bool     `help:"Do it; otherwise only the plan is shown."`
	JSON bool     `help:"Print one JSON object."`
}

// undoReport is what --json prints.
type undoReport struct {
	Acted bool         `json:"acted"`
	Users []undoneUser `json:"users"`

	counts map[pipeline.UndoState]int
}

type undoneUser struct {
	pipeline.Undone
	Error string `json:"error,omitempty"`
}

// Run takes back what the profile section has written to the users' own records.
func (c undoCommand) Run(ctx context.Context, s system) error {
	o := pipeline.UndoOptions{Act: c.Yes}
	var errs []error
	for _, text := range c.User {
		id, err := signup.ParseUserID(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--user: %w", err))
		}
		o.Users = append(o.Users, id)
	}
	// stdout is the command's own; what there is to log beside it concerns only whoever looks.
	a, err := openApp(s.getenv, slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err = errors.Join(append(errs, err)...); err != nil {
		return refusal{err}
	}
	defer a.ledger.Close()
	if !a.config.Mapping.WritesProfile() {
		return refusal{fmt.Errorf("%s has no profile section: undo needs the one that has written, to know what it wrote", a.env.Config)}
	}
	return c.undo(ctx, s, a.engine, o)
}

func (c undoCommand) undo(ctx context.Context, s system, engine *pipeline.Engine, o pipeline.UndoOptions) error {
	r := undoReport{Acted: c.Yes, Users: []undoneUser{}, counts: map[pipeline.UndoState]int{}}
	show := newProgress(s, true)
	if c.Yes {
		show.say("Waiting for the run lease, and until what the last run wrote shows everywhere: a minute at most, longer while a run is at work.")
	}
	o.Show = func(done, total int, one pipeline.Undone) {
		u := undoneUser{Undone: one}
		if one.Err != nil {
			u.Error = one.Err.Error()
		}
		if r.counts[one.State]++; c.JSON {
			r.Users = append(r.Users, u)
		} else if len(one.Fields)+len(one.Kept) > 0 || one.Err != nil {
			show.done()
			fmt.Fprintln(s.stdout, u)
		}
		show.line(fmt.Sprintf("%d of %d users", done, total))
	}
	err := engine.Undo(ctx, o)
	show.done()
	if c.JSON {
		err = errors.Join(json.NewEncoder(s.stdout).Encode(r), err)
	} else if err == nil || len(r.counts) > 0 { // otherwise it did not come to know of anybody
		fmt.Fprintln(s.stdout, r)
	}
	switch n := r.counts[pipeline.UndoFailed]; {
	case err != nil:
		return errors.Join(err, errors.New("undo did not come to the end: run it again to finish"))
	case n > 0:
		return fmt.Errorf("%d users could not be undone; run it again to finish", n)
	}
	return nil
}

// String is a user's line: the id and names of fields, never what is in them.
func (u undoneUser) String() string {
	line := fmt.Sprintf("%s  %-7s  %s", u.User, u.State, strings.Join(u.Fields, ", "))
	if len(u.Kept) > 0 {
		line += "  (left alone: " + strings.Join(u.Kept, ", ") + ")"
	}
	if u.Error != "" {
		line += "  " + u.Error
	}
	return strings.TrimRight(line, " ")
}

// String is the last line.
func (r undoReport) String() string {
	var parts []string
	for _, state := range []pipeline.UndoState{pipeline.UndoPlanned, pipeline.UndoDone, pipeline.UndoNothing, pipeline.UndoGone, pipeline.UndoFailed} {
		if n := r.counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", state, n))
		}
	}
	switch {
	case len(parts) == 0:
		return "There is nobody whose profile was written."
	case !r.Acted:
		return strings.Join(parts, ", ") + ". Nothing was changed: add --yes to do it."
	case r.counts[pipeline.UndoDone] == 0:
		return strings.Join(parts, ", ") + "."
	}
	return strings.Join(parts, ", ") + ". Later runs leave alone what was undone."
}
