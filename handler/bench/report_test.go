package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var report = flag.Bool("report", false, "write docs/performance.md and bench.json of the parts in BENCH_DIR, as 'make bench' does at its end")

// order is that of the parts on the page. The Makefile measures the same ones.
var order = []string{"burst", "compare", "cpu", "footprint", "size", "cost", "growth", "decode", "build"}

// TestReport writes the page, its plots and the record.
func TestReport(t *testing.T) {
	if !*report {
		t.Skip("'make bench' runs this")
	}
	root, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := readParts(filepath.Join(root, os.Getenv("BENCH_DIR")))
	if err == nil {
		err = writeReport(root, parts)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readParts reads what was measured, in the order of the page. All of it must be of one commit: figures of two versions on one
// page would be compared by somebody.
func readParts(dir string) ([]stamped, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var parts []stamped
	for _, file := range files {
		var p stamped
		body, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(body, &p)
		}
		if err != nil {
			return nil, fmt.Errorf("read the part %s: %w", file, err)
		}
		if !slices.Contains(order, p.Name) {
			return nil, fmt.Errorf("the part %s is new: write into order where it stands on the page", p.Name)
		}
		parts = append(parts, p)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("there is no part in %q: run 'make bench'", dir)
	}
	slices.SortFunc(parts, func(a, b stamped) int { return slices.Index(order, a.Name) - slices.Index(order, b.Name) })
	for _, p := range parts {
		if p.Commit != parts[0].Commit {
			return nil, fmt.Errorf("the part %s is of commit %s and the part %s of %s: run 'make bench'", parts[0].Name, parts[0].Commit, p.Name, p.Commit)
		}
	}
	return parts, nil
}

// writeReport writes everything anew: plots of parts that are no more do not stay behind.
func writeReport(root string, parts []stamped) error {
	plots := filepath.Join(root, "docs", "performance")
	if err := os.RemoveAll(plots); err != nil {
		return err
	}
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	for _, p := range parts {
		for _, plot := range p.Plots {
			if err := os.WriteFile(filepath.Join(plots, plot.Name+".svg"), plot.svg(), 0o644); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "performance.md"), []byte(page(parts)), 0o644); err != nil {
		return err
	}
	body, err := json.MarshalIndent(recordOf(parts), "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "bench.json"), append(body, '\n'), 0o644)
}

func recordOf(parts []stamped) Record {
	r := Record{Machine: parts[0].Machine, Commit: parts[0].Commit, Date: parts[0].Date}
	for _, p := range parts {
		r.Date = min(r.Date, p.Date)
		for _, f := range p.Figures {
			r.Figures = append(r.Figures, Recorded{Figure: f, Part: p.Name, Command: p.Command})
		}
	}
	return r
}

// page is docs/performance.md.
func page(parts []stamped) string {
	var b strings.Builder
	r := recordOf(parts)
	fmt.Fprintf(&b, "# Performance\n\n<!-- written by 'make bench': change the tests that measure, not this page -->\n\n")
	fmt.Fprintf(&b, "Measured by `make bench` on %s, at commit `%s`%s, with %s on %d cores of: %s. Everything runs on that one machine, against simulated systems: no "+
		"live tenant, no vendor and no Azure was asked. [bench.json](../bench.json) has the same figures for programs.\n\n",
		strings.SplitN(r.Date, "T", 2)[0], strings.TrimSuffix(r.Commit, "-dirty"), dirtyText(r.Commit), r.Go, r.Cores, r.CPU)
	fmt.Fprintf(&b, "Figures that are marked *held* are ratios and counts that any machine gives. The ordinary tests measure them again, mostly smaller, and fail "+
		"if one misses its goal or is worse by more than %.0f %%. Times are never held.\n\n", Slack*100)
	writeGoals(&b, parts)
	for _, p := range parts {
		writePart(&b, p)
	}
	return b.String()
}

func dirtyText(commit string) string {
	if strings.HasSuffix(commit, "-dirty") {
		return " **with changes that are in no commit**"
	}
	return ""
}

func writeGoals(b *strings.Builder, parts []stamped) {
	fmt.Fprintf(b, "## Goals\n\n| part | figure | measured | goal | |\n|---|---|---:|---:|---|\n")
	for _, name := range order {
		i := slices.IndexFunc(parts, func(p stamped) bool { return p.Name == name })
		if i < 0 {
			fmt.Fprintf(b, "| %s | **NOT MEASURED** | | | `make bench` |\n", name)
			continue
		}
		for _, f := range parts[i].Figures {
			if f.Goal != "" {
				fmt.Fprintf(b, "| [%s](#%s) | %s | %s | %s | %s |\n", name, anchor(parts[i].Title), cell(f.Name), cell(f.Text()), cell(f.Goal), verdict(f))
			}
		}
	}
	fmt.Fprintf(b, "\n")
}

func verdict(f Figure) string {
	switch met, _, err := f.Met(); {
	case err != nil:
		return "**NOT KNOWN**: " + cell(err.Error())
	case met:
		return "met"
	}
	return "**NOT MET**"
}

func writePart(b *strings.Builder, p stamped) {
	fmt.Fprintf(b, "## %s\n\n    %s\n\n", p.Title, p.Command)
	if text := strings.TrimSpace(p.Text); text != "" {
		fmt.Fprintf(b, "%s\n\n", text)
	}
	for _, plot := range p.Plots {
		fmt.Fprintf(b, "![%s](performance/%s.svg)\n\n", plot.Title, plot.Name)
	}
	if len(p.Figures) == 0 {
		return
	}
	fmt.Fprintf(b, "<details><summary>All figures of this part</summary>\n\n| figure | value | goal | |\n|---|---:|---:|---|\n")
	for _, f := range p.Figures {
		held := ""
		if f.Steady {
			held = "held"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", cell(f.Name), cell(f.Text()), cell(f.Goal), held)
	}
	fmt.Fprintf(b, "\n</details>\n\n")
}

// cell is a text in a table: it does not end its cell, and no sign becomes a tag.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "<=", "≤", ">=", "≥", "<", "&lt;", ">", "&gt;", "\n", " ").Replace(text)
}

// anchor is a heading's, as GitHub makes it.
func anchor(title string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(title) {
		switch {
		case c == ' ':
			b.WriteByte('-')
		case c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c > 127 && c != '–' && c != '—':
			b.WriteRune(c)
		}
	}
	return b.String()
}

func TestThePageSaysWhatWasMissedAndWhatWasNotMeasured(t *testing.T) {
	t.Setenv("BENCH_DIR", t.TempDir())
	for _, p := range []Part{
		{Name: "growth", Title: "Growth", Command: "make growth", Figures: []Figure{{Name: "calls", Value: 12, Goal: "<= 12", Steady: true}}},
		{Name: "burst", Title: "A burst", Command: "go test", Text: "What was seen.", Figures: []Figure{{Name: "ratio", Value: 1.5, Goal: "<= 1.10"}, {Name: "odd", Goal: "small"}},
			Plots: []Plot{{Name: "burst", Title: "Delay", Series: []Series{{Name: "a", Points: [][2]float64{{1, 2}, {2, 3}}}}}}},
	} {
		if err := p.Write(); err != nil {
			t.Fatal(err)
		}
	}
	parts, err := readParts(os.Getenv("BENCH_DIR"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := writeReport(root, parts); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(root, "docs", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, want := range []string{
		"| [burst](#a-burst) | ratio | 1.5 | ≤ 1.10 | **NOT MET** |", "| odd | 0 | small | **NOT KNOWN**",
		"| compare | **NOT MEASURED** |", "| [growth](#growth) | calls | 12 | ≤ 12 | met |",
		"## A burst\n\n    go test\n\nWhat was seen.\n\n![Delay](performance/burst.svg)", "## Growth\n\n    make growth\n", "| calls | 12 | ≤ 12 | held |",
	} {
		i := strings.Index(string(md[at:]), want)
		if i < 0 {
			t.Fatalf("the page does not have %q here:\n%s", want, md[at:])
		}
		at += i
	}
	var r Record
	body, err := os.ReadFile(filepath.Join(root, "bench.json"))
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil || len(r.Figures) != 3 || r.Figures[0].Part != "burst" || r.Figures[0].Command != "go test" || r.Commit == "" || r.CPU == "" || r.Cores < 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestMakeBenchMeasuresEveryPart(t *testing.T) {
	root, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if want := "PARTS   ?= " + strings.Join(order, " ") + "\n"; err != nil || !strings.Contains(string(makefile), want) {
		t.Errorf("the Makefile does not have %q (%v)", want, err)
	}
}

// TestWhatMakeBenchRunsIsThere: 'go test' finds nothing wrong with -run of a test that is not there.
func TestWhatMakeBenchRunsIsThere(t *testing.T) {
	root, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	measures := regexp.MustCompile(`(?m)^(?:MEASURES_\w+ *:= |\t\$\(MEASURE\) \./(\S+) )-run (\w+) -(\w+)`).FindAllStringSubmatch(string(makefile), -1)
	if len(measures) != len(order)+1 { // and the report
		t.Errorf("got %d measurements of the Makefile, want one a part and the report: %q", len(measures), measures)
	}
	for _, m := range measures {
		files, err := filepath.Glob(filepath.Join(root, cmp.Or(m[1], "handler/bench"), "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var tests strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
		for what, pattern := range map[string]string{"test " + m[2]: `func ` + m[2] + `\(t `, "flag -" + m[3]: `flag\.\w+\("` + m[3] + `"`} {
			if !regexp.MustCompile(pattern).MatchString(tests.String()) {
				t.Errorf("%s: there is no %s", m[0], what)
			}
		}
	}
}

func TestFiguresOfTwoCommitsAreNotOnePage(t *testing.T) {
	dir := t.TempDir()
	for name, commit := range map[string]string{"burst": "a1", "cost": "a1-dirty"} {
		body, err := json.Marshal(stamped{Part: Part{Name: name}, Commit: commit})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".json"), body, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readParts(dir); err == nil || !strings.Contains(err.Error(), "a1-dirty") {
		t.Errorf("got %v, want an error that names both commits", err)
	}
}

// TestThePageIsOfTheRecord finds a page or a record that was changed without the other.
func TestThePageIsOfTheRecord(t *testing.T) {
	root, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	r, err := readRecord()
	if err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(root, "docs", "performance.md"))
	if len(r.Figures) == 0 && errors.Is(err, fs.ErrNotExist) {
		t.Skip("nothing was measured yet: make bench")
	}
	if err != nil {
		t.Fatal(err)
	}
	if commit := strings.TrimSuffix(r.Commit, "-dirty"); !strings.Contains(string(md), commit) {
		t.Errorf("docs/performance.md is not of commit %s, as bench.json is: run 'make bench'", commit)
	}
	for _, f := range r.Figures {
		if line := fmt.Sprintf("| %s | %s | %s |", cell(f.Name), cell(f.Text()), cell(f.Goal)); !strings.Contains(string(md), line) {
			t.Errorf("docs/performance.md does not have %q, as bench.json has: run 'make bench'", line)
		}
	}
}
