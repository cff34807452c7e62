package main

import (
	"context"
	"fmt"
	"strings"

	"signup-sync/handler/pipeline"
)

type undoCommand struct {
	Users []string `arg:"" optional:"" name:"user" help:"Only these users, by object id. Without any, everyone in the ledger."`
	acting
}

// Help is shown by `handler undo --help`.
func (undoCommand) Help() string {
	return "It needs the signup-sync.yaml that has written: what differs from what that makes of a user now, a person has changed, and it stays. Later runs leave alone what was undone.\n\n" + helpOfActing
}

type undoneUser struct {
	pipeline.Undone
	Error string `json:"error,omitempty"`
}

// Run takes back what the profile section has written to the users' own records.
func (c undoCommand) Run(ctx context.Context, s system) error {
	a, users, err := openForUsers(s, c.Users)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	if !a.config.Mapping.WritesProfile() {
		return refusal{fmt.Errorf("%s has no profile section: undo needs the one that has written, to know what it wrote", a.env.Config)}
	}
	o := c.begin(s, "undo", pipeline.FateUndone, "There is nobody whose profile was written.", "Later runs leave alone what was undone.")
	if c.Yes {
		o.show.say("It begins a minute after the last run, when what that wrote shows everywhere.")
	}
	return o.end(a.engine.Undo(ctx, pipeline.UndoOptions{Users: users, Act: c.Yes, Show: func(done, total int, one pipeline.Undone) {
		o.took(one.State, undoneUser{one, text(one.Err)}, len(users) > 0 || len(one.Fields)+len(one.Kept) > 0 || one.Err != nil)
		o.show.part(done, total, "users")
	}}))
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
