package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"signup-sync/handler/entra"
)

type policyCommand struct {
	Show policyShowCommand `cmd:"" default:"withargs" help:"Show who can sign up alone, and what that means."`
	Set  policySetCommand  `cmd:"" help:"Change who can sign up alone."`
}

type policyShowCommand struct {
	administrator
	JSON bool `name:"json" help:"Print one JSON object; what is said about the login goes to stderr."`
}

// Help is shown by `handler policy show --help`.
func (policyShowCommand) Help() string {
	return "It shows the two switches for people with a work or school address, and the switch of each user flow, says what they mean, and where they contradict signups.origins. It changes nothing.\n\n" + helpOfLogin + `

Exit codes: 0 shown; 1 it could not be read; 2 the command line or the configuration is wrong.`
}

// shownPolicy is what the tenant lets people do.
type shownPolicy struct {
	Tenant         string             `json:"tenant"`
	Policy         entra.SignUpPolicy `json:"authorizationPolicy"`
	Flows          []entra.UserFlow   `json:"userFlows"`
	NoFlows        string             `json:"noUserFlows,omitempty"` // why there are none to see
	Meaning        []string           `json:"meaning"`
	Contradictions []string           `json:"contradictions"` // to the configuration
}

// Run shows the tenant's policies.
func (c policyShowCommand) Run(ctx context.Context, s system) error {
	a, err := openCommand(s)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	tenant, _, err := c.logIn(ctx, s, a, "Policy.Read.All", "EventListener.Read.All")
	if err != nil {
		return err
	}
	p := shownPolicy{Tenant: a.env.Tenant, Flows: []entra.UserFlow{}}
	if p.Policy, err = tenant.SignUpPolicy(ctx); err != nil {
		return err
	}
	flows, err := tenant.UserFlows(ctx)
	switch {
	case err == nil:
		p.Flows = flows
	case ctx.Err() != nil || passing(err):
		return err
	default: // not every tenant and cloud has them, and the rest is worth showing
		p.NoFlows = oneLine(err)
	}
	origins := a.config.Signups.Origins
	p.Meaning = meaningOf(p.Policy)
	kind := kindSeen(ctx, a)
	p.Contradictions = []string{contradiction(origins, p.Policy, kind), inviteContradiction(origins, p.Policy)}
	if p.NoFlows == "" {
		p.Contradictions = append(p.Contradictions, flowContradiction(origins, p.Flows, kind))
	}
	p.Contradictions = slices.DeleteFunc(p.Contradictions, func(text string) bool { return text == "" })
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(p)
	}
	return p.print(s.stdout)
}

// kindSeen is what the app sees of the tenant's kind; "" if that is nothing, which is usual.
func kindSeen(ctx context.Context, a *app) entra.TenantKind {
	o, err := a.tenant.Organization(ctx)
	if err != nil {
		return ""
	}
	return o.Kind
}

func (p shownPolicy) print(w io.Writer) error {
	fmt.Fprintln(w, "WORK OR SCHOOL ADDRESSES (authorization policy)")
	for _, one := range switchesOf(p.Policy) {
		fmt.Fprintf(w, "  %-43s %s\n", one.What, one.Before)
	}
	fmt.Fprintf(w, "  %-43s %s\n", "allowInvitesFrom", p.Policy.InvitesFrom)
	for _, line := range p.Meaning {
		fmt.Fprintf(w, "  %s\n", line)
	}
	fmt.Fprintln(w, "\nCUSTOMERS (user flows)")
	if p.NoFlows != "" {
		fmt.Fprintf(w, "  Not shown: %s.\n", p.NoFlows)
	}
	for _, f := range p.Flows {
		fmt.Fprintf(w, "  %-43s isSignUpAllowed %s\n", f.Name, onOff(f.SignUpAllowed))
	}
	if p.NoFlows == "" {
		fmt.Fprintf(w, "  %s\n", flowMeaning(p.Flows))
	}
	for i, line := range p.Contradictions {
		if i == 0 {
			fmt.Fprintln(w, "\nAGAINST signup-sync.yaml")
		}
		fmt.Fprintf(w, "  %s\n", line)
	}
	_, err := fmt.Fprintln(w, "\nNothing was changed. 'handler policy set --help' says how to.")
	return err
}
