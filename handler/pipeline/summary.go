package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// Summary is what one run did; it is the invocation's answer, and stands in the ledger beside the run lease.
type Summary struct {
	Run          string               `json:"run"`
	Started      time.Time            `json:"started"`
	Ended        time.Time            `json:"ended"`
	PastDue      bool                 `json:"pastDue,omitempty"`
	Busy         bool                 `json:"busy,omitempty"` // another run holds the lease: nothing was done
	Detectors    []DetectorSummary    `json:"detectors,omitempty"`
	Users        int                  `json:"users"` // settled, for now or for good
	Signups      []OriginSummary      `json:"signups,omitempty"`
	Destinations []DestinationSummary `json:"destinations,omitempty"`

	fresh int // users taken from memory
}

// OriginSummary counts users whose origin this run was the first to tell; whose origin was unknown until then was counted
// as that before.
type OriginSummary struct {
	Origin   signup.Origin `json:"origin"`
	Detector string        `json:"detector"` // which saw them first
	Users    int           `json:"users"`
}

// DetectorSummary is what one detector showed in a run.
type DetectorSummary struct {
	Name      string    `json:"name"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Watermark time.Time `json:"watermark"`
	Slices    int       `json:"slices"` // read to the last page
	Events    int       `json:"events"`
	New       int       `json:"new"`              // users seen here first, or only in the directory while a gap was closed
	Also      int       `json:"also,omitempty"`   // users seen here after another detector, as far as that is known
	LagP50    float64   `json:"lagP50,omitempty"` // seconds from the sign-up until it was shown, of those two; see Sightings
	LagP99    float64   `json:"lagP99,omitempty"`
	Lags      Lags      `json:"lags,omitzero"` // all of them
	Gaps      int       `json:"gaps,omitempty"`
	Trouble   string    `json:"trouble,omitempty"` // the code of what kept it from being read to the end
}

// DestinationSummary counts what became of associations in a run; the profile is one of them.
type DestinationSummary struct {
	Name       string `json:"name"`
	Associated int    `json:"associated,omitempty"`
	Skipped    int    `json:"skipped,omitempty"`
	Failed     int    `json:"failed,omitempty"`
	Pending    int    `json:"pending,omitempty"` // tried, to be tried again

	Throttled int    `json:"throttled,omitempty"` // turns that were answered with throttling
	Breaker   string `json:"breaker,omitempty"`   // at the end: "open", "half-open"; "" = closed

	LagP50 float64 `json:"lagP50,omitempty"` // seconds from the sign-up until associated; replayed, backfilled and missed users aside
	LagP99 float64 `json:"lagP99,omitempty"`
	Lags   Lags    `json:"lags,omitzero"` // all of them
}

// add counts one settled row.
func (s *Summary) add(c change) {
	s.Users++
	if told := c.after.Origin; told != "" && c.before.Origin != told {
		s.signups(told, c.after.Detector).Users++
	}
	for i, a := range c.after.Associations {
		before := c.before.Associations[i]
		if before.State != signup.Pending {
			continue
		}
		d := s.destination(a.Destination)
		switch a.State {
		case signup.Associated:
			d.Associated++
			if !c.after.Unsure && a.Opened.IsZero() { // otherwise the delay is not the destination's, nor ours
				d.Lags.Add(a.Settled.Sub(c.after.At))
				d.LagP50, d.LagP99 = seconds(d.Lags.Quantile(0.5)), seconds(d.Lags.Quantile(0.99))
			}
		case signup.Skipped:
			d.Skipped++
		case signup.Failed:
			d.Failed++
		default:
			d.Pending++
		}
	}
}

// detected takes in what a detector has shown in a round. Whether it could be read to the end, and what is left, the latest
// round says; how far it is read is known also where that one could not even look.
func (s *Summary) detected(d DetectorSummary) {
	for i := range s.Detectors {
		if before := &s.Detectors[i]; before.Name == d.Name {
			if d.From.IsZero() || !before.From.IsZero() && before.From.Before(d.From) {
				d.From = before.From
			}
			if d.Watermark.IsZero() {
				d.Watermark, d.Gaps = before.Watermark, before.Gaps
			}
			d.To, d.Slices, d.Events = later(d.To, before.To), d.Slices+before.Slices, d.Events+before.Events
			d.New, d.Also = d.New+before.New, d.Also+before.Also
			d.Lags.Merge(before.Lags)
			d.LagP50, d.LagP99 = seconds(d.Lags.Quantile(0.5)), seconds(d.Lags.Quantile(0.99))
			*before = d
			return
		}
	}
	s.Detectors = append(s.Detectors, d)
}

func (s *Summary) signups(o signup.Origin, detector string) *OriginSummary {
	for i := range s.Signups {
		if s.Signups[i].Origin == o && s.Signups[i].Detector == detector {
			return &s.Signups[i]
		}
	}
	s.Signups = append(s.Signups, OriginSummary{Origin: o, Detector: detector})
	return &s.Signups[len(s.Signups)-1]
}

// short is the summary as it stands in the lease, which has no room for a hundred destinations' lags.
func (s Summary) short() *Summary {
	s.Destinations = slices.Clone(s.Destinations)
	for i := range s.Destinations {
		s.Destinations[i].Lags = Lags{}
	}
	return &s
}

func (s *Summary) destination(name string) *DestinationSummary {
	for i := range s.Destinations {
		if s.Destinations[i].Name == name {
			return &s.Destinations[i]
		}
	}
	s.Destinations = append(s.Destinations, DestinationSummary{Name: name})
	return &s.Destinations[len(s.Destinations)-1]
}

// newUsers is how many users the run saw first.
func (s *Summary) newUsers() int {
	n := 0
	for _, d := range s.Detectors {
		n += d.New
	}
	return n
}

func (d DetectorSummary) String() string {
	upTo := "not read yet"
	if !d.Watermark.IsZero() {
		upTo = "up to " + d.Watermark.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s: %d events, %d new, %d seen before, %s", d.Name, d.Events, d.New, d.Also, upTo)
}

func (d DestinationSummary) String() string {
	return fmt.Sprintf("%s: %d associated, %d skipped, %d failed, %d pending", d.Name, d.Associated, d.Skipped, d.Failed, d.Pending)
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Code != "" {
		return e.Code
	}
	return signup.ClassOf(err).String()
}

// detailOf is what an error says beside its code, if it is ours.
func detailOf(err error) string {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e.Detail
	}
	return ""
}

func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e.RetryAfter
	}
	return 0
}
