package ledgertest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// StartAzurite starts the storage emulator's table service, in memory, for as long as the test runs, and returns the
// connection string of its account. It skips the test where the emulator is not installed, and fails it there when the
// environment variable CI is "true".
//
// Give every test tables of its own, by TablesOptions.Prefix: the service would take minutes to delete them.
func StartAzurite(tb testing.TB) string {
	tb.Helper()
	return startService(tb, "table", "TableEndpoint")
}

// StartAzuriteByKey is StartAzurite for many rows: it finds an entity by its key, as the service does, and not by going through
// all of its partition.
func StartAzuriteByKey(tb testing.TB) string {
	tb.Helper()
	return startService(tb, "tableByKey", "TableEndpoint")
}

// StartAzuriteQueues is StartAzurite for the queue service.
func StartAzuriteQueues(tb testing.TB) string {
	tb.Helper()
	return startService(tb, "queue", "QueueEndpoint", "--skipApiVersionCheck") // the client is ahead of the emulator
}

// StartAzuriteTLS is StartAzurite over TLS, for tokens in place of the account's key: it looks at their audience, issuer and
// times, not at a signature, and knows no roles. It returns the service's address and who trusts its certificate.
func StartAzuriteTLS(tb testing.TB) (address string, client *http.Client) {
	tb.Helper()
	cert, key, roots := certificate(tb)
	c := startService(tb, "table", "TableEndpoint", "--oauth", "basic", "--cert", cert, "--key", key)
	_, address, _ = strings.Cut(c, "TableEndpoint=http")
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	tb.Cleanup(client.CloseIdleConnections)
	return "https" + strings.TrimSuffix(address, ";"), client
}

// certificate makes one for loopback and writes it and its key to files.
func certificate(tb testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(tb.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			tb.Fatal(err)
		}
		return path
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8), roots
}

func startService(tb testing.TB, service, endpoint string, more ...string) string {
	tb.Helper()
	dir, err := azuriteDir()
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "node_modules", "azurite"))
	}
	if err == nil {
		_, err = exec.LookPath("node")
	}
	if err != nil {
		const fix = "this is NOT tested against Azure Storage: install the emulator with: npm ci --prefix handler/ledger/azurite"
		if os.Getenv("CI") == "true" {
			tb.Fatalf("%s (%v)", fix, err)
		}
		tb.Skipf("%s (%v)", fix, err)
	}
	for try := 1; ; try++ { // a free port may be taken by somebody else before the emulator has it
		port, err := freePort()
		if err == nil {
			err = startAzurite(tb, dir, service, port, more)
		}
		if err == nil {
			return fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=%s;%s=http://127.0.0.1:%d/devstoreaccount1;",
				"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==", endpoint, port)
		}
		if try == 3 {
			tb.Fatalf("start the emulator: %v", err)
		}
	}
}

// azuriteDir finds the emulator's folder from the folder of any package of this module.
func azuriteDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "handler", "ledger", "azurite"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find go.mod above the test's folder: there is none")
		}
		dir = parent
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// startAzurite returns when the emulator says that it listens. It ends at the latest when this process does, because
// then its standard input ends.
func startAzurite(tb testing.TB, dir, service string, port int, more []string) error {
	option := "--" + strings.TrimSuffix(service, "ByKey")
	args := []string{filepath.Join(dir, "start.js"), service, option + "Host", "127.0.0.1", option + "Port", fmt.Sprint(port),
		"--inMemoryPersistence", "--disableTelemetry", "--silent"}
	cmd := exec.Command("node", append(args, more...)...)
	cmd.Dir = tb.TempDir()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill() // an error means that it has ended already
		_ = cmd.Wait()
	}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), " service successfully ") {
			drained := make(chan struct{})
			go func() {
				defer close(drained)
				_, _ = io.Copy(io.Discard, out)
			}()
			tb.Cleanup(func() {
				_ = stdin.Close()
				_ = cmd.Process.Kill()
				<-drained
				_ = cmd.Wait()
			})
			return nil
		}
	}
	stop()
	return fmt.Errorf("it ended at once: %s", strings.TrimSpace(said.String()))
}
