package status

import (
	"fmt"
	"strings"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// Words are an explanation for a person. They name nobody: object ids, the destinations' own ids, codes.
type Words struct {
	Head         string
	Points       []string // what it can mean that the ledger has no such user
	Detectors    []string // … and how far each detector is
	Tail         string
	Lines        []Line // about the user as a whole
	Associations []Line // about one destination each, and the profile
}

// Line is what there is to say of something.
type Line struct {
	Name  string
	Texts []string // at least one
}

// Explain says in words what the ledger knows of a user.
func Explain(x pipeline.Explanation) Words {
	switch {
	case x.Row == nil:
		return explainAbsent(x)
	case !x.Row.Forgotten.IsZero():
		return Words{Head: fmt.Sprintf("%s is forgotten since %s. No run touches the user, whatever detectors see; nothing else is kept.", x.User, when(x.Row.Forgotten))}
	}
	state, reason := x.Row.State()
	is := string(state)
	if reason != "" {
		is += ": " + reason
	}
	w := Words{Head: fmt.Sprintf("%s is %s.", x.User, is), Lines: explainUser(x)}
	for _, a := range x.Row.Associations {
		w.Associations = append(w.Associations, Line{a.Destination, explainAssociation(a, *x.Row, x)})
	}
	return w
}

// explainAbsent says what it can mean that the ledger has no such user.
func explainAbsent(x pipeline.Explanation) Words {
	w := Words{Head: fmt.Sprintf("%s is not in the ledger. Either", x.User), Points: []string{"the tenant has no such user; or"}}
	if x.Since.IsZero() {
		w.Points = append(w.Points, "nobody has been looked for yet: there was no run.")
		return w
	}
	w.Points = append(w.Points,
		fmt.Sprintf("the user signed up before %s, from when on users are taken in, and is left alone: 'handler backfill --since' takes in who came before; or", when(x.Since)),
		"no detector has shown the user yet:")
	for _, d := range x.Detectors {
		upTo := "has not been read yet"
		if !d.Watermark.IsZero() {
			upTo = fmt.Sprintf("has been read up to %s, %s ago", when(d.Watermark), span(x.Now.Sub(d.Watermark)))
		}
		if len(d.Gaps) > 0 {
			upTo += fmt.Sprintf(", with %d gaps from %s on", len(d.Gaps), when(d.Gaps[0].From))
		}
		w.Detectors = append(w.Detectors, d.Name+" "+upTo)
	}
	w.Tail = "'handler census' compares the whole directory with the ledger."
	return w
}

// explainUser says what a row says of the user as a whole.
func explainUser(x pipeline.Explanation) []Line {
	r := *x.Row
	var lines []Line
	line := func(name, format string, args ...any) {
		lines = append(lines, Line{name, []string{fmt.Sprintf(format, args...)}})
	}
	line("signed up", "%s (%s); first seen by %s, %s later", when(r.At), r.Kind, r.Detector, span(r.Detected.Sub(r.At)))
	if r.Origin == "" {
		line("origin", "not known yet: the profile has not been read")
	} else {
		line("origin", "%s, by %s", r.OriginText(), r.Evidence)
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
	return lines
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
