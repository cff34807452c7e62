package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"signup-sync/handler/functions"
)

// checkTime is how long the tenant, the ledger, or one destination, may take to say whether it would work.
const checkTime = time.Minute

type checkCommand struct {
	Online bool `help:"Also ask the tenant, the ledger and every destination whether they would work; nothing is changed there either."`
	JSON   bool `help:"Print one JSON object."`
}

// checked is one line of a check: the tenant, the ledger, or a destination.
type checked struct {
	Name      string   `json:"name"`
	Connector string   `json:"connector,omitempty"`
	Mode      string   `json:"mode,omitempty"`
	Works     *bool    `json:"works,omitempty"` // nil = not asked
	Errors    []string `json:"errors,omitempty"`

	check func(context.Context) error
}

// Run checks what can be checked without asking anyone, and then, if that is wanted, everyone.
func (c checkCommand) Run(ctx context.Context, s system) error {
	a, err := openApp(s.getenv, functions.NewLogger(s.stdout, s.stderr))
	if err != nil {
		err = refusal{err}
		return errors.Join(c.print(s.stdout, nil, nil, err), err)
	}
	defer a.ledger.Close()
	lines := a.checks()
	if c.Online {
		err = ask(ctx, lines)
	}
	return errors.Join(c.print(s.stdout, a, lines, err), err)
}

// checks are the tenant, the ledger, and the destinations in the order of the file.
func (a *app) checks() []checked {
	lines := []checked{{Name: "tenant", check: a.tenant.Check}, {Name: "ledger", check: a.ledger.Check}}
	for i, d := range a.config.Destinations {
		lines = append(lines, checked{Name: d.Name, Connector: d.Connector, Mode: d.Mode, check: a.engine.Destinations[i].Connector.Check})
	}
	return lines
}

// ask asks them all at the same time. The error joins what they say, each with the name in front.
func ask(ctx context.Context, lines []checked) error {
	var wg sync.WaitGroup
	for i := range lines {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTime)
			defer cancel()
			err := lines[i].check(ctx)
			lines[i].Works = new(err == nil)
			if err != nil {
				for _, e := range eachError(err) {
					lines[i].Errors = append(lines[i].Errors, e.Error())
				}
			}
		})
	}
	wg.Wait()
	var all []error
	for _, l := range lines {
		for _, text := range l.Errors {
			all = append(all, fmt.Errorf("%s: %s", l.Name, text))
		}
	}
	return errors.Join(all...)
}

// print writes what is known on stdout; what is wrong is the command's error as well, which goes to stderr.
func (c checkCommand) print(w io.Writer, a *app, lines []checked, wrong error) error {
	if c.JSON {
		errs := []string{}
		if wrong != nil {
			for _, e := range eachError(wrong) {
				errs = append(errs, e.Error())
			}
		}
		object := map[string]any{"good": len(errs) == 0, "errors": errs}
		if c.Online && a != nil {
			object["checks"] = lines
		}
		return json.NewEncoder(w).Encode(object)
	}
	if a == nil {
		return nil
	}
	fmt.Fprintf(w, "%s is good: %d destinations\n", a.env.Config, len(a.config.Destinations))
	for _, l := range lines {
		switch {
		case l.Works == nil && l.Connector != "":
			fmt.Fprintf(w, "  %-20s %-12s %s\n", l.Name, l.Connector, l.Mode)
		case l.Works != nil && *l.Works:
			fmt.Fprintf(w, "  %-20s %-12s %-8s works\n", l.Name, l.Connector, l.Mode)
		case l.Works != nil:
			fmt.Fprintf(w, "  %-20s %-12s %-8s does not work\n", l.Name, l.Connector, l.Mode)
		}
	}
	return nil
}
