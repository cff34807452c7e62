package status

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/pipeline"
)

// Report is what the page shows, and what ?format=json answers.
type Report struct {
	Now          time.Time             `json:"now"`
	Warnings     []Warning             `json:"warnings"` // the worst first; none = nobody needs to look
	Totals       Totals                `json:"totals"`
	Hours        []Bucket              `json:"hours"` // the last seven days, oldest first, up to the hour that it is now
	Days         []Bucket              `json:"days"`  // the last ninety, in UTC
	Delay        Delay                 `json:"delay"` // of users, the last seven days
	Destinations []Destination         `json:"destinations"`
	Runs         []pipeline.RunRecord  `json:"runs"` // those that did something lately, and the last one; latest first
	Certificate  *Certificate          `json:"certificate,omitempty"`
	Counted      time.Time             `json:"counted,omitzero"` // since when totals, hours, days and delays are counted; zero = nothing was yet
	Status       pipeline.Status       `json:"status"`
	User         *pipeline.Explanation `json:"user,omitempty"` // who was asked for
}

// Warning is something that a person should look at.
type Warning struct {
	Level string `json:"level"` // bad: users wait or are lost; look: it may come to that
	About string `json:"about"`
	Text  string `json:"text"`
}

// Totals are the last 24 full hours and the one that it is now, and the last seven days.
type Totals struct {
	Day  Counts `json:"day"`
	Week Counts `json:"week"`
}

// Counts are users: who signed up, by the time of the sign-up, and who was settled as a whole, by the time of that.
type Counts struct {
	SignUps    int `json:"signUps"`
	Associated int `json:"associated"`
	Skipped    int `json:"skipped"`
	Failed     int `json:"failed"`
}

// Bucket are the counts of an hour or a day.
type Bucket struct {
	At time.Time `json:"at"` // its beginning
	Counts
}

// Delay is how long it took from the sign-up until associated, in seconds.
type Delay struct {
	Users   int     `json:"users"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Most    float64 `json:"most"`
	Classes []Class `json:"classes,omitempty"`
}

// Class is one class of delays: above that of the class before.
type Class struct {
	UpTo  float64 `json:"upTo,omitempty"` // seconds; 0 = the last class, without a bound
	Users int     `json:"users"`
}

// Destination is a destination, or the profile, with how late its latest thousand or two were.
type Destination struct {
	pipeline.DestinationStatus
	Delay Delay `json:"delay"`
}

// Certificate is the app's, by which it got its last token.
type Certificate struct {
	pipeline.CertificateDates
	Age  int `json:"age"`  // whole days since it is valid
	Left int `json:"left"` // whole days until it ends; negative = it has ended
}

const day = 24 * time.Hour

// NewReport puts together what the ledger says.
func NewReport(s pipeline.Status, h pipeline.History) Report {
	r := Report{Now: s.Now, Status: s, Counted: h.Since, Warnings: []Warning{},
		Hours: buckets(h.Hours, s.Now, time.Hour, 7*24), Days: buckets(h.Days, s.Now, day, 90)}
	for i, b := range r.Hours {
		r.Totals.Week.add(b.Counts)
		if i >= len(r.Hours)-25 {
			r.Totals.Day.add(b.Counts)
		}
	}
	var week pipeline.Lags
	for _, d := range h.Delays {
		if s.Now.Sub(d.Day) < 7*day {
			week.Merge(d.Lags)
		}
	}
	r.Delay = delayOf(week, true)
	for _, d := range s.Destinations {
		one := Destination{DestinationStatus: d}
		if i := slices.IndexFunc(h.Destinations, func(h pipeline.DestinationDelays) bool { return h.Name == d.Name }); i >= 0 {
			one.Delay = delayOf(h.Destinations[i].Lags(), false)
		}
		r.Destinations = append(r.Destinations, one)
	}
	r.Runs = h.Runs
	if last := s.Last; last != nil && !slices.ContainsFunc(h.Runs, func(run pipeline.RunRecord) bool { return run.Run == last.Run }) {
		r.Runs = slices.Insert(slices.Clone(h.Runs), 0, last.Record())
	}
	if c := h.Certificate; c != nil {
		r.Certificate = &Certificate{CertificateDates: *c, Age: days(s.Now.Sub(c.NotBefore)), Left: days(c.NotAfter.Sub(s.Now))}
	}
	r.warn()
	return r
}

func (c *Counts) add(o Counts) {
	c.SignUps += o.SignUps
	c.Associated += o.Associated
	c.Skipped += o.Skipped
	c.Failed += o.Failed
}

// Any reports that anybody is counted.
func (c Counts) Any() bool { return c != Counts{} }

// buckets are the n steps up to now, of which the series has counted some.
func buckets(s pipeline.Series, now time.Time, step time.Duration, n int) []Bucket {
	last := now.UTC().Truncate(step)
	out := make([]Bucket, n)
	for i := range out {
		out[i].At = last.Add(-time.Duration(n-1-i) * step)
		at := len(s.Counts) - 1 - int(s.Last.Sub(out[i].At)/step)
		if at >= 0 && at < len(s.Counts) && !s.Last.IsZero() {
			f := s.Counts[at]
			out[i].Counts = Counts{SignUps: f[pipeline.SignedUp], Associated: f[pipeline.Associated], Skipped: f[pipeline.Skipped], Failed: f[pipeline.Failed]}
		}
	}
	return out
}

func delayOf(l pipeline.Lags, classes bool) Delay {
	d := Delay{Users: l.N(), P50: l.Quantile(0.5).Seconds(), P99: l.Quantile(0.99).Seconds(), Most: l.Most.Seconds()}
	if !classes || d.Users == 0 {
		return d
	}
	for i, upTo := range append(pipeline.LagBounds(), 0) {
		c := Class{UpTo: upTo.Seconds()}
		if i < len(l.Counts) {
			c.Users = l.Counts[i]
		}
		d.Classes = append(d.Classes, c)
	}
	return d
}

func days(d time.Duration) int {
	if d < 0 {
		return int(d/day) - 1
	}
	return int(d / day)
}

// From when on a person should look; the alerts of the infrastructure have the same.
const (
	quiet       = 15 * time.Minute // without a run
	behind      = time.Hour        // a watermark
	waitingLong = time.Hour        // a user
	censusOld   = 2 * day
	endsSoon    = 30 // days
)

// warn finds what a person should look at.
func (r *Report) warn() {
	s := r.Status
	bad := func(about, format string, args ...any) {
		r.Warnings = append(r.Warnings, Warning{"bad", about, fmt.Sprintf(format, args...)})
	}
	look := func(about, format string, args ...any) {
		r.Warnings = append(r.Warnings, Warning{"look", about, fmt.Sprintf(format, args...)})
	}
	if s.Since.IsZero() {
		look("runs", "There was no run yet. The first one comes with the timer; until then there is nothing to show.")
		return
	}
	switch {
	case s.Run != nil && s.Run.Died:
		bad("runs", "Run %s died at work: its process was killed. The next one takes over what it has left.", s.Run.Owner)
	case s.Run != nil:
	case s.Last == nil:
		look("runs", "No run has come to its end yet.")
	case r.Now.Sub(s.Last.Ended) > quiet:
		bad("runs", "No run has ended for %s: the timer has stopped, or every run fails. Nobody who signs up is brought anywhere.", roughly(r.Now.Sub(s.Last.Ended)))
	}
	if len(r.Runs) > 0 && r.Runs[0].Trouble != "" {
		bad("runs", "The last run could not do its job: %s.", r.Runs[0].Trouble)
	}
	for _, d := range s.Detectors {
		if lag := r.Now.Sub(d.Watermark); d.Watermark.IsZero() {
			look("detector "+d.Name, "It has not been read yet.")
		} else if lag > behind {
			bad("detector "+d.Name, "It has been read up to %s ago: whom only it shows comes late.", roughly(lag))
		}
		if n := len(d.Gaps); n > 0 {
			look("detector "+d.Name, "%d %s of its log could not be read, from %s on; the directory is read instead.", n, plural(n, "range", "ranges"), stamp(d.Gaps[0].From))
		}
	}
	for _, d := range r.Destinations {
		if b := d.Breaker; b != nil && !d.Removed {
			bad("destination "+d.Name, "Left alone since %s, after %s; the next try is at %s.", stamp(b.Since), b.Code, stamp(b.Until))
		}
	}
	if n := r.Totals.Day.Failed; n > 0 {
		bad("users", "%d %s in the last day: whoever failed is not tried again before a replay.", n, plural(n, "user has failed", "users have failed"))
	}
	if u := s.Longest; u != nil && r.Now.Sub(u.SignedUp) > waitingLong {
		look("users", "A user has waited for %s since the sign-up, and is not settled.", roughly(r.Now.Sub(u.SignedUp)))
	}
	r.warnOfProof(bad, look)
	slices.SortStableFunc(r.Warnings, func(a, b Warning) int { return cmp.Compare(a.Level, b.Level) }) // bad, look
}

// warnOfProof is about the census and the certificate.
func (r *Report) warnOfProof(bad, look func(about, format string, args ...any)) {
	switch c := r.Status.Census; {
	case c == nil && r.Now.Sub(r.Counted) > censusOld && !r.Counted.IsZero():
		look("census", "None has come to its end: nothing proves that everyone is in the ledger.")
	case c == nil:
	case r.Now.Sub(c.Ended) > censusOld:
		look("census", "The last one ended %s ago: nothing proves that everyone since is in the ledger.", roughly(r.Now.Sub(c.Ended)))
	case c.Missing > 0:
		bad("census", "It found %d %s that no detector has shown. They are taken in; why they were missed matters.", c.Missing, plural(c.Missing, "user", "users"))
	}
	switch c := r.Certificate; {
	case c == nil:
	case c.Left < 0:
		bad("certificate", "It ended on %s: the tenant lets nobody in by it.", c.NotAfter.UTC().Format(time.DateOnly))
	case c.Left < endsSoon:
		look("certificate", "It ends in %d days, on %s.", c.Left, c.NotAfter.UTC().Format(time.DateOnly))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
