package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
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
	switch {
	case c.JSON:
		err = json.NewEncoder(s.stdout).Encode(x)
	case x.Row == nil:
		explainAbsent(s.stdout, x)
	case !x.Row.Forgotten.IsZero():
		fmt.Fprintf(s.stdout, "%s is forgotten since %s. No run touches the user, whatever detectors see; nothing else is kept.\n", x.User, when(x.Row.Forgotten))
	default:
		err = explainRow(s.stdout, x)
	}
	if x.Row == nil {
		err = errors.Join(err, errors.New("the user is not in the ledger"))
	}
	return err
}

// explainAbsent says what it can mean that the ledger has no such user.
func explainAbsent(w io.Writer, x pipeline.Explanation) {
	fmt.Fprintf(w, "%s is not in the ledger. Either\n", x.User)
	fmt.Fprintln(w, "- the tenant has no such user; or")
	if x.Since.IsZero() {
		fmt.Fprintln(w, "- nobody has been looked for yet: there was no run.")
		return
	}
	fmt.Fprintf(w, "- the user signed up before %s, from when on users are taken in, and is left alone: 'handler backfill --since' takes in who came before; or\n", when(x.Since))
	fmt.Fprintln(w, "- no detector has shown the user yet:")
	for _, d := range x.Detectors {
		upTo := "has not been read yet"
		if !d.Watermark.IsZero() {
			upTo = fmt.Sprintf("has been read up to %s, %s ago", when(d.Watermark), span(x.Now.Sub(d.Watermark)))
		}
		if len(d.Gaps) > 0 {
			upTo += fmt.Sprintf(", with %d gaps from %s on", len(d.Gaps), when(d.Gaps[0].From))
		}
		fmt.Fprintf(w, "    %s %s\n", d.Name, upTo)
	}
	fmt.Fprintln(w, "'handler census' compares the whole directory with the ledger.")
}

// explainRow says what a row says.
func explainRow(w io.Writer, x pipeline.Explanation) error {
	r := *x.Row
	state, reason := r.State()
	fmt.Fprintf(w, "%s is %s.\n\n", x.User, was(state, reason))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("signed up", "%s (%s); first seen by %s, %s later", when(r.At), r.Kind, r.Detector, span(r.Detected.Sub(r.At)))
	if r.Origin == "" {
		line("origin", "not known yet: the profile has not been read")
	} else {
		line("origin", "%s, by %s", originText(r), r.Evidence)
	}
	if !r.Missing.IsZero() {
		line("missing", "since %s the directory answers that there is no such user; after 30 minutes that is believed", when(r.Missing))
	}
	if r.Unsure {
		line("unsure", "effects may exist of which the ledger does not know (by census, backfill or replay): each destination is asked before anything is made")
	}
	switch holder := ""; {
	case !r.Intent.IsZero():
		if holder = "which has died"; x.AtWork == r.Owner {
			holder = "which is at work now"
		}
		line("intent", "open since %s, of %s, %s; %d since the last settle (at 3 the user is worked alone, at 6 it is failed: crash)", when(r.Intent), r.Owner, holder, r.Starts)
	case r.Owner != "":
		line("written", "last by %s", r.Owner)
	}
	if !r.Due.IsZero() {
		line("next", "%s", next(r.Due, x.Now))
	}
	fmt.Fprintln(t)
	for _, a := range r.Associations {
		name := a.Destination
		for _, text := range explainAssociation(a, r, x) {
			line(name, "%s", text)
			name = ""
		}
	}
	return t.Flush()
}

// originText is a row's origin, with the way where that says more.
func originText(r signup.Row) string {
	if r.Way == "" || string(r.Way) == string(r.Origin) {
		return string(r.Origin)
	}
	return fmt.Sprintf("%s (%s)", r.Origin, r.Way)
}

// explainAssociation is what there is to say of one association, in lines.
func explainAssociation(a signup.Association, r signup.Row, x pipeline.Explanation) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch a.State {
	case signup.Associated:
		add("associated since %s%s", when(a.Settled), account(", account ", a))
	case signup.Pending:
		add("pending, %s%s", next(a.Next, x.Now), account("; was account ", a))
		for _, wait := range x.Waits {
			if wait.Destination == a.Destination {
				lines = append(lines, explainWait(wait)...)
			}
		}
		if a.Reason != "" {
			add("last answer: %s", reasonText(a))
		}
	default:
		add("%s since %s%s", a.State, when(a.Settled), account(", was account ", a))
		add("because: %s", reasonText(a))
	}
	if a.FirstTry.IsZero() && !a.Opened.IsZero() {
		add("not tried since it was opened again or added, %s", when(a.Opened))
	} else if a.FirstTry.IsZero() {
		add("never tried")
	} else if a.State == signup.Pending {
		add("first try %s; until %s it is tried again", when(a.FirstTry), when(a.FirstTry.Add(signup.Horizon)))
	} else {
		add("first try %s", when(a.FirstTry))
	}
	if a.Attempts > 0 {
		add("%d tries failed; those that were throttled or refused to everybody are not counted", a.Attempts)
	}
	if !a.Forbidden.IsZero() && a.State == signup.Pending {
		add("refused (403) since %s; after a day it fails, if others are accepted", when(a.Forbidden))
	}
	if a.Generation > 0 {
		add("idempotency key of generation %d: the ones before are spent", a.Generation)
	}
	if !a.Spent.IsZero() {
		add("its idempotency key is spent since %s: look-ups settle what it has left behind", when(a.Spent))
	}
	if a.State == signup.Failed {
		add("after mending the cause: handler replay --user %s --destination %s --yes", r.User, a.Destination)
	}
	return lines
}

func explainWait(wait pipeline.Wait) []string {
	var lines []string
	if wait.Removed {
		lines = append(lines, "the destination is configured no longer: the next run makes it skipped: removed")
	}
	if len(wait.For) > 0 {
		lines = append(lines, "waits for "+strings.Join(wait.For, " and "))
	}
	if !wait.Open.IsZero() {
		lines = append(lines, fmt.Sprintf("the destination is left alone until %s, since it answered %s", when(wait.Open), wait.Code))
	}
	return lines
}

// reasonText is a reason in words, where it is the engine's own; a destination's is its code and detail.
func reasonText(a signup.Association) string {
	words := map[string]string{
		"origin":            "the user's origin is not among signups.origins",
		"origin-unknown":    "nobody can tell how the user came in",
		"not-redeemed":      "the invitation is not accepted yet; when it is, this reopens by itself",
		"deleted":           "the directory has no such user; if it has again, this reopens by itself",
		"rule":              "the destination's 'when' is not true for this user",
		"observe":           "the destination is only observed",
		"removed":           "the destination was taken out of the configuration",
		"horizon":           "fourteen days of trouble",
		"crash":             "six runs have died at this user",
		"throttled":         "the destination asked for a pause",
		signup.ReasonNeeds:  "it needs an account that the user does not have; with that destination this reopens",
		signup.ReasonUndone: "it was taken back by 'handler undo'",
	}[a.Reason]
	text := a.Reason
	if words != "" {
		text += ", " + words
	}
	if a.Detail != "" {
		text += " (" + a.Detail + ")"
	}
	return text
}

func account(before string, a signup.Association) string {
	if a.Account == "" {
		return ""
	}
	return before + a.Account
}

// next is when something is due, beside now.
func next(at, now time.Time) string {
	if at.After(now) {
		return fmt.Sprintf("due %s, in %s", when(at), span(at.Sub(now)))
	}
	return fmt.Sprintf("due since %s: the next run works it", when(at))
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// span is a duration to the second.
func span(d time.Duration) string { return max(d, 0).Round(time.Second).String() }
