package identity_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

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
		if n := w.count(); n > 15 {
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
