package identity_test

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/identity"
	"signup-sync/handler/sim"
)

func TestAVaultIsNotAskedMoreThanOnceAMinuteWhenEntraRefusesAll(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.add(0, 300*day, false)
		c := w.open("")
		for range 600 {
			failure(t, c)
			time.Sleep(time.Second)
		}
		counts := w.vault.Counts()
		if n := counts["GET /secrets/{name}/versions"]; n < 5 || n > 12 || counts["GET /secrets/{name}/{version}"] != 1 {
			t.Errorf("in ten minutes the vault was asked %v", counts)
		}
		if n := w.count(); n > 35 {
			t.Errorf("in ten minutes Entra was asked %d times", n)
		}
	})
}

func TestAHangingVaultCostsNoTokenWhereTheKeyIsInHand(t *testing.T) {
	for name, skip := range map[string]int{"at the list": 0, "at the new version": 1} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				_, first := w.add(0, 300*day, false)
				w.register(first)
				c := w.open("")
				w.token(c)
				w.add(1, 300*day, false)
				w.vault.Faults.Add(sim.Fault{Skip: skip, Times: -1, Delay: 100 * day})
				time.Sleep(61 * time.Minute)
				before := time.Now()
				if w.token(c); time.Since(before) > 11*time.Second {
					t.Errorf("it took %v", time.Since(before))
				}
			})
		})
	}
}

func TestTheVaultIsOutOfReachAndWhatWorksIsKept(t *testing.T) {
	for name, fault := range map[string]sim.Fault{
		"down":      {Times: -1, Status: http.StatusServiceUnavailable},
		"cut off":   {Times: -1},
		"hanging":   {Times: -1, Delay: 100 * day},
		"forbidden": {Times: -1, Status: http.StatusForbidden, Body: `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}`},
		"gone":      {Times: -1, Status: http.StatusNotFound, Body: `{"error":{"code":"SecretNotFound"}}`},
		"throttled": {Times: -1, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				_, first := w.add(0, 300*day, false)
				w.register(first)
				c := w.open("")
				w.token(c)
				w.vault.Faults.Add(fault)
				_, second := w.add(1, 300*day, false)
				w.register(first, second)
				for range 10 {
					w.next(c)
				}
				if n := w.logged()[unasked]; n < 5 || n > 10 {
					t.Errorf("it was said %d times that the vault cannot be asked", n)
				}
				all, err := c.Certificates(t.Context())
				if err == nil || len(all) != 1 || !all[0].InUse {
					t.Errorf("got %+v, %v", all, err)
				}
				w.vault.Faults.Clear()
				w.next(c)
				w.next(c)
				w.wantUsed(c, 0)
			})
		})
	}
}

func TestANewVersionThatCannotBeReadIsNoHarm(t *testing.T) {
	for name, fault := range map[string]sim.Fault{
		"hanging":   {Path: "/secrets", Skip: 1, Times: 2, Delay: 100 * day},
		"forbidden": {Skip: 1, Times: 2, Status: 403, Body: `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				_, first := w.add(0, 300*day, false)
				w.register(first)
				c := w.open("")
				w.token(c)
				w.vault.Faults.Add(fault)
				_, second := w.add(1, 300*day, false)
				w.register(first, second)
				for range 3 {
					w.next(c)
				}
				w.wantUsed(c, 0)
				want := map[string]int{changed: 1}
				if name == "forbidden" { // what passes by itself is nobody's to mend
					want[fellBack] = 1
				}
				w.wantLogged(want)
			})
		})
	}
}

func TestAVaultThatListsVersionsAndThenHangsIsNotAskedForEachOfThem(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		for i := range 3 {
			w.add(i, 300*day, false)
		}
		w.vault.Faults.Add(sim.Fault{Path: "/secrets", Skip: 2, Times: -1, Delay: day})
		before := time.Now()
		if e := failure(t, w.open("")); e.Code != "key-vault" || time.Since(before) > 11*time.Second {
			t.Errorf("got %v after %v", e, time.Since(before))
		}
	})
}

func TestTheErrorIsThatOfTheVersionInUse(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		_, first := w.add(0, 300*day, true)
		w.register(first)
		c := w.open("")
		w.token(c)
		w.add(1, 300*day, false)
		w.vault.Grant(identityID, sim.GetSecret, sim.ListSecrets, sim.ReadCertificate)
		time.Sleep(time.Hour)
		if e := failure(t, c); e.Code != "key-vault" || !strings.Contains(e.Detail, "Key Vault Crypto User") {
			t.Errorf("got %v", e)
		}
	})
}

func TestVersionsThatMayNotBeListed(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.vault.Grant(identityID, sim.GetSecret)
		_, first := w.add(0, 300*day, false)
		w.register(first)
		c := w.open("")
		w.token(c)
		_, second := w.add(1, 300*day, false)
		w.next(c)
		w.next(c)
		w.wantLogged(map[string]int{fellBack: 1})
		w.register(second)
		w.next(c)
		w.wantLogged(map[string]int{changed: 1})
		all, err := c.Certificates(t.Context())
		if len(all) != 2 || !all[0].InUse || !strings.Contains(errorText(err), "may not list") {
			t.Errorf("got %+v, %v", all, err)
		}
	})
}

// What somebody has done wrong with the newest version costs nothing as long as an older one is registered, in a process that has just
// begun as little as in one that has not.
func TestAMistakeWithTheNewestVersionCostsNoToken(t *testing.T) {
	secretsUser := []sim.DataAction{sim.GetSecret, sim.ListSecrets}
	ownRole := []sim.DataAction{sim.ListSecrets, sim.ReadCertificate, sim.SignWithKey}
	ec := elliptical(t)
	elliptic := func(t *testing.T, w world, inVault bool) {
		w.vault.AddCertificate("signup-sync", sim.Certificate{Key: ec, Chain: []*x509.Certificate{certify(t, ec, 300*day)}, NonExportable: inVault})
	}
	for name, test := range map[string]struct {
		inVault bool
		grants  []sim.DataAction
		mistake func(*testing.T, world)
		err     string
	}{
		"an elliptic key":                       {false, secretsUser, func(t *testing.T, w world) { elliptic(t, w, false) }, "not RSA"},
		"an elliptic key in the vault":          {true, ownRole, func(t *testing.T, w world) { elliptic(t, w, true) }, "not RSA"},
		"it cannot be exported any more":        {false, secretsUser, func(_ *testing.T, w world) { w.add(1, 300*day, true) }, "Key Vault Certificate User"},
		"a secret that is no certificate":       {false, secretsUser, func(_ *testing.T, w world) { w.vault.SetSecret("signup-sync", "", "rubbish!") }, "Key Vault Certificate User"},
		"a certificate of another app":          {true, ownRole, func(_ *testing.T, w world) { w.add(1, 300*day, true) }, "aadsts700027"},
		"one that is not registered, to export": {true, ownRole, func(_ *testing.T, w world) { w.add(1, 300*day, false) }, "aadsts700027"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				w.vault.Grant(identityID, test.grants...)
				_, first := w.add(0, 300*day, test.inVault)
				w.register(first)
				c := w.open("")
				w.token(c)
				time.Sleep(time.Second)
				test.mistake(t, w)
				time.Sleep(61 * time.Minute)
				for _, c := range []*identity.App{c, w.open("")} {
					w.token(c)
					if lines := w.log.take(); len(lines) != 1 || !strings.Contains(lines[0], fellBack) || !strings.Contains(lines[0], test.err) {
						t.Errorf("logged %q, want one line with %q", lines, test.err)
					}
				}
			})
		})
	}
}
