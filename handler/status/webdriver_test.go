package status_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// browser is a headless Chromium, driven over the WebDriver protocol.
type browser struct {
	t       *testing.T
	session string // its URL
}

// program is the first of the names that is installed; "" = none is.
func program(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// openBrowser starts one with a new empty profile. Without the programs the test is skipped, but not where CI is set.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	chromium := program("chromium", "google-chrome", "google-chrome-stable")
	driver := program("chromedriver", filepath.Join(os.Getenv("CHROMEWEBDRIVER"), "chromedriver"))
	if chromium == "" || driver == "" {
		leave(t, "chromium or chromedriver is not installed: sh .ci/browser, or your system's own")
	}
	profile, err := os.MkdirTemp("", "status-page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) }) // the browser may still be writing to it
	cmd := exec.CommandContext(t.Context(), driver, "--port=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	port := make(chan string, 1)
	go func() {
		started := regexp.MustCompile(`started successfully on port (\d+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := started.FindStringSubmatch(lines.Text()); m != nil {
				port <- m[1]
			}
		}
	}()
	b := &browser{t: t}
	select {
	case p := <-port:
		b.session = "http://127.0.0.1:" + p
	case <-time.After(30 * time.Second):
		t.Fatal("chromedriver does not start")
	}
	var made struct{ SessionID string }
	b.do("POST", "/session", object{"capabilities": object{"alwaysMatch": object{
		"goog:loggingPrefs": object{"browser": "ALL"},
		"goog:chromeOptions": object{"binary": chromium, "args": []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--user-data-dir=" + profile}},
	}}}, &made)
	b.session += "/session/" + made.SessionID
	t.Cleanup(func() {
		req, _ := http.NewRequest("DELETE", b.session, nil)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	})
	return b
}

// leave skips the test, or fails it where CI is set.
func leave(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// do asks the driver, and decodes its value.
func (b *browser) do(method, path string, body, into any) {
	b.t.Helper()
	if body == nil {
		body = object{}
	}
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	var send *bytes.Reader
	if send = bytes.NewReader(text); method == "GET" {
		send = bytes.NewReader(nil)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.session+path, send)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, answer.Value, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer.Value, into); err != nil {
			b.t.Fatalf("%s %s: %v: %s", method, path, err, answer.Value)
		}
	}
}

// cdp is a command of Chromium's own protocol.
func (b *browser) cdp(command string, params object, into any) {
	b.t.Helper()
	b.do("POST", "/goog/cdp/execute", object{"cmd": command, "params": params}, into)
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.do("POST", "/url", object{"url": url}, nil)
}

// value is what a script returns.
func value[T any](b *browser, script string, args ...any) (v T) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.do("POST", "/execute/sync", object{"script": script, "args": args}, &v)
	return v
}

// show sets the colours and the width that the page is shown in.
func (b *browser) show(medium, scheme string, width int) {
	b.t.Helper()
	b.cdp("Emulation.setEmulatedMedia", object{"media": medium, "features": []object{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.cdp("Emulation.setDeviceMetricsOverride", object{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// screenshot keeps the page, as far down as it goes, among the build's artefacts.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	var shot struct{ Data string }
	b.cdp("Page.captureScreenshot", object{"format": "png", "captureBeyondViewport": true}, &shot)
	picture, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil || len(picture) < 5000 {
		b.t.Fatalf("a picture of %d bytes, %v", len(picture), err)
	}
	dir := filepath.Join("..", "..", "bin", "screenshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// picture writes the upper part of the page, in the 48 colours that it has most of.
func (b *browser) picture(file string) {
	b.t.Helper()
	var shot struct{ Data []byte }
	b.cdp("Page.captureScreenshot", object{"format": "png", "captureBeyondViewport": true, "clip": object{"x": 0, "y": 0, "width": 1200, "height": 896, "scale": 1}}, &shot)
	full, err := png.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		b.t.Fatal(err)
	}
	count := map[color.Color]int{}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			count[full.At(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int {
		return cmp.Or(count[b]-count[a], cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	small := image.NewPaletted(full.Bounds(), most[:min(48, len(most))])
	draw.Draw(small, small.Bounds(), full, image.Point{}, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// console is what the browser has had to complain of since it was asked last.
func (b *browser) console() []string {
	b.t.Helper()
	var entries []struct{ Level, Message string }
	b.do("POST", "/se/log", object{"type": "browser"}, &entries)
	var all []string
	for _, e := range entries {
		all = append(all, e.Level+": "+e.Message)
	}
	return all
}

// press presses a key, and lets go of it.
func (b *browser) press(key string) {
	b.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13}
	press := object{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
	if key == "Enter" {
		press["text"] = "\r"
	}
	b.cdp("Input.dispatchKeyEvent", press, nil)
	b.cdp("Input.dispatchKeyEvent", object{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}, nil)
}

// violations is what axe-core finds.
func (b *browser) violations() []string {
	b.t.Helper()
	axe, err := os.ReadFile("npm/node_modules/axe-core/axe.min.js")
	if err != nil {
		leave(b.t, fmt.Sprintf("%v: npm ci --prefix handler/status/npm", err))
	}
	var found []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	b.do("POST", "/execute/async", object{"args": []any{}, "script": string(axe) + `
		const done = arguments[arguments.length - 1];
		axe.run(document).then(r => done(r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map(n => ({html: n.html, failureSummary: n.failureSummary}))}))), e => done([{id: "axe", help: String(e), nodes: []}]));`}, &found)
	var all []string
	for _, v := range found {
		all = append(all, fmt.Sprintf("%s (%s): %s", v.ID, v.Impact, v.Help))
		for _, n := range v.Nodes {
			all = append(all, "    "+n.HTML+"  "+strings.ReplaceAll(n.FailureSummary, "\n", " "))
		}
	}
	return all
}
