package identity_test

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/identity"
	"signup-sync/handler/sim"
)

const (
	fellBack = "the newest version of the certificate cannot be used; an older one is used"
	expiring = "the certificate expires soon"
	unasked  = "Key Vault cannot be asked for a newer version of the certificate; the one in hand is used"
	changed  = "another version of the certificate is used from now on"
)

// add puts a version with the i-th key into the vault, a second after the one before.
func (w world) add(i int, life time.Duration, inVault bool) (id string, cert *x509.Certificate) {
	w.t.Helper()
	time.Sleep(time.Second)
	cert = certify(w.t, rsaKey(w.t, i), life)
	return w.vault.AddCertificate(name, sim.Certificate{Key: rsaKey(w.t, i), Chain: []*x509.Certificate{cert}, NonExportable: inVault}), cert
}

// logged is how often a message was logged since the last time that anybody looked.
func (w world) logged() map[string]int {
	all := map[string]int{}
	for _, line := range w.log.take() {
		for _, message := range []string{fellBack, expiring, unasked, changed} {
			if strings.Contains(line, message) {
				all[message]++
			}
		}
	}
	return all
}

func (w world) wantLogged(want map[string]int) {
	w.t.Helper()
	if got := w.logged(); !cmp.Equal(got, want) {
		w.t.Errorf("logged %v, want %v", got, want)
	}
}

// wantUsed compares the version in use, by its place among all, newest first.
func (w world) wantUsed(c *identity.App, want int) {
	w.t.Helper()
	all, err := c.Certificates(w.t.Context())
	got := slices.IndexFunc(all, func(s identity.CertificateStatus) bool { return s.InUse })
	if err != nil || got != want {
		w.t.Errorf("the version %d is in use, want %d, of %+v; %v", got, want, all, err)
	}
}

// next lets so much time pass that the token is renewed, and gets the new one.
func (w world) next(c *identity.App) {
	w.t.Helper()
	time.Sleep(58 * time.Minute)
	w.token(c)
	time.Sleep(12 * time.Second)
	w.token(c)
}

func TestANewVersionIsUsedOnceEntraKnowsIt(t *testing.T) {
	for name, inVault := range map[string]bool{"exportable": false, "in the vault": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				_, first := w.add(0, 300*day, inVault)
				w.register(first)
				c := w.open("")
				w.token(c)
				w.wantUsed(c, 0)

				_, second := w.add(1, 300*day, inVault)
				for range 4 {
					w.next(c)
				}
				w.wantUsed(c, 1)
				w.wantLogged(map[string]int{fellBack: 1})
				all, err := c.Certificates(t.Context())
				if err != nil || len(all) != 2 || all[0].Refused != "aadsts700027" || all[1].Refused != "" || all[0].InVault != inVault {
					t.Errorf("got %+v, %v", all, err)
				}

				w.register(first, second)
				w.next(c)
				w.wantUsed(c, 0)
				w.wantLogged(map[string]int{changed: 1})
				if all, _ := c.Certificates(t.Context()); all[0].Refused != "" {
					t.Errorf("the version in use is said to be refused: %+v", all)
				}
				w.register(second)
				w.next(c)
				w.wantUsed(c, 0)
			})
		})
	}
}

// An alert counts the lines of some time: one that came once would end while the fault stays.
func TestThatTheNewestVersionCannotBeUsedIsSaidDaily(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, first := w.add(0, 300*day, false)
		w.register(first)
		w.add(1, 300*day, false)
		c := w.open("")
		begun := time.Now()
		for w.token(c); time.Since(begun) < 3*day-time.Hour; {
			w.next(c)
		}
		w.wantLogged(map[string]int{fellBack: 3})
	})
}

func TestTheVaultIsAskedOnceAnHourAndTheVersionIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, cert := w.add(0, 300*day, false)
		w.register(cert)
		c := w.open("")
		for range 24 {
			w.next(c)
		}
		counts := w.vault.Counts()
		if counts["GET /secrets/{name}/{version}"] != 1 || counts["GET /secrets/{name}/versions"] > 24 {
			t.Errorf("in a day the vault was asked %v", counts)
		}
		// 24 tokens; a new credential would have asked for the endpoint's configuration again.
		if counts := w.entra.Counts(); counts["GET /{tenant}/v2.0/.well-known/openid-configuration"] > 1 || w.count() < 24 || w.count() > 26 {
			t.Errorf("in a day Entra was asked %v", counts)
		}
	})
}

func TestAFreshProcessFallsBackToAVersionThatEntraKnows(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, cert := w.add(0, 300*day, false)
		w.register(cert)
		w.add(1, 300*day, false)
		w.add(2, 300*day, true)
		c := w.open("")
		before := time.Now()
		w.token(c)
		if d := time.Since(before); d > time.Second {
			t.Errorf("it took %v", d)
		}
		w.wantUsed(c, 2)
		w.wantLogged(map[string]int{fellBack: 1})
		for range 2 { // what was refused just now is not tried again for the next token
			time.Sleep(time.Second)
			n := w.count()
			other := graphToken
			if other.EnableCAE = false; n > 3 {
				other.Scopes = []string{"https://storage.azure.com/.default"}
			}
			if _, err := c.GetToken(t.Context(), other); err != nil || w.count() != n+1 {
				t.Errorf("got %v after %d more requests", err, w.count()-n)
			}
		}
		w.next(c)
		w.wantLogged(map[string]int{})
	})
}

func TestNoMoreThanThreeVersionsAreTried(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, cert := w.add(0, 300*day, false)
		w.register(cert)
		for i := range 3 {
			w.add(i+1, 300*day, false)
		}
		c := w.open("")
		if e := failure(t, c); e.Code != "aadsts700027" || w.count() != 3 {
			t.Errorf("got %v after %d tries", e, w.count())
		}
		all, err := c.Certificates(t.Context())
		if err != nil || len(all) != 4 || all[2].Refused == "" || all[3].Refused != "" || all[3].Thumbprint != "" {
			t.Errorf("got %+v, %v", all, err)
		}
		// Nothing works, so that nothing is left alone: once somebody has registered it, it is used at once.
		w.register(certify(t, rsaKey(t, 3), day))
		time.Sleep(time.Minute)
		failure(t, c)
		newest, cert := w.add(3, 300*day, false)
		w.register(cert)
		time.Sleep(time.Minute)
		w.token(c)
		if all, _ := c.Certificates(t.Context()); !all[0].InUse || all[0].Version != newest {
			t.Errorf("got %+v", all)
		}
	})
}

func TestAVersionThatIsRefusedInMidLifeIsReplacedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, first := w.add(0, 300*day, false)
		w.register(first)
		c := w.open("")
		w.token(c)
		// Before an hour is over there is a new version, and the old one is not registered any more.
		time.Sleep(50 * time.Minute)
		_, second := w.add(1, 300*day, false)
		w.register(second)
		time.Sleep(8 * time.Minute)
		w.token(c)
		time.Sleep(2 * time.Minute)
		w.token(c)
		w.wantUsed(c, 0)
		w.wantLogged(map[string]int{changed: 1})
	})
}

func TestVersionsThatAreDisabledOrNotValidArePassedOver(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, cert := w.add(0, 300*day, false)
		w.register(cert)
		w.add(1, -time.Minute, false)
		disabled, _ := w.add(2, 300*day, false)
		w.vault.Disable(name, disabled)
		time.Sleep(time.Second)
		future := certify(t, rsaKey(t, 3), 300*day, time.Now().Add(90*time.Minute))
		w.register(cert, future)
		w.vault.AddCertificate(name, sim.Certificate{Key: rsaKey(t, 3), Chain: []*x509.Certificate{future}})
		c := w.open("")
		w.token(c)
		if w.count() != 1 {
			t.Errorf("got %d token requests", w.count())
		}
		w.wantUsed(c, 3)
		w.wantLogged(map[string]int{})
		all, _ := c.Certificates(t.Context())
		var why []string
		for _, s := range all {
			why = append(why, s.PassedOver)
		}
		if want := []string{"not yet valid", "disabled", "expired", ""}; !cmp.Equal(why, want) {
			t.Errorf("got %q, want %q", why, want)
		}
		w.next(c)
		w.wantLogged(map[string]int{})
		w.next(c)
		w.wantUsed(c, 0) // its time has come
	})
}

func TestNoVersionCanBeUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		id, cert := w.add(0, -time.Minute, false)
		w.register(cert)
		if e := failure(t, w.open("")); e.Code != "key-vault" || !strings.Contains(e.Detail, id+", is expired") || len(e.Detail) > 200 || w.count() != 0 {
			t.Errorf("got %v", e)
		}
	})
}

func TestAVersionThatIsDisabledGivesWayToAnother(t *testing.T) {
	for name, inVault := range map[string]bool{"exportable": false, "in the vault": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				_, first := w.add(0, 300*day, inVault)
				second, cert := w.add(1, 300*day, inVault)
				w.register(first, cert)
				c := w.open("")
				w.token(c)
				w.wantUsed(c, 0)
				w.vault.Disable("signup-sync", second)
				w.next(c)
				w.next(c)
				w.wantUsed(c, 1)
			})
		})
	}
}

// Nobody has asked while the token was good, so that there is one try for the next.
// The new version is listed and cannot be read, so that the old one works on.
// The new version is refused, which is nothing new; that the old one is of no use any more is what a person has to know.
func TestTheCertificateExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		id, first := w.add(0, 31*day, false)
		w.register(first)
		c := w.open("")
		w.token(c)
		w.wantLogged(map[string]int{})
		time.Sleep(25 * time.Hour)
		w.token(c)
		lines := w.log.take()
		if want := "WARN " + expiring + " certificate=signup-sync version=" + id + " days=29"; !slices.Contains(lines, want) {
			t.Errorf("got %q, want %q", lines, want)
		}
		for range 48 {
			w.next(c)
		}
		w.wantLogged(map[string]int{expiring: 1}) // a day, and not quite two
		time.Sleep(29 * day)
		if e := failure(t, c); e.Code != "aadsts700027" {
			t.Errorf("got %v", e)
		}
		_, second := w.add(1, 300*day, false)
		w.register(second)
		time.Sleep(2 * time.Minute)
		w.token(c)
		w.logged()
		w.next(c)
		w.wantLogged(map[string]int{})
	})
}

// A secret that somebody has put there is listed without the times of the certificate that it holds.
func TestACertificateThatIsASecretAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		cert := certify(t, rsaKey(t, 0), 31*day)
		w.register(cert)
		w.vault.SetSecret(name, "", pemOf(t, rsaKey(t, 0), cert))
		c := w.open("")
		w.token(c)
		w.next(c)
		w.next(c)
		w.wantUsed(c, 0)
		w.wantLogged(map[string]int{})
		time.Sleep(2 * day)
		w.token(c)
		w.wantLogged(map[string]int{expiring: 1})
	})
}

func TestARevokedVersion(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, first := w.add(0, 300*day, false)
		_, second := w.add(1, 300*day, false)
		w.register(first, second)
		c := w.open("")
		w.token(c)
		w.wantUsed(c, 0)
		w.entra.SetApp(sim.App{ID: clientID, Certificates: []*x509.Certificate{first, second}, Revoked: []*x509.Certificate{second}})
		w.next(c)
		w.next(c)
		all, err := c.Certificates(t.Context())
		if err != nil || all[0].Refused != "aadsts7000214" || !all[1].InUse {
			t.Errorf("got %+v, %v", all, err)
		}
		w.wantLogged(map[string]int{changed: 1, fellBack: 1})
	})
}

// What is not about the certificate is not cured by another one, and blames none.
func TestAnErrorThatIsNotTheCertificatesTriesNoOther(t *testing.T) {
	for _, fault := range []sim.Fault{refuse(401, 700024), refuse(400, 7000112), {Path: "/token", Times: -1, Status: 503}, {Path: "/token", Times: -1}} {
		inBubble(t, func(t *testing.T, w world) {
			_, first := w.add(0, 300*day, false)
			_, second := w.add(1, 300*day, false)
			w.register(first, second)
			w.entra.Faults.Add(fault)
			c := w.open("")
			failure(t, c)
			if n := w.vault.Counts()["GET /secrets/{name}/{version}"]; n != 1 {
				t.Errorf("read %d versions", n)
			}
			all, err := c.Certificates(t.Context())
			if err != nil || all[0].Refused != "" || all[1].Refused != "" {
				t.Errorf("got %+v, %v", all, err)
			}
			w.entra.Faults.Clear()
			time.Sleep(time.Minute)
			w.token(c)
			w.wantUsed(c, 0)
		})
	}
}
