package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"software.sslmate.com/src/go-pkcs12"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	tenantID   = "aaaabbbb-0000-4ccc-8111-dddd2222eeee"
	clientID   = "94559aba-b733-468e-aaec-44cc4e7f0b58"
	identityID = "5c1e7a0d-1f0e-4a53-9d5e-2f6a1c3b4d5e"
	aSecret    = "s3cr3t-value"
	scope      = "https://graph.microsoft.com/.default"
	vaultURL   = "https://my-vault.vault.azure.net"
	authority  = "https://login.microsoftonline.com"
	name       = "signup-sync"
)

var graphToken = policy.TokenRequestOptions{Scopes: []string{scope}, EnableCAE: true}

// rsaKeys are made once, since that takes long.
var rsaKeys [4]struct {
	once sync.Once
	key  *rsa.PrivateKey
}

func rsaKey(t *testing.T, i int) *rsa.PrivateKey {
	t.Helper()
	rsaKeys[i].once.Do(func() {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		rsaKeys[i].key = key
	})
	return rsaKeys[i].key
}

// certify makes a certificate for a key that begins an hour ago, or at the given time.
func certify(t *testing.T, key crypto.Signer, life time.Duration, from ...time.Time) *x509.Certificate {
	t.Helper()
	from = append(from, time.Now().Add(-time.Hour))
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "signup-sync"},
		NotBefore: from[0], NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func elliptical(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pfx(t *testing.T, enc *pkcs12.Encoder, key crypto.Signer, cert *x509.Certificate, chain ...*x509.Certificate) string {
	t.Helper()
	der, err := enc.Encode(key, cert, chain, "")
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func pemOf(t *testing.T, key crypto.Signer, chain ...*x509.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range chain {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

// own is this program's own identity: a token for the vault, or the assertion.
type own struct {
	err error
	mu  sync.Mutex
	got []string
}

func (i *own) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got = append(i.got, o.Scopes...)
	token := sim.Token(sim.Claims{Audience: "https://vault.azure.net", Tenant: tenantID, App: identityID, Expires: time.Now().Add(24 * time.Hour).Unix()})
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(24 * time.Hour)}, i.err
}

// world is Entra and a Key Vault, served over TLS under their own names.
type world struct {
	t      *testing.T
	entra  *sim.Entra
	vault  *sim.KeyVault
	client *http.Client
	log    *lines
	known  map[string]bool // the addresses that lead here

	identity **sim.Identity // nil = there is none
}

// route lets a host's name lead here. That the server's certificate has the name is checked, so that it must.
func (w world) route(root string) { w.known[hostPort(root)] = true }

// newWorld serves on loopback, in real time.
func newWorld(t *testing.T, registered ...*x509.Certificate) world {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveWorld(t, l, (&net.Dialer{}).DialContext, registered)
}

// inBubble serves within the process and in simulated time.
func inBubble(t *testing.T, test func(*testing.T, world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})}
		test(t, serveWorld(t, p, p.dial, nil))
	})
}

func serveWorld(t *testing.T, l net.Listener, dial func(context.Context, string, string) (net.Conn, error), registered []*x509.Certificate) world {
	t.Helper()
	w := world{
		t:     t,
		entra: sim.NewEntra(sim.EntraOptions{Tenant: tenantID, Apps: []sim.App{{ID: clientID, Secret: aSecret, Certificates: registered}}}),
		vault: sim.NewKeyVault(sim.KeyVaultOptions{Tenant: tenantID}),
		log:   &lines{},
		known: map[string]bool{hostPort(vaultURL): true, hostPort(authority): true},
	}
	all := &sim.World{Entra: w.entra, Vault: w.vault}
	w.identity = &all.Identity
	s, err := sim.ServeOn(t.Context(), l, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w.known[s.Addr] = true
	w.client = s.Client()
	transport := w.client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !w.known[addr] { // a test must not leak an assertion
			return nil, errors.New("dial of " + addr)
		}
		return dial(ctx, network, s.Addr)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return w
}

func hostPort(root string) string { return strings.TrimPrefix(root, "https://") + ":443" }

// pipes is a listener within the process: net/http over it takes part in a bubble's time.
type pipes struct {
	waiting chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.waiting <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.waiting:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (w world) options(kind string) identity.AppOptions {
	return identity.AppOptions{
		Kind: kind, Tenant: tenantID, ClientID: clientID, Authority: authority + "/", HTTP: w.client,
		Log: slog.New(w.log), Secret: aSecret, Vault: vaultURL, Name: name, Identity: &own{},
	}
}

func (w world) open(kind string) *identity.App {
	w.t.Helper()
	return open(w.t, w.options(kind))
}

func open(t *testing.T, o identity.AppOptions) *identity.App {
	t.Helper()
	app, err := identity.OpenApp(o)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// register makes these the app's only certificates.
func (w world) register(certificates ...*x509.Certificate) {
	w.entra.SetApp(sim.App{ID: clientID, Secret: aSecret, Certificates: certificates})
}

// asked is how often the token endpoint and the vault were asked so far.
func (w world) asked() (entra, vault int) {
	return w.entra.Counts()["POST /{tenant}/oauth2/v2.0/token"], len(w.vault.Requests())
}

// token gets a token and wants one.
func (w world) token(c azcore.TokenCredential) azcore.AccessToken {
	w.t.Helper()
	token, err := c.GetToken(w.t.Context(), graphToken)
	if err != nil || token.Token == "" {
		w.t.Fatalf("got no token: %v", err)
	}
	return token
}

// failure gets a token and wants an error of ours.
func failure(t *testing.T, c azcore.TokenCredential) *signup.Error {
	t.Helper()
	token, err := c.GetToken(t.Context(), graphToken)
	e, ok := errors.AsType[*signup.Error](err)
	if !ok || token.Token != "" {
		t.Fatalf("got the token %q and %v, want an error of ours", token.Token, err)
	}
	if strings.Contains(err.Error(), aSecret) {
		t.Errorf("the error quotes the answer: %v", err)
	}
	return e
}

// lines keeps what was logged, a line each: the message and then the attributes.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	return nil
}

// take is what was logged since the last time.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
