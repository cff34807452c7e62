package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/status"
)

// hostile is a text that whoever can write to the ledger, or a destination that is asked, might bring into it.
const hostile = `"'></style></title></svg><script>alert(1)</script><img src=x onerror=alert(1)>{{.Code}}` + "\r\nSet-Cookie: a=b"

// TestTextsOfTheLedgerStayTexts: nothing that stands in the ledger becomes a part of the page itself.
func TestTextsOfTheLedgerStayTexts(t *testing.T) {
	row := signup.NewRow(signup.Event{User: someone, Kind: hostile, At: now}, hostile, []string{hostile}, now).Intend(hostile, now)
	row.Evidence = hostile
	row = row.Settle(now, []signup.Outcome{{Destination: hostile, Err: &signup.Error{Class: signup.Permanent, Code: hostile, Detail: hostile}}}, func(d time.Duration) time.Duration { return d })
	s := &source{
		status: pipeline.Status{Now: now, Since: now.Add(-time.Hour), Run: &pipeline.LeaseStatus{Owner: hostile}, Longest: &pipeline.Unsettled{User: hostile, Destinations: []string{hostile}},
			Detectors:    []pipeline.DetectorStatus{{Name: hostile}},
			Destinations: []pipeline.DestinationStatus{{Name: hostile, Breaker: &pipeline.BreakerStatus{Code: hostile}}}, Census: &pipeline.CensusStatus{ID: hostile}},
		history: pipeline.History{Runs: []pipeline.RunRecord{{Run: hostile, Trouble: hostile, Detectors: []pipeline.DetectorRecord{{Name: hostile, Trouble: hostile}}}}},
		user:    pipeline.Explanation{Row: &row, AtWork: hostile},
	}
	page, _ := newPage(s)
	w := get(page, "GET", "/api/status?user="+someone+"&code="+"%22%3E%3Cscript%3E")
	body := w.Body.String()
	if w.Code != 200 || strings.Count(body, "alert(1)") < 15 {
		t.Fatalf("got %d, with the text %d times:\n%s", w.Code, strings.Count(body, "alert(1)"), body)
	}
	for _, bad := range []string{"<script", "<img", "</svg><", "'></style"} {
		if strings.Contains(body, bad) {
			t.Errorf("%q stands in the page as it came:\n%s", bad, body)
		}
	}
	if n := strings.Count(body, "</style>"); n != 1 {
		t.Errorf("%d styles end", n)
	}
	for name, values := range w.Header() {
		if strings.ContainsAny(strings.Join(values, ""), "\r\n") || name == "Set-Cookie" {
			t.Errorf("header %s is %q", name, values)
		}
	}
}

// TestWhoLeavesSpoilsThePageForNobody: the ledger was well, and only whoever asked first has gone.
func TestWhoLeavesSpoilsThePageForNobody(t *testing.T) {
	page, log := newPage(&source{status: pipeline.Status{Now: now}})
	gone, leave := context.WithCancel(t.Context())
	leave()
	page.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", "/api/status", nil))
	if w := get(page, "GET", "/api/status"); w.Code != 200 {
		t.Errorf("whoever asks next gets %d; log: %s", w.Code, log)
	}
}

// noHistory is a source whose history cannot be read.
type noHistory struct{ *source }

func (noHistory) History(context.Context) (pipeline.History, error) {
	return pipeline.History{}, errors.New("decode the note history: invalid character")
}

// TestWithoutAHistoryThereIsTheRest: what is known of now is no worse for it, and nobody takes the empty plots for a quiet week.
func TestWithoutAHistoryThereIsTheRest(t *testing.T) {
	var log strings.Builder
	s := &source{status: pipeline.Status{Now: now, Since: now.Add(-time.Hour), Backlog: pipeline.Backlog{Due: 1234}}}
	page := status.New(noHistory{s}, logTo(&log))
	for range 2 {
		w := get(page, "GET", "/api/status")
		if body := w.Body.String(); w.Code != 200 || !strings.Contains(body, "1,234") || !strings.Contains(body, "<b>history</b>") || strings.Contains(body, "invalid character") {
			t.Errorf("got %d:\n%s", w.Code, body)
		}
	}
	var r status.Report
	w := get(page, "GET", "/api/status?format=json&user="+someone)
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != 200 || len(r.Warnings) == 0 || r.User == nil {
		t.Errorf("got %d %v %s", w.Code, err, w.Body)
	}
	if n := strings.Count(log.String(), "the status page cannot read the ledger"); n != 1 {
		t.Errorf("the log says %d times what is wrong, want once: it was read once\n%s", n, log.String())
	}
}

// TestARefusedConfigurationKeepsTheKey: the link by which it is asked again has it.
func TestARefusedConfigurationKeepsTheKey(t *testing.T) {
	if body := get(status.Refused(), "GET", "/api/status?code=a-key").Body.String(); !strings.Contains(body, `href="?code=a-key"`) {
		t.Errorf("reloading loses the key:\n%s", body)
	}
}

// TestNumbersWithoutSense: a note that somebody has written wrongly makes a wrong plot, and no endless one.
func TestNumbersWithoutSense(t *testing.T) {
	for _, n := range []int{math.MaxInt, math.MinInt, -1} {
		h := pipeline.History{Since: now, Hours: series(time.Hour, 168), Days: series(24*time.Hour, 90), Delays: []pipeline.DayDelays{{Day: now, Lags: pipeline.Lags{Counts: []int{n, n}, Most: time.Duration(n)}}}}
		h.Hours.Counts[3], h.Days.Counts[3] = pipeline.Flow{n, n, n, n}, pipeline.Flow{n, n, n, n}
		page, _ := newPage(&source{status: pipeline.Status{Now: now}, history: h})
		done := make(chan int, 1)
		go func() { done <- get(page, "GET", "/api/status").Code }()
		select {
		case code := <-done:
			if code != 200 {
				t.Errorf("%d: got %d", n, code)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d: the page takes for ever", n)
		}
	}
}

// TestHundredsOfDestinations: each of the hundred who wait, waits for nearly as many as a row can have.
func TestHundredsOfDestinations(t *testing.T) {
	w := newWorld(t)
	w.begun(now.Add(-time.Hour))
	var many []string
	for i := range 380 {
		many = append(many, fmt.Sprintf("destination-%03d", i))
	}
	w.engine.Destinations = nil
	for _, name := range many {
		w.engine.Destinations = append(w.engine.Destinations, pipeline.Destination{Name: name, Concurrency: 1})
	}
	var rows []signup.Row
	for n := range 100 {
		rows = append(rows, signup.NewRow(signup.Event{User: userID(n), Kind: signup.Created, At: now.Add(-time.Minute)}, "audit", many, now.Add(-time.Minute)))
	}
	if _, err := w.ledger.Insert(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	resp := get(w.page(), "GET", "/api/status")
	t.Logf("%v, %d bytes", time.Since(begun), resp.Body.Len())
	if resp.Code != 200 || strings.Count(resp.Body.String(), ">destination-") != 380 || resp.Body.Len() > 400_000 {
		t.Errorf("got %d, %d bytes", resp.Code, resp.Body.Len())
	}
}
