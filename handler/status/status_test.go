package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/status"
)

const someone = "75b523ca-d064-4ddf-80af-87738f504026"

// source answers what a test says.
type source struct {
	status  pipeline.Status
	history pipeline.History
	user    pipeline.Explanation
	err     error
	wait    time.Duration
	asked   atomic.Int64
	busy    atomic.Int64
}

var _ status.Source = (*source)(nil)

func (s *source) Status(ctx context.Context) (pipeline.Status, error) {
	s.asked.Add(1)
	if s.busy.Add(1) > 1 {
		return pipeline.Status{}, errors.New("two ask at the same time")
	}
	defer s.busy.Add(-1)
	select {
	case <-time.After(s.wait):
		return s.status, s.err
	case <-ctx.Done():
		return pipeline.Status{}, ctx.Err()
	}
}

func (s *source) History(context.Context) (pipeline.History, error) { return s.history, nil }

func (s *source) Explain(_ context.Context, id signup.UserID) (pipeline.Explanation, error) {
	x := s.user
	x.User = id
	return x, s.err
}

func newPage(s *source) (http.Handler, *strings.Builder) {
	var log strings.Builder
	return status.New(s, slog.New(slog.NewTextHandler(&log, nil))), &log
}

func get(page http.Handler, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func TestWhatIsAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		method, target string
		code           int
		has            string
	}{
		"the page":            {"GET", "/api/status", 200, "<h1>signup-sync"},
		"the page, by name":   {"GET", "/api/status?format=html", 200, "<h1>signup-sync"},
		"JSON":                {"GET", "/api/status?format=json", 200, `"warnings":[`},
		"another format":      {"GET", "/api/status?format=xml", 400, "There is no such format"},
		"HEAD":                {"HEAD", "/api/status", 405, "ask with GET"},
		"POST":                {"POST", "/api/status", 405, "ask with GET"},
		"DELETE as JSON":      {"DELETE", "/api/status?format=json", 405, `"code":"method"`},
		"a user":              {"GET", "/api/status?user=" + someone, 200, someone + " is not in the ledger. Either"},
		"a user in capitals":  {"GET", "/api/status?user=%20" + strings.ToUpper(someone), 200, someone + " is not in the ledger. Either"},
		"a user as JSON":      {"GET", "/api/status?format=json&user=" + someone, 200, `"user":{"user":"` + someone},
		"no user":             {"GET", "/api/status?user=", 200, "<h1>signup-sync"},
		"somebody's address":  {"GET", "/api/status?user=ada%40example.com", 400, "no user&#39;s object id"},
		"a script for a user": {"GET", "/api/status?user=%3Cscript%3Ealert(1)%3C/script%3E", 400, "no user&#39;s object id"},
		"address as JSON":     {"GET", "/api/status?format=json&user=ada%40example.com", 400, `"code":"user"`},
	} {
		t.Run(name, func(t *testing.T) {
			page, log := newPage(&source{})
			w := get(page, c.method, c.target)
			body := w.Body.String()
			if w.Code != c.code || !strings.Contains(body, c.has) {
				t.Errorf("got %d, want %d with %q:\n%s", w.Code, c.code, c.has, body)
			}
			if strings.Contains(body+log.String(), "ada") || strings.Contains(body, "<script") {
				t.Errorf("what was asked for stands in the answer:\n%s", body)
			}
			checkHeaders(t, w)
			if (w.Code == 405) != (w.Header().Get("Allow") == "GET") {
				t.Errorf("%d with Allow %q", w.Code, w.Header().Get("Allow"))
			}
		})
	}
}

// checkHeaders demands what keeps the page from being framed, kept, or from fetching anything.
func checkHeaders(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	h := w.Header()
	policy := h.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") ||
		!strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "form-action 'self'") || !strings.Contains(policy, "base-uri 'none'") {
		t.Errorf("policy %q", policy)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
		if h.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, h.Get(name), want)
		}
	}
	if h.Get("Content-Type") == "" {
		t.Error("no Content-Type")
	}
}

func TestLinksCarryTheKeyOnlyIfItCameInTheQuery(t *testing.T) {
	page, log := newPage(&source{})
	const key = `k"><&+é`
	w := get(page, "GET", "/api/status?user="+someone+"&code=k%22%3E%3C%26%2B%C3%A9")
	body := w.Body.String()
	for _, want := range []string{`href="?code=k%22%3E%3C%26%2B%C3%A9&amp;format=json&amp;user=` + someone, `href="?code=k%22%3E%3C%26%2B%C3%A9&amp;user=` + someone,
		`name="code" value="k&#34;&gt;&lt;&amp;&#43;é"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %s:\n%s", want, body[:3000])
		}
	}
	if strings.Contains(body, key) || strings.Contains(log.String(), "k") && strings.Contains(log.String(), "code") {
		t.Errorf("the key stands there as it came; log: %s", log)
	}
	if body := get(page, "GET", "/api/status").Body.String(); strings.Contains(body, "code=") || strings.Contains(body, `name="code"`) {
		t.Error("without a key in the query the page has one")
	}
	for _, target := range []string{"/api/status?format=json&code=sec-ret", "/api/status?format=json&user=x&code=sec-ret"} {
		if body := get(page, "GET", target).Body.String(); strings.Contains(body, "sec-ret") {
			t.Errorf("the key is in the JSON: %s", body)
		}
	}
}

func TestALedgerThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code string
	}{
		"of its class":    {&signup.Error{Class: signup.Systemic, Code: "forbidden", Detail: "the table says no"}, "forbidden"},
		"of no class":     {errors.New("AccountKey=c2VjcmV0 is refused"), "ledger"},
		"that takes long": {context.DeadlineExceeded, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			page, log := newPage(&source{err: c.err})
			w := get(page, "GET", "/api/status")
			if body := w.Body.String(); w.Code != 503 || !strings.Contains(body, "<b>"+c.code+"</b>") || !strings.Contains(body, "<form") || strings.Contains(body, "AccountKey") {
				t.Errorf("got %d:\n%s", w.Code, body)
			}
			checkHeaders(t, w)
			if !strings.Contains(log.String(), "the status page cannot read the ledger") || !strings.Contains(log.String(), "code="+c.code) {
				t.Errorf("log %q", log)
			}
			w = get(page, "GET", "/api/status?format=json")
			var p status.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); w.Code != 503 || err != nil || p.Code != c.code || p.Text == "" {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
}

func TestReloadsDoNotDisturbTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{wait: time.Second}
		page, _ := newPage(s)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if w := get(page, "GET", "/api/status"); w.Code != 200 {
					t.Errorf("got %d", w.Code)
				}
			})
		}
		wg.Wait()
		if n := s.asked.Load(); n != 1 {
			t.Errorf("50 who ask at the same time have the ledger read %d times, want once", n)
		}
		for range 20 {
			time.Sleep(time.Second)
			get(page, "GET", "/api/status")
		}
		if n := s.asked.Load(); n < 5 || n > 8 {
			t.Errorf("a reload every second for 20 s has the ledger read %d times, want every third at most", n)
		}
	})
}

func TestWhoAsksASlowLedgerIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page, _ := newPage(&source{wait: time.Hour})
		begun := time.Now()
		var wg sync.WaitGroup
		var codes [3]string
		for i := range codes {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				codes[i] = regexp.MustCompile(`<b>(\w+)</b>`).FindStringSubmatch(get(page, "GET", "/api/status").Body.String())[1]
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		if codes[0] != "timeout" || codes[1] == "" || codes[2] == "" {
			t.Errorf("got %v", codes)
		}
	})
}

func TestNoPage(t *testing.T) {
	off := status.Off()
	for _, target := range []string{"/api/status", "/api/status?format=json", "/api/status?user=" + someone} {
		if w := get(off, "GET", target); w.Code != 404 || w.Body.String() != "not found\n" {
			t.Errorf("%s: got %d %q", target, w.Code, w.Body)
		}
	}
	checkHeaders(t, get(off, "GET", "/"))
	w := get(status.Refused(), "GET", "/api/status")
	if w.Code != 503 || !strings.Contains(w.Body.String(), "<b>configuration</b>") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	checkHeaders(t, w)
}
