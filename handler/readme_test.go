package main

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheREADMEShowsARun plays what `make run` plays, and finds each line of the README's transcript in it, in order. Counts that
// follow from the seed alone must be the same; of figures that depend on the machine only the words around them. Where the README
// has a line "…", lines are left out; where one ends so, its rest.
func TestTheREADMEShowsARun(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, from, _ := strings.Cut(string(readme), "    ORIGIN  ")
	transcript := transcriptLines("ORIGIN  "+from, true)
	if len(transcript) < 15 {
		t.Fatalf("the README has a transcript of %d lines: %q", len(transcript), transcript)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil || !bytes.Contains(makefile, []byte("$(HANDLER) local --signups $(SIGNUPS)")) || !bytes.Contains(makefile, []byte("SIGNUPS ?= 200\n")) {
		t.Fatalf("`make run` is no longer what this test plays (%v)", err)
	}
	var stdout, stderr bytes.Buffer
	args := []string{"local", "--signups", "200", "--app", appFolder(t), "--dir", t.TempDir()}
	if code := run(t.Context(), system{args: args, getenv: func(string) string { return "" }, stdout: &stdout, stderr: &stderr}); code != exitOK {
		t.Fatalf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	_, shown, _ := strings.Cut(stdout.String(), "\nORIGIN  ")
	got := transcriptLines("ORIGIN  "+shown, false)
	at, gap := 0, false
	for _, want := range transcript {
		if want == "…" {
			gap = true
			continue
		}
		i := slices.IndexFunc(got[at:], func(line string) bool { return sameLine(line, want) })
		if i < 0 || i > 0 && !gap {
			t.Fatalf("the README has the line %q, and the run has not, or elsewhere. It has shown:\n%s", want, shown)
		}
		at, gap = at+i+1, false
	}
}

// transcriptLines are the lines of a transcript without the blank ones; the README's is indented and ends with its block.
func transcriptLines(text string, indented bool) []string {
	var lines []string
	for i, line := range strings.Split(text, "\n") {
		if indented && i > 0 && line != "" && !strings.HasPrefix(line, "    ") {
			break
		}
		if line = lineOf(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

var (
	figure    = regexp.MustCompile(`\d+(\.\d+)?`)
	byMachine = regexp.MustCompile(`^(sign-up to|Graph calls|profile reads|patches|ledger transactions|took) `)
	byOrigin  = regexp.MustCompile(`^([\w ()]+ \d+) (audit|directory|signUps) \d+.*$`) // who is first depends on the machine
)

// lineOf is a line as it must be: with one space where there are several, and without what may differ.
func lineOf(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if byMachine.MatchString(line) {
		return figure.ReplaceAllString(line, "#")
	}
	return byOrigin.ReplaceAllString(line, "$1 …")
}

func sameLine(line, want string) bool {
	if start, ok := strings.CutSuffix(want, "…"); ok {
		return strings.HasPrefix(line, start)
	}
	return line == want
}
