package main

import (
	"context"
	"fmt"
	"strings"

	"signup-sync/handler/pipeline"
)

type forgetCommand struct {
	Users []string `arg:"" name:"user" help:"The users, by object id; also those who are not in the ledger yet."`
	acting
}

// Help is shown by `handler forget --help`.
func (forgetCommand) Help() string {
	return `The ledger then keeps the object id and nothing else, and no run, census, backfill or replay touches the user again: not when a detector sees the user once more, nor when an invitation is accepted or the user is restored. Who is not in the ledger yet is left alone from the start. There is no way back.

It deletes nothing anywhere else: the accounts at the destinations stay, and so does what stands on the user's own record; nobody can be told later which accounts these were. So first 'handler explain ID', which names the accounts, delete them where they are, and 'handler undo ID --yes' if the record is to be as it was. A person who signs up once more is another user, with another object id. The host's logs keep the object id as long as they are kept.

` + helpOfActing
}

type forgottenUser struct {
	pipeline.ForgottenUser
	Error string `json:"error,omitempty"`
}

// Run makes tombstones of the users' rows.
func (c forgetCommand) Run(ctx context.Context, s system) error {
	a, users, err := openForUsers(s, c.Users)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	o := c.begin(s, "forget", pipeline.FateForgotten, "", "No run touches them again. Their accounts, and what stands on their records, were left as they are.")
	return o.end(a.engine.Forget(ctx, pipeline.ForgetOptions{Users: users, Act: c.Yes, Show: func(done, total int, one pipeline.ForgottenUser) {
		o.took(one.State, forgottenUser{one, text(one.Err)}, true)
		o.show.part(done, total, "users")
	}}))
}

// String is a user's line.
func (u forgottenUser) String() string {
	what := ""
	switch {
	case u.Error != "":
		what = u.Error
	case u.State == pipeline.FateNothing:
		what = "forgotten before"
	case !u.Known:
		what = "was not in the ledger"
	}
	return strings.TrimRight(fmt.Sprintf("%s  %-9s  %s", u.User, u.State, what), " ")
}
