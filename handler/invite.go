package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

type inviteCommand struct {
	Address     string   `arg:"" optional:"" help:"Whom to invite, by e-mail address."`
	CSV         string   `name:"csv" placeholder:"FILE" type:"path" help:"Whom to invite: a file in UTF-8 with the columns email, name, message and redirect; all but email may be left out."`
	Result      string   `placeholder:"FILE" type:"path" help:"Where what became of each is written, and where a second start goes on from. Beside a CSV file it is FILE.result.jsonl."`
	Redirect    string   `placeholder:"URL" help:"Where guests go after accepting."`
	Message     string   `placeholder:"TEXT" help:"In Microsoft's mail."`
	Language    string   `placeholder:"TAG" help:"Of Microsoft's mail where it has no text of yours, such as de-DE."`
	NoMail      bool     `name:"no-mail" help:"Microsoft sends no mail: the links to accept by are in the result, for mails of your own. They are secrets."`
	AllowDomain []string `name:"allow-domain" placeholder:"DOMAIN" help:"Invite nobody of another domain; may be repeated."`
	DenyDomain  []string `name:"deny-domain" placeholder:"DOMAIN" help:"Invite nobody of this domain; may be repeated."`
	acting
	administrator
}

// Help is shown by `handler invite --help`.
func (inviteCommand) Help() string {
	return `It first looks, with the app's own permission to read users, who is in the tenant already: by mail, other mails and identities. Those are left alone, and so is who stands in the file twice. Without --yes nobody is invited, and nobody logs in. With it each invitation is in the result file before it goes out, so that the command can be stopped at any time: run again, it goes on where it was, and looks for the guest where an answer was lost. A second one at the same time with the same file is refused. Addresses are in that file and on the terminal, and nowhere else.

` + helpOfLogin + `

Exit codes: 0 done, or the plan is shown; 1 it did not come to the end, or some were not invited, each with a line of its own; 2 the command line, the file or the configuration is wrong, and nothing was begun.`
}

// inviteOutcome is what became of one line.
type inviteOutcome struct {
	Line    int           `json:"line,omitempty"`
	Address string        `json:"-"`
	State   string        `json:"state"`
	Reason  string        `json:"reason,omitempty"`
	User    signup.UserID `json:"user,omitempty"`
	Redeem  string        `json:"redeemUrl,omitempty"`
}

// String is a line on the terminal.
func (o inviteOutcome) String() string {
	text := fmt.Sprintf("%-9s  %s", o.State, o.Address)
	if o.Line > 0 {
		text = fmt.Sprintf("line %-5d  %s", o.Line, text)
	}
	for _, more := range []string{o.Reason, string(o.User)} {
		if more != "" {
			text += "  " + more
		}
	}
	return text
}

// Run invites people as guests.
func (c inviteCommand) Run(ctx context.Context, s system) error {
	people, err := c.people()
	if err != nil {
		return refusal{err}
	}
	a, err := openCommand(s)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	path := c.Result
	if path == "" && c.CSV != "" {
		path = c.CSV + ".result.jsonl"
	}
	if c.Yes {
		lock, err := lockResult(path)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	result, err := readResult(path, a.env.Tenant)
	if err != nil {
		return refusal{err}
	}
	w := &invitations{inviteCommand: c, system: s, app: a, result: result, show: newProgress(s, c.JSON)}
	err = w.plan(ctx, people)
	if err == nil && c.Yes {
		err = w.act(ctx)
	}
	return w.end(err)
}

// people are those to be invited; the error joins all that is wrong.
func (c inviteCommand) people() ([]invitee, error) {
	absent := invitee{Redirect: c.Redirect, Message: c.Message}
	var errs []error
	for _, d := range append(slices.Clone(c.AllowDomain), c.DenyDomain...) {
		if checkAddress("a@"+d) != nil {
			errs = append(errs, fmt.Errorf("%q is not a domain", d))
		}
	}
	if c.NoMail && (c.Message != "" || c.Language != "") {
		errs = append(errs, errors.New("--message and --language are for Microsoft's mail, and --no-mail wants none"))
	}
	var people []invitee
	switch {
	case (c.Address == "") == (c.CSV == ""):
		errs = append(errs, errors.New("say whom to invite: an e-mail address, or --csv FILE"))
	case c.Address != "":
		absent.Address = strings.TrimSpace(c.Address)
		people = []invitee{absent}
		errs = append(errs, absent.check())
	default:
		data, err := os.ReadFile(c.CSV)
		if err != nil {
			return nil, errors.Join(append(errs, fmt.Errorf("read the file: %w", err))...)
		}
		var bad []error
		people, bad = readInvitees(data, absent)
		errs = append(errs, bad...)
		for _, one := range people {
			if c.NoMail && one.Message != "" {
				errs = append(errs, fmt.Errorf("line %d: the message is for Microsoft's mail, and --no-mail wants none", one.Line))
			}
		}
	}
	return people, errors.Join(errs...)
}

// refused is why an address is not to be invited, by its domain; "" if it may be.
func (c inviteCommand) refused(one invitee, own []string) string {
	_, domain, _ := strings.Cut(one.Address, "@")
	is := func(d string) bool { return strings.EqualFold(d, domain) }
	switch {
	case slices.ContainsFunc(own, is):
		return "own-domain"
	case slices.ContainsFunc(c.DenyDomain, is), len(c.AllowDomain) > 0 && !slices.ContainsFunc(c.AllowDomain, is):
		return "domain"
	}
	return ""
}

// invitations is the command on its way.
type invitations struct {
	inviteCommand
	system
	app      *app
	result   *inviteResult
	show     *progress
	outcomes []inviteOutcome
	left     []invitee            // who is still to be invited
	exist    []inviteOutcome      // who is in the tenant, which the result file does not have yet
	lost     map[string]time.Time // when invitations went out whose answers nobody has
}

// plan finds out for each what is to be done.
func (w *invitations) plan(ctx context.Context, people []invitee) error {
	org, err := w.app.tenant.Organization(ctx)
	if err != nil {
		return err
	}
	first, open := map[string]int{}, []invitee{}
	var keys []string
	w.lost = map[string]time.Time{}
	for _, one := range people {
		before, known := w.result.before[one.key()]
		line, twice := first[one.key()]
		reason := w.refused(one, org.Domains)
		switch {
		case twice:
			w.took(inviteOutcome{Line: one.Line, Address: one.Address, State: inviteDuplicate, Reason: fmt.Sprintf("of line %d", line)})
			continue
		case known && (before.State == inviteInvited || before.State == inviteExists):
			w.took(inviteOutcome{Line: one.Line, Address: one.Address, State: before.State, Reason: "before", User: before.User})
		case reason != "":
			w.took(inviteOutcome{Line: one.Line, Address: one.Address, State: inviteFailed, Reason: reason})
		default:
			open, keys = append(open, one), append(keys, one.key())
			if known && before.State == inviteSending {
				w.lost[one.key()] = before.At
			}
		}
		first[one.key()] = one.Line
	}
	if len(keys) == 0 {
		return nil
	}
	held, err := w.app.tenant.Holders(ctx, keys, func(done int) { w.show.part(done, len(keys), "addresses looked up") })
	if err != nil {
		return err
	}
	for _, one := range open {
		h, found := held[one.key()]
		if _, lost := w.lost[one.key()]; found && !lost {
			o := inviteOutcome{Line: one.Line, Address: one.Address, State: inviteExists, User: h.User}
			if h.Pending {
				o.Reason = "invited before, and not accepted yet"
			}
			w.took(o)
			w.exist = append(w.exist, o)
			continue
		}
		w.left = append(w.left, one)
		if !w.Yes {
			w.took(inviteOutcome{Line: one.Line, Address: one.Address, State: invitePlanned})
		}
	}
	return nil
}

// act invites who is left.
func (w *invitations) act(ctx context.Context) (err error) {
	if len(w.left)+len(w.exist) == 0 {
		return nil
	}
	s := &sender{app: w.app, result: w.result, show: w.show, mail: !w.NoMail, params: func(one invitee) entra.Invitation {
		return entra.Invitation{Address: one.Address, Redirect: one.Redirect, Name: one.Name, Message: one.Message, Language: w.Language, Mail: !w.NoMail}
	}}
	if len(w.left) > 0 {
		if s.tenant, _, err = w.logIn(ctx, w.system, w.app, "User.Invite.All"); err != nil {
			return err
		}
	}
	if err := w.result.begin(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.result.close()) }()
	for _, o := range w.exist {
		if _, err := s.note(invitee{Line: o.Line, Address: o.Address}, o.State, o.Reason, o.User, ""); err != nil {
			return err
		}
	}
	slices.SortStableFunc(w.left, func(a, b invitee) int { // who may have to be waited for comes last
		return w.lost[a.key()].Compare(w.lost[b.key()])
	})
	for i, one := range w.left {
		o, err := s.send(ctx, one, w.lost[one.key()])
		if err != nil {
			return err
		}
		if w.result.path != "" {
			o.Redeem = "" // it is in the file
		}
		w.took(o)
		w.show.part(i+1, len(w.left), "invitations")
	}
	return nil
}

// took keeps an outcome, and shows it where somebody should look.
func (w *invitations) took(o inviteOutcome) {
	w.outcomes = append(w.outcomes, o)
	if !w.JSON && !(o.State == inviteInvited && w.CSV != "") {
		w.show.say("%s", o)
		if o.Redeem != "" {
			w.show.say("%s", o.Redeem)
		}
	}
}

// end says what it came to.
func (w *invitations) end(err error) error {
	w.show.done()
	counts := map[string]int{}
	for _, o := range w.outcomes {
		counts[o.State]++
	}
	if w.JSON {
		err = errors.Join(json.NewEncoder(w.stdout).Encode(map[string]any{"acted": w.Yes, "counts": counts, "lines": w.outcomes}), err)
	} else if err == nil || len(w.outcomes) > 0 {
		fmt.Fprintln(w.stdout, w.sum(counts))
	}
	switch {
	case err != nil:
		return errors.Join(err, errors.New("invite did not come to the end: run it again to finish"))
	case counts[inviteFailed] > 0:
		return fmt.Errorf("%d of %d were not invited", counts[inviteFailed], len(w.outcomes))
	}
	return nil
}

// sum is the last line.
func (w *invitations) sum(counts map[string]int) string {
	var parts []string
	for _, state := range []string{invitePlanned, inviteInvited, inviteExists, inviteDuplicate, inviteFailed} {
		if counts[state] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", state, counts[state]))
		}
	}
	text := strings.Join(parts, ", ") + "."
	if counts[invitePlanned] > 0 {
		text += " Nobody was invited: add --yes to do it."
	}
	if counts[invitePlanned]+counts[inviteInvited] > 0 && !slices.Contains(w.app.config.Signups.Origins, signup.Invitation) {
		text += " signups.origins has no invitation: who accepts is skipped."
	}
	if w.Yes && w.result.path != "" && counts[inviteInvited] > 0 {
		text += " Whom, stands in " + w.result.path + "."
	}
	return text
}
