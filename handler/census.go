package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"signup-sync/handler/pipeline"
)

type censusCommand struct {
	Yes  bool `help:"Take in who is missing, and store the certificate; otherwise everyone is only counted."`
	Last bool `help:"Show the stored certificate instead."`
	JSON bool `name:"json" help:"Print one JSON object; progress goes to stderr."`
}

const helpOfCensusExits = "Exit codes: 0 nobody was missing; 1 somebody was, or is, or it did not come to the end; 2 the command line or the configuration is wrong, and nothing was begun."

// Help is shown by `handler census --help`.
func (censusCommand) Help() string {
	return "It asks the tenant for everyone and the ledger for each, beside the runs, and holds no lease. TakeCensus does the same with --yes once a day. docs/operations.md explains the lines.\n\n" + helpOfCensusExits
}

// Run counts everyone in the tenant, or shows what the last census came to.
func (c censusCommand) Run(ctx context.Context, s system) error {
	if c.Yes && c.Last {
		return refusal{errors.New("--last only shows what is stored: leave out --yes")}
	}
	a, err := openCommand(s)
	if err != nil {
		return err
	}
	defer a.ledger.Close()
	if c.Last {
		last, err := a.engine.LastCensus(ctx)
		if err == nil && last.ID == "" {
			err = errors.New("there is no certificate yet: no census has come to its end")
		}
		if err != nil {
			return err
		}
		return errors.Join(printCensus(s, last, c.JSON), verdict(last))
	}
	taken, err := takeWhole(ctx, s, a.engine, pipeline.CensusOptions{Act: c.Yes}, c.JSON)
	if err != nil {
		return err
	}
	return errors.Join(printCensus(s, taken, c.JSON), verdict(taken))
}

type backfillCommand struct {
	Since string `required:"" placeholder:"DATE" help:"From then on: 2026-01-31, or a time such as 2026-01-31T08:00:00Z."`
	acting
}

// Help is shown by `handler backfill --help`.
func (backfillCommand) Help() string {
	return "Without --yes a census counts as if, and nothing is changed. With it the date is noted under the run lease, which is waited for, and a census takes everyone in; when that is stopped, TakeCensus goes on with it. The next runs bring them, with a look before anything is made. It cannot be taken back.\n\n" + helpOfCensusExits
}

// Run brings those who signed up since then: a census counts or takes them in, and the next runs associate them.
func (c backfillCommand) Run(ctx context.Context, s system) error {
	since, dateErr := parseDate(c.Since)
	a, err := openCommand(s)
	if err == nil {
		defer a.ledger.Close()
		if dateErr == nil && since.After(a.env.Clock.Now()) {
			dateErr = errors.New("it is in the future")
		}
	}
	if dateErr != nil {
		err = errors.Join(refusal{fmt.Errorf("--since: %w", dateErr)}, err)
	}
	if err != nil {
		return err
	}
	o := pipeline.CensusOptions{Act: c.Yes}
	if c.Yes {
		newProgress(s, c.JSON).say(takingLease)
		if err := a.engine.Backfill(ctx, since); errors.Is(err, pipeline.ErrNoRun) {
			return err
		} else if err != nil {
			return errors.Join(err, errors.New("backfill did not come to the end: run it again to finish"))
		}
	} else {
		o.Since = since
	}
	taken, err := takeWhole(ctx, s, a.engine, o, c.JSON)
	if err != nil {
		return err
	}
	return errors.Join(printCensus(s, taken, c.JSON), verdict(taken))
}

// parseDate takes a day, which begins at midnight UTC, or an instant. A tenant is not older than the century.
func parseDate(text string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text)
	}
	switch {
	case err != nil:
		return t, fmt.Errorf("%q is not a date such as 2026-01-31, nor a time such as 2026-01-31T08:00:00Z", text)
	case t.Year() < 2000:
		return t, errors.New("no tenant is older than the year 2000")
	}
	return t.UTC(), nil
}

// takeWhole takes a census to its end. One that is under way is finished, if it is to act; otherwise it is a new one.
func takeWhole(ctx context.Context, s system, engine *pipeline.Engine, o pipeline.CensusOptions, json bool) (pipeline.Census, error) {
	show := newProgress(s, json)
	o.Show = func(c pipeline.Census) {
		show.share(int(c.Cursor.Sub(c.From).Seconds()), int(c.To.Sub(c.From).Seconds()),
			fmt.Sprintf("%d users, %d missing, up to %s", c.Users, c.Missing, c.Cursor.Format(time.DateOnly)))
	}
	defer show.done()
	for {
		c, err := engine.Census(ctx, pipeline.Trigger{Invocation: "census"}, o)
		switch {
		case err == nil && c.Idle != "" && o.Act && !o.Fresh:
			o.Fresh = true // the last one may be young: whoever asks wants another
			continue
		case err == nil && c.Idle != "":
			err = errors.New(c.Idle)
		case err == nil && c.Busy:
			err = errors.New("another census is under way and goes on: look at it with --last when it has ended")
		case err == nil && c.Ended.IsZero():
			err = ctx.Err()
		case err == nil:
			return c, nil
		}
		if err != nil && o.Act && c.ID != "" && !c.Busy {
			err = errors.Join(err, errors.New("the census did not come to its end: the next one goes on where it is"))
		}
		if err != nil {
			return c, err
		}
		o.Fresh = false
	}
}

// verdict is an error if the detectors have missed somebody, whether or not that is mended: a script is to notice.
func verdict(c pipeline.Census) error {
	switch {
	case c.Missing == 0:
		return nil
	case c.Acted:
		return fmt.Errorf("%d users were missing from the ledger; they are taken in, and the next run brings them", c.Missing)
	}
	return fmt.Errorf("%d users are missing from the ledger: --yes takes them in, as TakeCensus does within a day", c.Missing)
}

func printCensus(s system, c pipeline.Census, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.stdout).Encode(c)
	}
	t := tabwriter.NewWriter(s.stdout, 2, 8, 3, ' ', 0)
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	fmt.Fprintf(t, "census\t%s\ttaken from %s to %s\n", c.ID, at(c.Started), at(c.Ended))
	fmt.Fprintf(t, "users\t%d\tcreated before %s; who is younger is the detectors' business\n", c.Users, at(c.To))
	fmt.Fprintf(t, "before\t%d\tsigned up before %s, and are not looked for\n", c.Before, at(c.Since))
	fmt.Fprintf(t, "associated\t%d\t\n", c.Associated)
	waiting := ""
	if c.Pending > 0 {
		waiting = "one since " + at(c.OldestPending)
	}
	fmt.Fprintf(t, "pending\t%d\t%s\n", c.Pending, waiting)
	fmt.Fprintf(t, "skipped\t%d\t%s\n", pipeline.Total(c.Skipped), tallies(c.Skipped))
	fmt.Fprintf(t, "failed\t%d\t%s\n", pipeline.Total(c.Failed), tallies(c.Failed))
	fmt.Fprintf(t, "forgotten\t%d\t\n", c.Forgotten)
	fmt.Fprintf(t, "backfilled\t%d\t%s\n", c.Backfilled, taken(c, c.Backfilled, "older than the detectors' work"))
	fmt.Fprintf(t, "missing\t%d\t%s\n", c.Missing, taken(c, c.Missing, "shown by no detector"))
	fmt.Fprintf(t, "opened again\t%d\tredeemed %d, restored %d\n", c.Redeemed+c.Restored, c.Redeemed, c.Restored)
	fmt.Fprintf(t, "destination added\t%d\t%s\n", pipeline.Total(c.Added), tallies(c.Added))
	fmt.Fprintf(t, "passed over\t%d\trecords that could not be decoded\n", c.PassedOver)
	if len(c.Detectors) > 0 {
		fmt.Fprint(t, "\nFIRST SEEN BY\tUSERS\tHOW LATE\n")
	}
	for _, d := range c.Detectors {
		fmt.Fprintf(t, "%s\t%d\tp50 %s, p99 %s, at most %s\n", d.Detector, d.Users, span(d.Lags.Quantile(0.50)), span(d.Lags.Quantile(0.99)), span(d.Lags.Most))
	}
	if len(c.Matrix) > 0 {
		fmt.Fprint(t, "\nDETECTOR\tFIRST\tAFTER OTHERS\tHOW LATE\n")
	}
	for _, d := range c.Matrix {
		var after []string
		for _, a := range d.Seen.Also {
			after = append(after, fmt.Sprintf("%s %d", a.Detector, a.Users))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\tp50 %s, p99 %s, lately\n", d.Name, d.Seen.First, cmp.Or(strings.Join(after, ", "), "0"), span(d.Recent.Quantile(0.50)), span(d.Recent.Quantile(0.99)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	printExceptions(s.stdout, c)
	_, err := fmt.Fprintln(s.stdout, "\n"+closing(c))
	return err
}

func printExceptions(w io.Writer, c pipeline.Census) {
	if len(c.Exceptions) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 3, ' ', 0)
	fmt.Fprint(t, "\nEXCEPTION\tUSER\tDESTINATION\tREASON\tSINCE\n")
	for _, e := range c.Exceptions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.State, e.User, cmp.Or(e.Destination, "-"), cmp.Or(e.Reason, "-"), e.Since.Format(time.RFC3339))
	}
	_ = t.Flush() // stdout, which is asked again for the last line
	if c.Unnamed > 0 {
		fmt.Fprintf(w, "… and %d more.\n", c.Unnamed)
	}
}

// taken says what was, or would be, done with users who had no row.
func taken(c pipeline.Census, users int, who string) string {
	switch {
	case users == 0:
		return ""
	case c.Acted:
		return who + "; in the ledger now"
	}
	return who + "; --yes takes them in"
}

func closing(c pipeline.Census) string {
	switch {
	case !c.Acted:
		return "Nothing was changed: add --yes to do it."
	case c.Missing+c.Backfilled+c.Redeemed+c.Restored+pipeline.Total(c.Added) > 0:
		return "The certificate is stored. The next runs bring who was taken in or opened again."
	}
	return "The certificate is stored: nobody was missing."
}

func tallies(list []pipeline.Tally) string {
	parts := make([]string, len(list))
	for i, t := range list {
		parts[i] = fmt.Sprintf("%s %d", strings.TrimPrefix(strings.TrimSuffix(t.Destination+": "+t.Reason, ": "), ": "), t.Users)
	}
	return strings.Join(parts, ", ")
}

// span is a duration to the second.
func span(d time.Duration) string { return max(d, 0).Round(time.Second).String() }
