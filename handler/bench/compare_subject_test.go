package bench_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/functions/devhost"
)

// contestant is what is compared: an app as the host starts it.
type contestant struct {
	name     string
	exe      string
	args     string
	schedule string
	config   string            // ours alone
	more     map[string]string // settings
}

// programs builds them: ours, and the polling function in Go and in JavaScript. Without node or its package js is
// nothing; in CI that is an error.
func programs(t *testing.T) (ours, plain, js contestant) {
	t.Helper()
	dir := t.TempDir()
	build := func(name, pkg string) string {
		out := filepath.Join(dir, name)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, text)
		}
		return out
	}
	ours = contestant{name: "signup-sync", exe: build("handler", "signup-sync/handler"), schedule: "0 * * * * *"}
	plain = contestant{name: "Go", exe: build("plain", "signup-sync/handler/bench/plain"), schedule: "0 */5 * * * *"}
	node, err := exec.LookPath("node")
	script, absErr := filepath.Abs("plainjs/index.mjs")
	_, installed := os.Stat("plainjs/node_modules/@microsoft/microsoft-graph-client/package.json")
	if err := errors.Join(err, absErr, installed); err != nil {
		const fix = "NOT compared with JavaScript: install node, and what it needs with: npm ci --prefix handler/bench/plainjs"
		if os.Getenv("CI") != "" {
			t.Fatalf("%s (%v)", fix, err)
		}
		t.Logf("%s (%v)", fix, err)
		return ours, plain, js
	}
	return ours, plain, contestant{name: "JavaScript", exe: node, args: script, schedule: plain.schedule}
}

// marking is a polling function that knows whom it has done.
func (p contestant) marking() contestant {
	p.name, p.more = p.name+", marking", map[string]string{"MARKS": "1"}
	return p
}

// lifted is a polling function that leaves out what a platform's limit could hold up.
func (p contestant) lifted() contestant {
	p.more = map[string]string{"LIFTED": "1"}
	return p
}

// settings are those of our configuration that differ. The rates are lines of it; "" is a connector's defaults.
type contestSettings struct {
	detectors                string
	billing, newsletter, crm string
	lifted                   bool // as the polling function's
}

// configured is ours with such settings.
func (p contestant) configured(name string, c contestSettings) contestant {
	p.name = name
	var b strings.Builder
	fmt.Fprintf(&b, "sync: { firstLookBack: 1h, detectors: [%s] }\n", cmp.Or(c.detectors, "audit, directory"))
	if !c.lifted {
		b.WriteString(`profile:
  displayName: user.givenName + " " + user.surname
  attributes: { stripeCustomerId: accounts.billing.id, mailchimpId: accounts.newsletter.id, salesforceId: accounts.crm.id }
`)
	}
	fmt.Fprintf(&b, `destinations:
  - name: billing
    connector: stripe
    settings: { url: "${STRIPE_URL}", apiKey: "${STRIPE_API_KEY}" }
    record: { email: user.email, name: user.displayName }
    %s
  - name: crm
    connector: salesforce
    settings: { url: "${SIMULATED_URL}", auth: clientCredentials, clientId: simulated, clientSecret: "${SALESFORCE_SECRET}" }
    record: { FirstName: user.givenName, LastName: user.surname, Email: user.email }
    %s
`, c.billing, c.crm)
	if !c.lifted {
		fmt.Fprintf(&b, `  - name: newsletter
    connector: mailchimp
    settings: { url: "${SIMULATED_URL}", apiKey: "${MAILCHIMP_API_KEY}", audience: %s }
    record: { status: '"subscribed"', mergeFields: { FNAME: user.givenName, LNAME: user.surname } }
    %s
`, simAudience, c.newsletter)
	}
	p.config = b.String()
	return p
}

// subject is a contestant at work in its world.
type subject struct {
	contestant
	*contestWorld
	t        *testing.T
	root     string
	settings map[string]string

	mu     sync.Mutex
	host   *devhost.Host
	status map[string]devhost.ScheduleStatus
	log    []string
	timers sync.WaitGroup
}

// open makes the app's folder; nothing runs yet.
func (p contestant) open(t *testing.T, w *contestWorld) *subject {
	t.Helper()
	s := &subject{contestant: p, contestWorld: w, t: t, root: w.path("app")}
	root := w.server.URL
	s.settings = map[string]string{
		"ENTRA_TENANT_ID": simTenant, "ENTRA_CLIENT_ID": simClient, "ENTRA_CREDENTIAL": "secret", "ENTRA_CLIENT_SECRET": simSecret,
		"ENTRA_AUTHORITY": root, "GRAPH_URL": root, "STRIPE_URL": root, "STRIPE_API_KEY": simSecret, "SIMULATED_URL": root,
		"MAILCHIMP_API_KEY": simMailchimp, "MAILCHIMP_AUDIENCE": simAudience, "SALESFORCE_ID": simSecret, "SALESFORCE_SECRET": simSecret,
		"EXTENSION_PREFIX": w.Tenant.Extension(""), "SYNC_SCHEDULE": p.schedule, "CENSUS_SCHEDULE": "0 */15 * * * *",
		"EXTRA_CA_FILE": w.path("ca.pem"), "SSL_CERT_FILE": w.path("ca.pem"), "NODE_EXTRA_CA_CERTS": w.path("ca.pem"),
		"LEDGER": "file:" + w.path("ledger.db"), "SIGNUP_SYNC_CONFIG": w.path("signup-sync.yaml"),
		"SIGNUP_SYNC_CLOCK": w.clock.Start.Format(time.RFC3339Nano) + "," + strconv.FormatFloat(w.clock.Rate, 'g', -1, 64),
	}
	for k, v := range p.more {
		s.settings[k] = v
	}
	host, err := json.Marshal(map[string]any{"version": "2.0", "functionTimeout": "00:05:00", "customHandler": map[string]any{
		"description": map[string]any{"defaultExecutablePath": p.exe, "arguments": strings.Fields(p.args)}}})
	if err != nil {
		t.Fatal(err)
	}
	s.write("app/host.json", string(host))
	names := []string{"SyncNewUsers"}
	if p.config != "" {
		names = append(names, "TakeCensus")
		s.write("signup-sync.yaml", p.config)
	}
	for _, name := range names {
		binding, err := os.ReadFile(filepath.Join("..", "..", name, "function.json"))
		if err != nil {
			t.Fatal(err)
		}
		s.write("app/"+name+"/function.json", string(binding))
	}
	t.Cleanup(s.stop)
	return s
}

func (s *subject) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// start starts a host, which goes on where the one before it ended; with timers it runs by the schedule.
func (s *subject) start(timers bool) {
	host, err := devhost.Open(devhost.Options{Root: s.root, Settings: s.settings, Clock: s.clock, Status: s.status, Log: func(l devhost.Line) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log[max(0, len(s.log)-400):], fmt.Sprintf("%s %-6s %.400s", s.clock.Now().Format(time.TimeOnly), l.From, l.Text))
	}})
	if err == nil {
		_, err = host.Start(s.t.Context())
	}
	if err != nil {
		s.t.Errorf("start %s: %v", s.name, err)
		return
	}
	s.mu.Lock()
	s.host = host
	s.mu.Unlock()
	if timers {
		s.timers.Go(func() { _ = host.RunTimers(s.t.Context()) }) // it ends with the host
	}
}

// stop ends host and program without a word to either.
func (s *subject) stop() {
	s.mu.Lock()
	host := s.host
	s.host = nil
	s.mu.Unlock()
	if host != nil {
		host.Close()
		s.status = host.Status()
		s.timers.Wait()
	}
}

// kill ends the program at once; its host starts it again.
func (s *subject) kill() {
	s.mu.Lock()
	host := s.host
	s.mu.Unlock()
	if host != nil {
		_ = host.Kill() // it may be between two lives
	}
}

// lines is the end of the log.
func (s *subject) lines() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log[max(0, len(s.log)-60):], "\n")
}

// usage is what a process has taken so far: CPU time, and its peak of memory in bytes.
type usage struct {
	cpu  time.Duration
	peak int64
}

// usage reads the program's from /proc, by the port that its host has given it; where there is no /proc it is 0.
func (s *subject) usage() (u usage) {
	s.mu.Lock()
	_, port, _ := strings.Cut(strings.TrimPrefix(s.host.URL(), "http://"), ":")
	s.mu.Unlock()
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte("FUNCTIONS_CUSTOMHANDLER_PORT="+port+"\x00")) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		status, statusErr := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if err != nil || statusErr != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on, proc(5)
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		u.cpu = time.Duration(user+system) * 10 * time.Millisecond // 100 ticks a second
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		kilobytes, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
		u.peak = kilobytes << 10
	}
	return u
}
