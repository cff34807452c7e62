package devhost_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	pageJSON = `{"bindings":[{"name":"req","type":"httpTrigger","direction":"in","authLevel":"function","route":"page"},{"name":"res","type":"http","direction":"out"}]}`
	pageKey  = "a-key-of-the-test"
)

// front starts a host with an HTTP function, and what clients reach it by.
func front(t *testing.T, starts string, files map[string]string) (*httptest.Server, *journal) {
	t.Helper()
	all := map[string]string{"Page/function.json": pageJSON}
	for name, text := range files {
		all[name] = text
	}
	s := setup{files: all, starts: starts, key: pageKey}
	h, log := s.start(t)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server, log
}

func ask(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// TestClientsReachAPage is package functions on the one side, and a client on the other.
func TestClientsReachAPage(t *testing.T) {
	server, log := front(t, "server", nil)
	resp, body := ask(t, "GET", server.URL+"/api/page?code="+pageKey+"&b=2&a=x%20y&b=3", "", "Accept-Language", "de")
	if want := `GET /api/page?a=x+y&b=2%2C3&code=` + pageKey + ` "" de`; resp.StatusCode != http.StatusTeapot || body != want {
		t.Errorf("got %d %q, want %q", resp.StatusCode, body, want)
	}
	if resp.Header.Get("Content-Type") != "text/x-echo" || resp.Header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("got headers %v", resp.Header)
	}
	if _, body := ask(t, "POST", server.URL+"/api/PAGE/", "ö=1", "x-functions-key", pageKey); !strings.HasPrefix(body, `POST /api/PAGE/ "ö=1"`) {
		t.Errorf("got %q", body)
	}
	if resp, body := ask(t, "HEAD", server.URL+"/api/page", "", "x-functions-key", pageKey); resp.StatusCode != http.StatusTeapot || body != "" {
		t.Errorf("HEAD: got %d %q", resp.StatusCode, body)
	}
	if strings.Contains(log.String(), pageKey) {
		t.Errorf("the key is in the log:\n%s", log)
	}
}

func TestWhoIsLetInToAPage(t *testing.T) {
	server, log := front(t, "server", map[string]string{
		"Open/function.json": strings.NewReplacer(`"function"`, `"anonymous"`, "page", "open").Replace(pageJSON),
		"Get/function.json":  strings.Replace(strings.Replace(pageJSON, `"page"`, `"get"`, 1), `"direction":"in"`, `"direction":"in","methods":["get"]`, 1),
	})
	for name, c := range map[string]struct {
		method, path, key string
		want              int
	}{
		"no key":             {"GET", "/api/page", "", 401},
		"another key":        {"GET", "/api/page", "a-key-of-the-tesT", 401},
		"half a key":         {"GET", "/api/page?code=a-key", "", 401},
		"no function":        {"GET", "/api/other", pageKey, 404},
		"a timer's function": {"POST", "/api/SyncNewUsers", pageKey, 404},
		"without the prefix": {"GET", "/page", pageKey, 404},
		"the root":           {"GET", "/", pageKey, 404},
		"another method":     {"POST", "/api/get", pageKey, 404},
		"open to everybody":  {"GET", "/api/open", "", 500}, // and the handler knows no such page
	} {
		if resp, body := ask(t, c.method, server.URL+c.path, "", "x-functions-key", c.key); resp.StatusCode != c.want || body != "" {
			t.Errorf("%s: got %d %q, want %d", name, resp.StatusCode, body, c.want)
		}
	}
	if n := log.count("Executing 'Functions.Page'"); n != 0 {
		t.Errorf("the handler was asked %d times by those who were refused", n)
	}

	h, _ := setup{files: map[string]string{"Page/function.json": pageJSON}, starts: "server"}.start(t) // without a key
	keyless := httptest.NewServer(h)
	t.Cleanup(keyless.Close)
	if resp, _ := ask(t, "GET", keyless.URL+"/api/page?code=", ""); resp.StatusCode != 401 {
		t.Errorf("a host without a key: got %d, want 401", resp.StatusCode)
	}
}

// TestJudgeOfAPage is what the host makes of the response in a reply.
func TestJudgeOfAPage(t *testing.T) {
	server, log := front(t, "good", nil)
	reply := func(outputs string) scriptedReply {
		return scriptedReply{Status: 200, Type: "application/json", Body: `{"Outputs":` + outputs + `}`}
	}
	for name, c := range map[string]struct {
		reply  scriptedReply
		status int
		want   string // the body, or for a 500 what the host's log says
		defect string
	}{
		"full":              {reply(`{"res":{"statusCode":"404","headers":{"content-type":"text/html"},"body":"<p>"}}`), 404, "<p>", ""},
		"a number":          {reply(`{"res":{"StatusCode":201,"Headers":{"Content-Type":"text/html","X-N":7},"Body":"b"}}`), 201, "b", ""},
		"a body as JSON":    {reply(`{"res":{"headers":{"Content-Type":"application/json"},"body":{"a":1}}}`), 200, `{"a":1}`, ""},
		"no type":           {reply(`{"res":{"body":"b"}}`), 200, "b", "no Content-Type"},
		"a length":          {reply(`{"res":{"headers":{"Content-Type":"text/html","content-length":"7"},"body":"b"}}`), 200, "b", "Content-Length"},
		"no response":       {reply(`{}`), 500, "the response is <nil>", ""},
		"by another name":   {reply(`{"response":{}}`), 500, "the response is <nil>", ""},
		"a text":            {reply(`{"res":"<p>"}`), 500, "the response is string", ""},
		"no status":         {reply(`{"res":{"statusCode":"ok"}}`), 500, "statusCode is", ""},
		"a status of zero":  {reply(`{"res":{"statusCode":0}}`), 500, "statusCode is", ""},
		"headers in a list": {reply(`{"res":{"headers":[]}}`), 500, "headers is no object", ""},
		"a header's list":   {reply(`{"res":{"headers":{"a":["b"]}}}`), 500, "header a is neither", ""},
		"a header's break":  {reply(`{"res":{"headers":{"a":"b\r\nc: d"}}}`), 500, "has a line break", ""},
		"a failure":         {scriptedReply{Status: 404, Type: "application/json", Body: "{}"}, 500, "does not indicate success: 404", ""},
		"a hang":            {scriptedReply{Status: 200}, 500, "would hang", ""},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(c.reply)
			if err != nil {
				t.Fatal(err)
			}
			resp, got := ask(t, "POST", server.URL+"/api/page", string(body), "x-functions-key", pageKey)
			if resp.StatusCode != c.status {
				t.Fatalf("got %d, want %d:\n%s", resp.StatusCode, c.status, log)
			}
			if c.status == 500 {
				log.wait(t, c.want)
			} else if got != c.want || resp.Header.Get("Content-Type") == "" {
				t.Errorf("got %q with %v, want %q", got, resp.Header, c.want)
			}
			if c.defect != "" {
				log.wait(t, c.defect)
			}
		})
	}
}
