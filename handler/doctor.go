package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

type doctorCommand struct {
	Permissions bool `help:"Print the least permissions that the configuration file needs, and ask nobody. Only the file is read."`
	JSON        bool `name:"json" help:"Print one JSON object; progress goes to stderr."`
}

// Help is shown by `handler doctor --help`.
func (doctorCommand) Help() string {
	return "It asks the tenant, the ledger and every destination, beside the runs, and changes nothing anywhere. A line that nobody could answer is a warning, and never ok. docs/operations.md explains every line.\n\n" +
		"Exit codes: 0 nothing fails, though there may be warnings; 1 something fails; 2 the command line or the configuration is wrong, and nobody was asked."
}

// condition is how a finding is.
type condition string

const (
	conditionOK   condition = "ok"
	conditionWarn condition = "warn" // it works, or nobody could say: a person should look
	conditionFail condition = "fail"
)

// finding is one line of the doctor. Area and Name stay the same from version to version, for scripts.
type finding struct {
	Area  string    `json:"area"`
	Name  string    `json:"name"`
	State condition `json:"state"`
	Why   string    `json:"why"`           // one sentence
	Fix   string    `json:"fix,omitempty"` // commands to paste, or the portal's steps; lines end with \n. "" only with ok
}

func good(name, why string, args ...any) finding {
	return finding{Name: name, State: conditionOK, Why: sentence(why, args)}
}

func warn(name, fix, why string, args ...any) finding {
	return finding{Name: name, State: conditionWarn, Fix: fix, Why: sentence(why, args)}
}

func fail(name, fix, why string, args ...any) finding {
	return finding{Name: name, State: conditionFail, Fix: fix, Why: sentence(why, args)}
}

// notAsked is a line that nobody could answer: it is never ok.
func notAsked(name, fix, why string, args ...any) finding {
	return warn(name, fix, "not asked: "+why, args...)
}

// broken is a question that brought an error. Who does not answer in time does not work either.
func broken(name, fix string, err error) finding {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fail(name, again, "no answer in time")
	}
	return fail(name, fix, "%s", oneLine(err))
}

// again is what to do about an answer that did not come.
const again = "Run the doctor again; if it stays, look for what keeps this from answering: the network, a firewall, a proxy."

// oneLine is an error's text on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// examination is one of the doctor's questions; what it finds is one line or several, each with a name of its own.
// Another question is another function in a list.
type examination struct {
	name string // of the line, where it does not come to answer
	ask  func(ctx context.Context, p *patient) []finding
}

// examined is an area with its questions.
type examined struct {
	area string
	all  []examination
}

// areas are all questions, in the order of the table. They are asked side by side.
func (p *patient) areas() []examined {
	all := []examined{
		{"settings", settingsExaminations},
		{"identity", identityExaminations},
		{"permissions", permissionExaminations},
		{"tenant", tenantExaminations},
		{"detectors", detectorExaminations},
		{"ledger", ledgerExaminations},
		{"destinations", p.destinationExaminations()},
		{"state", stateExaminations},
	}
	if p.unreadable != nil {
		all[0].all = []examination{{"--settings", examineFile}}
	}
	if p.app == nil {
		for i := range all[1:] {
			all[1+i].all = []examination{{"everything", func(context.Context, *patient) []finding {
				return []finding{notAsked("everything", "Mend what fails in settings first.", "the configuration is refused")}
			}}}
		}
	}
	return all
}

const (
	// examinationTime is how long one question may take.
	examinationTime = 30 * time.Second
	// examinationGrace is for saying so.
	examinationGrace = time.Second
)

// Run asks everyone and prints what they say.
func (c doctorCommand) Run(ctx context.Context, s system) error {
	if c.Permissions {
		if s.unreadable != nil {
			return s.unreadable
		}
		return c.printPermissions(s)
	}
	if s.settings != nil {
		s.settings.resolve(ctx, s.getenv)
	}
	p := &patient{system: s, refused: s.unreadable}
	if p.refused == nil {
		if p.app, p.refused = openApp(s.getenv, slog.New(slog.DiscardHandler)); p.refused == nil {
			defer p.app.ledger.Close()
		}
	}
	show := newProgress(s, c.JSON)
	findings := p.examine(ctx, p.areas(), show)
	show.done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := printFindings(s, findings, c.JSON); err != nil {
		return err
	}
	switch fails := countOf(findings, conditionFail); {
	case p.refused != nil:
		return refusal{errors.New("the configuration is refused: nobody was asked")}
	case fails > 0:
		return fmt.Errorf("%d of %d lines fail", fails, len(findings))
	}
	return nil
}

// examine asks everything at the same time.
func (p *patient) examine(ctx context.Context, areas []examined, show *progress) []finding {
	answers := make([][][]finding, len(areas))
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, total := 0, 0
	for _, a := range areas {
		total += len(a.all)
	}
	for i, a := range areas {
		answers[i] = make([][]finding, len(a.all))
		for j, e := range a.all {
			wg.Go(func() {
				answers[i][j] = e.examine(ctx, p)
				mu.Lock()
				defer mu.Unlock()
				done++
				show.part(done, total, "questions answered")
			})
		}
	}
	wg.Wait()
	var all []finding
	for i, a := range areas {
		for _, f := range slices.Concat(answers[i]...) {
			f.Area = a.area
			all = append(all, f)
		}
	}
	return all
}

// examine asks one question, and does not wait for ever; one that panics keeps nothing else from being asked.
func (e examination) examine(ctx context.Context, p *patient) []finding {
	ctx, cancel := context.WithTimeout(ctx, examinationTime)
	defer cancel()
	answer := make(chan []finding, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				slog.New(slog.NewTextHandler(p.stderr, nil)).Error("a call has panicked; this is a defect of the program", "at", e.name, "stack", string(debug.Stack()))
				answer <- []finding{notAsked(e.name, "Please report it, with the stack above.", "this question has run into a defect of the program")}
			}
		}()
		answer <- e.ask(ctx, p)
	}()
	select {
	case found := <-answer:
		return found
	case <-ctx.Done():
	}
	select {
	case found := <-answer:
		return found
	case <-time.After(examinationGrace):
		return []finding{notAsked(e.name, again, "no answer within %v", examinationTime)}
	}
}

func countOf(all []finding, state condition) (n int) {
	for _, f := range all {
		if f.State == state {
			n++
		}
	}
	return n
}

// sentence is fmt.Sprintf with durations in words.
func sentence(format string, args []any) string {
	for i, a := range args {
		if d, ok := a.(time.Duration); ok {
			args[i] = inWords(d)
		}
	}
	return fmt.Sprintf(format, args...)
}

// inWords is a duration as a person writes it: 168h, 2m30s, 45s.
func inWords(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
