package functions_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/functions"
)

// visit sends a payload to the page as the host does.
func visit(t *testing.T, page http.HandlerFunc, payload string) (w *httptest.ResponseRecorder, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	s := &functions.Server{Pages: map[string]http.Handler{"Status": page}, Log: functions.NewLogger(&out, &errs)}
	r := httptest.NewRequest(http.MethodPost, "/Status", strings.NewReader(payload))
	r.Header.Set("X-Azure-Functions-InvocationId", invocationID)
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w, out.String(), errs.String()
}

func payload(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/http/status.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAPageGetsTheClientsRequest(t *testing.T) {
	w, stdout, stderr := visit(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/api/status" || r.URL.RawQuery != "code=s3cret-key&format=json&user=75b523ca-d064-4ddf-80af-87738f504026" || r.Header.Get("Accept") != "text/html" || r.Header.Get("X-Functions-Key") != "" {
			t.Errorf("got %s %s with %v", r.Method, r.URL, r.Header)
		}
		if d, ok := r.Context().Deadline(); !ok || time.Until(d) > time.Minute {
			t.Error("a page has no deadline")
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "<p title=\"ü\">not here</p>")
	}, payload(t))
	const want = `{"Outputs":{"res":{"statusCode":"404","headers":{"Content-Type":"text/html; charset=utf-8"},"body":"<p title=\"ü\">not here</p>"}},"Logs":[],"ReturnValue":null}`
	if got := w.Body.String(); w.Code != 200 || got != want {
		t.Errorf("got %d\n%s\nwant\n%s", w.Code, got, want)
	}
	if !strings.Contains(stdout, "status=404") || stderr != "" || strings.Contains(stdout+w.Body.String(), "s3cret") {
		t.Errorf("stdout %q, stderr %q: want the status, and no key", stdout, stderr)
	}
}

func TestWhatAPageGetsOfAnOddPayload(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		want    string // what the page sees; "" = it is not asked
	}{
		"no request":              {`{"Data":{}}`, ""},
		"a timer's":               {normal, ""},
		"no object":               {`{"Data":{"req":"x"}}`, ""},
		"null":                    {`{"Data":{"req":null}}`, ""},
		"no JSON":                 {`{`, ""},
		"no method":               {`{"Data":{"req":{"Url":"http://x/api/status"}}}`, ""},
		"a method that is none":   {`{"Data":{"req":{"Url":"http://x/api/status","Method":"G T"}}}`, ""},
		"a query of the docs":     {`{"Data":{"req":{"Url":"http://x/api/status?a=b","Method":"GET","Query":"{}","Headers":"{}"}}}`, "GET /api/status  "},
		"repeated keys":           {`{"Data":{"req":{"Url":"http://x/api/status?a=1&a=2","Method":"HEAD","Query":{"a":"1,2"}}}}`, "HEAD /api/status a=1%2C2 "},
		"a list in the query":     {`{"Data":{"req":{"Url":"http://x/api/status","Method":"GET","Query":{"a":["1","2"]}}}}`, "GET /api/status a=1 "},
		"an address that is none": {`{"Data":{"req":{"Url":"::","Method":"GET"}}}`, "GET /  "},
		"a key in another case":   {`{"Data":{"req":{"Url":"http://x/api/status","Method":"GET","Headers":{"x-FUNCTIONS-key":["k"]}}}}`, "GET /api/status  "},
		"a body":                  {`{"Data":{"req":{"Url":"http://x/api/status","Method":"POST","Body":"a=b"}}}`, "POST /api/status  a=b"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			w, _, stderr := visit(t, func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = strings.Join([]string{r.Method, r.URL.Path, r.URL.RawQuery, string(body)}, " ")
				if len(r.Header) > 0 {
					t.Errorf("got headers %v", r.Header)
				}
			}, c.payload)
			if got != c.want || (w.Code == 200) != (c.want != "") || (stderr == "") != (c.want != "") {
				t.Errorf("got %q and %d, stderr %q; want %q", got, w.Code, stderr, c.want)
			}
			checkObject(t, w, "")
		})
	}
}

func TestAPageThatPanicsIsAFailedInvocation(t *testing.T) {
	w, _, stderr := visit(t, func(http.ResponseWriter, *http.Request) { panic("ada@example.com") }, payload(t))
	if w.Code != 500 || !strings.Contains(stderr, "recover from a panic at") || strings.Contains(stderr+w.Body.String(), "ada@") {
		t.Errorf("got %d %s, stderr %q", w.Code, w.Body, stderr)
	}
}

func TestAnEmptyPageIsAReplyThatTheHostDoesNotHangOn(t *testing.T) {
	w, _, _ := visit(t, func(http.ResponseWriter, *http.Request) {}, payload(t))
	var got struct {
		Outputs struct {
			Res struct{ StatusCode, Body string }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Outputs.Res.StatusCode != "200" || got.Outputs.Res.Body != "" {
		t.Errorf("got %s, %v", w.Body, err)
	}
}

// TestAPageWaitsForNoRun: a run takes minutes.
func TestAPageWaitsForNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, begun := make(chan struct{}), make(chan struct{})
		s, _, _ := serve1(func(ctx context.Context, _ functions.Invocation) (any, error) {
			close(begun)
			<-release
			return nil, nil
		})
		s.Pages = map[string]http.Handler{"Status": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })}
		go post(s, normal)
		<-begun
		for range 3 {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/Status", strings.NewReader(payload(t))))
			if !strings.Contains(w.Body.String(), "here") {
				t.Errorf("got %s", w.Body)
			}
		}
		close(release)
	})
}
