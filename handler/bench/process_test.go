package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	benchTenant = "04dcc6ab-388a-4559-b527-fbec656300ea"
	benchClient = "5f7f1f6a-0000-4000-8000-00000000c11e"
	benchSecret = "simulated"
	benchHook   = "whsec_c2ltdWxhdGVkLXNpbXVsYXRlZC1zaW11bGF0ZWQ="
)

// process is the program as it is deployed, in a process of its own, and what it speaks to in this one: the simulated tenant
// and destinations, by HTTPS, and a ledger in a file.
type process struct {
	*sim.World
	backlog  *backlog // in front of it
	t        *testing.T
	dir      string
	binary   string
	settings map[string]string
	clock    signup.ScaledClock

	cmd  *exec.Cmd
	root string // where it listens
	log  bytes.Buffer
	done chan struct{}
}

// built is the program, built now.
func built(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "handler")
	goRun(t, "build", "-ldflags", "-s -w", "-o", binary, "../../handler")
	return binary
}

// openProcess serves what the program needs, for the configuration of the repository. Nothing lags, so that all is to be
// done at once. A clock that runs faster raises all limits, the program's and the services', by its rate.
func openProcess(t *testing.T, binary string, rate float64, throttle sim.Throttle) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir(), binary: binary, clock: signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: rate}}
	life := time.Duration(rate * float64(time.Hour)) // clients keep tokens by the machine's clock
	p.World = &sim.World{
		Tenant: sim.NewTenant(sim.TenantOptions{ID: benchTenant, Clock: p.clock, Seed: 1, Type: sim.External, Throttle: throttle, Duplicates: -1,
			Replicas: 1, InstantReplicas: true, InstantAudit: true, Attributes: []string{"stripeCustomerId", "welcomeId", "marketingOptIn"}}),
		Entra: sim.NewEntra(sim.EntraOptions{Clock: p.clock, Tenant: benchTenant, TokenLife: life, Apps: []sim.App{{ID: benchClient, Secret: benchSecret,
			Roles: []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All"}}}}),
		Stripe:  sim.NewStripe(sim.StripeOptions{Clock: p.clock, APIKey: benchSecret}),
		Webhook: sim.NewWebhook(sim.WebhookOptions{Clock: p.clock, Secrets: []string{benchHook}}),
	}
	p.backlog = &backlog{Handler: p.World, at: p.clock.Start.Add(-time.Minute)}
	server, err := sim.Serve(t.Context(), "127.0.0.1:0", p.backlog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	if err := os.WriteFile(p.path("ca.pem"), server.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	p.configure()
	p.settings = map[string]string{
		"ENTRA_TENANT_ID": benchTenant, "ENTRA_CLIENT_ID": benchClient, "ENTRA_CREDENTIAL": "secret", "ENTRA_CLIENT_SECRET": benchSecret,
		"ENTRA_AUTHORITY": server.URL, "GRAPH_URL": server.URL, "EXTRA_CA_FILE": p.path("ca.pem"),
		"STRIPE_URL": server.URL, "STRIPE_API_KEY": benchSecret, "WELCOME_URL": server.URL + "/webhook", "WELCOME_SECRET": benchHook,
		"CUSTOMERS_DSN": p.path("customers.db"), "LEDGER": "file:" + p.path("ledger.db"), "SIGNUP_SYNC_CONFIG": p.path("signup-sync.yaml"),
		"SIGNUP_SYNC_CLOCK": fmt.Sprintf("%s,%g", p.clock.Start.Format(time.RFC3339), rate),
	}
	return p
}

func (p *process) path(name string) string { return filepath.Join(p.dir, name) }

// configure writes the repository's configuration without its SQL destination, which is a file of the program's own here
// and no work for somebody else, and with a first window of an hour, of which the log is read in two calls rather than 48.
func (p *process) configure() {
	p.t.Helper()
	text, err := os.ReadFile("../../signup-sync.yaml")
	if err != nil {
		p.t.Fatal(err)
	}
	config, _, found := strings.Cut(string(text), "\n  - name: customers\n")
	short := strings.Replace(config, "firstLookBack: 24h", "firstLookBack: 1h", 1)
	if !found || short == config {
		p.t.Fatal("signup-sync.yaml has no firstLookBack of 24h, or no destination customers at its end, any more")
	}
	if err := os.WriteFile(p.path("signup-sync.yaml"), []byte(short), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// start starts the program, and returns how long it took to its first answer.
func (p *process) start() time.Duration {
	p.t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	p.root = "http://127.0.0.1:" + port
	p.cmd = exec.Command(p.binary)
	p.cmd.Dir = p.dir
	p.cmd.Env = append(os.Environ(), "FUNCTIONS_CUSTOMHANDLER_PORT="+port)
	for name, value := range p.settings {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.log.Reset()
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	begun := time.Now()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan struct{})
	go func() { defer close(p.done); _ = p.cmd.Wait() }() // it is killed in the end
	p.t.Cleanup(p.stop)
	for {
		if resp, err := http.Get(p.root); err == nil {
			resp.Body.Close()
			return time.Since(begun)
		}
		if time.Since(begun) > 20*time.Second {
			p.stop()
			p.t.Fatalf("the program does not answer: %s", p.log.String())
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may be dead already
	<-p.done
}

// summary is what a run says of itself, as far as it is looked at here.
type summary struct {
	Users     int
	Detectors []struct {
		Name        string
		Events, New int
	}
}

// invoke is what the host does at each turn of the timer.
func (p *process) invoke() (*http.Response, error) {
	return http.Post(p.root+"/SyncNewUsers", "application/json", strings.NewReader(`{"Data":{"timer":{}},"Metadata":{}}`))
}

// begin begins a run that the program may be killed in.
func (p *process) begin() (ended chan struct{}) {
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := p.invoke(); err == nil {
			resp.Body.Close()
		}
	}()
	return ended
}

// await returns when something is so.
func (p *process) await(so func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.stop()
			p.t.Fatalf("after a minute the program has come to page %d of the log, and to %d users: %s", p.backlog.pages.Load(), p.backlog.patches.Load(), p.log.String())
		}
	}
}

// run invokes SyncNewUsers, and returns when the run is over.
func (p *process) run() (s summary) {
	p.t.Helper()
	resp, err := p.invoke()
	if err != nil {
		p.stop()
		p.t.Fatalf("%v: %s", err, p.log.String())
	}
	defer resp.Body.Close()
	var answer struct{ Logs []string }
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && len(answer.Logs) == 1 {
		err = json.Unmarshal([]byte(answer.Logs[0]), &s)
	}
	if err != nil || resp.StatusCode != http.StatusOK || len(answer.Logs) != 1 {
		p.t.Fatalf("a run: status %d, %v: %.2000s", resp.StatusCode, err, body)
	}
	return s
}

// tick is the unit of /proc: Linux's USER_HZ is 100 on amd64 and arm64.
const tick = 10 * time.Millisecond

// cpu is how long the program has computed, user and system.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skip("without /proc nothing can be measured:", err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the third field on
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		p.t.Fatalf("cannot read %s", text)
	}
	return time.Duration(user+system) * tick
}
