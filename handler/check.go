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
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// checkTime is how long the tenant, the ledger, or one destination, may take to say whether it would work.
const checkTime = time.Minute

type checkCommand struct {
	Online bool `help:"Also ask the tenant, the ledger and every destination whether they would work, and show how far the detectors are; nothing is changed there either."`
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
		return errors.Join(c.print(s.stdout, nil, nil, nil, err), err)
	}
	defer a.ledger.Close()
	lines := a.checks()
	var detectors []checkedDetector
	if c.Online {
		err = ask(ctx, lines)
		var unread error
		if detectors, unread = a.checkDetectors(ctx); unread != nil && *lines[1].Works { // a ledger that does not work has said so
			err = errors.Join(err, fmt.Errorf("ledger: %w", unread))
		}
	}
	return errors.Join(c.print(s.stdout, a, lines, detectors, err), err)
}

// checkedDetector is how far a detector is, and how late it shows sign-ups.
type checkedDetector struct {
	Name    string             `json:"name"`
	Age     *float64           `json:"watermarkAge,omitempty"` // seconds; nil = not read yet
	Gaps    []signup.Window    `json:"gaps,omitempty"`         // still to be closed
	Seen    pipeline.Sightings `json:"seen"`
	LagP50  float64            `json:"lagP50,omitempty"` // seconds, of the latest thousand or two
	LagP99  float64            `json:"lagP99,omitempty"`
	Warning string             `json:"warning,omitempty"`
}

// checkDetectors reads from the ledger how far the detectors are.
func (a *app) checkDetectors(ctx context.Context) ([]checkedDetector, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	all, err := a.engine.Matrix(ctx)
	if err != nil {
		return nil, err
	}
	var lines []checkedDetector
	for _, s := range all {
		l := checkedDetector{Name: s.Name, Gaps: s.Gaps, Seen: s.Seen,
			LagP50: s.Recent.Quantile(0.5).Seconds(), LagP99: s.Recent.Quantile(0.99).Seconds()}
		if !s.Watermark.IsZero() {
			l.Age = new(a.env.Clock.Now().Sub(s.Watermark).Round(time.Second).Seconds())
		}
		if s.Late(a.config.Sync.Overlap) {
			l.Warning = fmt.Sprintf("of 100 sign-ups 99 are shown within %v, which is more than half of sync.overlap (%v): set that to %v or more",
				s.Recent.Quantile(0.99), a.config.Sync.Overlap, 2*s.Recent.Quantile(0.99))
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func (d checkedDetector) String() string {
	age := "not read yet"
	if d.Age != nil {
		age = "read up to " + (time.Duration(*d.Age) * time.Second).String() + " ago"
	}
	if len(d.Gaps) > 0 {
		age += fmt.Sprintf(", %d gaps to close", len(d.Gaps))
	}
	if d.Warning != "" {
		return age + "\n  warning: " + d.Warning
	}
	return age
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
func (c checkCommand) print(w io.Writer, a *app, lines []checked, detectors []checkedDetector, wrong error) error {
	if c.JSON {
		errs := []string{}
		if wrong != nil {
			for _, e := range eachError(wrong) {
				errs = append(errs, e.Error())
			}
		}
		object := map[string]any{"good": len(errs) == 0, "errors": errs}
		if c.Online && a != nil {
			object["checks"], object["detectors"] = lines, detectors
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
	for _, d := range detectors {
		fmt.Fprintf(w, "  %-20s detector     %v\n", d.Name, d)
	}
	return nil
}
