package connector_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// The one call is tested through the webhook, which adds least to it.

// hook opens a webhook to a server with this handler.
func hook(t *testing.T, h http.HandlerFunc, more ...any) signup.Connector {
	t.Helper()
	root, client := serve(t, h)
	settings := map[string]any{"url": root, "secret": whsec, "allowPrivate": true}
	for i := 0; i < len(more); i += 2 {
		settings[more[i].(string)] = more[i+1]
	}
	return open(t, "webhook", settings, connector.Env{HTTP: client, Clock: sim.NewClock(start)})
}

var ada = signup.Request{
	Tenant: "0a1b2c3d-0000-4000-8000-00000000cafe", User: "00000001-5eed-4000-8000-00000000beef", Destination: "there",
	Key: strings.Repeat("0123456789abcdef", 4), Created: start.Add(-time.Minute), Origin: signup.SelfService,
	Email: "ada@example.com", EmailVerified: true, Record: map[string]any{"email": "ada@example.com", "name": "Ada Lovelace"},
}

// call associates and returns the outcome, which has to be one.
func call(t *testing.T, c signup.Connector, req signup.Request) *signup.Error {
	t.Helper()
	_, err := c.Associate(t.Context(), req)
	e, ok := errors.AsType[*signup.Error](err)
	if !ok {
		t.Fatalf("got %v, want an outcome", err)
	}
	return e
}

func TestStatusBecomesClass(t *testing.T) {
	tests := []struct {
		status int
		class  signup.Class
		code   string
	}{
		{301, signup.Systemic, "redirected"}, {307, signup.Systemic, "redirected"}, {308, signup.Systemic, "redirected"},
		{400, signup.Transient, "rejected"}, {401, signup.Systemic, "unauthorized"}, {403, signup.Systemic, "forbidden"},
		{404, signup.Systemic, "not-found"}, {405, signup.Systemic, "rejected"}, {413, signup.Permanent, "rejected"},
		{415, signup.Systemic, "rejected"}, {422, signup.Permanent, "rejected"}, {408, signup.Transient, "timeout"}, {409, signup.Transient, "conflict"},
		{410, signup.Systemic, "gone"}, {429, signup.Throttled, "throttled"}, {500, signup.Transient, "unavailable"},
		{502, signup.Transient, "unavailable"}, {503, signup.Transient, "unavailable"}, {504, signup.Transient, "unavailable"},
	}
	for _, tt := range tests {
		c := hook(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(tt.status)
		})
		e := call(t, c, ada)
		if e.Class != tt.class || e.Code != tt.code || e.Status != tt.status || e.RetryAfter != 7*time.Second {
			t.Errorf("%d: got %s, %q, %d, %s; want %s, %q after 7s", tt.status, e.Class, e.Code, e.Status, e.RetryAfter, tt.class, tt.code)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	tests := map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"-5":                            0,
		"soon":                          0,
		"NaN":                           0,
		"120":                           2 * time.Minute,
		"0.2":                           time.Second,
		"1.0001":                        2 * time.Second,
		"1e300":                         24 * time.Hour,
		"+Inf":                          24 * time.Hour,
		"Fri, 20 Nov 2026 09:00:30 GMT": 30 * time.Second,
		"Fri, 20 Nov 2026 08:00:00 GMT": 0,
		"Fri, 20 Nov 2037 08:00:00 GMT": 24 * time.Hour,
	}
	for value, want := range tests {
		c := hook(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", value)
			w.WriteHeader(503)
		})
		if got := call(t, c, ada).RetryAfter; got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := 0
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer target.Close()
	for _, status := range []int{301, 302, 307, 308} {
		c := hook(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target.URL, status) })
		if e := call(t, c, ada); e.Code != "redirected" {
			t.Errorf("%d: got %q, want redirected", status, e.Code)
		}
	}
	if elsewhere != 0 {
		t.Errorf("the target was called %d times", elsewhere)
	}
}

func TestNoAnswer(t *testing.T) {
	hangs := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // returning would answer 200, which the caller may still see
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	fine := httptest.NewTLSServer(http.NotFoundHandler())
	defer fine.Close()
	nowhere := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "ada.example"}
	}}}
	at := func(url string, client *http.Client) signup.Connector {
		return open(t, "webhook", map[string]any{"url": url + "/?key=hidden", "secret": whsec, "allowPrivate": true}, connector.Env{HTTP: client})
	}
	tests := []struct {
		code string
		c    signup.Connector
	}{
		{"timeout", hook(t, hangs, "timeout", "50ms")},
		{"cut", hook(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
		{"cut", hook(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"id":"x"}`))
		})},
		{"answer-too-large", hook(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20+1)) })},
		{"refused", at("https://"+closed.Addr().String(), nil)},
		{"tls", at(fine.URL, nil)},
		{"dns", at("https://ada.example", nowhere)},
	}
	for _, tt := range tests {
		e := call(t, tt.c, ada)
		if e.Class != signup.Transient || e.Code != tt.code || e.Err != nil || e.Detail != "" {
			t.Errorf("got %s, %q, %v; want transient, %q, and nothing more", e.Class, e.Code, e.Err, tt.code)
		}
	}
}

func TestARequestIsSentOnce(t *testing.T) {
	calls := 0
	c := stripeAt(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls > 1 {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(`{"object":"customer","id":"cus_1"}`))
	})
	if _, err := c.Associate(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	// The second call goes over the connection of the first and has an idempotency key: the transport takes both for
	// leave to send it again by itself.
	if e := call(t, c, ada); e.Code != "cut" || calls != 2 {
		t.Errorf("got %v after %d calls, want it cut after 2", e, calls)
	}
}

func TestPrivateAddressesAreRefusedWhenDialled(t *testing.T) {
	hits := 0
	root, client := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	u, err := url.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	transport := client.Transport.(*http.Transport)
	transport.Proxy = func(*http.Request) (*url.URL, error) {
		t.Error("a proxy would hide the address")
		return nil, nil
	}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, u.Host)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "169.254.169.254", "[::ffff:10.0.0.1]"} {
		c := open(t, "webhook", map[string]any{"url": "https://" + host + ":" + u.Port(), "secret": whsec}, connector.Env{HTTP: client})
		if e := call(t, c, ada); e.Class != signup.Systemic || e.Code != "private-address" {
			t.Errorf("%s: got %s, %q; want systemic, private-address", host, e.Class, e.Code)
		}
	}
	if hits != 0 {
		t.Errorf("%d calls arrived", hits)
	}
}

func TestIsPublic(t *testing.T) {
	tests := map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "100.63.255.255": true, "172.32.0.1": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "fd00::1": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "168.63.129.16": false, "100.100.100.200": false,
		"::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "::ffff:168.63.129.16": false, "::ffff:93.184.216.34": true, "64:ff9b::a9fe:a9fe": false, "::7f00:1": false, "2002:7f00:1::": false,
		"224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false, "198.18.0.1": false,
	}
	for s, want := range tests {
		if got := connector.IsPublic(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: got %t, want %t", s, got, want)
		}
	}
}
