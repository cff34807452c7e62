package devhost

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	probePause  = 25 * time.Millisecond
	probeAnswer = time.Second // the real host waits for functionTimeout + 1 minute here
	maxErrors   = 3           // counted crashes until the host gives up
	forgetAfter = 30 * time.Minute
	restartCode = 200 // a handler's exit code that asks for a restart

	systemPrefix = "LanguageWorkerConsoleLog"
)

// child is one handler process.
type child struct {
	cmd     *exec.Cmd
	done    chan struct{} // closed when it is dead and its output was read
	handled chan struct{} // closed when the host has drawn its conclusions
	overdue atomic.Bool   // killed for functionTimeout, which is no crash

	mu     sync.Mutex
	stderr []string // the last three error lines
}

// kill ends the process and returns when it is dead. Only that process: what it started itself lives on, as under the
// real host.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be dead already
	<-c.done
}

// supervise starts handlers one after the other until the host has ended, or a handler exits with 0.
func (h *Host) supervise(ctx context.Context) {
	defer close(h.stopped)
	for again := true; again; {
		c, err := h.launch()
		if err != nil {
			h.emit("host", "Error", "Failed to start Worker Channel. Process fileName: %s: %v", h.app.exe, err)
			h.mu.Lock()
			h.end(fmt.Errorf("start %s: %w; the real host logs this once and lets every invocation wait 2 minutes", h.app.exe, err))
			h.mu.Unlock()
			return
		}
		if err := h.probe(ctx, c); err != nil {
			h.emit("host", "Error", "Failed to start http worker process. %v", err)
			h.mu.Lock()
			h.end(err)
			h.mu.Unlock()
		}
		select {
		case <-c.done:
		case <-h.ended:
			c.kill()
		}
		again = h.conclude(c)
		h.client.CloseIdleConnections()
	}
}

// launch starts a handler with exactly what the real host gives it: all app settings and five variables in the
// environment, the app's folder as working directory, no input, no arguments of the host's own.
func (h *Host) launch() (*child, error) {
	c := &child{done: make(chan struct{}), handled: make(chan struct{})}
	c.cmd = exec.Command(h.app.exe, h.app.args...)
	c.cmd.Dir = h.app.dir
	c.cmd.Env = os.Environ()
	for name, value := range h.settings {
		c.cmd.Env = append(c.cmd.Env, name+"="+value)
	}
	h.mu.Lock()
	port := strconv.Itoa(h.port)
	h.mu.Unlock()
	worker := newGUID()
	c.cmd.Env = append(c.cmd.Env,
		"FUNCTIONS_CUSTOMHANDLER_PORT="+port, "FUNCTIONS_CUSTOMHANDLER_WORKER_ID="+worker,
		"FUNCTIONS_HTTPWORKER_PORT="+port, "FUNCTIONS_HTTPWORKER_ID="+worker,
		"FUNCTIONS_APP_ROOT_PATH="+h.root)
	stdout := &lines{emit: func(line string) { h.console(c, "stdout", line) }}
	stderr := &lines{emit: func(line string) { h.console(c, "stderr", line) }}
	c.cmd.Stdout, c.cmd.Stderr = stdout, stderr
	c.cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	dieWithParent(c.cmd)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // the process state says it all
		stdout.flush()
		stderr.flush()
		close(c.done)
	}()
	h.mu.Lock()
	h.child = c
	h.mu.Unlock()
	return c, nil
}

// console classifies a line as the host does: by its stream, and on stderr by one word. A line with the system's
// prefix goes to the host's own log, where nobody looks for it.
func (h *Host) console(c *child, stream, line string) {
	level := "Information"
	if stream == "stderr" {
		level = "Error"
		if strings.Contains(strings.ToLower(line), "warn") {
			level = "Warning"
		} else {
			c.mu.Lock()
			c.stderr = append(c.stderr[max(len(c.stderr)-2, 0):], line)
			c.mu.Unlock()
		}
	}
	if n := len(systemPrefix); len(line) >= n && strings.EqualFold(line[:n], systemPrefix) {
		stream, line = "host", line[n:]
	}
	h.emit(stream, level, "%s", line)
}

// probe waits until the handler answers GET / with anything at all. It returns nil also when the handler died or the
// host ended meanwhile.
func (h *Host) probe(ctx context.Context, c *child) error {
	start := time.Now()
	for time.Since(start) < h.app.probe {
		_, err := h.ping(ctx)
		switch opErr, ok := errors.AsType[*net.OpError](err); {
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("probe the handler: it took the connection and did not answer GET / within %s: it would hang the probe; answer / at once", probeAnswer)
		case !ok || opErr.Op != "dial": // an answer; or none that the host understands, which it takes for one
			h.mu.Lock()
			if h.state == starting {
				h.set(ready)
			}
			h.mu.Unlock()
			h.emit("host", "Information", "The handler answered the probe after %s.", time.Since(start).Round(time.Millisecond))
			return nil
		}
		select {
		case <-c.done:
			return nil
		case <-h.ended:
			return nil
		case <-time.After(probePause):
		}
	}
	return fmt.Errorf("probe the handler: it does not listen on 127.0.0.1:%d after %s", h.port, h.app.probe)
}

// Ping sends the host's GET /, which also comes between and during invocations, and returns how long the answer took.
func (h *Host) Ping(ctx context.Context) (time.Duration, error) {
	if _, err := h.awaitHandler(ctx); err != nil {
		return 0, err
	}
	return h.ping(ctx)
}

func (h *Host) ping(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, probeAnswer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL()+"/", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", "") // the host sends none here
	start := time.Now()
	resp, err := h.client.Transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close() // the answer is ignored
	return time.Since(start), nil
}

// conclude decides what follows from the end of a handler, and reports whether another one is to be started.
func (h *Host) conclude(c *child) (again bool) {
	defer close(c.handled)
	state := c.cmd.ProcessState
	c.mu.Lock()
	last := strings.Join(c.stderr, " | ")
	c.mu.Unlock()

	h.mu.Lock()
	if h.state == gone {
		h.mu.Unlock()
		return false
	}
	text, level := "", "Information"
	switch {
	case c.overdue.Load():
		h.set(starting)
		text = "The handler was killed for functionTimeout and is restarted; this is not counted."
	case state.ExitCode() == 0:
		h.set(exited)
		level, text = "Error", "The handler exited with 0: it is not restarted, and every later invocation fails. Exit with another code on an unexpected end."
	case state.ExitCode() == restartCode:
		h.set(starting)
		text = "The handler asked for a restart; this is not counted."
	default:
		level, text = "Error", h.count(state.String(), last)
	}
	again = h.state == starting
	h.mu.Unlock()
	h.emit("host", level, "%s", text)
	return again
}

// count books a crash and says what follows from it. The caller holds h.mu.
func (h *Host) count(exit, stderr string) string {
	now := h.clock.Now()
	if now.Sub(h.lastErr) > forgetAfter {
		h.errors = 0
	}
	h.errors++
	h.lastErr = now
	text := fmt.Sprintf("Language Worker Process exited: %s. Last errors: %s.", exit, stderr)
	if h.errors < maxErrors {
		h.set(starting)
		return text + " It is restarted."
	}
	h.end(fmt.Errorf("exceeded http worker restart retry count: the handler ended %d times, last by %s: %s", h.errors, exit, stderr))
	return text + " Exceeded http worker restart retry count. Shutting down Functions Host."
}

// recycle kills that handler for functionTimeout, if it is still the one.
func (h *Host) recycle(c *child) {
	h.mu.Lock()
	if c == nil || c != h.child || h.state != ready {
		h.mu.Unlock()
		return
	}
	c.overdue.Store(true)
	h.set(starting)
	h.mu.Unlock()
	c.kill()
}

// lines cuts what is written into lines.
type lines struct {
	emit func(string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.emit(strings.TrimSuffix(string(l.rest[:i]), "\r"))
		l.rest = l.rest[i+1:]
	}
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.emit(string(l.rest))
		l.rest = nil
	}
}

// newGUID is a random UUID, version 4.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
