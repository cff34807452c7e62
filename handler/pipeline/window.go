package pipeline

import (
	"slices"
	"time"

	"signup-sync/handler/signup"
)

const (
	maxSlice = time.Hour
	minSlice = time.Second // the directory has no finer times
	// maxGaps bounds the note. One gap comes with each outage longer than the retention, so there is hardly ever a second.
	maxGaps = 50
	// skew is how far two clocks may differ without one of them being called wrong.
	skew = 5 * time.Minute
)

// mark is the note of one detector: how far it has been read for certain, what of that could not be, and what it has
// shown so far.
type mark struct {
	Watermark time.Time     `json:"watermark"`       // all that this detector showed before it is in the ledger
	Slice     time.Duration `json:"slice,omitempty"` // how much is read at once; 0 = maxSlice
	Rest      signup.Window `json:"rest,omitzero"`   // of a window that a run had no time for; it comes before the next window
	Gaps      []gap         `json:"gaps,omitempty"`  // what the log no longer had; read from the directory instead
	Seen      Sightings     `json:"seen,omitzero"`
	Recent    recent        `json:"recent,omitzero"`
	Warned    time.Time     `json:"warned,omitzero"` // when a person was told that it is late
}

// gap is a range that is to be read from the directory.
type gap struct {
	signup.Window
	Slice time.Duration `json:"slice,omitempty"`
}

// window is what a detector has to read now: the rest of the last window if there is one; else from the watermark (or
// from the last run's start, if the host is late and names an earlier one) less the overlap, up to now. The host's times
// are hints: one that lies before since or in the future is ignored. What the log no longer has, by its retention, is cut
// off and returned as the gap.
//
// A rest is read to its own end and no further, so that the next window begins an overlap before the time at which this
// one was begun, however long it took: what was late is looked for again.
func (m mark) window(now, since time.Time, overlap, retention time.Duration, t Trigger) (w, gap signup.Window) {
	oldest := time.Time{}
	if retention > 0 {
		oldest = now.Add(-retention)
	}
	if !m.Rest.Empty() && !m.Rest.To.After(now) && !m.Rest.From.Before(oldest) {
		return m.Rest, gap
	}
	from := since
	if !m.Watermark.IsZero() {
		from = m.Watermark
		if from.After(now) {
			from = now
		}
		if t.PastDue && t.Last.Year() > 1 && t.Last.Before(from) && !t.Last.Before(since) {
			from = t.Last
		}
		from = later(from.Add(-overlap), since)
	}
	if from.Before(oldest) {
		// What was read before is no gap, whatever the overlap.
		gap = signup.Window{From: later(from, m.Watermark), To: oldest}
		from = oldest
	}
	return signup.Window{From: from, To: now}, gap
}

// head is the first piece of w, of one step. What would be left of less than half a step is read with it: the window of every
// run is an overlap of an hour and the minute since, and would cost two reads and two notes, each minute and for each detector.
func head(w signup.Window, step time.Duration) signup.Window {
	if to := w.From.Add(step); w.To.Sub(to) >= step/2 {
		w.To = to
	}
	return w
}

// advance moves the watermark after a slice was read to its last page and recorded; served is the service's own time,
// which bounds what it can have shown. It never moves back, nor over what lies before the slice. The next slice is one of
// step.
func (m mark) advance(slice signup.Window, step time.Duration, served time.Time) mark {
	to := slice.To
	if !served.IsZero() && served.Before(to) {
		to = served
	}
	m.Slice = step
	if !to.After(slice.From) {
		return m
	}
	m.Watermark = later(m.Watermark, to)
	if m.Rest.From = to; m.Rest.Empty() {
		m.Rest = signup.Window{}
	}
	return m
}

// miss adds a gap, and moves the watermark over it.
func (m mark) miss(w signup.Window) mark {
	m.Watermark = later(m.Watermark, w.To)
	gaps := append(slices.Clone(m.Gaps), gap{Window: w})
	slices.SortFunc(gaps, func(a, b gap) int { return a.From.Compare(b.From) })
	m.Gaps = gaps[:1]
	for _, g := range gaps[1:] {
		// More than fit are joined with what is between them: to read that again costs time and nothing else.
		if last := &m.Gaps[len(m.Gaps)-1]; !g.From.After(last.To) || len(m.Gaps) == maxGaps {
			last.To = later(last.To, g.To)
		} else {
			m.Gaps = append(m.Gaps, g)
		}
	}
	return m
}

// fill takes off the first gap what was read of it; the next slice is one of step.
func (m mark) fill(slice signup.Window, step time.Duration) mark {
	m.Gaps = slices.Clone(m.Gaps)
	m.Gaps[0].Slice = step
	if m.Gaps[0].From = slice.To; m.Gaps[0].Empty() {
		m.Gaps = m.Gaps[1:]
	}
	return m
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
