package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"signup-sync/handler/functions"
)

type checkCommand struct {
	JSON bool `help:"Print one JSON object."`
}

// Help is shown by `handler check --help`.
func (checkCommand) Help() string {
	return "Nobody is asked: whether the tenant, the ledger and the destinations would work is what 'handler doctor' says. Only Key Vault references of --settings are read."
}

// Run checks what can be checked without asking anyone. What is wrong is the command's error.
func (c checkCommand) Run(s system) error {
	a, err := openApp(s.getenv, functions.NewLogger(s.stdout, s.stderr))
	if err == nil {
		defer a.ledger.Close()
	} else {
		err = refusal{err}
	}
	if c.JSON {
		errs := []string{}
		if err != nil {
			for _, e := range eachError(err) {
				errs = append(errs, e.Error())
			}
		}
		return errors.Join(json.NewEncoder(s.stdout).Encode(map[string]any{"good": err == nil, "errors": errs}), err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "%s is good: %d destinations\n", a.env.Config, len(a.config.Destinations))
	for _, d := range a.config.Destinations {
		fmt.Fprintf(s.stdout, "  %-20s %-12s %s\n", d.Name, d.Connector, d.Mode)
	}
	return nil
}
