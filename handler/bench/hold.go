package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Slack is how much worse than its record a steady figure may be, as a share of it.
const Slack = 0.05

// Record is bench.json: what the last `make bench` has measured, committed at the project's root.
type Record struct {
	Machine
	Commit  string     `json:"commit"` // "-dirty" behind it if files were changed
	Date    string     `json:"date"`   // of the first part, RFC 3339
	Figures []Recorded `json:"figures"`
}

// Recorded is a figure with the part that it is of.
type Recorded struct {
	Figure
	Part    string `json:"part"`
	Command string `json:"command"`
}

// Hold is the regression gate. The ordinary test of a part calls it with what it has measured, and it fails the test for
// each steady figure that misses its goal, or that is worse than bench.json has it by more than Slack; figures that are not
// steady are left alone, so that no time that a machine took ever fails a test. A goal of ">=" or ">" says that more is
// better; otherwise less is. A figure that does not say steady, or is missing in the gate's part, is not held, so the gate may
// measure less, and smaller, than `make bench`: steady figures have to mean the same, under the same name, in any size.
//
// A part that bench.json does not have yet is held to its goals alone; one that it has must have all of its steady figures
// there. While `make bench` measures (BENCH_DIR is set) nothing is held: a goal that was missed then is written down as missed.
func Hold(t testing.TB, p Part) {
	t.Helper()
	if os.Getenv("BENCH_DIR") != "" {
		return
	}
	r, err := readRecord()
	if err != nil {
		t.Error(err)
	}
	for _, complaint := range r.Worse(p) {
		t.Error(complaint)
	}
}

// Worse says what of a part is worse than it should be, and how to renew the record if that is meant.
func (r Record) Worse(p Part) (complaints []string) {
	recorded := map[string]Recorded{}
	for _, f := range r.Figures {
		if f.Part == p.Name {
			recorded[f.Name] = f
		}
	}
	for _, f := range p.Figures {
		if !f.Steady {
			continue
		}
		met, more, err := f.Met()
		if err != nil {
			complaints = append(complaints, fmt.Sprintf("%s: %s: %v", p.Name, f.Name, err))
			continue
		}
		if !met {
			complaints = append(complaints, fmt.Sprintf("%s: %s is %s, its goal is %s", p.Name, f.Name, f.Text(), f.Goal))
		}
		old, ok := recorded[f.Name]
		slack := Slack * max(old.Value, -old.Value)
		switch {
		case !ok && len(recorded) > 0:
			complaints = append(complaints, fmt.Sprintf("%s: %s is not in bench.json: run 'make bench' and commit what it writes", p.Name, f.Name))
		case ok && (more && f.Value < old.Value-slack || !more && f.Value > old.Value+slack):
			complaints = append(complaints, fmt.Sprintf("%s: %s is %s, and was %s: worse by more than %.0f %%. Mend it, or if it is meant, run 'make bench' and commit what it writes",
				p.Name, f.Name, f.Text(), old.Text(), Slack*100))
		}
	}
	return complaints
}

// Met reports whether the value reaches the goal; a figure without one does. more says that more is better.
func (f Figure) Met() (met, more bool, err error) {
	if f.Goal == "" {
		return true, false, nil
	}
	sign, number, _ := strings.Cut(f.Goal, " ")
	goal, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
	if err != nil {
		return false, false, fmt.Errorf("its goal is %q, want a sign, a space and a number: <= 1.10", f.Goal)
	}
	switch sign {
	case "<=":
		return f.Value <= goal, false, nil
	case "<":
		return f.Value < goal, false, nil
	case ">=":
		return f.Value >= goal, true, nil
	case ">":
		return f.Value > goal, true, nil
	case "=":
		return f.Value == goal, false, nil
	}
	return false, false, fmt.Errorf("its goal is %q, want one of <= < >= > = in front", f.Goal)
}

// Text is the value as people read it, with its unit: four digits, or all of a whole number.
func (f Figure) Text() string {
	return strings.TrimSpace(number(f.Value) + " " + f.Unit)
}

// number writes four digits, or all of a whole number, with a comma before every three of them.
func number(v float64) string {
	text := strconv.FormatFloat(v, 'g', 4, 64)
	if v == float64(int64(v)) || max(v, -v) >= 1000 {
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	sign, digits := "", text
	if strings.HasPrefix(text, "-") {
		sign, digits = "-", text[1:]
	}
	if strings.ContainsAny(digits, ".e") {
		return text
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// readRecord reads bench.json; before there is one it is empty.
func readRecord() (r Record, err error) {
	root, err := projectRoot()
	if err != nil {
		return r, err
	}
	body, err := os.ReadFile(filepath.Join(root, "bench.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read bench.json: %w", err)
	}
	return r, nil
}

// projectRoot is the folder of go.mod: tests run in their package's.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("there is no go.mod in this folder or above it")
		}
		dir = up
	}
}
