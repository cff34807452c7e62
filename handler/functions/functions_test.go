package functions_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/functions"
)

const normal = `{"Data":{"timer":{"IsPastDue":false}},"Metadata":{}}`

// serve1 is a server of one function, with its two outputs.
func serve1(f functions.Func) (s *functions.Server, stdout, stderr *strings.Builder) {
	stdout, stderr = &strings.Builder{}, &strings.Builder{}
	return &functions.Server{
		Functions: map[string]functions.Func{"SyncNewUsers": f},
		Log:       functions.NewLogger(stdout, stderr),
	}, stdout, stderr
}

// TestReplies is the contract of what the host gets for what a function does.
func TestReplies(t *testing.T) {
	type summary struct {
		Users int    `json:"users"`
		Note  string `json:"note"`
	}
	tests := []struct {
		name     string
		f        functions.Func
		code     int
		body     string
		contains string // what stderr must have; "" = stderr must be empty
		never    string // what neither stderr nor the answer may have
	}{
		{
			name: "summary is one line of the log",
			f: func(context.Context, functions.Invocation) (any, error) {
				return summary{3, "a\nb <c>"}, nil
			},
			code: 200, body: `{"Outputs":{},"Logs":["{\"users\":3,\"note\":\"a\\nb <c>\"}"],"ReturnValue":null}`,
		},
		{
			name: "no summary is no line",
			f:    func(context.Context, functions.Invocation) (any, error) { return nil, nil },
			code: 200, body: `{"Outputs":{},"Logs":[],"ReturnValue":null}`,
		},
		{
			name: "error is a failure",
			f: func(context.Context, functions.Invocation) (any, error) {
				return nil, errors.Join(errors.New("read the ledger: warning"), errors.New("second"))
			},
			code: 500, body: `{"error":"read the ledger: warning\nsecond"}`, contains: `err="read the ledger: w_arning\nsecond"`,
		},
		{
			name: "summary beside an error is dropped",
			f: func(context.Context, functions.Invocation) (any, error) {
				return summary{}, errors.New("boom")
			},
			code: 500, body: `{"error":"boom"}`, contains: "err=boom",
		},
		{
			name: "summary that is no JSON is a failure",
			f: func(context.Context, functions.Invocation) (any, error) {
				return func() {}, nil
			},
			code: 500, body: `{"error":"encode the summary: json: unsupported type: func()"}`, contains: "encode the summary",
		},
		{
			name: "panic is a failure that says where",
			f:    func(context.Context, functions.Invocation) (any, error) { return explode(nil) },
			code: 500, contains: "functions_test.explode (functions_test.go:",
		},
		{
			name: "panic that asks net/http for silence is one too",
			f:    func(context.Context, functions.Invocation) (any, error) { panic(http.ErrAbortHandler) },
			code: 500, contains: "a *errors.errorString",
		},
		{
			name: "panic with a value that may be somebody's does not show it",
			f:    func(context.Context, functions.Invocation) (any, error) { panic("ada@example.com") },
			code: 500, contains: ": a string", never: "ada@",
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, stdout, stderr := serve1(tc.f)
			w := post(s, normal)
			if w.Code != tc.code {
				t.Errorf("status %d, want %d", w.Code, tc.code)
			}
			checkObject(t, w, "")
			if got := w.Body.String(); tc.body != "" && got != tc.body {
				t.Errorf("body\n got %s\nwant %s", got, tc.body)
			}
			checkLines(t, stdout.String(), "invocation="+invocationID)
			checkLines(t, stderr.String(), "invocation="+invocationID)
			if got := stderr.String(); strings.Contains(strings.ToLower(got), "warn") {
				t.Errorf("stderr of an error has the word by which the host knows a warning:\n%s", got)
			}
			if tc.never != "" && strings.Contains(stderr.String()+w.Body.String(), tc.never) {
				t.Errorf("%q is in the answer %s or in stderr %s", tc.never, w.Body, stderr)
			}
			if got := stderr.String(); (got == "") != (tc.contains == "") || !strings.Contains(got, tc.contains) || strings.Count(got, "\n") > 1 {
				t.Errorf("stderr %q, want one line with %q, or nothing for \"\"", got, tc.contains)
			}
		})
	}
}

func explode(m map[string]int) (any, error) {
	m["x"] = 1
	return nil, nil
}

// checkLines requires each line to have that text.
func checkLines(t *testing.T, output, text string) {
	t.Helper()
	for line := range strings.Lines(output) {
		if !strings.Contains(line, text) {
			t.Errorf("line without %q: %s", text, line)
		}
	}
}

// TestRequests is the contract of which requests reach a function.
func TestRequests(t *testing.T) {
	large := func(n int) string {
		return `{"Data":{"timer":{}},"Pad":"` + strings.Repeat("x", n-len(`{"Data":{"timer":{}},"Pad":""}`)) + `"}`
	}
	tests := []struct {
		name, method, path, body string
		code                     int
		member                   string
	}{
		{"probe", "GET", "/", "", 200, ""},
		{"post to the root", "POST", "/", normal, 405, "error"},
		{"function", "POST", "/SyncNewUsers", normal, 200, "Logs"},
		{"query is ignored", "POST", "/SyncNewUsers?a=b", normal, 200, "Logs"},
		{"wrong case", "POST", "/syncNewUsers", normal, 404, "error"},
		{"trailing slash", "POST", "/SyncNewUsers/", normal, 404, "error"},
		{"double slash", "POST", "//SyncNewUsers", normal, 404, "error"},
		{"prefix", "POST", "/api/SyncNewUsers", normal, 404, "error"},
		{"unknown", "POST", "/Nope", normal, 404, "error"},
		{"wrong method", "GET", "/SyncNewUsers", "", 405, "error"},
		{"body of 1 MiB", "POST", "/SyncNewUsers", large(1 << 20), 200, "Logs"},
		{"body above 1 MiB", "POST", "/SyncNewUsers", large(1<<20 + 1), 413, "error"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := catch()
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body)))
			if w.Code != tc.code {
				t.Errorf("status %d, want %d", w.Code, tc.code)
			}
			checkObject(t, w, tc.member)
			if allow := w.Header().Get("Allow"); (allow != "") != (tc.code == 405) {
				t.Errorf("Allow is %q at status %d", allow, tc.code)
			}
		})
	}
}

func TestProbeByHead(t *testing.T) {
	s, _ := catch()
	server := httptest.NewServer(s)
	defer server.Close()
	resp, err := http.Head(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %d, want 200", resp.StatusCode)
	}
}

// TestCallerWithoutInvocationID is someone with curl: the lines still belong together.
func TestCallerWithoutInvocationID(t *testing.T) {
	s, got := catch()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("POST", "/SyncNewUsers", strings.NewReader(normal)))
	if w.Code != 200 || got.ID == "" {
		t.Errorf("status %d, id %q, want 200 and an id", w.Code, got.ID)
	}
}

// TestOverlap runs a manual and a scheduled invocation at once.
func TestOverlap(t *testing.T) {
	t.Run("second waits for the first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			running, most := 0, 0
			s, _, _ := serve1(func(context.Context, functions.Invocation) (any, error) {
				running++ // unguarded: the race detector sees an overlap too
				most = max(most, running)
				time.Sleep(time.Minute)
				running--
				return nil, nil
			})
			s.Timeout = 4 * time.Minute
			start, done := time.Now(), make(chan int, 2)
			for range 2 {
				go func() { done <- post(s, normal).Code }()
			}
			if a, b := <-done, <-done; a != 200 || b != 200 {
				t.Errorf("status %d and %d, want 200 twice", a, b)
			}
			if most != 1 || time.Since(start) != 2*time.Minute {
				t.Errorf("%d ran at once, %s in all, want 1 and 2m", most, time.Since(start))
			}
		})
	})
	t.Run("second fails at its own deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, stderr := serve1(func(context.Context, functions.Invocation) (any, error) {
				time.Sleep(time.Hour) // deaf to its context
				return nil, nil
			})
			s.Timeout = 4 * time.Minute
			first := make(chan int, 1)
			go func() { first <- post(s, normal).Code }()
			synctest.Wait()
			start := time.Now()
			w := post(s, normal)
			if w.Code != 500 || time.Since(start) != s.Timeout || !strings.Contains(w.Body.String(), "wait for the other invocation") {
				t.Errorf("status %d after %s: %s", w.Code, time.Since(start), w.Body)
			}
			if !strings.Contains(stderr.String(), invocationID) {
				t.Errorf("stderr %q does not name the invocation", stderr)
			}
			<-first
		})
	})
}

// TestDeadline holds that a function learns of the server's own deadline, long before the host's.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := serve1(func(ctx context.Context, _ functions.Invocation) (any, error) {
			<-ctx.Done()
			return "handed back", nil
		})
		s.Timeout = 4 * time.Minute
		start := time.Now()
		w := post(s, normal)
		if w.Code != 200 || time.Since(start) != s.Timeout {
			t.Errorf("status %d after %s, want 200 after %s", w.Code, time.Since(start), s.Timeout)
		}
	})
}

// TestPanicLeavesTheServerUsable holds that the turn is given back.
func TestPanicLeavesTheServerUsable(t *testing.T) {
	calls := 0
	s, _, _ := serve1(func(context.Context, functions.Invocation) (any, error) {
		if calls++; calls == 1 {
			panic("boom")
		}
		return nil, nil
	})
	if first, second := post(s, normal).Code, post(s, normal).Code; first != 500 || second != 200 {
		t.Errorf("status %d then %d, want 500 then 200", first, second)
	}
}

// TestBrokenConfiguration is a program that cannot work: it still answers the host's probe, and fails every
// invocation with all that is wrong.
func TestBrokenConfiguration(t *testing.T) {
	broken := errors.Join(errors.New("signup-sync.yaml:3:1: unknown field"), errors.New("read ENTRA_TENANT_ID: not set"))
	s, _, stderr := serve1(func(context.Context, functions.Invocation) (any, error) { return nil, broken })
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 200 {
		t.Errorf("probe: status %d, want 200", w.Code)
	}
	w = post(s, normal)
	var body struct{ Error string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 500 || body.Error != broken.Error() {
		t.Errorf("status %d, error %q, want 500 and %q", w.Code, body.Error, broken)
	}
	for _, want := range []string{"unknown field", "ENTRA_TENANT_ID"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr has no %q:\n%s", want, stderr)
		}
	}
}
