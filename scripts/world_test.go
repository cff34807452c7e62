// Package scripts_test runs the scripts of this folder against simulated tenants and a simulated Key Vault. Only the Azure
// CLI and the program are stood for, by processes of this test that ask it what to do; another test runs the real program.
package scripts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/sim"
)

const (
	externalTenant = "04dcc6ab-388a-4559-b527-fbec656300ea"
	homeTenant     = "9d1f0b5e-2f6a-4c1d-8a70-5b1d3a3d2c11"
	identityID     = "7c1f9b1a-0000-4000-8000-0000000c0b04"
	vaultURL       = "https://vault.vault.azure.net"
	vaultResource  = "https://vault.azure.net"
	graphResource  = "https://graph.microsoft.com"
)

// fault is what befalls a call.
type fault int

const (
	fine    fault = iota
	refused       // the service is away; nothing has happened
	lost          // it has happened, and the answer is lost
)

// world is what the scripts reach: two tenants, a vault, the doctor.
type world struct {
	t              *testing.T
	dir            string
	url            string // where the processes that stand for others ask
	external, home *directory
	vault          *certificates
	logins         map[string]string // the tenant of each folder that is a login
	settings       map[string]string // the Function App's
	environment    []string          // further variables

	mu        sync.Mutex
	befalls   func(n int, r *http.Request) fault // the n-th call of a run, from 0; nil = all is fine
	calls     int                                // of a run
	changes   []string                           // of a run: method and path
	confirmed int                                // how often the doctor has said that the newest version is in use
	slow      int                                // so often the doctor still says otherwise
	worked    bool                               // there was a certificate that works
	entra     *sim.Entra                         // learns of what is registered; nil = nobody does
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), external: newDirectory(externalTenant), home: newDirectory(homeTenant),
		logins: map[string]string{"subscription": homeTenant, "tenant": externalTenant}}
	w.external.others = []*directory{w.home}
	w.vault = &certificates{KeyVault: sim.NewKeyVault(sim.KeyVaultOptions{Tenant: homeTenant}), t: t, pending: map[string]*creation{}}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	w.url = server.URL
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Mkdir(filepath.Join(w.dir, "bin"), 0o755), os.Symlink(self, filepath.Join(w.dir, "bin/az")), os.Symlink(self, filepath.Join(w.dir, "bin/handler")),
		os.WriteFile(filepath.Join(w.dir, "bin/sleep"), []byte("#!/bin/sh\n"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	python(t) // or skip
	return w
}

// skip says loudly that a test cannot run here, which in CI it must.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	fmt.Fprintln(os.Stderr, "!!", t.Name(), "is skipped:", why)
	t.Skip(why)
}

// tokenEnds is the same for every token, since one is known by being equal: with the time of each, those of a call that a
// second ends in would differ.
var tokenEnds = time.Now().Add(24 * time.Hour).Unix()

// token is what a login in a tenant gets for a resource.
func token(resource, tenant string) string {
	return sim.Token(sim.Claims{Audience: strings.TrimSuffix(resource, "/"), Tenant: tenant, App: "04b07795-8ddb-461a-bbee-02f9e1bf7b46", Expires: tokenEnds})
}

// ServeHTTP answers the processes that stand for others, one at a time.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path == "/doctor" {
		_ = json.NewEncoder(rw).Encode(w.doctor())
		return
	}
	var call azCall
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		w.t.Error(err)
	}
	_ = json.NewEncoder(rw).Encode(w.az(call))
}

// serve answers a call to Graph or to the vault.
func (w *world) serve(rw http.ResponseWriter, r *http.Request, tenant string, body []byte) {
	resource := graphResource
	if strings.HasPrefix(r.URL.Path, "/certificates/") {
		resource = vaultResource
	}
	var rep reply
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token(resource, tenant):
		rep = refuse(http.StatusUnauthorized, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience.")
	case resource == vaultResource:
		var mine bool
		if rep, mine = w.vault.answer(r, body); !mine {
			w.vault.ServeHTTP(rw, r)
			return
		}
	case tenant == externalTenant:
		rep = w.external.answer(r, body)
	default:
		rep = w.home.answer(r, body)
	}
	rw.WriteHeader(rep.status)
	if rep.body != nil {
		_ = json.NewEncoder(rw).Encode(rep.body)
	}
}

// working are the versions, by their place in the vault, of which the registration knows the public part and which are valid.
func (w *world) working() (all []int) {
	for _, a := range w.external.applications {
		for i, cert := range w.vault.made {
			known := slices.ContainsFunc(a.Keys, func(k keyCredential) bool { return k.Key != nil && *k.Key == encoded(cert) })
			if known && time.Now().Before(cert.NotAfter) {
				all = append(all, i)
			}
		}
	}
	return all
}

// watch fails the test if the app had a certificate that works, and has none.
func (w *world) watch() {
	working := w.working()
	if w.worked && len(working) == 0 {
		w.t.Error("the app was left without a certificate that works")
	}
	w.worked = w.worked || len(working) > 0
	if w.entra != nil {
		w.tell()
	}
}

// tell tells the token endpoint what is registered.
func (w *world) tell() {
	for _, a := range w.external.applications {
		app := sim.App{ID: a.AppID}
		for _, i := range w.working() {
			app.Certificates = append(app.Certificates, w.vault.made[i])
		}
		if p := w.external.findPrincipal("appId", a.AppID, ""); p != nil {
			for _, x := range p.assignments {
				app.Roles = append(app.Roles, permissions[x.AppRoleID])
			}
		}
		w.entra.SetApp(app)
	}
}

// finding is a line of the doctor, in the order in which the program writes it.
type finding struct {
	Area  string `json:"area"`
	Name  string `json:"name"`
	State string `json:"state"`
	Why   string `json:"why"`
}

// doctor says which version is in use: the newest that the registration knows, after a while.
func (w *world) doctor() map[string]any {
	f := finding{"identity", "certificate", "fail", "there is no version that works"}
	if working := w.working(); len(working) > 0 {
		at := working[len(working)-1]
		if w.slow > 0 {
			w.slow--
			at = working[0]
		} else if at == len(w.vault.made)-1 {
			w.confirmed++
		}
		f.State, f.Why = "ok", fmt.Sprintf("version %s (0A1B) is in use, its key never leaves the vault, and has 365 days left", w.vault.ids[at])
	}
	return map[string]any{"good": f.State == "ok", "findings": []finding{{"settings", "configuration", "ok", "version 1"}, f}}
}

// result is how a script has ended.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a script.
func (w *world) run(name string, args ...string) result {
	w.t.Helper()
	w.mu.Lock()
	w.calls, w.changes = 0, nil
	w.mu.Unlock()
	cmd := exec.CommandContext(w.t.Context(), "bash", append([]string{name}, args...)...)
	bin := filepath.Join(w.dir, "bin")
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "AZURE_CONFIG_DIR=" + filepath.Join(w.dir, "subscription"),
		"TENANT_LOGIN=" + filepath.Join(w.dir, "tenant"), "HANDLER=" + filepath.Join(bin, "handler"), "WORLD=" + w.url, "TMPDIR=" + w.dir,
		"GORACE=atexit_sleep_ms=0"}, w.environment...) // or each process that stands for another takes a second to end
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited {
			w.t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "tmp.*")); err != nil || len(left) > 0 {
		w.t.Errorf("left behind: %v %v", left, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must fails the test unless the script has ended well.
func (w *world) must(r result) result {
	w.t.Helper()
	if r.code != 0 {
		w.t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	return r
}

// TestMain stands for the Azure CLI or the program when a script calls it by their names.
func TestMain(m *testing.M) {
	var err error
	switch filepath.Base(os.Args[0]) {
	case "az":
		err = standForAz(os.Getenv("WORLD"))
	case "handler":
		err = standForHandler(os.Getenv("WORLD"))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ERROR:", err)
		os.Exit(2)
	}
}

func standForHandler(world string) error {
	if slices.Equal(os.Args[1:], []string{"doctor", "--permissions", "--json"}) {
		_, err := fmt.Println(`{"permissions":[{"name":"AuditLog.Read.All","id":"b0afded3-3588-46d8-8b3d-9842eff778da","for":["read the audit log"],"or":["Directory.Read.All"]},` +
			`{"name":"User.ReadWrite.All","id":"741f803b-c850-494e-b5df-cde7c675a1ca","for":["write"]}]}`)
		return err
	}
	if len(os.Args) != 5 || os.Args[1] != "doctor" || os.Args[2] != "--settings" || os.Args[4] != "--json" {
		return fmt.Errorf("unknown arguments %q", os.Args[1:])
	}
	if _, err := os.Stat(os.Args[3]); err != nil {
		return err
	}
	resp, err := http.Get(world + "/doctor")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
