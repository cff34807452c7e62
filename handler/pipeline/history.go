package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	historyNote = "history"
	// historyHours, historyDays, delayDays and historyRuns bound the note: full of the largest numbers it is below what a
	// note may have; encode drops the oldest runs where it is not, down to a few.
	historyHours = 7 * 24
	historyDays  = 90
	delayDays    = 7
	historyRuns  = 40
	fewRuns      = 5
	// historyBytes is what a note of the ledger holds.
	historyBytes = 30_000
)

// History is what runs have done lately; its size does not grow. It is written at the end of a run that did something:
// what a process had counted that was killed in its run is lost, though not what it did.
type History struct {
	Since        time.Time           `json:"since,omitzero"`         // nothing before is counted; zero = nothing is
	Hours        Series              `json:"hours"`                  // of the last seven days
	Days         Series              `json:"days"`                   // of the last ninety, in UTC
	Delays       []DayDelays         `json:"delays,omitempty"`       // of the last seven days, oldest first
	Destinations []DestinationDelays `json:"destinations,omitempty"` // those that have brought somebody
	Runs         []RunRecord         `json:"runs,omitempty"`         // those that did something, latest first
	Certificate  *CertificateDates   `json:"certificate,omitempty"`  // by which the app has proved itself last; nil = by none
}

// Series counts by equal times, oldest first.
type Series struct {
	Last   time.Time `json:"last,omitzero"` // when the latest of them begins
	Counts []Flow    `json:"counts,omitempty"`
}

// Flow is how many users signed up, by the time of the sign-up, and how many were settled as a whole, by the time of
// that: associated, skipped or failed. Who is reopened is settled once more.
type Flow [4]int

// The places in a Flow.
const (
	SignedUp = iota
	Associated
	Skipped
	Failed
)

// DayDelays are how long users took from the sign-up until they were associated as a whole, by the day of that. Whoever
// was replayed, backfilled or missed is left out, as in a Summary.
type DayDelays struct {
	Day  time.Time `json:"day"`
	Lags Lags      `json:"lags"`
}

// DestinationDelays are the same of one destination, or the profile, and its latest thousand or two.
type DestinationDelays struct {
	Name   string `json:"name"`
	Recent recent `json:"recent"`
}

// Lags are the latest thousand or two.
func (d DestinationDelays) Lags() Lags { return d.Recent.all() }

// RunRecord is one run, in short.
type RunRecord struct {
	Run        string           `json:"run"`
	Started    time.Time        `json:"started,omitzero"`
	Ended      time.Time        `json:"ended,omitzero"` // zero = it died: of what it did nothing is counted
	From       time.Time        `json:"from,omitzero"`  // the window, of all detectors
	To         time.Time        `json:"to,omitzero"`
	Detectors  []DetectorRecord `json:"detectors,omitempty"`
	Users      int              `json:"users"` // settled, for now or for good
	Associated int              `json:"associated,omitempty"`
	Skipped    int              `json:"skipped,omitempty"`
	Failed     int              `json:"failed,omitempty"`
	Trouble    string           `json:"trouble,omitempty"` // why it could not do its job: no-detector, lease-lost, ledger
	Before     int              `json:"before,omitempty"`  // so many runs right before had the same trouble, and nothing else
}

// DetectorRecord is what a detector showed in a run.
type DetectorRecord struct {
	Name    string `json:"name"`
	Events  int    `json:"events,omitempty"`
	New     int    `json:"new,omitempty"`
	Trouble string `json:"trouble,omitempty"` // the code of what kept it from being read to the end
}

// CertificateDates say from when to when a certificate is valid.
type CertificateDates struct {
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// History reads what runs have done lately.
func (e *Engine) History(ctx context.Context) (History, error) {
	var h History
	_, err := e.readNote(ctx, historyNote, &h)
	return h, err
}

// flows are what a run counts for the history.
type flows struct {
	hours []hourFlow // in no order
	lags  Lags       // from the sign-up until associated as a whole
	died  string     // the run whose lease this one has found ended
}

type hourFlow struct {
	hour time.Time
	Flow
}

func (t *flows) add(at time.Time, what int) {
	hour := at.UTC().Truncate(time.Hour)
	i := slices.IndexFunc(t.hours, func(h hourFlow) bool { return h.hour.Equal(hour) })
	if i < 0 {
		i, t.hours = len(t.hours), append(t.hours, hourFlow{hour: hour})
	}
	t.hours[i].Flow[what]++
}

// signedUp counts rows that were just made, by the time of the sign-up.
func (r *run) signedUp(rows []signup.Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if r.start.Sub(row.At) < historyDays*24*time.Hour { // of who is older nothing is kept
			r.flows.add(row.At, SignedUp)
		}
	}
}

// settled counts one row that was written.
func (t *flows) settled(c change) {
	if was, _ := c.before.State(); was != signup.Pending {
		return
	}
	var settled time.Time
	fresh := !c.after.Unsure
	for _, a := range c.after.Associations {
		settled = later(settled, a.Settled)
		fresh = fresh && a.Opened.IsZero()
	}
	switch is, _ := c.after.State(); is {
	case signup.Associated:
		if t.add(settled, Associated); fresh {
			t.lags.Add(settled.Sub(c.after.At))
		}
	case signup.Skipped:
		t.add(settled, Skipped)
	case signup.Failed:
		t.add(settled, Failed)
	}
}

// add counts into the series, of keep times of step each, of which the latest is now's. What is newer counts as now's, what is
// older than the first is left out, and what a run has counted whose clock was ahead by more than a step.
func (s *Series) add(hours []hourFlow, now time.Time, step time.Duration, keep int) {
	last := now.UTC().Truncate(step)
	if s.Last.IsZero() || len(s.Counts) != keep {
		s.Last, s.Counts = last, make([]Flow, keep)
	}
	switch n := int(last.Sub(s.Last) / step); {
	case n > 0:
		s.Counts = append(s.Counts[min(n, keep):], make([]Flow, min(n, keep))...)
		s.Last = last
	case n < -1: // a clock was wrong; by one step two machines differ at its turn
		n = min(-n, keep)
		s.Counts = append(make([]Flow, n), s.Counts[:keep-n]...)
		s.Last = last
	}
	for _, h := range hours {
		i := keep - 1 - int(s.Last.Sub(h.hour.Truncate(step))/step)
		if i = min(i, keep-1); i >= 0 {
			for what, n := range h.Flow {
				s.Counts[i][what] += n
			}
		}
	}
}

// saveHistory adds this run to the history, if it did something. The lease is free by then: that the next run has been
// quicker is no reason to lose the counts.
func (r *run) saveHistory(ctx context.Context) error {
	record := r.record()
	certificate := r.certificate()
	renewed := certificate != nil && (r.shown == nil || *certificate != *r.shown)
	if !record.worthKeeping() && len(r.flows.hours) == 0 && r.flows.died == "" && !renewed {
		return nil
	}
	var err error
	for range 3 {
		var n signup.Note
		if n, err = r.Ledger.Note(ctx, historyNote); err != nil {
			return err
		}
		var h History
		if n.Name = historyNote; decodeNote(n, &h) != nil {
			h = History{} // of another version: it begins anew
		}
		if slices.ContainsFunc(h.Runs, func(written RunRecord) bool { return written.Run == r.id }) {
			err = nil // the answer was lost, and the next run has written since
			break
		}
		if n.Body, err = h.plus(r, record, certificate).encode(); err != nil {
			return err
		}
		if _, err = r.Ledger.PutNote(ctx, n); !errors.Is(err, signup.ErrConflict) {
			break
		}
	}
	if err == nil {
		r.shown = certificate
	}
	return err
}

// certificate is the one that the app has proved itself by last; nil = by none, or it is not known.
func (r *run) certificate() *CertificateDates {
	if r.Certificate == nil {
		return nil
	}
	from, until := r.Certificate()
	if until.IsZero() {
		return nil
	}
	return &CertificateDates{NotBefore: from, NotAfter: until}
}

// plus is the history with what the run has counted.
func (h History) plus(r *run, record RunRecord, certificate *CertificateDates) History {
	now := r.sum.Ended
	if h.Since.IsZero() {
		h.Since = r.start
	}
	h.Hours.add(r.flows.hours, now, time.Hour, historyHours)
	h.Days.add(r.flows.hours, now, 24*time.Hour, historyDays)
	h.addDelays(r.flows.lags, now)
	for _, d := range r.sum.Destinations {
		if d.Lags.N() > 0 {
			i := slices.IndexFunc(h.Destinations, func(h DestinationDelays) bool { return h.Name == d.Name })
			if i < 0 {
				i, h.Destinations = len(h.Destinations), append(h.Destinations, DestinationDelays{Name: d.Name})
			}
			h.Destinations[i].Recent = h.Destinations[i].Recent.plus(d.Lags)
		}
	}
	h.Destinations = slices.DeleteFunc(h.Destinations, func(d DestinationDelays) bool { return !slices.Contains(r.gateNames(), d.Name) })
	if dead := r.flows.died; dead != "" {
		h.Runs = slices.Insert(h.Runs, 0, RunRecord{Run: dead, Started: startOf(dead)})
	}
	if len(h.Runs) > 0 && record.repeats(h.Runs[0]) {
		record.Before = h.Runs[0].Before + 1
		h.Runs = h.Runs[1:]
	}
	h.Runs = slices.Insert(h.Runs, 0, record)
	h.Runs = h.Runs[:min(len(h.Runs), historyRuns)]
	if certificate != nil {
		h.Certificate = certificate
	} else if r.Certificate == nil {
		h.Certificate = nil
	}
	return h
}

func (h *History) addDelays(lags Lags, now time.Time) {
	day := now.UTC().Truncate(24 * time.Hour)
	h.Delays = slices.DeleteFunc(h.Delays, func(d DayDelays) bool { return d.Day.Sub(day) > 24*time.Hour }) // a clock was wrong
	if n := len(h.Delays); n == 0 || h.Delays[n-1].Day.Before(day) {
		h.Delays = append(h.Delays, DayDelays{Day: day})
	}
	h.Delays[len(h.Delays)-1].Lags.Merge(lags)
	h.Delays = slices.DeleteFunc(h.Delays, func(d DayDelays) bool { return day.Sub(d.Day) >= delayDays*24*time.Hour })
}

// Record is the run in short, without what troubled it as a whole.
func (sum Summary) Record() RunRecord {
	s := RunRecord{Run: sum.Run, Started: sum.Started.Truncate(time.Second), Ended: sum.Ended.Truncate(time.Millisecond), Users: sum.Users}
	for _, d := range sum.Detectors {
		s.Detectors = append(s.Detectors, DetectorRecord{Name: d.Name, Events: d.Events, New: d.New, Trouble: d.Trouble})
		if s.From.IsZero() || !d.From.IsZero() && d.From.Before(s.From) {
			s.From = d.From.Truncate(time.Second)
		}
		s.To = later(s.To, d.To.Truncate(time.Second))
	}
	for _, d := range sum.Destinations {
		s.Associated, s.Skipped, s.Failed = s.Associated+d.Associated, s.Skipped+d.Skipped, s.Failed+d.Failed
	}
	return s
}

// record is this run, in short.
func (r *run) record() RunRecord {
	s := r.sum.Record()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch err := errors.Join(r.bad, r.unseen); {
	case err == nil:
	case errors.Is(err, ErrLeaseLost):
		s.Trouble = "lease-lost"
	case errors.Is(err, ErrNoDetector):
		s.Trouble = "no-detector"
	default:
		s.Trouble = "ledger"
	}
	return s
}

// worthKeeping reports that the run did something, or was kept from it.
func (s RunRecord) worthKeeping() bool {
	return s.Users > 0 || s.Trouble != "" || slices.ContainsFunc(s.Detectors, func(d DetectorRecord) bool { return d.New > 0 || d.Trouble != "" })
}

// repeats reports that the run had the same trouble as the one before, and neither did anything.
func (s RunRecord) repeats(before RunRecord) bool {
	same := func(a, b DetectorRecord) bool { return a.Name == b.Name && a.Trouble == b.Trouble && a.New+b.New == 0 }
	trouble := s.Trouble != "" || slices.ContainsFunc(s.Detectors, func(d DetectorRecord) bool { return d.Trouble != "" })
	return trouble && s.Trouble == before.Trouble && s.Users+before.Users == 0 && slices.EqualFunc(s.Detectors, before.Detectors, same)
}

// startOf is when a run began, by its id; zero if it is none.
func startOf(run string) time.Time {
	const layout = "20060102T150405"
	t, _ := time.Parse(layout, run[:min(len(run), len(layout))])
	return t
}

// encode is the history as it is stored: with as many runs as fit, and a few of them before the delays of hundreds of destinations.
func (h History) encode() ([]byte, error) {
	for {
		body, err := json.Marshal(h)
		if err != nil || len(body) <= historyBytes {
			return body, err
		}
		switch {
		case len(h.Runs) > fewRuns:
			h.Runs = h.Runs[:max(len(h.Runs)/2, fewRuns)]
		case len(h.Destinations) > 0:
			h.Destinations = nil
		case len(h.Runs) > 0:
			h.Runs = h.Runs[:len(h.Runs)/2]
		default:
			return nil, fmt.Errorf("encode the history: it has %d bytes without a run", len(body))
		}
	}
}
