package scripts_test

import (
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func encoded(cert *x509.Certificate) string { return base64.StdEncoding.EncodeToString(cert.Raw) }

// asked is what an app is that has all, and nothing else.
const asked = "AuditLog.Read.All Role User.ReadWrite.All Role"

var (
	withCertificate = []string{"application signup-sync AzureADMyOrg " + asked + " keys 1", "principal [AuditLog.Read.All User.ReadWrite.All]"}
	withoutConsent  = []string{"application signup-sync AzureADMyOrg " + asked + " keys 1", "principal []"}
	withTrust       = []string{"application signup-sync AzureADMultipleOrgs " + asked + " keys 0 trusts " + identityID +
		" of https://login.microsoftonline.com/" + homeTenant + "/v2.0 for [api://AzureADTokenExchange]"}
	asGuest = []string{"principal [AuditLog.Read.All User.ReadWrite.All]"}
)

func (w *world) register(args ...string) result {
	w.t.Helper()
	return w.run("register-app.sh", append([]string{"--tenant", externalTenant}, args...)...)
}

// variant is a way to call the script, and what there is after it.
type variant struct {
	name           string
	args           []string
	external, home []string
	certificates   int
}

func variants() []variant {
	return []variant{
		{"certificate", []string{"--vault", "vault"}, withCertificate, nil, 1},
		{"exportable, consent by somebody else", []string{"--vault", vaultURL + "/", "--exportable", "--no-consent"}, withoutConsent, nil, 1},
		{"federated", []string{"--federated", identityID}, asGuest, withTrust, 0},
	}
}

func (w *world) check(v variant) {
	w.t.Helper()
	if diff := cmp.Diff(v.external, w.external.state()); diff != "" {
		w.t.Errorf("the External ID tenant (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(v.home, w.home.state()); diff != "" {
		w.t.Errorf("the subscription's tenant (-want +got):\n%s", diff)
	}
	if len(w.vault.made) != v.certificates {
		w.t.Errorf("got %d certificates, want %d", len(w.vault.made), v.certificates)
	}
}

func TestRegisteringTwiceChangesNothingTheSecondTime(t *testing.T) {
	for i, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			w := open(t)
			v := variants()[i]
			first := w.must(w.register(v.args...))
			w.check(v)
			if !strings.Contains(first.stdout, "ENTRA_CLIENT_ID=") || !strings.Contains(first.stdout, "/adminconsent?client_id=") {
				t.Errorf("settings or link are missing:\n%s", first.stdout)
			}
			if p := w.vault.pending["signup-sync"]; p != nil && p.exportable != slices.Contains(v.args, "--exportable") {
				t.Errorf("that the key may leave the vault is %v", p.exportable)
			}
			second := w.must(w.register(v.args...))
			w.check(v)
			if len(w.changes) > 0 || strings.Contains(second.stdout, "made:") || strings.Contains(second.stdout, "changed:") {
				t.Errorf("the second time it changed %v:\n%s", w.changes, second.stdout)
			}
		})
	}
}

func TestRegisteringDryChangesNothing(t *testing.T) {
	for i, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			w := open(t)
			v := variants()[i]
			var would int
			for range 2 {
				dry := w.must(w.register(append(v.args, "--dry-run")...))
				w.check(variant{})
				would = strings.Count(dry.stdout, "would:")
				if would < 4 || len(w.changes) > 0 || strings.Contains(dry.stdout, "made:") {
					t.Errorf("%d calls are announced, and %v were made:\n%s", would, w.changes, dry.stdout)
				}
			}
			w.must(w.register(v.args...))
			if made := len(w.changes); made > would {
				t.Errorf("%d calls were announced, and %d are needed: %v", would, made, w.changes)
			}
			if dry := w.must(w.register(append(v.args, "--dry-run")...)); strings.Contains(dry.stdout, "would:") || len(w.changes) > 0 {
				t.Errorf("nothing is left to do, and it announces:\n%s", dry.stdout)
			}
		})
	}
}

// Whatever happens at whichever call, the next run brings it to the same end, with nothing made twice.
func TestRegisteringGoesOnAfterAFaultAnywhere(t *testing.T) {
	for i, v := range variants() {
		if v.name == "exportable, consent by somebody else" {
			continue // it makes fewer of the calls of another one
		}
		for name, kind := range map[string]fault{"refused": refused, "answer lost": lost} {
			t.Run(v.name+", "+name, func(t *testing.T) {
				t.Parallel()
				for at := 0; ; at++ {
					w := open(t)
					w.external.lag, w.home.lag, w.vault.slow = 1, 1, 2
					v := variants()[i]
					w.befalls = func(n int, _ *http.Request) fault {
						if n == at {
							return kind
						}
						return fine
					}
					first := w.register(v.args...)
					if at >= w.calls {
						w.must(first)
						if at < 10 {
							t.Errorf("only %d calls were made", at)
						}
						return
					}
					if first.code == 0 {
						t.Errorf("call %d went wrong, and the script says that all is well:\n%s", at, first.stdout)
					}
					w.befalls = nil
					w.must(w.register(v.args...))
					w.check(v)
					if t.Failed() {
						t.Fatalf("at call %d", at)
					}
				}
			})
		}
	}
}

func TestRegisteringKeepsOtherKeysAndDropsExpiredOnes(t *testing.T) {
	w := open(t)
	args := []string{"--vault", vaultURL}
	w.must(w.register(args...))
	var app *application
	for _, app = range w.external.applications {
	}
	other, expired := "a key of somebody else", "an old one"
	app.Keys = append(app.Keys,
		keyCredential{KeyID: "1", Key: &other, Ends: time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
		keyCredential{KeyID: "2", Key: &expired, Ends: time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)})
	w.vault.add("signup-sync", time.Now().AddDate(1, 0, 0), false)
	out := w.must(w.register(args...))
	var got []string
	for _, k := range app.Keys {
		got = append(got, *k.Key)
	}
	if want := []string{encoded(w.vault.made[0]), other, encoded(w.vault.made[1])}; !cmp.Equal(want, got) {
		t.Errorf("got %d keys %q\n%s", len(got), got, out.stdout)
	}
}

// A patch replaces all keys; one whose material is not shown is kept by its id.
func TestAKeyThatIsNotShownIsKept(t *testing.T) {
	for name, script := range map[string]func(*world) result{
		"registering": func(w *world) result { return w.register("--vault", vaultURL) },
		"rotating":    func(w *world) result { return w.rotate() },
	} {
		t.Run(name, func(t *testing.T) {
			w := rotation(t, 300)
			w.vault.add("signup-sync", time.Now().AddDate(1, 0, 0), false)
			w.app().Keys = append(w.app().Keys, keyCredential{KeyID: "hidden", Ends: time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
			w.must(script(w))
			if !slices.ContainsFunc(w.app().Keys, func(k keyCredential) bool { return k.KeyID == "hidden" }) {
				t.Errorf("it is gone; %d keys are left", len(w.app().Keys))
			}
		})
	}
}

func TestRegisteringAsksForExactlyWhatIsNeeded(t *testing.T) {
	w := open(t)
	args := []string{"--vault", vaultURL}
	w.must(w.register(args...))
	var app *application
	for _, app = range w.external.applications {
	}
	app.Required[0].ResourceAccess[0].ID = "7ab1d382-f21e-4acd-a863-ba3e13f7da61"
	for key, p := range w.external.principals {
		if key != "graph" {
			p.assignments[0].AppRoleID = "7ab1d382-f21e-4acd-a863-ba3e13f7da61"
		}
	}
	out := w.must(w.register(args...))
	want := []string{withCertificate[0], "principal [AuditLog.Read.All Directory.Read.All User.ReadWrite.All]"}
	if diff := cmp.Diff(want, w.external.state()); diff != "" || !strings.Contains(out.stdout, "too much: the app also has the permission 7ab1d382") {
		t.Errorf("(-want +got):\n%s%s", diff, out.stdout)
	}
}

func TestRegisteringTakesAnAppThatIsThere(t *testing.T) {
	w := open(t)
	w.external.applications["1"] = &application{ID: "1", AppID: "5f7f1f6a-0000-4000-8000-00000000c11e", Audience: "AzureADMyOrg"}
	w.must(w.register("--vault", vaultURL, "--client", "5f7f1f6a-0000-4000-8000-00000000c11e"))
	w.check(variant{external: []string{"application  AzureADMyOrg " + asked + " keys 1", withCertificate[1]}, certificates: 1})
	if r := w.register("--vault", vaultURL, "--client", identityID); r.code == 0 || !strings.Contains(r.stderr, "There is no app registration") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}

func TestRegisteringSaysWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(*world)
		args    []string
		want    string
	}{
		"a login for the tenant":             {func(w *world) { w.logins["tenant"] = homeTenant }, nil, "az login --tenant " + externalTenant + " --allow-no-subscriptions"},
		"a login for the subscription":       {func(w *world) { w.environment = []string{"AZURE_CONFIG_DIR=/nowhere"} }, nil, "az login"},
		"the role for app registrations":     {func(w *world) { w.external.denied["applications"] = true }, nil, "needs the role Cloud Application Administrator"},
		"the role for consent":               {func(w *world) { w.external.denied["appRoleAssignments"] = true }, nil, "needs the role Privileged Role Administrator"},
		"the role for certificates":          {func(w *world) { w.vault.denied = true }, nil, "needs the role Key Vault Certificates Officer"},
		"a way through the firewall":         {func(w *world) { w.vault.walled = true }, nil, "network rules keep this machine out"},
		"the program":                        {func(w *world) { w.environment = []string{"HANDLER=/nowhere"} }, nil, "Is it built"},
		"a GUID":                             {nil, []string{"--tenant", "contoso.onmicrosoft.com"}, "--tenant must be a GUID"},
		"a name that can stand in a URL":     {nil, []string{"--name", "sign'up"}, "are of letters"},
		"a name":                             {nil, []string{"--name", ""}, "are of letters"},
		"a value":                            {nil, []string{"--name"}, "--name needs a value"},
		"an option that is known":            {nil, []string{"--yes"}, "--yes is not known"},
		"either the vault or the federation": {nil, []string{"--federated", identityID}, "exclude each other"},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			if c.arrange != nil {
				c.arrange(w)
			}
			if r := w.register(append([]string{"--vault", vaultURL}, c.args...)...); r.code == 0 || !strings.Contains(r.stderr, c.want) {
				t.Errorf("exit code %d, want %q in\n%s", r.code, c.want, r.stderr)
			}
		})
	}
}
