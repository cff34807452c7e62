package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"signup-sync/handler/connector/databasetest"
	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// actAsHandler makes the test's binary the program itself, so that a Functions host can start it.
const actAsHandler = "SIGNUP_SYNC_TEST_ACTS_AS_HANDLER"

func TestMain(m *testing.M) {
	forTests := func(arg string) bool { return strings.HasPrefix(arg, "-test.") } // a fuzzing worker inherits the environment
	if os.Getenv(actAsHandler) != "" && !slices.ContainsFunc(os.Args, forTests) {
		main()
	}
	if err := os.Setenv(actAsHandler, "1"); err != nil { // whom the tests start; here, since those that run in parallel may not
		panic(err)
	}
	code := m.Run()
	databasetest.StopAll()
	os.Exit(code)
}

// appFolder is the app as it is deployed, with the test's binary as bin/handler.
func appFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"host.json", "SyncNewUsers/function.json", "TakeCensus/function.json", "Status/function.json"} {
		data, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "handler")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// play runs `handler local --json` with an account for the ledger, if any, and returns its report. Mostly it waits for
// the simulated time to pass, so that several can at once.
func play(t *testing.T, account string, args ...string) localReport {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"local", "--json", "--app", appFolder(t), "--dir", dir}, args...)
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return map[string]string{"AzureWebJobsStorage": account}[name] }
	code := run(t.Context(), system{args: args, getenv: getenv, stdout: &stdout, stderr: &stderr})
	if code != exitOK {
		log, _ := os.ReadFile(filepath.Join(dir, "handler.log"))
		t.Fatalf("exit code %d\n%s\n%s\nthe end of the log:\n%s", code, stdout.String(), stderr.String(), log[max(0, len(log)-4000):])
	}
	var r localReport
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("decode the report: %v\n%s", err, stdout.String())
	}
	namesNobody(t, dir, r.Signups)
	return r
}

// namesNobody searches what the program logged and remembers for the people's addresses and names, and for secrets.
func namesNobody(t *testing.T, dir string, people int) {
	t.Helper()
	var never []string
	for _, p := range sim.Crowd(people, 1) {
		never = append(never, p.Email)
		for _, name := range []string{p.GivenName, p.Surname} {
			if len(name) > 3 {
				never = append(never, name)
			}
		}
	}
	never = append(never, "@example.", simWelcome, "Bearer ", "eyJ")
	searched := 0
	for _, file := range []string{"handler.log", "ledger.db", "ledger.db-wal"} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			continue // no SQLite ledger, or no log of its writes
		}
		searched += len(data)
		for _, text := range never {
			if i := bytes.Index(data, []byte(text)); i >= 0 {
				t.Errorf("%s holds %q: …%q…", file, text, data[max(0, i-80):min(len(data), i+80)])
			}
		}
	}
	if searched < 2000 {
		t.Errorf("searched %d bytes: where are the log and the ledger?", searched)
	}
	customers, err := os.ReadFile(filepath.Join(dir, "customers.db"))
	if err != nil || !bytes.Contains(customers, []byte("@example.")) {
		t.Errorf("the addresses are not in the customers database either (%v): the search finds nothing anywhere", err)
	}
}

func TestLocalRun(t *testing.T) {
	t.Parallel()
	r := play(t, "", "--signups", "90", "--over", "3m", "--rate", "20")
	if r.Signups != 90 || r.Detected != 90 || r.Lost != 0 || r.Repeated != 0 || r.Failed != 0 || r.Associated+r.Skipped != 90 {
		t.Errorf("got %+v", r)
	}
	for _, origin := range []string{"selfService (userFlow)", "selfService (federated)", "admin", "admin (migration)", "invitation"} {
		if len(r.Origins[origin]) == 0 {
			t.Errorf("nobody came by %s: %v", origin, r.Origins)
		}
	}
	if _, there := r.Destinations["starter"]; there {
		t.Error("an external tenant has an access package")
	}
	if n := r.Destinations["billing"]["associated"]; n == 0 || n != r.Associated || n != r.Destinations["profile"]["associated"] {
		t.Errorf("got destinations %v", r.Destinations)
	}
	if r.LedgerTransactions > int64(2*r.Signups) {
		t.Errorf("got %d ledger transactions for %d sign-ups, want at most 2 each", r.LedgerTransactions, r.Signups)
	}
	// Who is not settled in one run, as on a machine that has much else to do, gets a patch from each that learns something.
	if r.Patches < r.Associated || r.Patches > r.Associated*5/4 {
		t.Errorf("got %d accepted patches for %d users, want one each, or a few more", r.Patches, r.Associated)
	}
}

// That a guest has accepted is in the audit log alone: records that are late reach the run only within the overlap.
func TestALocalRunReachesLateRecords(t *testing.T) {
	for _, kind := range []sim.TenantType{sim.External, sim.Workforce} {
		_, after, _ := strings.Cut(string(configOf(kind)), "\n  overlap: ")
		text, _, _ := strings.Cut(after, " ")
		overlap, err := time.ParseDuration(text)
		if err != nil || overlap >= reachOf(kind) {
			t.Errorf("%s: the census begins %v after the last sign-up, with an overlap of %v (%v)", kind, reachOf(kind), overlap, err)
		}
		if kind == sim.Workforce && overlap <= 15*time.Minute { // which is the latest that the simulated log shows a record
			t.Errorf("%s: the overlap is %v", kind, overlap)
		}
	}
}

// TestLocalRunInAWorkforceTenant is the same with partners, and with access packages.
func TestLocalRunInAWorkforceTenant(t *testing.T) {
	t.Parallel()
	r := play(t, "", "--tenant", "workforce", "--signups", "60", "--over", "3m", "--rate", "20")
	if r.Signups != 60 || r.Detected != 60 || r.Lost != 0 || r.Repeated != 0 || r.Failed != 0 || r.Associated+r.Skipped != 60 {
		t.Errorf("got %+v", r)
	}
	if n := r.Destinations["starter"]["associated"]; n == 0 || n != r.Associated {
		t.Errorf("got destinations %v", r.Destinations)
	}
	for _, origin := range []string{"emailVerified", "invitation", "invitation (entitlement)", "admin"} {
		if len(r.Origins[origin]) == 0 {
			t.Errorf("nobody came by %s: %v", origin, r.Origins)
		}
	}
}

func TestLocalRunWithFaults(t *testing.T) {
	t.Parallel()
	r := play(t, "", "--signups", "60", "--over", "3m", "--rate", "20", "--faults")
	if r.Died == 0 {
		t.Error("no invocation died: the program was not killed at work")
	}
	if r.Detected != 60 || r.Lost != 0 || r.Repeated != 0 || r.Failed != 0 {
		t.Errorf("got %+v", r)
	}
}

// TestLocalRunSaysWhatIsMissing is for what a newcomer does wrong first.
func TestLocalRunSaysWhatIsMissing(t *testing.T) {
	empty := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		want string
		code int
	}{
		"no app":       {[]string{"--app", empty}, "host.json", exitFailed},
		"no account":   {[]string{"--app", empty, "--ledger", "tables"}, "AzureWebJobsStorage", exitFailed},
		"no sign-ups":  {[]string{"--signups", "0"}, "--signups", exitRefused},
		"too fast":     {[]string{"--rate", "2000000"}, "--rate", exitRefused},
		"unknown flag": {[]string{"--sinups", "3"}, "sinups", exitRefused},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			s := system{args: append([]string{"local", "--dir", t.TempDir()}, c.args...), getenv: func(string) string { return "" }, stdout: io.Discard, stderr: &stderr}
			if code := run(t.Context(), s); code != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, stderr.String(), c.code, c.want)
			}
		})
	}
}

func TestLocalRunOnTableStorage(t *testing.T) {
	t.Parallel()
	r := play(t, ledgertest.StartAzurite(t), "--signups", "40", "--over", "2m", "--rate", "20", "--ledger", "tables")
	if r.Detected != 40 || r.Lost != 0 || r.Repeated != 0 || r.Failed != 0 {
		t.Errorf("got %+v", r)
	}
}

// TestTheComparisonFindsWhatIsWrong shows that exit code 0 of a local run means something.
func TestTheComparisonFindsWhatIsWrong(t *testing.T) {
	id := signup.UserID("75b523ca-d064-4ddf-80af-87738f504026")
	user := sim.DirectoryUser{ID: id, How: sim.Email, Properties: map[string]any{"mail": "ana@example.com", "extension_6ea3_marketingOptIn": true,
		"givenName": "Ana", "displayName": "Ana", "userPrincipalName": "ana.75b523ca@contoso.onmicrosoft.com",
		"onPremisesExtensionAttributes": map[string]any{"extensionAttribute1": "newsletter_1"}}}
	for attribute, name := range linkBacks {
		if !strings.HasPrefix(attribute, "extensionAttribute") {
			user.Properties["extension_6ea3_"+attribute] = name + "_1"
		}
	}
	row := func() signup.Row {
		r := signup.Row{User: id}
		for _, p := range places {
			r.Associations = append(r.Associations, signup.Association{Destination: p.name, State: signup.Associated, Account: p.name + "_1"})
		}
		r.Associations = append(r.Associations, signup.Association{Destination: signup.Profile, State: signup.Associated})
		return r
	}
	association := func(r *signup.Row, name string) *signup.Association {
		return &r.Associations[slices.IndexFunc(r.Associations, func(a signup.Association) bool { return a.Destination == name })]
	}
	held := func() map[string]holdings {
		all := map[string]holdings{stripeColumn: {id: {"billing_1"}}}
		for _, p := range places {
			all[p.name] = holdings{id: {p.name + "_1"}}
		}
		return all
	}
	for name, c := range map[string]struct {
		spoil func(*sim.DirectoryUser, *signup.Row, map[string]holdings)
		want  localReport
	}{
		"nothing": {func(*sim.DirectoryUser, *signup.Row, map[string]holdings) {}, localReport{}},
		"an account is lost": {func(_ *sim.DirectoryUser, _ *signup.Row, h map[string]holdings) { delete(h["billing"], id) },
			localReport{Lost: 1, Problems: make([]string, 1)}},
		"an account is there twice": {func(_ *sim.DirectoryUser, _ *signup.Row, h map[string]holdings) {
			h["billing"][id] = []string{"billing_1", "billing_2"}
		},
			localReport{Repeated: 1, Problems: make([]string, 1)}},
		"the ledger has another account": {func(_ *sim.DirectoryUser, r *signup.Row, _ map[string]holdings) {
			association(r, "welcome").Account = "welcome_2"
		},
			localReport{Problems: make([]string, 2)}},
		"the ledger says pending": {func(_ *sim.DirectoryUser, r *signup.Row, _ map[string]holdings) {
			association(r, "customers").State = signup.Pending
		},
			localReport{Problems: make([]string, 1)}},
		"the profile has failed": {func(_ *sim.DirectoryUser, r *signup.Row, _ map[string]holdings) {
			association(r, signup.Profile).State = signup.Failed
		},
			localReport{Problems: make([]string, 1)}},
		"the customers table has another Stripe id": {func(_ *sim.DirectoryUser, _ *signup.Row, h map[string]holdings) {
			h[stripeColumn][id] = []string{"billing_2"}
		},
			localReport{Problems: make([]string, 1)}},
		"the link back is missing": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			delete(u.Properties, "extension_6ea3_welcomeId")
		},
			localReport{Problems: make([]string, 1)}},
		"who did not consent is in the newsletter": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			u.Properties["extension_6ea3_marketingOptIn"] = false
		},
			localReport{Problems: make([]string, 1)}},
		"a guest who has accepted": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			u.How, u.Properties["externalUserState"] = sim.Guest, "Accepted"
		}, localReport{}},
		"an imported customer has accounts": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) { u.How = sim.Migration },
			localReport{Problems: make([]string, len(places)+1+len(linkBacks))}},
		"a guest has accounts": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) { u.How = sim.Guest },
			localReport{Problems: make([]string, len(places)+1+len(linkBacks))}},
		"the display name was not written": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			u.Properties["displayName"] = "unknown"
		},
			localReport{Problems: make([]string, 1)}},
		"there was no name to write": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			u.Properties["givenName"], u.Properties["displayName"], u.Properties["userPrincipalName"] = nil, "unknown", "75b523ca@contoso.onmicrosoft.com"
		}, localReport{}},
		"the user principal name was not written": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			u.Properties["userPrincipalName"] = string(id) + "@contoso.onmicrosoft.com"
		}, localReport{Problems: make([]string, 1)}},
		"a link back is another one's": {func(u *sim.DirectoryUser, _ *signup.Row, _ map[string]holdings) {
			u.Properties["extension_6ea3_welcomeId"] = "welcome_2"
		}, localReport{Problems: make([]string, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			u, r, h := user, row(), held()
			u.Properties = maps.Clone(u.Properties)
			c.spoil(&u, &r, h)
			got := localReport{Tenant: sim.Workforce} // which has every destination
			got.compare(u, r, h)
			if got.Lost != c.want.Lost || got.Repeated != c.want.Repeated || len(got.Problems) != len(c.want.Problems) {
				t.Errorf("got %d lost, %d repeated, problems %q", got.Lost, got.Repeated, got.Problems)
			}
		})
	}
}

func TestARefusedConfigurationIsServedAndSaid(t *testing.T) {
	app := appFolder(t)
	broken := filepath.Join(app, "signup-sync.yaml")
	if err := os.WriteFile(broken, []byte("sync: { overlap: 1 week }\ndestinations:\n  - name: billing\n    connector: strype\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stderr := make(chan string, 100)
	host, err := devhost.Open(devhost.Options{Root: app, Settings: map[string]string{"SYNC_SCHEDULE": "0 * * * * *", "CENSUS_SCHEDULE": "0 */15 * * * *", "ENTRA_TENANT_ID": "nonsense"},
		Log: func(l devhost.Line) {
			if l.From == "stderr" {
				stderr <- l.Text
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := host.Start(t.Context()); err != nil {
		t.Fatalf("the program must answer the probe: %v", err)
	}
	for _, function := range []string{"SyncNewUsers", "TakeCensus", "SyncNewUsers"} { // it does not exit after the first
		result, err := host.Fire(t.Context(), function, "")
		if !errors.Is(err, devhost.ErrFailed) || result.Status != http.StatusInternalServerError {
			t.Fatalf("got status %d, %v; want a failed invocation", result.Status, err)
		}
		for _, want := range []string{"ENTRA_TENANT_ID", "AzureWebJobsStorage", "signup-sync.yaml:1:18", "signup-sync.yaml:4:16"} {
			if !strings.Contains(string(result.Body), want) {
				t.Errorf("the answer does not say %q: %s", want, result.Body)
			}
		}
	}
	if line := <-stderr; !strings.Contains(line, "configuration refused") {
		t.Errorf("got %q on stderr first", line)
	}
}

func TestCheckExitsWith2AndSaysEverything(t *testing.T) {
	var stdout, stderr bytes.Buffer
	settings := map[string]string{"SIGNUP_SYNC_CONFIG": filepath.Join(t.TempDir(), "missing.yaml"), "ENTRA_CREDENTIAL": "password"}
	code := run(t.Context(), system{args: []string{"check"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
	if code != exitRefused {
		t.Errorf("got exit code %d, want %d", code, exitRefused)
	}
	for _, want := range []string{"ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "ENTRA_CREDENTIAL", "missing.yaml"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr does not say %q:\n%s", want, stderr.String())
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(stderr.String()), "\n") {
		if !strings.HasPrefix(line, "error: ") {
			t.Errorf("got line %q, want each error on its own", line)
		}
	}
	stdout.Reset()
	code = run(t.Context(), system{args: []string{"check", "--json"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: io.Discard})
	var object struct {
		Good   bool
		Errors []string
	}
	if err := json.Unmarshal(stdout.Bytes(), &object); err != nil || code != exitRefused || object.Good || len(object.Errors) < 4 {
		t.Errorf("check --json: got exit code %d, %v, %s", code, err, stdout.String())
	}
	if code := run(t.Context(), system{args: []string{"chekc"}, getenv: os.Getenv, stdout: io.Discard, stderr: io.Discard}); code != exitRefused {
		t.Errorf("unknown command: got exit code %d, want %d", code, exitRefused)
	}
	if code := run(t.Context(), system{args: []string{"--help"}, getenv: os.Getenv, stdout: io.Discard, stderr: io.Discard}); code != exitOK {
		t.Errorf("--help: got exit code %d, want %d", code, exitOK)
	}
}

// TestTheDeliveredConfigurationIsGood checks signup-sync.yaml with local.settings.json, as `func start` uses them.
func TestTheDeliveredConfigurationIsGood(t *testing.T) {
	data, err := os.ReadFile("../local.settings.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Values map[string]string }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	file.Values["SIGNUP_SYNC_CONFIG"] = "../signup-sync.yaml"
	file.Values["EXTRA_CA_FILE"] = "" // `handler sim` writes it
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), system{args: []string{"check"}, getenv: func(n string) string { return file.Values[n] }, stdout: &stdout, stderr: &stderr})
	if code != exitOK || !strings.Contains(stdout.String(), "billing") {
		t.Errorf("got exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	for name, value := range world.settings() {
		if file.Values[name] == "" && name != "EXTRA_CA_FILE" {
			t.Errorf("local.settings.json lacks %s", name)
		}
		if !strings.Contains(value, "/") && file.Values[name] != value {
			t.Errorf("local.settings.json has %s=%s, the simulation wants %s", name, file.Values[name], value)
		}
	}
}

func TestInvocationTime(t *testing.T) {
	for setting, want := range map[string]time.Duration{"": runTime, "-1": runTime, "00:10:00": runTime, "00:05:00": runTime, "00:02:00": 90 * time.Second, "00:00:40": 20 * time.Second} {
		if got, err := invocationTime(t.TempDir(), setting); err != nil || got != want {
			t.Errorf("functionTimeout %q: got %v, %v; want %v", setting, got, err, want)
		}
	}
	if got, err := invocationTime("..", ""); err != nil || got != runTime {
		t.Errorf("host.json: got %v, %v; want %v", got, err, runTime)
	}
	if _, err := invocationTime("", "five minutes"); err == nil {
		t.Error("nonsense: got no error")
	}
}

// TestStartAndIdleMemory starts the real binary: it answers GET / before it has asked anybody for anything, so that no slow
// service delays a start, and it is small then. How long a start takes `make bench` measures: a busy machine takes longer.
func TestStartAndIdleMemory(t *testing.T) {
	binary := builtBinary(t)
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	silent, err := net.Listen("tcp4", "127.0.0.1:0") // stands for all services, and answers nobody
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var asked atomic.Int64
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			defer conn.Close()
		}
	}()
	settings, replaced := world.settings(), 0
	for name, value := range settings {
		if rest, ok := strings.CutPrefix(value, world.server.URL); ok {
			settings[name] = "https://" + silent.Addr().String() + rest
			replaced++
		}
	}
	if replaced < 3 {
		t.Fatalf("%d settings lead to the simulated services: %v", replaced, settings)
	}
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "../signup-sync.yaml"
	took, rss := startOnce(t, binary, settings)
	t.Logf("first answer after %v, then %d KiB resident", took, rss)
	if n := asked.Load(); n > 0 {
		t.Errorf("before its first answer the program has opened %d connections to others", n)
	}
	if rss > 40<<10 {
		t.Errorf("%d KiB resident when idle, want at most 40 MiB", rss)
	}
}

func startOnce(t *testing.T, binary string, settings map[string]string) (time.Duration, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	port := freePort(t)
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = []string{"FUNCTIONS_CUSTOMHANDLER_PORT=" + strconv.Itoa(port)}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	for {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			took := time.Since(start)
			resp.Body.Close()
			return took, residentKiB(t, cmd.Process.Pid)
		}
		if ctx.Err() != nil {
			t.Fatal("no answer on GET /")
		}
	}
}

func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	lines := strings.Split(string(data), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "VmRSS:") })
	kib, err := strconv.Atoi(strings.Fields(lines[i])[1])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// builtBinary is the program as it is deployed. Without it a test skips, but never in CI.
func builtBinary(t *testing.T) string {
	t.Helper()
	binary, err := filepath.Abs("../bin/handler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("bin/handler is not built: run the tests with 'make test'")
		}
		t.Skip("bin/handler is not built: 'make test' does that")
	}
	return binary
}

// What several calls have said is one line, with the words of whoever joined them; and who stops a command is told so.
func TestErrorsKeepTheirWords(t *testing.T) {
	settings := map[string]string{"LEDGER": "memory", "SIGNUP_SYNC_CONFIG": "../signup-sync.yaml"}
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range world.settings() {
		if settings[name] == "" {
			settings[name] = value
		}
	}
	world.server.Close()
	say := func(ctx context.Context) string {
		var stdout, stderr bytes.Buffer
		code := run(ctx, system{args: []string{"census"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
		if code != exitFailed || stdout.Len() > 0 {
			t.Errorf("got exit code %d, %s", code, stdout.String())
		}
		return stderr.String()
	}
	said := say(t.Context())
	if !strings.HasPrefix(said, "error: no detector could be read, nor the time: read the users by creation: ") || strings.Count(said, "\n") != 1 || strings.Count(said, "by creation") != 1 {
		t.Errorf("without a tenant: got\n%s", said)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if said := say(stopped); !strings.HasPrefix(said, "error: interrupted\n") || strings.Contains(said, "error: context canceled") {
		t.Errorf("stopped: got\n%s", said)
	}
}
