package scripts_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rotation is a world whose app is registered with a certificate that ends in some days.
func rotation(t *testing.T, days int) *world {
	t.Helper()
	w := open(t)
	w.vault.add("signup-sync", time.Now().AddDate(0, 0, days), false)
	w.must(w.register("--vault", vaultURL))
	w.settings = map[string]string{"ENTRA_TENANT_ID": externalTenant, "ENTRA_CLIENT_ID": w.app().AppID, "KEY_VAULT_URL": vaultURL + "/", "ENTRA_CERTIFICATE": "signup-sync",
		"ENTRA_CREDENTIAL": "certificate", "STRIPE_API_KEY": "@Microsoft.KeyVault(SecretUri=https://…)"}
	return w
}

func (w *world) app() (app *application) {
	for _, app = range w.external.applications {
	}
	return app
}

func (w *world) rotate(args ...string) result {
	w.t.Helper()
	return w.run("rotate-certificate.sh", append([]string{"--app", "signup-sync", "--group", "signup-sync"}, args...)...)
}

// knows fails the test unless the registration knows exactly these versions, by their places in the vault, of which there
// are so many.
func (w *world) knows(versions int, places ...int) {
	w.t.Helper()
	if got := w.working(); fmt.Sprint(got) != fmt.Sprint(places) || len(w.vault.made) != versions || len(w.app().Keys) != len(places) {
		w.t.Errorf("the registration knows %v of %d versions, and has %d keys; want %v of %d", got, len(w.vault.made), len(w.app().Keys), places, versions)
	}
}

func TestRotationComesToAnEnd(t *testing.T) {
	w := rotation(t, 40)
	w.vault.slow, w.slow = 2, 3
	out := w.must(w.rotate())
	w.knows(2, 1)
	if w.confirmed < 5 {
		t.Errorf("the old key was removed after the doctor was content %d times", w.confirmed)
	}
	again := w.must(w.rotate())
	if w.knows(2, 1); len(w.changes) > 0 || !strings.Contains(again.stdout, "Nothing is to be done") {
		t.Errorf("then it changed %v:\n%s\n%s", w.changes, out.stdout, again.stdout)
	}
	w.must(w.rotate("--now"))
	w.knows(3, 2)
}

func TestRotationGoesOnAfterAFaultAnywhere(t *testing.T) {
	for name, kind := range map[string]fault{"refused": refused, "answer lost": lost} {
		for _, now := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", now ", now), func(t *testing.T) {
				t.Parallel()
				days, args := 40, []string(nil)
				if now {
					days, args = 300, []string{"--now"}
				}
				for at := 0; ; at++ {
					w := rotation(t, days)
					w.vault.slow = 1
					w.befalls = func(n int, _ *http.Request) fault {
						if n == at {
							return kind
						}
						return fine
					}
					first := w.rotate(args...)
					if at >= w.calls {
						w.must(first)
						return
					}
					w.befalls = nil
					if first.code == 0 {
						t.Errorf("it says that all is well:\n%s", first.stdout)
					}
					if len(w.working()) == 1 && w.working()[0] == 1 { // the removal took effect, and only its answer was lost
						args = nil
					}
					w.must(w.rotate(args...))
					w.knows(2, 1)
					if t.Failed() {
						t.Fatalf("at call %d", at)
					}
				}
			})
		}
	}
}

// What somebody else has begun is brought to its end: a vault that renews by itself, a key that was uploaded by hand.
func TestRotationGoesOnFromWhereItIs(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(w *world, newer *x509.Certificate)
		want    []int
	}{
		"the vault has a newer version":         {func(*world, *x509.Certificate) {}, []int{1}},
		"the registration knows it as well":     {func(w *world, newer *x509.Certificate) { w.upload(newer) }, []int{1}},
		"the registration knows nothing but it": {func(w *world, newer *x509.Certificate) { w.app().Keys = nil; w.worked = false; w.upload(newer) }, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := rotation(t, 300)
			c.arrange(w, w.vault.add("signup-sync", time.Now().AddDate(1, 0, 0), false))
			w.must(w.rotate())
			w.knows(2, c.want...)
		})
	}
}

func (w *world) upload(cert *x509.Certificate) {
	key := encoded(cert)
	w.app().Keys = append(w.app().Keys, keyCredential{KeyID: "by hand", Key: &key, Ends: cert.NotAfter.UTC().Format(time.RFC3339)})
}

func TestRotationLeavesTheOldKeyUntilTheDoctorIsContent(t *testing.T) {
	w := rotation(t, 40)
	w.slow = 1000
	if r := w.rotate(); r.code == 0 || !strings.Contains(r.stderr, "The old key was left where it is") || !strings.Contains(r.stderr, "is in use") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.knows(2, 0, 1)
	w.slow = 0
	w.must(w.rotate())
	w.knows(2, 1)
}

func TestRotationLeavesKeysOfOthersAlone(t *testing.T) {
	w := rotation(t, 40)
	other := "a key of somebody else"
	w.app().Keys = append(w.app().Keys, keyCredential{KeyID: "1", Key: &other, Ends: time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	w.must(w.rotate())
	if keys := w.app().Keys; len(keys) != 2 || *keys[0].Key != other {
		t.Errorf("got %d keys", len(keys))
	}
}

func TestRotationKeepsThePolicy(t *testing.T) {
	w := open(t)
	w.vault.add("signup-sync", time.Now().AddDate(0, 0, 10), true)
	w.must(w.register("--vault", vaultURL))
	w.settings = map[string]string{"ENTRA_TENANT_ID": externalTenant, "ENTRA_CLIENT_ID": w.app().AppID, "KEY_VAULT_URL": vaultURL, "ENTRA_CERTIFICATE": "signup-sync"}
	w.must(w.rotate())
	if !w.vault.pending["signup-sync"].exportable {
		t.Error("the key could leave the vault, and that of the new version cannot")
	}
}

func TestRotationDryChangesNothing(t *testing.T) {
	for name, begun := range map[string]bool{"from the start": false, "on the way": true} {
		t.Run(name, func(t *testing.T) {
			w := rotation(t, 40)
			versions := 1
			if begun {
				w.upload(w.vault.add("signup-sync", time.Now().AddDate(1, 0, 0), false))
				versions = 2
			}
			before := w.working()
			out := w.must(w.rotate("--dry-run"))
			if w.knows(versions, before...); len(w.changes) > 0 || !strings.Contains(out.stdout, "would:") {
				t.Errorf("it made %v\n%s", w.changes, out.stdout)
			}
		})
	}
}

func TestRotationSaysWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		code   int
		want   string
	}{
		"nothing is to be rotated": {map[string]string{"ENTRA_CREDENTIAL": "federated"}, 0, "there is nothing to rotate"},
		"a secret":                 {map[string]string{"ENTRA_CREDENTIAL": "secret"}, 1, "has a client secret"},
		"a setting":                {map[string]string{"KEY_VAULT_URL": ""}, 1, "do not say which certificate"},
		"another tenant":           {map[string]string{"ENTRA_TENANT_ID": homeTenant}, 1, "az login --tenant " + homeTenant},
		"a certificate":            {map[string]string{"ENTRA_CERTIFICATE": "another"}, 1, "scripts/register-app.sh makes it"},
	} {
		t.Run(name, func(t *testing.T) {
			w := rotation(t, 40)
			for k, v := range c.change {
				w.settings[k] = v
			}
			r := w.rotate()
			if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.want) {
				t.Errorf("exit code %d, want %d and %q in\n%s%s", r.code, c.code, c.want, r.stdout, r.stderr)
			}
			w.knows(1, 0)
		})
	}
}
