package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// TestNothingLeaks plays all that goes wrong with systems that repeat what they are sent, and looks for every name,
// address, attribute, secret and token in all that the program puts out: its lines, its answers to the host, the ledger,
// the commands, what a panic and a killed process leave behind.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	for name, tables := range map[string]bool{"ledger in a file": false, "ledger in tables": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openLeakWorld(t, tables)
			w.fire("nothing yet")
			for _, m := range moods(tables) {
				w.set(&m)
				hits := 0
				for try := 0; try == 0 || !m.rare && hits == 0 && try < 6; try++ { // who comes may be somebody who is brought nowhere
					w.signUp()
					w.fire(m.name)
					hits += w.set(&m)
				}
				if !m.rare && hits == 0 {
					t.Errorf("%s: nothing was asked meanwhile", m.name)
				}
				w.set(nil)
			}
			w.awaitPage()
			w.fire("the end")
			w.commands()
			w.panics()
			w.quit()
			found := w.search()
			for _, name := range slices.Sorted(maps.Keys(found)) {
				t.Errorf("%s holds %d texts that must not be there:\n%s", name, len(found[name]), strings.Join(found[name][:min(len(found[name]), 6)], "\n"))
			}
		})
	}
}

// mood is how a part of the outside answers.
type mood struct {
	name   string
	about  func(r *http.Request) bool
	answer func(w http.ResponseWriter, said string)
	rare   bool // it may be that nobody asks
}

// moods are all, those after which a destination is left alone last.
func moods(tables bool) (all []mood) {
	path := func(parts ...string) func(*http.Request) bool {
		return func(r *http.Request) bool {
			return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(r.URL.Path, p) })
		}
	}
	graph := path("/v1.0/", "/beta/")
	token := path("/oauth2/v2.0/token")
	own := path("/msi/token", "/secrets/", "/signups()", "/state()", "/$batch", "/Tables", "(PartitionKey=")
	destination := func(r *http.Request) bool {
		return !graph(r) && !token(r) && !own(r) && !strings.Contains(r.URL.Path, "/.well-known/")
	}
	write := func(r *http.Request) bool { return graph(r) && r.Method != http.MethodGet }
	read := func(r *http.Request) bool { return graph(r) && r.Method == http.MethodGet }
	for _, a := range answers {
		all = append(all, mood{"destinations: " + a.name, destination, a.write, false}, mood{"writes to Graph: " + a.name, write, a.write, true})
	}
	for _, a := range answers {
		all = append(all, mood{"reads of Graph: " + a.name, read, a.write, false})
	}
	all = append(all, mood{"a receiver that calls people by their names", path("/webhook"), nameForID, false})
	if tables {
		for _, a := range answers {
			if a.name == "429" || a.name == "half an answer" {
				continue // which the SDK tries again for seconds, as it does a 502
			}
			all = append(all, mood{"the ledger: " + a.name, path("/signups()", "/state()", "/$batch", "(PartitionKey="), a.write, false})
		}
	}
	return all
}

// answers repeat what was said, in the places where services explain themselves.
var answers = []struct {
	name  string
	write func(w http.ResponseWriter, said string)
}{
	{"400 in JSON", func(w http.ResponseWriter, said string) { explain(w, 400, said) }},
	{"400 in a list", func(w http.ResponseWriter, said string) {
		problem, _ := json.Marshal([]any{map[string]any{"errorCode": "INVALID_EMAIL_ADDRESS", "message": said, "fields": []string{said}}})
		w.WriteHeader(400)
		_, _ = w.Write(problem)
	}},
	{"409", func(w http.ResponseWriter, said string) { explain(w, 409, said) }},
	{"a page of 502", func(w http.ResponseWriter, said string) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(502)
		fmt.Fprintf(w, "<html>Bad gateway. The request was: %s</html>", said)
	}},
	{"half an answer", func(w http.ResponseWriter, said string) {
		w.Header().Set("Content-Length", "100000")
		fmt.Fprintf(w, `{"value":[{"id":"1","message":"%s`, said)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}},
	{"200 of something else", func(w http.ResponseWriter, said string) { explain(w, 200, said) }},
	{"429", func(w http.ResponseWriter, said string) { explain(w, 429, said) }},
	{"a redirect", func(w http.ResponseWriter, said string) {
		w.Header().Set("Location", "https://elsewhere.example/?"+url.QueryEscape(said))
		w.WriteHeader(307)
	}},
	{"404", func(w http.ResponseWriter, said string) { explain(w, 404, said) }},
	{"403", func(w http.ResponseWriter, said string) { explain(w, 403, said) }},
	{"401", func(w http.ResponseWriter, said string) { explain(w, 401, said) }},
}

// explain repeats what was said in every field that some service has for an error.
func explain(w http.ResponseWriter, status int, said string) {
	line := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, said[:min(len(said), 2000)])
	for _, name := range []string{"X-Ms-Error-Code", "Request-Id", "Www-Authenticate", "Retry-After", "Sforce-Limit-Info", "Stripe-Rate-Limited-Reason", "Location"} {
		w.Header().Set(name, line)
	}
	one := map[string]any{"code": said, "type": said, "message": said, "param": said, "target": said, "innerError": map[string]any{"request-id": said},
		"details": []any{map[string]any{"code": said, "target": said}}}
	body, _ := json.Marshal(map[string]any{"error": one, "odata.error": one, "error_description": said, "title": said, "detail": said, "status": status,
		"errors": []any{map[string]any{"field": said, "message": said}}, "id": said, "object": "customer", "value": []any{map[string]any{"id": said}}})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

var displayed = regexp.MustCompile(`"display":"([^"]+)"`)

// nameForID answers a webhook's event with the person's name for an id.
func nameForID(w http.ResponseWriter, said string) {
	if m := displayed.FindStringSubmatch(said); m != nil {
		fmt.Fprintf(w, `{"id":%q}`, m[1])
	}
}

// set changes the mood, and returns how often the last one was met.
func (w *leakWorld) set(m *mood) (hits int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hits, w.hits, w.mood = w.hits, 0, m
	return hits
}

// moody lets the mood answer the calls that it is about, and remembers what credentials go by. What is said to the inner
// handler is put out under the name, if there is one.
func (w *leakWorld) moody(name string, inner http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.overhear(r, body)
		if name != "" {
			w.put(name, fmt.Sprintf("%s %s\n%s\n", r.Method, r.RequestURI, body))
		}
		w.mu.Lock()
		m := w.mood
		if m != nil && m.about(r) {
			w.hits++
		} else {
			m = nil
		}
		w.mu.Unlock()
		if m == nil {
			inner.ServeHTTP(rw, r)
			return
		}
		var head bytes.Buffer
		_ = r.Header.Write(&head)
		m.answer(rw, fmt.Sprintf("%s %s\r\n%s\r\n%s", r.Method, r.RequestURI, head.Bytes(), body))
	})
}

// overhear makes a secret of each credential in a request.
func (w *leakWorld) overhear(r *http.Request, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := func(what, text string) {
		if len(text) >= 16 {
			w.secret[what] = text
		}
	}
	scheme, credential, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if _, signature, ok := strings.Cut(credential, ":"); ok && strings.HasPrefix(scheme, "Shared") {
		credential = signature
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	keep("the latest credential ("+scheme+") at /"+first, credential)
	if form, err := url.ParseQuery(string(body)); err == nil && strings.HasSuffix(r.URL.Path, "/token") {
		keep("the latest assertion", form.Get("client_assertion"))
	}
}

// put keeps what the program has put out somewhere.
func (w *leakWorld) put(name, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out[name] == nil {
		w.out[name] = &bytes.Buffer{}
	}
	w.out[name].WriteString(text)
}

// signUp brings somebody in of whom everything is a marker.
func (w *leakWorld) signUp() signup.UserID {
	w.born++
	var none time.Duration
	mark := func(what string) string { return fmt.Sprintf("Zq%s%02d", what, w.born) }
	how := []sim.How{sim.Email, sim.Social, sim.EmailVerified, sim.Migration, sim.Admin, sim.Guest}[w.born%6]
	id := w.Tenant.SignUp(sim.Person{How: how, Email: mark("Mail") + "@" + mark("Host") + ".example", GivenName: mark("Given"), Surname: mark("Surname"),
		Attributes: map[string]any{"nickname": mark("Nickname")}, AuditLag: &none, ReplicaLag: &none, IndexLag: &none})
	if how == sim.Guest {
		w.Tenant.Redeem(id)
	}
	body, _ := json.Marshal(map[string]any{"city": mark("City"), "country": mark("Country"), "mobilePhone": mark("Phone")})
	r := httptest.NewRequest(http.MethodPatch, w.server.URL+"/v1.0/users/"+string(id), bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+sim.Token(sim.Claims{Audience: "https://graph.microsoft.com", Tenant: simTenant, App: simClient,
		Roles: []string{"User.ReadWrite.All"}, Expires: w.clock.Now().AddDate(1, 0, 0).Unix()}))
	answer := httptest.NewRecorder()
	if w.Tenant.ServeHTTP(answer, r); answer.Code != http.StatusNoContent {
		w.t.Fatalf("patch somebody: %d %s", answer.Code, answer.Body)
	}
	return id
}

// people are all texts on the users' records that say who they are, and by which they are known elsewhere.
func (w *leakWorld) people() map[string]string {
	texts := map[string]string{}
	for i, u := range w.Tenant.Users() {
		var collect func(what string, v any)
		collect = func(what string, v any) {
			switch v := v.(type) {
			case map[string]any:
				for name, inner := range v {
					collect(what+" "+name, inner)
				}
			case []any:
				for n, inner := range v {
					collect(fmt.Sprint(what, " ", n), inner)
				}
			case string:
				if digits := strings.Trim(v, "0123456789") == ""; strings.Contains(strings.ToLower(v), "zq") || digits && len(v) > 10 {
					texts[what] = v
				}
			}
		}
		collect(fmt.Sprintf("person %d (%s)", i, u.How), u.Properties)
	}
	return texts
}

// process is the program, to be run with these app settings.
func (w *leakWorld) process(settings map[string]string, args ...string) *exec.Cmd {
	w.t.Helper()
	binary, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), actAsHandler + "=1", "GOTRACEBACK=all", "GORACE=atexit_sleep_ms=0"}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// start runs the program as the host does.
func (w *leakWorld) start() {
	w.t.Helper()
	_, port, _ := strings.Cut(closedPort(w.t), ":")
	w.root, w.exited = "http://127.0.0.1:"+port, make(chan struct{})
	w.settings["FUNCTIONS_CUSTOMHANDLER_PORT"] = port
	w.program = w.process(w.settings)
	w.program.Stdout, w.program.Stderr = leakWriter{w, "stdout"}, leakWriter{w, "stderr"}
	if err := w.program.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { defer close(w.exited); _ = w.program.Wait() }() // it is killed in the end
	w.t.Cleanup(func() { _ = w.program.Process.Kill(); <-w.exited })
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(w.root); err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("the program does not listen: %s", w.out["stderr"])
		}
	}
}

type leakWriter struct {
	w    *leakWorld
	name string
}

func (l leakWriter) Write(p []byte) (int, error) {
	l.w.put(l.name, string(p))
	return len(p), nil
}

// awaitPage waits until the status page has forgotten that the ledger could not be read.
func (w *leakWorld) awaitPage() {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		resp, err := http.Post(w.root+"/Status", "application/json", strings.NewReader(`{"Data":{"req":{"Method":"GET","Url":"http://x/api/status"}}}`))
		if err != nil {
			w.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && bytes.Contains(body, []byte(`"statusCode":"200"`)) {
			return
		}
	}
	w.t.Error("the page does not come back")
}

// fire invokes the program once.
func (w *leakWorld) fire(what string) {
	w.t.Helper()
	payloads := [][2]string{{"SyncNewUsers", `{"Data":{"timer":{}},"Metadata":{}}`}, {"TakeCensus", `{"Data":{"timer":{}},"Metadata":{}}`}}
	for i, u := range w.Tenant.Users() {
		payloads = append(payloads, [2]string{"Status", fmt.Sprintf(`{"Data":{"req":{"Method":"GET","Url":"http://x/api/status","Query":{"user":%q,"format":%q}}}}`, u.ID, []string{"", "json"}[i%2])})
	}
	for _, p := range payloads {
		function := p[0]
		resp, err := http.Post(w.root+"/"+function, "application/json", strings.NewReader(p[1]))
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			w.t.Errorf("%s: %v", what, err)
		}
		unread := strings.HasPrefix(what, "the ledger: ") && bytes.Contains(body, []byte(`"statusCode":"503"`)) // as it is to be then
		if function == "Status" && !unread && (resp.StatusCode != http.StatusOK || len(body) < 1000) {
			w.t.Errorf("%s: the page is not what is searched: %d %s", what, resp.StatusCode, body)
		}
		w.put("answers to the host", fmt.Sprintf("%d %v %s\n", resp.StatusCode, resp.Header, body))
	}
}
