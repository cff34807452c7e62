package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"signup-sync/handler/entra"
)

type policySetCommand struct {
	EmailSubscriptions string `name:"email-subscriptions" enum:"on,off," default:"" placeholder:"on|off" help:"People can sign up alone with a work or school address (allowedToSignUpEmailBasedSubscriptions)."`
	EmailVerified      string `name:"email-verified" enum:"on,off," default:"" placeholder:"on|off" help:"Who has no account becomes a member by that (allowEmailVerifiedUsersToJoinOrganization)."`
	SignUp             string `name:"sign-up" enum:"on,off," default:"" placeholder:"on|off" help:"Customers can sign up by the user flow of --flow (isSignUpAllowed)."`
	Flow               string `placeholder:"NAME" help:"The user flow, by name or id; not needed where there is one."`
	Yes                bool   `help:"Do it; otherwise only the difference is shown."`
	JSON               bool   `name:"json" help:"Print one JSON object; what is said about the login goes to stderr."`
	administrator
}

// Help is shown by `handler policy set --help`.
func (policySetCommand) Help() string {
	return "It shows what is and what would be, and what that means. Without --yes nothing is changed, and only the permission to read is asked for. With it each change is a line of the log, on stderr: who, by object id, what before and after, and when; Entra's own audit log has it too.\n\n" + helpOfLogin + `

Exit codes: 0 done, or shown, or it is so already; 1 it failed, or nobody knows whether it took effect; 2 the command line or the configuration is wrong.`
}

// policyChange is one switch.
type policyChange struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
	State  string `json:"state"` // planned, changed, failed, unknown

	flow  string // its id, of a user flow
	apply func(ctx context.Context, t *entra.Tenant) error
}

// Run changes the tenant's policies.
func (c policySetCommand) Run(ctx context.Context, s system) error {
	switch {
	case c.EmailSubscriptions == "" && c.EmailVerified == "" && c.SignUp == "":
		return refusal{errors.New("say what to change: --email-subscriptions, --email-verified or --sign-up")}
	case c.Flow != "" && c.SignUp == "":
		return refusal{errors.New("--flow: say --sign-up=on or --sign-up=off with it")}
	}
	a, err := openCommand(s)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	tenant, grant, err := c.logIn(ctx, s, a, c.scopes()...)
	if err != nil {
		return err
	}
	changes, meaning, err := c.plan(ctx, tenant)
	if err != nil {
		return err
	}
	c.show(s, changes, meaning)
	if c.Yes {
		for i := range changes {
			if changes[i].Before != changes[i].After {
				err = errors.Join(err, c.change(ctx, s, a, tenant, grant, &changes[i]))
			}
		}
	}
	return c.end(s, changes, meaning, err)
}

// scopes are the least permissions for what is asked: one that writes reads as well.
func (c policySetCommand) scopes() (scopes []string) {
	least := func(read, write string) {
		if c.Yes {
			read = write
		}
		scopes = append(scopes, read)
	}
	if c.EmailSubscriptions != "" || c.EmailVerified != "" {
		least("Policy.Read.All", "Policy.ReadWrite.Authorization")
	}
	if c.SignUp != "" {
		least("EventListener.Read.All", "EventListener.ReadWrite.All")
	}
	return scopes
}

// plan compares what is with what is to be, and says what the latter means.
func (c policySetCommand) plan(ctx context.Context, t *entra.Tenant) (changes []policyChange, meaning []string, err error) {
	if c.EmailSubscriptions != "" || c.EmailVerified != "" {
		p, err := t.SignUpPolicy(ctx)
		if err != nil {
			return nil, nil, err
		}
		add := func(what, wanted string, is *bool, change entra.SignUpChange) {
			if wanted != "" {
				changes = append(changes, policyChange{What: what, Before: onOff(*is), After: wanted, State: "planned",
					apply: func(ctx context.Context, t *entra.Tenant) error { return t.ChangeSignUpPolicy(ctx, change) }})
				*is = wanted == "on"
			}
		}
		add(emailSubscriptions, c.EmailSubscriptions, &p.EmailSubscriptions, entra.SignUpChange{EmailSubscriptions: new(c.EmailSubscriptions == "on")})
		add(emailVerifiedJoin, c.EmailVerified, &p.EmailVerifiedJoin, entra.SignUpChange{EmailVerifiedJoin: new(c.EmailVerified == "on")})
		meaning = meaningOf(p)
	}
	if c.SignUp != "" {
		flows, err := t.UserFlows(ctx)
		if err != nil {
			return nil, nil, err
		}
		i, err := c.find(flows)
		if err != nil {
			return nil, nil, err
		}
		id := flows[i].ID
		changes = append(changes, policyChange{What: "isSignUpAllowed of " + flows[i].Name, Before: onOff(flows[i].SignUpAllowed), After: c.SignUp, State: "planned", flow: id,
			apply: func(ctx context.Context, t *entra.Tenant) error { return t.AllowSignUp(ctx, id, c.SignUp == "on") }})
		flows[i].SignUpAllowed = c.SignUp == "on"
		meaning = append(meaning, flowMeaning(flows))
	}
	return changes, meaning, nil
}

// find is the user flow that is meant.
func (c policySetCommand) find(flows []entra.UserFlow) (int, error) {
	var names []string
	var found []int
	for i, f := range flows {
		names = append(names, f.Name)
		if c.Flow == "" || strings.EqualFold(c.Flow, f.Name) || strings.EqualFold(c.Flow, f.ID) {
			found = append(found, i)
		}
	}
	switch {
	case len(flows) == 0:
		return 0, errors.New("the tenant has no user flow")
	case len(found) == 0:
		return 0, refusal{fmt.Errorf("--flow: there is no user flow of that name or id: %s", strings.Join(names, ", "))}
	case len(found) > 1:
		return 0, refusal{fmt.Errorf("--flow: say which user flow, by name or id: %s", strings.Join(names, ", "))}
	}
	return found[0], nil
}

func (c policySetCommand) show(s system, changes []policyChange, meaning []string) {
	if c.JSON {
		return
	}
	for _, one := range changes {
		arrow := one.Before + " -> " + one.After
		if one.Before == one.After {
			arrow = one.Before + ", as it is"
		}
		fmt.Fprintf(s.stdout, "%-43s %s\n", one.What, arrow)
	}
	for _, line := range meaning {
		fmt.Fprintln(s.stdout, "  "+line)
	}
}

// change makes one change, and logs it before and after. One whose answer was lost is read again.
func (c policySetCommand) change(ctx context.Context, s system, a *app, t *entra.Tenant, by entra.Grant, one *policyChange) error {
	log := slog.New(slog.NewTextHandler(s.stderr, nil)).With("by", by.Object, "client", by.Client, "tenant", by.Tenant, "what", one.What, "before", one.Before, "after", one.After)
	audit := func(state string) {
		log.InfoContext(ctx, "sign-up policy", "state", state, "at", a.env.Clock.Now().UTC().Format(time.RFC3339))
	}
	audit("begun")
	err := one.apply(ctx, t)
	one.State = "changed"
	if err != nil {
		one.State = "failed"
		if entra.Unsure(err) || ctx.Err() != nil {
			one.State = "unknown"
			if c.isSo(ctx, t, *one) {
				one.State, err = "changed", nil
			}
		}
	}
	audit(one.State)
	if one.State == "unknown" {
		return fmt.Errorf("%s: nobody knows whether it took effect: run the command again (%w)", one.What, err)
	}
	return err
}

// isSo reads whether a change has come about.
func (c policySetCommand) isSo(ctx context.Context, t *entra.Tenant, one policyChange) bool {
	now, _, err := c.plan(ctx, t)
	for _, n := range now {
		if err == nil && n.What == one.What && n.flow == one.flow {
			return n.Before == one.After
		}
	}
	return false
}

// end says what it came to.
func (c policySetCommand) end(s system, changes []policyChange, meaning []string, err error) error {
	if c.JSON {
		return errors.Join(json.NewEncoder(s.stdout).Encode(map[string]any{"acted": c.Yes, "changes": changes, "meaning": meaning}), err)
	}
	different := false
	for _, one := range changes {
		different = different || one.Before != one.After
	}
	switch {
	case !different:
		fmt.Fprintln(s.stdout, "It is so already. Nothing was changed.")
	case !c.Yes:
		fmt.Fprintln(s.stdout, "Nothing was changed: add --yes to do it.")
	case err == nil:
		fmt.Fprintln(s.stdout, "Changed. It can take some minutes until it holds everywhere.")
	}
	return err
}
