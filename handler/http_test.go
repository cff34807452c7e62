package main

import (
	"compress/gzip"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// trusting is the program's client, which trusts a test's server.
func trusting(t *testing.T, s *httptest.Server) *http.Client {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	hc, err := newHTTPClient(file)
	if err != nil {
		t.Fatal(err)
	}
	return hc
}

// TestARedirectIsTheAnswer holds for everyone who uses the client, the vendors' SDKs too: a redirect with 307 would have
// them send a secret or an assertion again, to whomever it names.
func TestARedirectIsTheAnswer(t *testing.T) {
	var told string
	other := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told = string(body) + r.Header.Get("Authorization")
	}))
	defer other.Close()
	s := httptest.NewTLSServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	for name, hc := range map[string]*http.Client{"ours": trusting(t, s), "for SDKs": bounded(trusting(t, s))} {
		resp, err := hc.Post(s.URL, "text/plain", strings.NewReader("client_secret=s3cr3t"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusTemporaryRedirect || told != "" {
			t.Errorf("%s: status %d, and the other server was told %q", name, resp.StatusCode, told)
		}
	}
}

// TestAnswersToSDKsHaveAnEnd holds also for an answer that is small on the wire.
func TestAnswersToSDKsHaveAnEnd(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := io.Writer(w)
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			out = z
		}
		n := maxSDKAnswer
		if r.URL.Path != "/fits" {
			n += 4 << 20
		}
		for zeros := make([]byte, 1<<20); n > 0; n -= len(zeros) {
			if _, err := out.Write(zeros); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	hc := bounded(trusting(t, s))
	for path, fits := range map[string]bool{"/fits": true, "/plain": false, "/gzip": false} {
		resp, err := hc.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if (err == nil) != fits || n > maxSDKAnswer {
			t.Errorf("%s: read %d bytes, and then %v", path, n, err)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	if resp, err := trusting(t, s).Get(s.URL); err == nil {
		resp.Body.Close()
		t.Error("TLS 1.1 was spoken")
	}
	hc, err := newHTTPClient("")
	if err != nil {
		t.Fatal(err)
	}
	if c := hc.Transport.(*http.Transport).TLSClientConfig; c == nil || c.MinVersion != tls.VersionTLS12 || c.InsecureSkipVerify {
		t.Errorf("got %+v, want TLS 1.2 at least, whatever the environment says", c)
	}
}
