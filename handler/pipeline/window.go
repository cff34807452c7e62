package pipeline

import (
	"time"

	"signup-sync/handler/signup"
)

const (
	maxSlice = time.Hour
	minSlice = time.Minute
)

// mark is the note of one detector: how far it has been read for certain, and what of that could not be.
type mark struct {
	Watermark time.Time       `json:"watermark"`       // all that this detector showed before it is in the ledger
	Slice     time.Duration   `json:"slice,omitempty"` // how much is read at once, when an hour was too much
	Gaps      []signup.Window `json:"gaps,omitempty"`  // what the log no longer had; read from the directory instead
}

// window is what a detector has to read now: from the watermark (or from the last run's start, if the host is late and
// names an earlier one) less the overlap, up to now. The host's times are hints: one that lies before since or in the
// future is ignored. What the log no longer has, by its retention, is cut off and returned as the gap.
func (m mark) window(now, since time.Time, overlap, retention time.Duration, t Trigger) (w, gap signup.Window) {
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
	if retention > 0 {
		if oldest := now.Add(-retention); from.Before(oldest) {
			// What was read before is no gap, whatever the overlap.
			gap = signup.Window{From: later(from, m.Watermark), To: oldest}
			from = oldest
		}
	}
	return signup.Window{From: from, To: now}, gap
}

// cut cuts w into pieces of at most step, oldest first.
func cut(w signup.Window, step time.Duration) []signup.Window {
	if step <= 0 || step > maxSlice {
		step = maxSlice
	}
	var out []signup.Window
	for from := w.From; from.Before(w.To); from = from.Add(step) {
		to := from.Add(step)
		if to.After(w.To) {
			to = w.To
		}
		out = append(out, signup.Window{From: from, To: to})
	}
	return out
}

// advance moves the watermark after a slice was read to its last page and recorded; served is the service's own time,
// which bounds what it can have shown. It never moves back.
func (m mark) advance(slice signup.Window, served time.Time) mark {
	to := slice.To
	if !served.IsZero() && served.Before(to) {
		to = served
	}
	if to.After(m.Watermark) {
		m.Watermark = to
	}
	if m.Slice != 0 {
		m.Slice *= 2
		if m.Slice >= maxSlice {
			m.Slice = 0
		}
	}
	return m
}

// halve makes the slices smaller after one could not be read in time.
func (m mark) halve() mark {
	if m.Slice == 0 {
		m.Slice = maxSlice
	}
	m.Slice = max(m.Slice/2, minSlice)
	return m
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
