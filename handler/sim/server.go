package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server serves simulated systems over HTTPS.
type Server struct {
	URL  string // https://127.0.0.1:port, without a path
	Addr string // host:port, for clients that dial a vendor's host name here
	CA   []byte // PEM: the authority that made the server's certificate, to be trusted by clients

	http *http.Server
	done chan struct{}
	once sync.Once
}

// Serve listens on addr ("127.0.0.1:0" for any free port; nothing but loopback is accepted) until ctx ends or Close is
// called. Its certificate comes from an authority made for the occasion, whose key is kept nowhere.
func Serve(ctx context.Context, addr string, h http.Handler) (*Server, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("listen on %s: the simulations are served on loopback only", addr)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return ServeOn(ctx, l, h)
}

// ServeOn is Serve for a listener that is open already, such as one within the process: its connections know simulated
// time.
func ServeOn(ctx context.Context, l net.Listener, h http.Handler) (*Server, error) {
	cert, ca, err := makeCertificate()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a certificate: %w", err), l.Close())
	}
	s := &Server{URL: "https://" + l.Addr().String(), Addr: l.Addr().String(), CA: ca, done: make(chan struct{})}
	s.http = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}
	go func() {
		defer close(s.done)
		_ = s.http.ServeTLS(l, "", "") // ends with ErrServerClosed
	}()
	stop := context.AfterFunc(ctx, s.Close)
	go func() {
		<-s.done
		stop()
	}()
	return s, nil
}

// Close cuts all connections and frees the port.
func (s *Server) Close() {
	s.once.Do(func() { _ = s.http.Close() })
	<-s.done
}

// Client trusts the server's authority and nobody else.
func (s *Server) Client() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA)
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}}
}

// makeCertificate makes a server certificate for loopback and for the vendors' host names, and its authority's PEM.
func makeCertificate() (tls.Certificate, []byte, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signup-sync simulations"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		DNSNames: []string{"localhost", "*.vault.azure.net", "login.microsoftonline.com", "*.ciamlogin.com", "graph.microsoft.com",
			"*.vault.usgovcloudapi.net", "login.microsoftonline.us", "login.partner.microsoftonline.cn", "login.chinacloudapi.cn"}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	cert := tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
