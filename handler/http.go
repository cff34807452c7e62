package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// newHTTPClient is the one client for everything outside; caFile adds roots to the system's. It follows no redirect:
// what carries a secret, an assertion or a person goes where it was sent, and nowhere else.
func newHTTPClient(caFile string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("EXTRA_CA_FILE: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("EXTRA_CA_FILE: %s holds no PEM certificate", caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: transport, CheckRedirect: noRedirect}, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// maxSDKAnswer is how much of an answer Azure's SDKs get to see, in bytes: they read all of it into memory. A page of a
// thousand full rows of the ledger has about 35 MB.
const maxSDKAnswer = 64 << 20

// bounded is the client for Azure's SDKs: tokens, Key Vault, tables. What is ours bounds what it reads itself.
func bounded(hc *http.Client) *http.Client {
	return &http.Client{Transport: boundedTransport{hc.Transport}, CheckRedirect: hc.CheckRedirect}
}

type boundedTransport struct{ inner http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxSDKAnswer}
	}
	return resp, err
}

// boundedBody is a body, as it is after decompression, that ends with an error where it is too long.
type boundedBody struct {
	io.ReadCloser
	left int64
}

var errAnswerTooLarge = errors.New("the answer is too large")

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errAnswerTooLarge
	}
	return n, err
}
