package ledgertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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

// StartAzuriteQueues is StartAzurite for the queue service.
func StartAzuriteQueues(tb testing.TB) string {
	tb.Helper()
	return startService(tb, "queue", "QueueEndpoint", "--skipApiVersionCheck") // the client is ahead of the emulator
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
	args := []string{filepath.Join(dir, "start.js"), service, "--" + service + "Host", "127.0.0.1", "--" + service + "Port", fmt.Sprint(port),
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
