package status_test

import (
	"encoding/base64"
	"flag"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var picture = flag.Bool("picture", false, "write docs/status.png, the README's picture of the page")

// TestInABrowser shows the page in Chromium as people see it.
func TestInABrowser(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *browser)
	}{{"looks", looks}, {"style", styleIsLetIn}, {"keyboard", byKeyboard}, {"paper", onPaper}, {"forced", forcedColours}} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			c.test(t, b)
		})
	}
}

// looks holds the page against axe-core, in light and dark, wide and narrow. Pictures are in bin/screenshots.
func looks(t *testing.T, b *browser) {
	for _, c := range []struct {
		name string
		fill func(*world)
		has  string
	}{
		{"empty", func(*world) {}, "There was no run yet"},
		{"one", func(w *world) { w.one() }, "1 user in seven days"},
		{"busy", func(w *world) { w.busy(100_000) }, "Of the app"},
		{"user", func(w *world) { w.busy(400) }, "is pending"},
		{"down", func(w *world) { w.note("state", []int{1}) }, "The ledger cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			w := newWorld(t)
			c.fill(w)
			server := httptest.NewServer(w.page())
			defer server.Close()
			target := server.URL + "/api/status?code=a-key"
			if c.name == "user" {
				target += "&user=" + string(userID(399))
			}
			for _, look := range []struct {
				name, scheme string
				width        int
			}{{"light", "light", 1200}, {"dark", "dark", 1200}, {"narrow", "light", 360}, {"narrow-dark", "dark", 360}} {
				b.show("screen", look.scheme, look.width)
				begun := time.Now()
				b.open(target)
				took := time.Since(begun)
				if text := value[string](b, "return document.body.innerText"); !strings.Contains(strings.ToLower(text), strings.ToLower(c.has)) {
					t.Errorf("%s: the page does not say %q:\n%s", look.name, c.has, text)
				}
				if over := value[int](b, "return document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
					t.Errorf("%s: the page is %d pixels too wide", look.name, over)
				}
				for _, v := range b.violations() {
					t.Errorf("%s: %s", look.name, v)
				}
				for _, line := range b.console() {
					if c.name != "down" || !strings.Contains(line, "503") {
						t.Errorf("%s: the console says %s", look.name, line)
					}
				}
				b.screenshot("status-" + c.name + "-" + look.name)
				if *picture && c.name == "busy" && look.name == "light" {
					b.picture("../../docs/status.png")
				}
				t.Logf("%s: there in %v", look.name, took)
			}
		})
	}
}

// styleIsLetIn: a policy that keeps it out leaves a page that reads well, and looks like nothing.
func styleIsLetIn(t *testing.T, b *browser) {
	w := newWorld(t)
	server := httptest.NewServer(w.page())
	defer server.Close()
	b.show("screen", "dark", 1200)
	b.open(server.URL + "/api/status")
	if got := value[string](b, "return getComputedStyle(document.body).backgroundColor"); got != "rgb(15, 20, 25)" {
		t.Errorf("in the dark the page is %s", got)
	}
}

// byKeyboard goes through the page with the tab key, asks for a user, and comes to the answer.
func byKeyboard(t *testing.T, b *browser) {
	w := newWorld(t)
	w.busy(400)
	server := httptest.NewServer(w.page())
	defer server.Close()
	b.show("screen", "light", 1200)
	b.open(server.URL + "/api/status?code=a-key")
	const focused = `const e = document.activeElement, s = getComputedStyle(e);
		if (e === document.body) return "";
		return (e.innerText || e.name || "").trim().split("\n")[0] + (s.outlineStyle === "none" ? " (not seen)" : "") + (e.getAttribute("aria-labelledby") || e.getAttribute("aria-label") || "")`
	var seen []string
	for range 60 {
		b.press("Tab")
		at := value[string](b, focused)
		if at == "" {
			break
		}
		seen = append(seen, at)
	}
	first := []string{"Skip to the status", "Reload", "JSON", "user", "Explain"}
	if len(seen) < 10 || !slices.Equal(seen[:len(first)], first) {
		t.Errorf("the tab key goes to %q, want %q first", seen, first)
	}
	for _, at := range seen {
		if strings.Contains(at, "(not seen)") {
			t.Errorf("nobody sees where the focus is: %q", at)
		}
	}
	for _, want := range []string{"Sign-ups by hour, plot", "The numbers by day", "destinations", "runs"} {
		if !slices.ContainsFunc(seen, func(at string) bool { return strings.Contains(at, want) }) {
			t.Errorf("the tab key never comes to %q: %q", want, seen)
		}
	}

	b.open(server.URL + "/api/status?code=a-key")
	for range 4 {
		b.press("Tab")
	}
	b.cdp("Input.insertText", object{"text": string(userID(399))}, nil)
	b.press("Enter")
	waitFor(t, func() bool { return strings.Contains(value[string](b, "return location.search"), "user=") })
	if got, want := value[string](b, "return location.search"), "?code=a-key&user="+string(userID(399)); got != want {
		t.Errorf("the form asks for %q, want %q", got, want)
	}
	if got := value[string](b, "return document.querySelector('#one').innerText"); got != string(userID(399))+" is pending." {
		t.Errorf("it says %q", got)
	}
	if got := value[[]string](b, `return [...document.querySelectorAll("a[href^='?']")].map(a => new URL(a.href).searchParams.get("code"))`); len(got) < 3 || slices.ContainsFunc(got, func(code string) bool { return code != "a-key" }) {
		t.Errorf("links carry %q", got)
	}
}

// forcedColours: where the system takes the page's colours away, the plots and the legend still have theirs, and nothing runs together.
func forcedColours(t *testing.T, b *browser) {
	w := newWorld(t)
	w.busy(400)
	server := httptest.NewServer(w.page())
	defer server.Close()
	b.show("screen", "light", 1200)
	b.cdp("Emulation.setEmulatedMedia", object{"media": "screen", "features": []object{{"name": "forced-colors", "value": "active"}, {"name": "prefers-color-scheme", "value": "dark"}}}, nil)
	b.open(server.URL + "/api/status")
	if !value[bool](b, `return matchMedia("(forced-colors: active)").matches`) {
		t.Fatal("the browser forces no colours")
	}
	for _, series := range []string{"signups", "associated", "skipped", "failed"} {
		key := value[string](b, "return getComputedStyle(document.querySelector('.key."+series+"')).backgroundColor")
		if bar := value[string](b, "return getComputedStyle(document.querySelector('path."+series+"')).fill"); key != bar || key == value[string](b, "return getComputedStyle(document.body).backgroundColor") {
			t.Errorf("%s is %s in the legend and %s in the plot", series, key, bar)
		}
	}
	if got := value[string](b, "return getComputedStyle(document.querySelector('.tiles div')).outlineStyle"); got == "none" {
		t.Error("nothing is between the tiles")
	}
	b.screenshot("status-forced")
}

// onPaper: what cannot be used there is gone, what could be hidden is shown, and ink is saved.
func onPaper(t *testing.T, b *browser) {
	w := newWorld(t)
	w.busy(400)
	server := httptest.NewServer(w.page())
	defer server.Close()
	b.show("print", "dark", 718) // A4, less what browsers leave as margins
	b.open(server.URL + "/api/status")
	type look struct {
		Form, Paper, Text string
		Plots, Over       int
	}
	got := value[look](b, `return {form: getComputedStyle(document.querySelector("form")).display, paper: getComputedStyle(document.body).backgroundColor,
		text: getComputedStyle(document.body).color, plots: [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height > 60).length, over: document.documentElement.scrollWidth - document.documentElement.clientWidth}`)
	if diff := cmp.Diff(got, look{"none", "rgb(255, 255, 255)", "rgb(0, 0, 0)", 5, 0}); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	b.screenshot("status-print")
	var pdf string
	b.do("POST", "/print", object{"background": true}, &pdf)
	text, err := base64.StdEncoding.DecodeString(pdf)
	if err != nil || !strings.HasPrefix(string(text), "%PDF") || len(text) < 20_000 {
		t.Errorf("the print has %d bytes, %v", len(text), err)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
