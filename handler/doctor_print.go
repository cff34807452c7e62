package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// printFindings writes the table, or one JSON object.
func printFindings(s system, all []finding, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.stdout).Encode(map[string]any{"good": countOf(all, conditionFail) == 0, "findings": all})
	}
	width := 0
	for _, f := range all {
		width = max(width, len(f.Name))
	}
	area := ""
	for _, f := range all {
		if f.Area != area {
			if area != "" {
				fmt.Fprintln(s.stdout)
			}
			area = f.Area
			fmt.Fprintln(s.stdout, strings.ToUpper(area))
		}
		printFinding(s.stdout, f, min(width, nameWidth))
	}
	_, err := fmt.Fprintln(s.stdout, "\n"+verdictOf(all))
	return err
}

// nameWidth is how wide the column of names gets; a longer name pushes its line to the right.
const nameWidth = 36

func printFinding(w io.Writer, f finding, width int) {
	fmt.Fprintf(w, "  %-4s  %-*s  %s\n", f.State, width, f.Name, f.Why)
	if f.Fix == "" {
		return
	}
	for line := range strings.Lines(f.Fix) {
		fmt.Fprintf(w, "        %s\n", strings.TrimSuffix(line, "\n"))
	}
}

// verdictOf is the last line: how many, and what to do next.
func verdictOf(all []finding) string {
	good, warnings, fails := countOf(all, conditionOK), countOf(all, conditionWarn), countOf(all, conditionFail)
	text := fmt.Sprintf("%d ok, %d warn, %d fail. ", good, warnings, fails)
	switch {
	case fails > 0:
		return text + "Mend what fails, from the top down, and ask again. Nothing was changed."
	case warnings > 0:
		return text + "Nothing fails; look at the warnings. Nothing was changed."
	}
	return text + "All is well. Nothing was changed."
}
