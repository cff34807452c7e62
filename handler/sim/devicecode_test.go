package sim_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/sim"
)

const graphScope = "https://graph.microsoft.com/User.Invite.All openid offline_access profile"

func (r *rig) code(form url.Values) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "POST", r.server.URL+"/"+r.tenant.ID()+"/oauth2/v2.0/devicecode", strings.NewReader(form.Encode()))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.do(req)
}

func (r *rig) deviceCode() string {
	r.Helper()
	a := r.code(url.Values{"client_id": {sim.GraphTools}, "scope": {graphScope}})
	if a.status != 200 || a.body["expires_in"] != 900.0 || a.body["interval"] != 5.0 || !strings.Contains(a.body["message"].(string), a.body["user_code"].(string)) {
		r.Fatalf("got %d %s", a.status, a.raw)
	}
	return a.body["device_code"].(string)
}

// poll asks for a code's token and returns the error of the answer, "" for none.
func (r *rig) poll(code string) (string, answer) {
	r.Helper()
	a := r.ask(r.tenant.ID(), url.Values{"client_id": {sim.GraphTools}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code}})
	kind, _ := a.body["error"].(string)
	return kind, a
}

func TestDeviceCode(t *testing.T) {
	r := withEntra(t)
	person := sim.Login{Object: "728309ae-1a37-4937-9afe-e35d964db09b", Roles: []string{sim.GuestInviter}, Consent: []string{"User.Invite.All"}, Slow: 1, Pending: 2}
	r.world.Entra.SetLogin(person)
	code := r.deviceCode()
	for i, want := range []string{"slow_down", "authorization_pending", "", "bad_verification_code"} {
		got, a := r.poll(code)
		if got != want {
			t.Fatalf("poll %d: got %q, want %q", i, got, want)
		}
		if want != "" {
			continue
		}
		r.token = a.body["access_token"].(string)
		r.want(r.send("POST", "/v1.0/invitations", `{}`), 400, "BadRequest")
		if me := r.get("/v1.0/users"); me.status != 403 {
			t.Errorf("users: got %d, want what was not consented to refused", me.status)
		}
		r.token = ""
		again := url.Values{"client_id": {sim.GraphTools}, "grant_type": {"refresh_token"}, "refresh_token": {a.body["refresh_token"].(string)}}
		if b := r.ask(r.tenant.ID(), again); b.status != 200 || b.body["scope"] != graphScope {
			t.Errorf("refresh: got %d %s", b.status, b.raw)
		}
		person.Gone = true
		r.world.Entra.SetLogin(person)
		if b := r.ask(r.tenant.ID(), again); b.status != 400 || b.body["error"] != "invalid_grant" {
			t.Errorf("refresh after the end: got %d %s", b.status, b.raw)
		}
	}
	code = r.deviceCode()
	r.clock.Advance(16 * time.Minute)
	if got, _ := r.poll(code); got != "expired_token" {
		t.Errorf("after 16 minutes: got %q", got)
	}
	for outcome, l := range map[string]sim.Login{"authorization_declined": {Object: person.Object}, "access_denied": {Refuse: "access_denied"}, "authorization_pending": {}} {
		r.world.Entra.SetLogin(l)
		if got, _ := r.poll(r.deviceCode()); got != outcome {
			t.Errorf("got %q, want %s", got, outcome)
		}
	}
	for kind, form := range map[string]url.Values{"invalid_client": {"client_id": {client}, "scope": {graphScope}}, "invalid_scope": {"client_id": {sim.GraphTools}},
		"unauthorized_client": {"client_id": {"11111111-0000-4333-8444-555555555555"}, "scope": {graphScope}}} {
		if a := r.code(form); a.body["error"] != kind {
			t.Errorf("got %s, want %s", a.raw, kind)
		}
	}
	r.world.Entra.SetApp(sim.App{ID: client, Public: true})
	if a := r.code(url.Values{"client_id": {client}, "scope": {graphScope}}); a.status != 200 {
		t.Errorf("a public client of one's own: got %d %s", a.status, a.raw)
	}
}
