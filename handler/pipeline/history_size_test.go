package pipeline

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fullHistory has as much of everything as there can be, for so many destinations.
func fullHistory(destinations int) History {
	now := time.Date(2026, 8, 20, 14, 30, 1, 123456789, time.UTC)
	most := Flow{1_000_000, 1_000_000, 1_000_000, 1_000_000}
	var lags Lags
	for range 100_000 {
		for _, b := range lagBounds {
			lags.Add(b)
		}
	}
	h := History{Since: now, Hours: Series{Last: now.Truncate(time.Hour)}, Days: Series{Last: now.Truncate(24 * time.Hour)}, Certificate: &CertificateDates{NotBefore: now, NotAfter: now}}
	for range historyHours {
		h.Hours.Counts = append(h.Hours.Counts, most)
	}
	for range historyDays {
		h.Days.Counts = append(h.Days.Counts, most)
	}
	for range delayDays {
		h.Delays = append(h.Delays, DayDelays{Day: now.Truncate(24 * time.Hour), Lags: lags})
	}
	for i := range destinations {
		h.Destinations = append(h.Destinations, DestinationDelays{Name: fmt.Sprintf("%s%02d", strings.Repeat("d", 28), i), Recent: recent{lags, lags}})
	}
	for range historyRuns {
		r := RunRecord{Run: "20260820T143001-12345678", Started: now, Ended: now, From: now, To: now, Users: 100_000, Associated: 1_000_000, Skipped: 1_000_000, Failed: 1_000_000, Trouble: "no-detector", Before: 100_000}
		for _, name := range []string{"audit", "directory", "signUps"} {
			r.Detectors = append(r.Detectors, DetectorRecord{Name: name, Events: 1_000_000, New: 1_000_000, Trouble: "service-unavailable"})
		}
		h.Runs = append(h.Runs, r)
	}
	return h
}

// TestHistoryKeepsRunsHoweverManyDestinationsThereAre, also when it has been cut before.
func TestHistoryKeepsRunsHoweverManyDestinationsThereAre(t *testing.T) {
	h := fullHistory(400)
	for range 20 {
		body, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		if h = (History{}); json.Unmarshal(body, &h) != nil || len(h.Runs) < fewRuns {
			t.Fatalf("%d runs are left", len(h.Runs))
		}
		next := fullHistory(400)
		h.Runs, h.Destinations = append(next.Runs[:1], h.Runs...), next.Destinations
	}
}

func TestHistoryFitsIntoANote(t *testing.T) {
	for _, c := range []struct{ destinations, runs int }{{0, 5}, {12, 5}, {60, 5}, {1000, 5}} {
		body, err := fullHistory(c.destinations).encode()
		if err != nil || len(body) > historyBytes {
			t.Errorf("%d destinations: %d bytes, %v", c.destinations, len(body), err)
			continue
		}
		var back History
		if err := json.Unmarshal(body, &back); err != nil || len(back.Hours.Counts) != historyHours || len(back.Days.Counts) != historyDays || len(back.Runs) < c.runs {
			t.Errorf("%d destinations: %v; %d hours, %d days, %d runs are left", c.destinations, err, len(back.Hours.Counts), len(back.Days.Counts), len(back.Runs))
		}
	}
}

// The hour of a clock that is set back by some minutes may come twice.
func TestASeriesStandsAClockThatIsSetBack(t *testing.T) {
	var s Series
	ten := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	s.add([]hourFlow{{ten, Flow{1}}}, ten, time.Hour, 24)
	nine := ten.Add(-time.Hour)
	s.add([]hourFlow{{nine, Flow{1}}, {ten, Flow{1}}, {ten.Add(time.Hour), Flow{1}}}, nine, time.Hour, 24)
	if !s.Last.Equal(ten) || s.Counts[23] != (Flow{3}) || s.Counts[22] != (Flow{1}) {
		t.Errorf("got %+v", s)
	}
}
