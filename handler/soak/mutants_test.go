package soak_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	mutants    = flag.Bool("mutants", false, "build the program with each deliberate fault, and see that it is caught")
	only       = flag.String("only", "", "with -mutants: those whose name has this in it")
	skipped    = flag.Int("from", 0, "with -mutants: leave out so many at the beginning")
	mostSeeds  = flag.Int("most", 200, "with -mutants: how many seeds a fault may take")
	untilFound = flag.Bool("until-found", false, "stop at the first seed that finds something")
)

// mutant is a deliberate fault: an edit of one file of the program.
type mutant struct {
	name     string
	file     string // below handler
	old, new string
}

// deliberate are faults of which each has to be found. They are what a careless change could bring.
var deliberate = []mutant{
	{"the watermark is written before the rows", "pipeline/watch.go",
		"\t\t}\n\t\tif err := w.record(", "\t\t}\n\t\tif err := done(slice, step%maxSlice); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := w.record("},
	{"windows do not overlap", "pipeline/window.go", "from = later(from.Add(-overlap), since)", "from = later(from, since)"},
	{"the service's time is ignored", "pipeline/window.go", "if !served.IsZero() && served.Before(to) {", "if false {"},
	{"what the log has lost is forgotten instead of read from the directory", "pipeline/window.go",
		"gap = signup.Window{From: later(from, m.Watermark), To: oldest}", "gap = signup.Window{}"},
	{"retention clamps the directory too", "pipeline/window.go",
		"	oldest := time.Time{}\n	if retention > 0 {", "	oldest := time.Time{}\n	if retention == 0 {\n		since = later(since, now.Add(-4*time.Hour))\n	}\n	if retention > 0 {"},
	{"a user is remembered before the row is durable", "pipeline/record.go",
		"	if len(insert) > 0 {\n		if insert, err = r.Ledger.Insert", "	w.remember(events, insert, nil)\n	if len(insert) > 0 {\n		if insert, err = r.Ledger.Insert"},
	{"a redemption of somebody known is not looked at", "pipeline/sightings.go", "ok && !s.look && event.Kind != signup.Redeemed {", "ok && !s.look {"},
	{"who has redeemed does not come back", "pipeline/record.go", "redeemed := e.Kind == signup.Redeemed && a.Reason == reasonNotRedeemed", "redeemed := false"},
	{"who was restored does not come back", "pipeline/record.go",
		`restored := (detector == "directory" || detector == "backstop") && a.Reason == reasonDeleted`, "restored := false"},
	{"insert fails and nobody minds", "pipeline/record.go", "			return fmt.Errorf(\"insert rows: %w\", err)\n", "			return nil\n"},
	{"a broken page is taken for a whole one", "entra/page.go",
		"			if err := decodeArray(d, each); err != nil {\n				return \"\", unexpected(err)", "			if err := decodeArray(d, each); err != nil {\n				return \"\", nil"},
	{"an error written into an answer is passed over", "entra/page.go",
		"		case \"error\":\n			return \"\", badPage(\"the answer has an error written into it\")", "		case \"error\":\n			_ = d.skip()"},
	{"an expired skip token is the end of the pages", "entra/page.go",
		"		if err := c.do(ctx, r); err != nil {\n			return err", "		if err := c.do(ctx, r); err != nil {\n			if n > 1 {\n				return nil\n			}\n			return err"},
	{"the next page is not read", "entra/page.go", "if !col.page(false) || link == \"\" {", "if col.page(false); link != \"?\" {"},
	{"our own pace of reading logs is ten times the limit", "entra/client.go", "newPace(4, 10*time.Second)", "newPace(50, 10*time.Second)"},
	{"the intent is not written", "pipeline/work.go", "written, err := r.Ledger.Replace(ctx, intended)", "written, err := intended, error(nil)"},
	{"a new row has no intent", "pipeline/record.go", "row = row.Intend(r.id, now)", "row.Intent = now"},
	{"the lease is ignored", "pipeline/lease.go", "if body.held(r.start) {", "if false {"},
	{"the lease is not renewed", "pipeline/lease.go", "		body.Expires = now.Add(leaseTime)\n", "		body.Expires = r.start.Add(leaseTime)\n"},
	{"the clock is believed", "pipeline/clock.go", "off.Abs() > skew", "off.Abs() > 1000*24*time.Hour"},
	{"a call that may have had an effect is not looked for", "pipeline/associate.go",
		"j.row.Tried(a) || r.Clock.Now().Sub(j.row.At) > keysForgotten", "false"},
	{"the key is another one in each try", "pipeline/associate.go", "Key(r.Tenant, j.row.User, d.Name, a.Generation)", "Key(r.Tenant, j.row.User, d.Name, a.Attempts)"},
	{"a failed look-up counts as not found", "connector/stripe.go",
		"		found, err := c.lookUp(ctx, req, params)\n		if err != nil || found != nil {\n			return accountOf(found), err\n		}\n	}\n	if c.email", "		found, err := c.lookUp(ctx, req, params)\n		if found != nil {\n			return accountOf(found), err\n		}\n	}\n	if c.email"},
	{"a spent key is given up at once", "connector/stripe.go", "if wait := settleAfter - now.Sub(since); wait > 0 {", "if wait := settleAfter - now.Sub(since); wait > settleAfter {"},
	{"a spent key is kept", "signup/association.go", "a.Generation, a.Spent = a.Generation+1, time.Time{}", "a.Spent = time.Time{}"},
	{"users are given up after a day", "signup/association.go", "Horizon = 14 * 24 * time.Hour", "Horizon = 24 * time.Hour"},
	{"throttled users are given up", "signup/association.go", "	case Throttled:\n", "	case Throttled:\n		a.finish(Failed, e.Code, e.Detail, now)\n		return\n"},
	{"a refusal of everybody fails the one user", "signup/association.go", "o.LastSuccess.After(a.Forbidden) && now.Sub(a.Forbidden) >= ForbiddenFor", "now.Sub(a.Forbidden) >= 0"},
	{"settle takes what was cut short for done", "pipeline/associate.go", "		if cut && results[i].Err != nil {\n			return nil", "		if cut && results[i].Err != nil {\n			results[i].Err = nil"},
	{"who is not replicated yet is deleted", "pipeline/batch.go", "if gone >= replication {", "if gone >= 0 {"},
	{"who the list does not show is deleted", "entra/profile.go", "		switch u, err := t.one(ctx, id, fields, names); {\n", "		if len(ids) > 1 {\n			continue\n		}\n		switch u, err := t.one(ctx, id, fields, names); {\n"},
	{"who waits for nobody: a prerequisite is not awaited", "pipeline/associate.go", "	case len(pending) > 0:\n", "	case len(pending) > 99:\n"},
	{"everybody is associated, whatever the origin", "pipeline/origin.go", "case !slices.Contains(r.Settings.Origins, row.Origin):", "case false:"},
	{"guests are associated before they accept", "pipeline/origin.go", "row.Origin == signup.Invitation && r.waits(u)", "false"},
	{"guests who are to be associated when invited wait", "pipeline/origin.go", "u.NotRedeemed() && !r.Settings.Invited", "u.NotRedeemed()"},
	{"the rule of a destination is ignored", "pipeline/associate.go", "	if !want {\n", "	if !want && d.Name == \"\" {\n"},
	{"the profile is done before the ids are there", "pipeline/profile.go", "if pending, _ := j.waits(needs); len(pending) > 0 {", "if pending, _ := j.waits(needs); len(pending) > 99 {"},
	{"all destinations share a breaker", "pipeline/gate.go", "			r.gates[d.Name] = newGate(d.Name,", "			r.gates[d.Name] = r.gates[signup.Profile]\n			_ = newGate(d.Name,"},
	{"the ledger waits for the slowest destination", "pipeline/batch.go", "for r.Clock.Sleep(waiting, hurry) == nil {", "for false && r.Clock.Sleep(waiting, hurry) == nil {"},
	{"the evidence holds the user's name", "signup/origin.go", `text += " upn=id"`, `text += " upn=" + u.UserPrincipalName`},
	{"an error's detail is what the service said", "connector/stripe.go", `e.Detail = "stripe: " + w`, `e.Detail = "stripe: " + w + string(a.body)`},
	{"a census counts whom it has not taken in", "pipeline/mend.go", "inserted, err = c.Ledger.Insert(ctx, rows)", "inserted, err = rows, error(nil)"},
	{"a census leaves guests who have accepted alone", "entra/backstop.go", "redeemed: true", "redeemed: false"},
}

// TestDeliberateFaultsApply sees that each edit fits the program as it is, and that what comes of it compiles.
func TestDeliberateFaultsApply(t *testing.T) {
	var check *checker
	if !raceDetector { // its packages would be built twice
		var err error
		if check, err = newChecker([]string{"../pipeline", "../entra", "../connector", "../signup"}); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]bool{}
	for _, m := range deliberate {
		if names[m.name] || m.old == m.new {
			t.Errorf("%s: is there twice, or changes nothing", m.name)
		}
		names[m.name] = true
		text, err := os.ReadFile(filepath.Join("..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: what it replaces is %d times in %s, want once", m.name, n, m.file)
		} else if check != nil {
			if err := check.check(m.file, strings.Replace(string(text), m.old, m.new, 1)); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
	}
	if len(deliberate) < 15 {
		t.Errorf("%d faults, want 15 at least", len(deliberate))
	}
}

// TestDeliberateFaultsAreFound builds this test with each fault, plays seeds until one finds it, and prints the table.
func TestDeliberateFaultsAreFound(t *testing.T) {
	if !*mutants {
		t.Skip("only with -mutants: it takes minutes")
	}
	var table strings.Builder
	table.WriteString("| fault | caught by | seeds |\n|---|---|---|\n")
	for i, m := range deliberate {
		if !strings.Contains(m.name, *only) || i < *skipped {
			continue
		}
		by, seeds, err := m.find(t.TempDir())
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if by == "" {
			t.Errorf("%s: not found in %d seeds", m.name, seeds)
			by = "**survived**"
		}
		row := fmt.Sprintf("| %s | %s | %d |\n", m.name, by, seeds)
		fmt.Print(row)
		table.WriteString(row)
	}
	fmt.Printf("\n%s", table.String())
	if *only == "" && *skipped == 0 {
		if err := writeBlock(filepath.Join("..", "..", "docs", "reliability.md"), table.String()); err != nil {
			t.Error(err)
		}
	}
}

var found = regexp.MustCompile(`(?m)^found after (\d+) seeds: (.+)$`)

// find says by which invariants a fault is found, and how many seeds it takes.
func (m mutant) find(dir string) (by string, seeds int, err error) {
	file, err := filepath.Abs(filepath.Join("..", m.file))
	if err != nil {
		return "", 0, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", 0, err
	}
	changed := filepath.Join(dir, filepath.Base(file))
	overlay, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "soak.test")
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(m.old), []byte(m.new), 1), 0o644); err != nil {
		return "", 0, err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", 0, err
	}
	if err := os.WriteFile(overlay, replace, 0o644); err != nil {
		return "", 0, err
	}
	build := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", 0, fmt.Errorf("build: %w\n%s", err, out)
	}
	for _, args := range [][]string{
		{"-test.run", "^TestSoak$", "-first", "1", "-seeds", fmt.Sprint(*mostSeeds), "-until-found"},
		{"-test.run", "^TestIsolation$"},
	} {
		out, err := exec.Command(binary, append(args, "-test.timeout", "20m")...).CombinedOutput()
		if hit := found.FindSubmatch(out); hit != nil {
			_, _ = fmt.Sscan(string(hit[1]), &seeds)
			return string(hit[2]), seeds, nil
		}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			if bytes.Contains(out, []byte("--- FAIL: TestIsolation")) {
				return "isolation", seeds, nil
			}
			return "the test ends: " + lastLine(out), seeds, nil
		}
		if seeds == 0 {
			seeds = *mostSeeds
		}
	}
	return "", seeds, nil
}

func lastLine(out []byte) string {
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte("panic:")) || bytes.HasPrefix(line, []byte("fatal error:")) {
			return string(bytes.TrimSpace(line))
		}
	}
	return "it fails"
}

// The table stands between these lines.
const (
	blockBegins = "<!-- begin: make mutants -->"
	blockEnds   = "<!-- end: make mutants -->"
)

// writeBlock writes the table into the page.
func writeBlock(page, table string) error {
	text, err := os.ReadFile(page)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	before, rest, there := strings.Cut(string(text), blockBegins)
	_, after, _ := strings.Cut(rest, blockEnds)
	if !there {
		before = strings.TrimRight(before, "\n") + "\n\n## Deliberate faults\n\nEach was made in the program on purpose, and the simulation played until a seed found it.\n\n"
		after = "\n"
	}
	return os.WriteFile(page, []byte(strings.TrimLeft(before, "\n")+blockBegins+"\n"+table+blockEnds+after), 0o644)
}
