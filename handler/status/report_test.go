package status_test

import (
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/status"
)

var update = flag.Bool("update", false, "write what is got over testdata")

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func logTo(b *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// TestReport holds the JSON, which machines read, against testdata; what is new there may be, what is gone breaks somebody.
func TestReport(t *testing.T) {
	for name, fill := range map[string]func(*world){
		"empty": func(*world) {},
		"one":   func(w *world) { w.one() },
		"busy":  func(w *world) { w.busy(2000) },
		"user":  func(w *world) { w.busy(60) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			fill(w)
			target := "/api/status?format=json"
			if name == "user" {
				target += "&user=" + string(userID(20))
			}
			resp := get(w.page(), "GET", target)
			if resp.Code != 200 {
				t.Fatalf("got %d %s", resp.Code, resp.Body)
			}
			var report status.Report
			if err := json.Unmarshal(resp.Body.Bytes(), &report); err != nil {
				t.Fatal(err)
			}
			// 168 hours and 90 days are said in short; counting them is another test's.
			report.Hours, report.Days = slices.DeleteFunc(report.Hours, idle)[:min(3, len(slices.DeleteFunc(report.Hours, idle)))], slices.DeleteFunc(report.Days, idle)[:min(3, len(slices.DeleteFunc(report.Days, idle)))]
			got, err := json.MarshalIndent(report, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("-want +got; if it is right, run go test ./handler/status -run TestReport -update:\n%s", diff)
			}
		})
	}
}

func idle(b status.Bucket) bool { return !b.Any() }

// TestThePageCostsTheSameWhateverThereIs: the ledger is asked as often with 100,000 settled users as with none.
func TestThePageCostsTheSameWhateverThereIs(t *testing.T) {
	t.Parallel()
	reads := map[int]int64{}
	for _, users := range []int{0, 1, 100_000} {
		w := worldOnDisk(t)
		if users > 0 {
			w.begun(now.Add(-time.Hour))
			w.settle(0, 1)
		}
		if users > 1 {
			w.multiply(users)
		}
		page := w.page()
		before := w.ledger.Counts()
		begun := time.Now()
		resp := get(page, "GET", "/api/status")
		took := time.Since(begun)
		after := w.ledger.Counts()
		reads[users] = after.Reads - before.Reads
		if after.Reads = before.Reads; after != before || resp.Code != 200 {
			t.Errorf("%d users: got %d, and the ledger was written to: %+v, before %+v", users, resp.Code, after, before)
		}
		t.Logf("%6d users: %d reads of the ledger, %d bytes, %v", users, reads[users], resp.Body.Len(), took)
		if took > 2*time.Second {
			t.Errorf("%d users: it took %v", users, took)
		}
	}
	if reads[0] != reads[1] || reads[1] != reads[100_000] || reads[0] == 0 {
		t.Errorf("got reads %v, want as many each time", reads)
	}
}

// TestABacklogIsCountedToAThousand, and no further: the page is asked for just when there is one.
func TestABacklogIsCountedToAThousand(t *testing.T) {
	cost := func(waiting int) (reads int64, body string) {
		w := newWorld(t)
		w.begun(now.Add(-time.Hour))
		w.wait(0, waiting, now.Add(-20*time.Hour))
		before := w.ledger.Counts().Reads
		body = get(w.page(), "GET", "/api/status").Body.String()
		return w.ledger.Counts().Reads - before, body
	}
	some, _ := cost(1100)
	many, body := cost(3000)
	if some != many {
		t.Errorf("with 1,100 who wait it reads %d times, with 3,000 %d times", some, many)
	}
	if !strings.Contains(body, "<dd>1,000+</dd>") || !strings.Contains(body, "Of the first thousand who wait; there are more.") {
		t.Error("it does not say that there are more")
	}
}

func TestWarnings(t *testing.T) {
	fine := func() (pipeline.Status, pipeline.History) {
		return pipeline.Status{Now: now, Since: now.AddDate(0, -1, 0), Last: &pipeline.Summary{Run: "r", Started: now.Add(-time.Minute), Ended: now.Add(-time.Minute)},
				Detectors: []pipeline.DetectorStatus{{Name: "audit", Watermark: now.Add(-time.Minute)}}, Destinations: []pipeline.DestinationStatus{{Name: "billing"}},
				Census: &pipeline.CensusStatus{ID: "c", Ended: now.Add(-time.Hour), Users: 3}},
			pipeline.History{Since: now.AddDate(0, -1, 0), Hours: series(time.Hour, 168), Certificate: &pipeline.CertificateDates{NotAfter: now.AddDate(0, 6, 0)}}
	}
	for name, c := range map[string]struct {
		spoil func(*pipeline.Status, *pipeline.History)
		want  string // level, about: the text's beginning
	}{
		"nothing":          {func(*pipeline.Status, *pipeline.History) {}, ""},
		"no run yet":       {func(s *pipeline.Status, h *pipeline.History) { *s, *h = pipeline.Status{Now: now}, pipeline.History{} }, "look runs: There was no run yet"},
		"no run has ended": {func(s *pipeline.Status, _ *pipeline.History) { s.Last = nil }, "look runs: No run has come to its end"},
		"no run for long":  {func(s *pipeline.Status, _ *pipeline.History) { s.Last.Ended = now.Add(-time.Hour) }, "bad runs: No run has ended for 60 min"},
		"but one is at work": {func(s *pipeline.Status, _ *pipeline.History) {
			s.Last.Ended, s.Run = now.Add(-time.Hour), &pipeline.LeaseStatus{Owner: "x"}
		}, ""},
		"a run that died": {func(s *pipeline.Status, _ *pipeline.History) { s.Run = &pipeline.LeaseStatus{Owner: "x", Died: true} }, "bad runs: Run x died"},
		"a run in vain": {func(_ *pipeline.Status, h *pipeline.History) {
			h.Runs = []pipeline.RunRecord{{Run: "r", Trouble: "no-detector"}}
		}, "bad runs: The last run could not do its job: no-detector"},
		"a run in vain, before": {func(_ *pipeline.Status, h *pipeline.History) {
			h.Runs = []pipeline.RunRecord{{Run: "before", Trouble: "no-detector"}}
		}, ""},
		"a detector behind":     {func(s *pipeline.Status, _ *pipeline.History) { s.Detectors[0].Watermark = now.Add(-3 * time.Hour) }, "bad detector audit: It has been read up to 3 h 0 min ago"},
		"a detector never read": {func(s *pipeline.Status, _ *pipeline.History) { s.Detectors[0].Watermark = time.Time{} }, "look detector audit: It has not been read"},
		"a gap": {func(s *pipeline.Status, _ *pipeline.History) {
			s.Detectors[0].Gaps = []signup.Window{{From: now, To: now}}
		}, "look detector audit: 1 range of its log"},
		"a breaker": {func(s *pipeline.Status, _ *pipeline.History) {
			s.Destinations[0].Breaker = &pipeline.BreakerStatus{Code: "unauthorized"}
		}, "bad destination billing: Left alone"},
		"… of one that is gone": {func(s *pipeline.Status, _ *pipeline.History) {
			s.Destinations[0] = pipeline.DestinationStatus{Removed: true, Breaker: &pipeline.BreakerStatus{}}
		}, ""},
		"who has failed": {func(_ *pipeline.Status, h *pipeline.History) { h.Hours.Counts[150][pipeline.Failed] = 2 }, "bad users: 2 users have failed"},
		"… long ago":     {func(_ *pipeline.Status, h *pipeline.History) { h.Hours.Counts[100][pipeline.Failed] = 2 }, ""},
		"who waits": {func(s *pipeline.Status, _ *pipeline.History) {
			s.Longest = &pipeline.Unsettled{SignedUp: now.Add(-2 * time.Hour)}
		}, "look users: A user has waited for 2 h 0 min"},
		"… not for long": {func(s *pipeline.Status, _ *pipeline.History) {
			s.Longest = &pipeline.Unsettled{SignedUp: now.Add(-time.Minute)}
		}, ""},
		"no census":            {func(s *pipeline.Status, _ *pipeline.History) { s.Census = nil }, "look census: None has come"},
		"no census, first day": {func(s *pipeline.Status, h *pipeline.History) { s.Census, h.Since = nil, now.Add(-24*time.Hour) }, ""},
		"an old census":        {func(s *pipeline.Status, _ *pipeline.History) { s.Census.Ended = now.Add(-72 * time.Hour) }, "look census: The last one ended 3 days ago"},
		"a census that found":  {func(s *pipeline.Status, _ *pipeline.History) { s.Census.Missing = 1 }, "bad census: It found 1 user that"},
		"a certificate": {func(_ *pipeline.Status, h *pipeline.History) {
			h.Certificate.NotAfter = now.AddDate(0, 0, 12).Add(time.Hour)
		}, "look certificate: It ends in 12 days, on 2026-09-01"},
		"a certificate, ended": {func(_ *pipeline.Status, h *pipeline.History) { h.Certificate.NotAfter = now.Add(-time.Hour) }, "bad certificate: It ended on 2026-08-20"},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := fine()
			c.spoil(&s, &h)
			r := status.NewReport(s, h)
			var got []string
			for _, w := range r.Warnings {
				got = append(got, w.Level+" "+w.About+": "+w.Text)
			}
			if want := c.want; want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestTheWorstIsFirst(t *testing.T) {
	w := newWorld(t)
	w.busy(100)
	body := get(w.page(), "GET", "/api/status").Body.String()
	levels := regexp.MustCompile(`<li class="(bad|look)">`).FindAllStringSubmatch(body, -1)
	if len(levels) < 5 || !slices.IsSortedFunc(levels, func(a, b []string) int { return strings.Compare(a[1], b[1]) }) || levels[0][1] != "bad" {
		t.Errorf("got %q", levels)
	}
	if at := strings.Index(body, `id="attention"`); at < 0 || at > strings.Index(body, `class="tiles"`) {
		t.Error("warnings are not first")
	}
}

// TestBucketsStandWhereTheirTimeIs, whatever was written when.
func TestBucketsStandWhereTheirTimeIs(t *testing.T) {
	h := pipeline.History{Since: now, Hours: series(time.Hour, 168)}
	h.Hours.Last = h.Hours.Last.Add(-5 * time.Hour) // since then nobody came
	h.Hours.Counts[167], h.Hours.Counts[0], h.Hours.Counts[5] = pipeline.Flow{7, 0, 0, 0}, pipeline.Flow{1, 1, 1, 1}, pipeline.Flow{0, 0, 0, 9}
	r := status.NewReport(pipeline.Status{Now: now}, h)
	if len(r.Hours) != 168 || r.Hours[162].SignUps != 7 || !r.Hours[162].At.Equal(now.Truncate(time.Hour).Add(-5*time.Hour)) || r.Hours[167].Any() || r.Hours[0].Failed != 9 || !r.Hours[167].At.Equal(now.Truncate(time.Hour)) {
		t.Errorf("got %+v", r.Hours)
	}
	if r.Totals.Day.SignUps != 7 || r.Totals.Week.SignUps != 7 || r.Totals.Week.Failed != 9 {
		t.Errorf("got %+v", r.Totals)
	}
	h.Hours.Last = now.Truncate(time.Hour).Add(3 * time.Hour) // by a clock that was ahead
	if r := status.NewReport(pipeline.Status{Now: now}, h); r.Hours[167].SignUps != 0 || r.Hours[8].Failed != 9 {
		t.Errorf("got %+v", r.Hours[:5])
	}
	h.Hours.Last = now.AddDate(-1, 0, 0)
	if r := status.NewReport(pipeline.Status{Now: now}, h); r.Totals.Week.Any() {
		t.Errorf("a year old: got %+v", r.Totals)
	}
}
