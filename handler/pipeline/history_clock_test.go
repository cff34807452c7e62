package pipeline

import (
	"testing"
	"time"
)

// TestAHistoryOfAWrongClockHeals: one run whose clock was a year ahead must not hide what comes until then.
func TestAHistoryOfAWrongClockHeals(t *testing.T) {
	now := time.Date(2026, 8, 20, 14, 30, 1, 0, time.UTC)
	var lags Lags
	lags.Add(time.Minute)
	var h History
	count := func(at time.Time) {
		all := []hourFlow{{at.Truncate(time.Hour), Flow{1, 1, 0, 0}}}
		h.Hours.add(all, at, time.Hour, historyHours)
		h.Days.add(all, at, 24*time.Hour, historyDays)
		h.addDelays(lags, at)
	}
	for _, wrong := range []time.Duration{365 * 24 * time.Hour, 3 * 24 * time.Hour} {
		h = History{}
		count(now.Add(-2 * time.Hour))
		count(now.Add(wrong))
		for i := range 3 {
			count(now.Add(time.Duration(i) * time.Minute))
		}
		for name, s := range map[string]Series{"hours": h.Hours, "days": h.Days} {
			if got := s.Counts[len(s.Counts)-1]; s.Last.After(now) || got[SignedUp] < 3 {
				t.Errorf("%v, %s: the latest is of %v and has %v, want three users or more", wrong, name, s.Last, got)
			}
		}
		if n := len(h.Delays); n == 0 || !h.Delays[n-1].Day.Equal(now.Truncate(24*time.Hour)) || h.Delays[n-1].Lags.N() < 3 {
			t.Errorf("%v: the delays are %+v", wrong, h.Delays)
		}
		if n := len(h.Hours.Counts); n != historyHours {
			t.Errorf("%v: %d hours", wrong, n)
		}
	}

	// Two machines that differ by seconds at a full hour take nothing away.
	h = History{}
	count(now.Truncate(24 * time.Hour).Add(time.Second))
	count(now.Truncate(24 * time.Hour).Add(-time.Second))
	if a, b := h.Hours.Counts[historyHours-1], h.Hours.Counts[historyHours-2]; a[SignedUp] != 1 || b[SignedUp] != 1 {
		t.Errorf("got %v and %v", a, b)
	}
	if h.Delays[0].Lags.N() != 2 {
		t.Errorf("got delays %+v", h.Delays)
	}
}
