package devhost_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions"
	"signup-sync/handler/functions/devhost"
)

// started reads what a handler printed at its start.
func started(t *testing.T, log *journal) (pid int, port string) {
	t.Helper()
	line := log.wait(t, "started pid=").Text
	if _, err := fmt.Sscanf(line, "started pid=%d port=%s", &pid, &port); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return pid, port
}

// alive reports whether there is a process of that id that is not a zombie.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartGivesTheHostsEnvironment(t *testing.T) {
	root, err := filepath.EvalSymlinks(newApp(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	h, log := setup{root: root}.start(t)
	line := log.wait(t, "started pid=")
	if line.From != "stdout" || line.Level != "Information" {
		t.Errorf("line %+v, want stdout at Information", line)
	}
	// "serve %A_SETTING% %NONE%" is one argument in host.json; the host does not quote it, and drops what it cannot resolve.
	want := fmt.Sprintf(`port=%s same=true ids=true root=%s dir=%s args=["serve" "x" "y"] stdin=0 setting=x y`,
		strings.TrimPrefix(h.URL(), "http://127.0.0.1:"), root, root)
	if !strings.HasSuffix(line.Text, want) {
		t.Errorf("handler started with\n got %s\nwant … %s", line.Text, want)
	}
	if took, err := h.Ping(t.Context()); err != nil || took > time.Second {
		t.Errorf("ping took %s: %v", took, err)
	}
	if _, err := h.Start(t.Context()); err == nil {
		t.Error("a second start was not refused")
	}
}

func TestWorkingDirectory(t *testing.T) {
	_, log := setup{files: map[string]string{
		"host.json": `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"bin/handler","workingDirectory":"bin"}}}`,
	}}.start(t)
	if line := log.wait(t, "started pid=").Text; !strings.Contains(line, "/bin args=") {
		t.Errorf("handler started with %s, want the directory bin", line)
	}
}

// TestCrashAtStart holds the host's patience: two crashes are restarted, the third ends the host.
func TestCrashAtStart(t *testing.T) {
	tests := []struct {
		starts string
		exits  int
		want   error
	}{
		{"exit:1,good", 1, nil},
		{"exit:1,exit:7,good", 2, nil},
		{"exit:1", 3, devhost.ErrEnded},
		{"exit:200,exit:200,exit:200,exit:200,exit:1,good", 5, nil},
		{"exit:0,good", 1, devhost.ErrFailed},
	}
	for _, tc := range tests {
		t.Run(tc.starts, func(t *testing.T) {
			h, log := setup{starts: tc.starts}.open(t)
			if _, err := h.Start(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("start: %v, want %v", err, tc.want)
			}
			if got := log.count("leaving with"); got != tc.exits {
				t.Errorf("%d handlers left, want %d:\n%s", got, tc.exits, log)
			}
			if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); (err == nil) != (tc.want == nil) {
				t.Errorf("invoke after it: %v", err)
			}
		})
	}
}

func TestEndOfHostNamesTheReason(t *testing.T) {
	h, _ := setup{starts: "exit:1"}.open(t)
	_, err := h.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 1: leaving with 1") {
		t.Errorf("start: %v, want the exit code and the last lines of stderr", err)
	}
}

func TestExitDuringInvocation(t *testing.T) {
	tests := []struct {
		name, reply string
		again       error // what the next invocation finds
	}{
		{"crash is restarted on the same port", "exit:3,ok", nil},
		{"intentional restart", "exit:200,ok", nil},
		{"exit 0 is for ever", "exit:0,ok", devhost.ErrFailed},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h, log := setup{replies: tc.reply}.start(t)
			_, port := started(t, log)
			_, err := h.Invoke(t.Context(), "SyncNewUsers", nil)
			if !errors.Is(err, devhost.ErrFailed) {
				t.Fatalf("invoke: %v, want ErrFailed", err)
			}
			// The new process begins its replies anew, so a payload says what to do.
			_, err = h.Invoke(t.Context(), "SyncNewUsers", []byte(`{"Reply":{"Status":200,"Type":"application/json","Body":"{}"}}`))
			if !errors.Is(err, tc.again) {
				t.Fatalf("next invocation: %v, want %v\n%s", err, tc.again, log)
			}
			if tc.again == nil {
				if _, again := started(t, log); again != port {
					t.Errorf("restarted on port %s, want %s", again, port)
				}
			} else if !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("next invocation: %v, want connection refused", err)
			}
		})
	}
}

func TestKillIsACrash(t *testing.T) {
	c := newClock(time.Now())
	h, log := setup{clock: c}.start(t)
	for range 2 {
		pid, _ := started(t, log)
		if err := h.Kill(); err != nil {
			t.Fatal(err)
		}
		if alive(pid) {
			t.Errorf("handler %d lives", pid)
		}
		if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); err != nil {
			t.Errorf("invoke after the restart: %v", err)
		}
	}
	c.advance(31 * time.Minute) // longer than the host remembers
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); err != nil {
		t.Errorf("invoke after a crash half an hour later: %v", err)
	}
	for range 2 {
		if _, err := h.Ping(t.Context()); err != nil {
			t.Errorf("ping: %v", err)
		}
		if err := h.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); !errors.Is(err, devhost.ErrEnded) {
		t.Errorf("invoke after the third crash: %v, want ErrEnded", err)
	}
}

// TestStartDefects are handlers that the real host would wait for in vain.
func TestStartDefects(t *testing.T) {
	impatient := map[string]string{
		"host.json": `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"bin/handler"},"initializationTimeout":"00:00:01"}}`,
	}
	tests := []struct {
		name, starts, want string
	}{
		{"takes connections and never answers", "deaf", "it would hang the probe"},
		{"never listens", "mute", "after 1s"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h, log := setup{starts: tc.starts, files: impatient}.open(t)
			_, err := h.Start(t.Context())
			if !errors.Is(err, devhost.ErrEnded) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("start: %v, want ErrEnded with %q", err, tc.want)
			}
			if pid, _ := started(t, log); alive(pid) {
				t.Errorf("handler %d lives", pid)
			}
		})
	}
}

// TestFunctionTimeout holds that the host kills the process under all its invocations, and does not count that.
func TestFunctionTimeout(t *testing.T) {
	h, log := setup{replies: "stuck,stuck,ok", files: map[string]string{
		"host.json": `{"version":"2.0","functionTimeout":"00:00:01","customHandler":{"description":{"defaultExecutablePath":"bin/handler"}}}`,
	}}.start(t)
	pid, _ := started(t, log)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); first <- err }()
	log.wait(t, "call id=")
	go func() { _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); second <- err }()
	if err := receive(t, first); !errors.Is(err, devhost.ErrTimeout) {
		t.Errorf("invoke: %v, want ErrTimeout", err)
	}
	if err := receive(t, second); !errors.Is(err, devhost.ErrFailed) && !errors.Is(err, devhost.ErrTimeout) {
		t.Errorf("the other invocation: %v, want it to fail with the process", err)
	}
	if alive(pid) {
		t.Errorf("handler %d lives", pid)
	}
	// One process for both: the second one's end must not hit the new handler.
	if _, err := h.Ping(t.Context()); err != nil {
		t.Errorf("ping the new handler: %v", err)
	}
	if got := log.count("The handler was killed for functionTimeout"); got != 1 {
		t.Errorf("%d handlers were killed, want 1:\n%s", got, log)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	h, log := setup{replies: "stuck"}.start(t)
	pid, _ := started(t, log)
	done := make(chan error, 1)
	go func() { _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); done <- err }()
	log.wait(t, "call id=")
	h.Close()
	h.Close()
	if alive(pid) {
		t.Errorf("handler %d lives", pid)
	}
	if err := receive(t, done); !errors.Is(err, devhost.ErrEnded) {
		t.Errorf("the invocation under way: %v, want ErrEnded", err)
	}
	if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); !errors.Is(err, devhost.ErrEnded) {
		t.Errorf("invoke after close: %v, want ErrEnded", err)
	}
	if err := h.Kill(); err == nil {
		t.Error("kill after close found a handler")
	}
}

// TestTwoHosts holds that two instances with the same settings live side by side, as during a host's restart.
func TestTwoHosts(t *testing.T) {
	root := newApp(t, nil)
	a, _ := setup{root: root}.start(t)
	b, _ := setup{root: root}.start(t)
	if a.URL() == b.URL() {
		t.Fatalf("both listen on %s", a.URL())
	}
	for _, h := range []*devhost.Host{a, b} {
		if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); err != nil {
			t.Error(err)
		}
	}
}

func TestBinaryThatCannotBeStarted(t *testing.T) {
	h, _ := setup{}.open(t)
	root := newApp(t, nil)
	// Taken away between the check and the start.
	h2, _ := setup{root: root}.open(t)
	if err := os.Remove(filepath.Join(root, "bin/handler")); err != nil {
		t.Fatal(err)
	}
	if _, err := h2.Start(t.Context()); !errors.Is(err, devhost.ErrEnded) || !strings.Contains(err.Error(), "bin/handler") {
		t.Errorf("start: %v, want ErrEnded that names the file", err)
	}
	if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); err == nil {
		t.Error("a host that was not started took an invocation")
	}
	if err := h.RunTimers(t.Context()); err == nil {
		t.Error("a host that was not started ran timers")
	}
}

// TestServer is package functions under this host: what the one promises is what the other accepts.
func TestServer(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:52:10"))
	status := devhost.ScheduleStatus{Last: at(t, "2026-08-20 14:30:00.5"), Next: at(t, "2026-08-20 14:35:00"), LastUpdated: at(t, "2026-08-20 14:30:00.5")}
	h, log := setup{starts: "server", clock: c, status: map[string]devhost.ScheduleStatus{"SyncNewUsers": status}}.start(t)
	pid, _ := started(t, log)
	for range 4 { // every kind of request
		r, err := h.Fire(t.Context(), "SyncNewUsers", `say "x"`)
		if err != nil || len(r.Defects) > 0 || len(r.Logs) != 1 {
			t.Fatalf("fire: %v, defects %q, logs %q", err, r.Defects, r.Logs)
		}
		var got functions.Invocation
		if err := json.Unmarshal([]byte(r.Logs[0]), &got); err != nil {
			t.Fatal(err)
		}
		want := functions.Invocation{
			ID: r.ID, Function: "SyncNewUsers", Attempt: 1, MaxAttempts: 1, Input: `say "x"`, UTCNow: c.Now(), TraceParent: got.TraceParent,
			Timer: functions.Timer{Last: status.Last, Next: status.Next, LastUpdated: status.LastUpdated},
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("invocation (-got +want):\n%s", diff)
		}
	}
	if lines := log.from("stderr"); len(lines) > 0 {
		t.Errorf("successes wrote to stderr: %q", lines)
	}

	r, err := h.Fire(t.Context(), "SyncNewUsers", "")
	if !errors.Is(err, devhost.ErrFailed) || r.Status != 500 {
		t.Errorf("fire: status %d, %v, want 500 and ErrFailed", r.Status, err)
	}
	if l := log.wait(t, "err=\"no input\" invocation="+r.ID); l.From != "stderr" || l.Level != "Error" {
		t.Errorf("line %+v, want stderr at Error", l)
	}

	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "The handler exited with 0") // asked to end, it ends well
}

// TestServerOnTakenPort holds that a handler without its port ends at once, with a line that says why.
func TestServerOnTakenPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), startsVariable+"=server", "FUNCTIONS_CUSTOMHANDLER_PORT="+strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("handler ended with %v, want exit status 1", err)
	}
	if got := stderr.String(); !strings.Contains(got, "address already in use") || strings.Count(got, "\n") != 1 {
		t.Errorf("stderr %q, want one line that names the port", got)
	}
}
