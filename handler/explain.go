package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"signup-sync/handler/status"
)

type explainCommand struct {
	User string `arg:"" help:"The user, by object id, in any letter case."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

// Help is shown by `handler explain --help`.
func (explainCommand) Help() string {
	return `It reads the ledger and nothing else, and names nobody: object ids, the destinations' own ids, codes.

Exit codes: 0 the user is in the ledger; 1 not, or the ledger cannot be read; 2 the command line or the configuration is wrong.`
}

// Run says what the ledger knows of a user.
func (c explainCommand) Run(ctx context.Context, s system) error {
	a, users, err := openForUsers(s, []string{c.User})
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	x, err := a.engine.Explain(ctx, users[0])
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(s.stdout).Encode(x)
	} else {
		err = printWords(s.stdout, status.Explain(x))
	}
	if x.Row == nil {
		err = errors.Join(err, errors.New("the user is not in the ledger"))
	}
	return err
}

// printWords shows an explanation.
func printWords(w io.Writer, words status.Words) error {
	fmt.Fprintln(w, words.Head)
	for _, p := range words.Points {
		fmt.Fprintln(w, "- "+p)
	}
	for _, d := range words.Detectors {
		fmt.Fprintln(w, "    "+d)
	}
	if words.Tail != "" {
		fmt.Fprintln(w, words.Tail)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, lines := range [][]status.Line{words.Lines, words.Associations} {
		if len(lines) > 0 {
			fmt.Fprintln(t)
		}
		for _, l := range lines {
			for i, text := range l.Texts {
				if i > 0 {
					l.Name = ""
				}
				fmt.Fprintf(t, "%s\t%s\n", l.Name, text)
			}
		}
	}
	return t.Flush()
}
