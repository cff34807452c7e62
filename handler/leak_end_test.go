package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signup-sync/handler/functions"
	"signup-sync/handler/signup"
)

// commands runs what an operator can, while all is well, while everything repeats what it is told, and with a wrong secret.
func (w *leakWorld) commands() {
	user := string(w.Tenant.Users()[0].ID)
	lines := [][]string{{"check"}, {"doctor"}, {"doctor", "--json"}, {"explain", user}, {"explain", "--json", user}, {"census", "--json"},
		{"replay", "--json"}, {"undo"}, {"forget", user}, {"backfill", "--since", "2020-01-01T00:00:00Z"}}
	lines = append(lines, []string{"doctor", "--settings", w.settingsFile()})
	for _, u := range w.Tenant.Users()[:5] {
		lines = append(lines, []string{"explain", string(u.ID)})
	}
	wrong := maps.Clone(w.settings)
	wrong["ENTRA_CREDENTIAL"], wrong["ENTRA_CLIENT_SECRET"] = "secret", w.secret["a wrong secret"]
	everything := func(r *http.Request) bool { return !strings.Contains(r.URL.Path, "/token") && r.URL.Path != "/" }
	for _, p := range []struct {
		what     string
		settings map[string]string
		mood     *mood
		lines    [][]string
	}{
		{"", w.settings, nil, lines},
		{" with a wrong secret", wrong, nil, lines[1:3]},
		{" among 401", w.settings, &mood{about: everything, answer: answers[len(answers)-1].write}, lines[1:4]},
		{" among 400", w.settings, &mood{about: everything, answer: answers[0].write}, lines[1:2]},
		{" and no token", w.settings, &mood{about: func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/token") }, answer: answers[len(answers)-1].write}, lines[1:2]},
	} {
		w.set(p.mood)
		for _, args := range p.lines {
			out, err := w.process(p.settings, args...).CombinedOutput()
			w.put("handler "+args[0]+p.what, string(out))
			if len(out) == 0 {
				w.t.Errorf("handler %s%s says nothing (%v)", args, p.what, err)
			}
		}
		if hits := w.set(nil); p.mood != nil && hits == 0 {
			w.t.Errorf("the commands%s asked nobody", p.what)
		}
	}
}

// settingsFile is the app's settings as the Azure CLI prints them, one of them as a Key Vault reference, and one as a
// reference to another place.
func (w *leakWorld) settingsFile() string {
	w.Vault.SetSecret("stripe", "text/plain", w.secret["a Stripe key"])
	w.Vault.SetSecret("dsn", "text/plain", w.settings["STOCK_DSN"])
	type setting struct {
		Name        string `json:"name"`
		Value       string `json:"value"`
		SlotSetting bool   `json:"slotSetting"`
	}
	var all []setting
	for _, name := range slices.Sorted(maps.Keys(w.settings)) {
		value := w.settings[name]
		switch name {
		case "STRIPE_API_KEY":
			value = "@Microsoft.KeyVault(SecretUri=" + w.server.URL + "/secrets/stripe)"
		case "STOCK_DSN":
			value = "@Microsoft.KeyVault(SecretUri=https://" + w.secret["a wrong secret"] + ".example/secrets/dsn)"
		}
		all = append(all, setting{Name: name, Value: value})
	}
	data, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(w.path("settings.json"), data, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return w.path("settings.json")
}

// within opens the program in this process, which has no managed identity.
func (w *leakWorld) within(log *slog.Logger) *app {
	w.t.Helper()
	settings := maps.Clone(w.settings)
	settings["ENTRA_CREDENTIAL"], settings["ENTRA_CLIENT_SECRET"] = "secret", w.secret["a client secret"]
	a, err := openApp(func(name string) string { return settings[name] }, log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { a.ledger.Close() })
	return a
}

// invoke is what the host does, in this process.
func (w *leakWorld) invoke(log *slog.Logger, f functions.Func) {
	s := &functions.Server{Log: log, Functions: map[string]functions.Func{"SyncNewUsers": f}}
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/SyncNewUsers", strings.NewReader(`{"Data":{"timer":{}},"Metadata":{}}`)))
	w.put("answers to the host", answer.Body.String())
}

// panics runs the program with connectors and a directory that panic with what they know.
func (w *leakWorld) panics() {
	var out bytes.Buffer
	log := functions.NewLogger(&out, &out)
	a := w.within(log)
	for i := range a.engine.Destinations {
		a.engine.Destinations[i].Connector = panicking(i)
	}
	for i := range 4 {
		w.signUp()
		f := a.syncNewUsers
		switch i {
		case 2:
			f = func(context.Context, functions.Invocation) (any, error) { panic(fmt.Errorf("%v", w.people())) }
		case 3:
			a.engine.Directory = panickingDirectory{a.engine.Directory}
		}
		w.invoke(log, f)
	}
	w.put("what panics say", out.String())
	if n := strings.Count(out.String(), "panic"); n < 4 {
		w.t.Errorf("only %d lines tell of a panic:\n%s", n, out.String())
	}
}

// panicking is a connector that panics in one of some ways.
type panicking int

func (p panicking) Associate(_ context.Context, req signup.Request) (signup.Account, error) {
	switch p % 4 {
	case 0:
		panic(fmt.Sprint(req.Record))
	case 1:
		panic(fmt.Errorf("of %s: %v", req.Email, req.Record))
	case 2:
		panic(req)
	}
	return signup.Account{ID: []string{req.Email}[len(req.Record)+1]}, nil // the runtime's own words
}

func (panicking) Check(context.Context) error { return nil }

// panickingDirectory reads people, and panics with them.
type panickingDirectory struct{ signup.Directory }

func (d panickingDirectory) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	users, err := d.Directory.Users(ctx, ids)
	panic(fmt.Sprint(users, err))
}

// quit lets the program write down all that its goroutines are doing, in the midst of work, and end.
func (w *leakWorld) quit() {
	w.signUp()
	at := make(chan struct{}, 100)
	w.set(&mood{about: func(r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/v1/customers") || strings.HasPrefix(r.URL.Path, "/webhook")
	},
		answer: func(http.ResponseWriter, string) {
			at <- struct{}{}
			<-w.exited
			panic(http.ErrAbortHandler)
		}})
	go func() {
		resp, err := http.Post(w.root+"/SyncNewUsers", "application/json", strings.NewReader(`{"Data":{"timer":{}},"Metadata":{}}`))
		if err == nil {
			resp.Body.Close()
		}
	}()
	select {
	case <-at:
	case <-time.After(20 * time.Second):
		w.t.Error("the program does not get to work")
	}
	if err := w.program.Process.Signal(syscall.SIGQUIT); err != nil {
		w.t.Fatal(err)
	}
	<-w.exited
	if dump := w.out["stderr"].String(); !strings.Contains(dump, "SIGQUIT") || !strings.Contains(dump, "goroutine ") {
		w.t.Errorf("the program left no dump: %.2000s", dump)
	}
}

// search looks at everything, and says what was found by where it was put out. That the people and secrets were there is
// shown by the destinations, which have them.
func (w *leakWorld) search() (found map[string][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range []string{"ledger.db", "ledger.db-wal"} {
		data, err := os.ReadFile(w.path(name))
		if err == nil && len(data) > 0 {
			w.out[name] = bytes.NewBuffer(data)
		} else if !errors.Is(err, os.ErrNotExist) && err != nil {
			w.t.Error(err)
		}
	}
	w.out["what was told to a collector"] = bytes.NewBuffer(w.told())
	texts := w.people()
	if len(texts) < 9*w.born {
		w.t.Errorf("there are only %d texts about %d people", len(texts), w.born)
	}
	maps.Copy(texts, w.secret)
	s := newLeakSearch(texts)
	delivered := fmt.Sprint(w.Stripe.Customers(), w.Webhook.Deliveries(), w.Queue.Messages())
	if there := s.in([]byte(delivered)); len(there) < w.born {
		w.t.Errorf("only %d of the texts are found where they belong", len(there))
	}
	found = map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(w.out)) {
		data := w.out[name].Bytes()
		w.t.Logf("%-40s %8d bytes", name, len(data))
		if there := s.in(data); len(there) > 0 {
			found[name] = there
		}
		if aToken.Match(data) {
			found[name] = append(found[name], "a token")
		}
	}
	return found
}

// aToken is any, were it one that nobody has noted. Three letters alone would be found in an account's id now and then.
var aToken = regexp.MustCompile(`eyJ[0-9A-Za-z_-]{16}|Bearer `)

// TestAPlantedLeakIsFound plants one in each layer: what a connector says of a failure, what it calls an account, what is
// logged beside, what the host is answered.
func TestAPlantedLeakIsFound(t *testing.T) {
	t.Parallel()
	w := openLeakWorld(t, false)
	var out bytes.Buffer
	log := functions.NewLogger(&out, &out)
	a := w.within(log)
	for i := range a.engine.Destinations {
		a.engine.Destinations[i].Connector = leaking(i)
	}
	w.signUp()
	w.fire("for somebody at the destinations, where the search must find something")
	for range 3 {
		w.signUp()
		w.invoke(log, func(ctx context.Context, in functions.Invocation) (any, error) {
			log.Info("signed in", "as", base64.StdEncoding.EncodeToString([]byte(w.secret["a client secret"])))
			_, err := a.syncNewUsers(ctx, in)
			return map[string]string{"latest": url.QueryEscape(w.Tenant.Users()[w.born-1].Properties["surname"].(string) + "/")}, err
		})
	}
	w.put("log", out.String())
	found := w.search()
	for where, form := range map[string][]string{"ledger.db-wal": {"plain", "MD5"}, "log": {"plain", "base64"}, "answers to the host": {"plain"}} {
		for _, f := range form {
			if !strings.Contains(strings.Join(found[where], "\n"), ", "+f) {
				t.Errorf("the leak in %s (%s) was not found: %q", where, f, found[where])
			}
		}
	}
	if len(found["stdout"])+len(found["stderr"]) > 0 {
		t.Errorf("found %q where nothing was planted", found)
	}
}

// leaking is a connector as it must not be.
type leaking int

func (l leaking) Associate(_ context.Context, req signup.Request) (signup.Account, error) {
	if l%2 == 0 {
		return signup.Account{}, &signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "the service says: " + req.Email + " is taken"}
	}
	return signup.Account{ID: fmt.Sprintf("%x", md5.Sum([]byte(strings.ToLower(req.Email))))}, nil
}

func (leaking) Check(context.Context) error { return nil }
