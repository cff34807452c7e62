package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/status"
)

// fetch asks for a page, and follows nothing.
func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestTheStatusPageOfALocalRun is the whole way: a client, the host, the program, the ledger.
func TestTheStatusPageOfALocalRun(t *testing.T) {
	t.Parallel()
	c := localCommand{Signups: 12, Seed: 1, Over: 30 * time.Second, Rate: 20, Tenant: "external", App: appFolder(t), Dir: t.TempDir(), Ledger: "file", Give: 40 * time.Minute, JSON: true}
	var said bytes.Buffer
	l, err := c.open(t.Context(), system{stdout: io.Discard, stderr: &said, getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if !strings.Contains(said.String(), l.page.link) {
		t.Errorf("it prints no link: %q", said.String())
	}
	if code, body := fetch(t, l.page.link); code != 200 || !strings.Contains(body, "There was no run yet") {
		t.Errorf("before the first run: got %d %s", code, body)
	}
	keyless, _, _ := strings.Cut(l.page.link, "?")
	for _, url := range []string{keyless, keyless + "?code=", keyless + "?code=another"} {
		if code, body := fetch(t, url); code != 401 || body != "" {
			t.Errorf("without the key: got %d %s", code, body)
		}
	}
	if err := l.play(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second) // for as long a reading is shown again
	code, body := fetch(t, l.page.link+"&format=json")
	var r status.Report
	if err := json.Unmarshal([]byte(body), &r); code != 200 || err != nil {
		t.Fatalf("got %d %v %s", code, err, body)
	}
	if got := r.Totals.Week; got.SignUps != 12 || got.Associated+got.Skipped != 12 || got.Failed != 0 {
		t.Errorf("12 people have signed up, and the page counts %+v", got)
	}
	if r.Delay.Users != r.Totals.Week.Associated || r.Delay.P99 <= 0 || len(r.Runs) == 0 || len(r.Destinations) < 9 || r.Status.Backlog.Due+r.Status.Backlog.Waiting != 0 {
		t.Errorf("got %+v", r)
	}
	for id, p := range l.people {
		code, body := fetch(t, l.page.link+"&user="+string(id))
		if code != 200 || !strings.Contains(body, string(id)) || p.Email != "" && strings.Contains(body, p.Email) || len(p.Surname) > 3 && strings.Contains(body, p.Surname) {
			t.Errorf("%s: got %d %s", id, code, body)
		}
		break
	}

	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() { defer close(kept); l.keep(ctx) }()
	if code, _ := fetch(t, l.page.link); code != 200 {
		t.Errorf("kept up, it answers %d", code)
	}
	stop()
	<-kept
}

// TestThereIsNoStatusPageUntilItIsConfigured, and a configuration that is refused says so.
func TestThereIsNoStatusPageUntilItIsConfigured(t *testing.T) {
	for name, c := range map[string]struct {
		more string
		code int
		has  string
	}{
		"not configured": {"", 404, "not found"},
		"configured":     {"status: { access: functionKey }\n", 200, "There was no run yet"},
		"refused":        {"status: { access: anonymous }\n", 503, "configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			app := appFolder(t)
			config := "destinations:\n  - name: welcome\n    connector: webhook\n    settings: { url: 'https://example.com/', secret: \"${WELCOME_SECRET}\" }\n" + c.more
			if err := os.WriteFile(filepath.Join(app, "signup-sync.yaml"), []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
			settings := map[string]string{"SYNC_SCHEDULE": "0 * * * * *", "CENSUS_SCHEDULE": "0 */15 * * * *", "ENTRA_TENANT_ID": simTenant, "ENTRA_CLIENT_ID": simClient, "ENTRA_CREDENTIAL": "secret",
				"ENTRA_CLIENT_SECRET": "x", "WELCOME_SECRET": simWelcome, "LEDGER": "file:" + filepath.Join(t.TempDir(), "ledger.db")}
			host, err := devhost.Open(devhost.Options{Root: app, Settings: settings, Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			if _, err := host.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			p := &localPage{key: "k"}
			if err := p.serve(host); err != nil {
				t.Fatal(err)
			}
			defer p.close()
			if code, body := fetch(t, p.link); code != c.code || !strings.Contains(body, c.has) {
				t.Errorf("got %d %s, want %d with %q", code, body, c.code, c.has)
			}
		})
	}
}
