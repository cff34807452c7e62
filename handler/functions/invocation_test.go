package functions_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions"
)

const invocationID = "83a33220-a921-460a-bec0-b3f043dcf1ff"

// catch returns a server whose one function records what it was called with.
func catch() (*functions.Server, *functions.Invocation) {
	var got functions.Invocation
	return &functions.Server{Functions: map[string]functions.Func{
		"SyncNewUsers": func(_ context.Context, in functions.Invocation) (any, error) {
			got = in
			return nil, nil
		},
	}}, &got
}

// TestTheHostsTraceIsHandedOn with what vendors add to it, in however many headers.
func TestTheHostsTraceIsHandedOn(t *testing.T) {
	s, got := catch()
	r := httptest.NewRequest(http.MethodPost, "/SyncNewUsers", strings.NewReader(normal))
	r.Header.Set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	r.Header["Tracestate"] = []string{"az=1", "other=2"}
	s.ServeHTTP(httptest.NewRecorder(), r)
	if got.TraceParent != "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00" || got.TraceState != "az=1,other=2" {
		t.Errorf("got %q and %q", got.TraceParent, got.TraceState)
	}
}

// post calls the function as the host does and returns the answer.
func post(s *functions.Server, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/SyncNewUsers", strings.NewReader(body))
	r.Header.Set("X-Azure-Functions-InvocationId", invocationID)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func day(clock string) time.Time {
	t, err := time.Parse(time.RFC3339, "2026-08-20T"+clock+"Z")
	if err != nil {
		panic(err)
	}
	return t
}

// TestPayloads reads every timer payload that the host is known to send.
func TestPayloads(t *testing.T) {
	previous := functions.Timer{Last: day("14:30:00.0123456"), Next: day("14:35:00"), LastUpdated: day("14:30:00.0123456")}
	pastDue := previous
	pastDue.PastDue = true
	early := previous
	early.Next = day("14:40:00")
	never := functions.Timer{Next: day("14:35:00")}
	tests := []struct {
		name string
		want functions.Invocation
	}{
		{"normal", functions.Invocation{Timer: previous, UTCNow: day("14:35:00.0307712")}},
		{"past-due", functions.Invocation{Timer: pastDue, UTCNow: day("14:52:11.0450001")}},
		{"first-run", functions.Invocation{Timer: never, UTCNow: day("14:35:00.0307712")}},
		{"first-run-after-restart", functions.Invocation{
			Timer:  functions.Timer{PastDue: true, Next: day("14:35:00"), LastUpdated: day("14:31:07.5")},
			UTCNow: day("14:36:00.0307712"),
		}},
		{"first-run-without-offset", functions.Invocation{Timer: never, UTCNow: day("14:35:00.0307712")}},
		{"first-run-odd-offset", functions.Invocation{Timer: never, UTCNow: day("14:35:00.0307712")}},
		{"run-on-startup", functions.Invocation{Timer: early, UTCNow: day("14:35:00.0307712")}},
		{"manual", functions.Invocation{
			Timer: functions.Timer{Last: day("14:35:00.0307"), Next: day("14:40:00"), LastUpdated: day("14:35:00.0307")},
			Input: "x",
		}},
		{"no-monitor", functions.Invocation{UTCNow: time.Date(2023, 9, 7, 11, 40, 45, 4275000, time.UTC)}},
		{"retry-first-attempt", functions.Invocation{Timer: previous, MaxAttempts: 4, UTCNow: day("14:35:00.0307712")}},
		{"retry", functions.Invocation{Timer: previous, Attempt: 2, MaxAttempts: 4, UTCNow: day("14:35:30.0307712")}},
	}
	files, err := filepath.Glob("testdata/timer/*.json")
	if err != nil || len(files) != len(tests) {
		t.Fatalf("testdata/timer has %d payloads (%v), want one for each of %d cases", len(files), err, len(tests))
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join("testdata/timer", tc.name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			tc.want.ID, tc.want.Function = invocationID, "SyncNewUsers"
			tc.want.Attempt, tc.want.MaxAttempts = max(tc.want.Attempt, 1), max(tc.want.MaxAttempts, 1)
			s, got := catch()
			if w := post(s, string(body)); w.Code != 200 {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			if diff := cmp.Diff(*got, tc.want); diff != "" {
				t.Errorf("invocation (-got +want):\n%s", diff)
			}
		})
	}
}

// TestTolerance holds what is a hint, and may be of any shape, apart from what is not.
func TestTolerance(t *testing.T) {
	timer := func(s string) string { return `{"Data":{"timer":` + s + `},"Metadata":{}}` }
	status := func(s string) string { return timer(`{"ScheduleStatus":{"Last":` + s + `}}`) }
	metadata := func(s string) string { return `{"Data":{"timer":{}},"Metadata":` + s + `}` }
	tests := []struct {
		name, body string
		want       functions.Invocation
		refused    bool
	}{
		{name: "empty timer", body: timer(`{}`)},
		{name: "no metadata", body: `{"Data":{"timer":{}}}`},
		{name: "unknown members", body: `{"New":1,"Data":{"timer":{"New":[1],"IsPastDue":true},"other":null}}`, want: functions.Invocation{Timer: functions.Timer{PastDue: true}}},
		{name: "camel case", body: timer(`{"isPastDue":true,"scheduleStatus":{"next":"2026-08-20T14:35:00Z"}}`), want: functions.Invocation{Timer: functions.Timer{PastDue: true, Next: day("14:35:00")}}},
		{name: "past due of another type", body: timer(`{"IsPastDue":"true"}`)},
		{name: "status of another type", body: timer(`{"ScheduleStatus":"none","IsPastDue":true}`), want: functions.Invocation{Timer: functions.Timer{PastDue: true}}},
		{name: "fraction of one digit", body: status(`"2026-08-20T14:35:00.5+00:00"`), want: functions.Invocation{Timer: functions.Timer{Last: day("14:35:00.5")}}},
		{name: "no zone is UTC", body: status(`"2026-08-20T14:35:00.5"`), want: functions.Invocation{Timer: functions.Timer{Last: day("14:35:00.5")}}},
		{name: "zone is converted", body: status(`"2026-08-20T10:35:00-04:00"`), want: functions.Invocation{Timer: functions.Timer{Last: day("14:35:00")}}},
		{name: "date is a number", body: status(`1`)},
		{name: "date is a word", body: status(`"never"`)},
		{name: "date before year 1 in UTC", body: status(`"0001-01-01T00:00:00+05:00"`)},
		{name: "input is quoted once", body: metadata(`{"timer":"x"}`), want: functions.Invocation{Input: "x"}},
		{name: "input is JSON", body: metadata(`{"timer":"\"{\\\"since\\\":\\\"1h\\\"}\""}`), want: functions.Invocation{Input: `{"since":"1h"}`}},
		{name: "input is the text null", body: metadata(`{"timer":"\"null\""}`), want: functions.Invocation{Input: "null"}},
		{name: "input is an object", body: metadata(`{"timer":{"a":1}}`), want: functions.Invocation{Input: `{"a":1}`}},
		{name: "retry for ever", body: metadata(`{"RetryContext":{"RetryCount":7,"MaxRetryCount":-1}}`), want: functions.Invocation{Attempt: 8, MaxAttempts: -1}},
		{name: "retry numbers in quotes", body: metadata(`{"RetryContext":{"RetryCount":"1","MaxRetryCount":"2"}}`), want: functions.Invocation{Attempt: 2, MaxAttempts: 3}},
		{name: "retry of another type", body: metadata(`{"RetryContext":"none","sys":7}`)},

		{name: "malformed", body: `{"Data":`, refused: true},
		{name: "empty", body: ``, refused: true},
		{name: "null", body: `null`, refused: true},
		{name: "array", body: `[]`, refused: true},
		{name: "garbage after the object", body: timer(`{}`) + `x`, refused: true},
		{name: "no data", body: `{"Metadata":{}}`, refused: true},
		{name: "no timer", body: `{"Data":{"msg":"\"hello\""},"Metadata":{}}`, refused: true},
		{name: "timer is null", body: timer(`null`), refused: true},
		{name: "timer is a text", body: timer(`"{}"`), refused: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, got := catch()
			var stderr strings.Builder
			s.Log = functions.NewLogger(&strings.Builder{}, &stderr)
			w := post(s, tc.body)
			if tc.refused {
				if w.Code != 400 {
					t.Errorf("status %d, want 400", w.Code)
				}
				checkObject(t, w, "error")
				if n := strings.Count(stderr.String(), "invocation="+invocationID); n != 1 {
					t.Errorf("stderr names the invocation %d times, want once:\n%s", n, &stderr)
				}
				return
			}
			if w.Code != 200 {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			tc.want.ID, tc.want.Function = invocationID, "SyncNewUsers"
			tc.want.Attempt = max(tc.want.Attempt, 1)
			switch tc.want.MaxAttempts {
			case 0:
				tc.want.MaxAttempts = 1
			case -1:
				tc.want.MaxAttempts = 0
			}
			if diff := cmp.Diff(*got, tc.want); diff != "" {
				t.Errorf("invocation (-got +want):\n%s", diff)
			}
		})
	}
}

// checkObject requires a JSON object with its media type, having that member.
func checkObject(t *testing.T, w *httptest.ResponseRecorder, member string) {
	t.Helper()
	if got, want := w.Header().Get("Content-Type"), "application/json"; got != want {
		t.Errorf("content type %q, want %q", got, want)
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body == nil {
		t.Errorf("body %q is no JSON object: %v", w.Body, err)
	}
	if _, ok := body[member]; member != "" && !ok {
		t.Errorf("body %s has no %q", w.Body, member)
	}
}

// FuzzInvocation holds that no body makes the server panic, hang or answer without a JSON object, and that times are
// either zero or real and in UTC.
func FuzzInvocation(f *testing.F) {
	files, err := filepath.Glob("testdata/timer/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(body))
	}
	f.Add(`{"Data":{"timer":null}}`)
	f.Fuzz(func(t *testing.T, body string) {
		s, got := catch()
		w := post(s, body)
		switch w.Code {
		case 200:
			checkObject(t, w, "Logs")
		case 400:
			checkObject(t, w, "error")
		default:
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		for _, at := range []time.Time{got.Timer.Last, got.Timer.Next, got.Timer.LastUpdated, got.UTCNow} {
			if !at.IsZero() && (at.Year() <= 1 || at.Location() != time.UTC) {
				t.Errorf("time %s is neither zero nor a real one in UTC", at)
			}
		}
		if w.Code == 200 && (got.Attempt < 1 || got.MaxAttempts < 0) {
			t.Errorf("attempt %d of %d", got.Attempt, got.MaxAttempts)
		}
	})
}

// FuzzTimer holds that a date of any text is read as the standard library reads it, or is zero.
func FuzzTimer(f *testing.F) {
	for _, s := range []string{
		"2026-08-20T14:30:00.0123456+00:00", "2026-08-20T14:35:00+00:00", "0001-01-01T00:00:00+00:00",
		"0001-01-01T00:00:00", "0001-01-01T00:54:00+00:54", "2023-09-07T11:40:45.004275Z", "9999-12-31T23:59:59+00:00", "0002-01-01T00:00:00+05:00", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, date string) {
		type object map[string]any
		body, err := json.Marshal(object{"Data": object{"timer": object{"ScheduleStatus": object{"Last": date}}}})
		if err != nil {
			t.Skip()
		}
		s, got := catch()
		if w := post(s, string(body)); w.Code != 200 {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		want, err := time.Parse(time.RFC3339Nano, date)
		if err == nil && want.UTC().Year() > 1 && !got.Timer.Last.Equal(want) {
			t.Errorf("%q is read as %s, want %s", date, got.Timer.Last, want)
		}
		if !got.Timer.Last.IsZero() && got.Timer.Last.Year() <= 1 {
			t.Errorf("%q is read as %s", date, got.Timer.Last)
		}
	})
}
