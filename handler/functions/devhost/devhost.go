// Package devhost is a small Azure Functions host for one machine. It starts a handler's binary, probes it, invokes
// its timer functions by their schedules, serves its HTTP functions to clients, and restarts it, as the real host does, and judges its replies as strictly:
// what the real host would fail on is ErrFailed, and what it would hang on until functionTimeout is ErrHang, at once.
// It drives `handler local`, and the tests that need a real handler process.
//
// It imports the standard library only. The behaviour follows azure-functions-host 4.1037 and the timer extension of
// the same time. How long the handler may take (probe, functionTimeout) is measured on the wall clock; everything else
// (schedules, statuses, retry delays, the memory of crashes) is on the clock of the Options.
package devhost

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

var (
	// ErrFailed: the host would count the invocation as failed.
	ErrFailed = errors.New("invocation failed")
	// ErrHang: the host would never complete the invocation, and kill the handler at functionTimeout.
	ErrHang = errors.New("the host would hang until functionTimeout, then kill the handler")
	// ErrTimeout: functionTimeout passed; the handler was killed, with all that it was doing.
	ErrTimeout = errors.New("functionTimeout exceeded")
	// ErrEnded: the host has ended: by Close, by a handler that cannot be started, or by its third crash.
	ErrEnded = errors.New("the host has ended")
)

// Clock is where the app's time comes from.
type Clock interface {
	Now() time.Time
	Sleep(ctx context.Context, d time.Duration) error // ctx's error if that ends first
}

// Options says what to host. Only Root is required.
type Options struct {
	Root     string                    // the app folder, with host.json and */function.json
	Settings map[string]string         // the app settings: the handler's environment, and what %NAME% stands for
	Status   map[string]ScheduleStatus // what an earlier host on the same storage account left: see Host.Status
	Clock    Clock                     // nil = the wall clock
	Key      string                    // of the HTTP functions; "" = those that want one refuse everybody
	Log      func(Line)                // gets every line that the host would log, one at a time, and must not call the Host
}

// Line is one record of the host's log.
type Line struct {
	From  string // stdout or stderr of the handler, logs (a successful reply's Logs), or host
	Level string // Information, Warning or Error: what the real host would make of it
	Text  string
}

// Host is one instance. Its methods may be called at the same time.
type Host struct {
	app      *app
	root     string
	settings map[string]string
	clock    Clock
	key      string
	client   *http.Client
	closing  sync.Once
	closed   chan struct{} // closed when Close was called, before anything dies
	ended    chan struct{} // closed when the host has ended, for whatever reason
	stopped  chan struct{} // closed when the supervisor has returned, and the handler is gone

	logMu sync.Mutex
	log   func(Line)

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change of state
	state    state
	endCause error
	port     int
	child    *child
	errors   int       // counted crashes
	lastErr  time.Time // of the last one, on the clock
	calls    int       // invocations sent, for the headers that come and go
	status   map[string]ScheduleStatus
}

type state int

const (
	idle     state = iota // before Start
	starting              // no handler yet, or between two
	ready                 // the handler has answered the probe
	exited                // the handler exited with 0: the host starts no new one and goes on without
	gone                  // the host has ended
)

// Open reads the app and checks all that can be checked before anything is started.
func Open(o Options) (*Host, error) {
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("open the app: %w", err)
	}
	h := &Host{
		root: root, settings: maps.Clone(o.Settings), clock: o.Clock, key: o.Key, log: o.Log, status: maps.Clone(o.Status),
		closed: make(chan struct{}), ended: make(chan struct{}), stopped: make(chan struct{}), changed: make(chan struct{}),
	}
	if h.clock == nil {
		h.clock = wallClock{}
	}
	if h.status == nil {
		h.status = map[string]ScheduleStatus{}
	}
	if h.app, err = load(root, o.Settings, h.clock.Now()); err != nil {
		return nil, fmt.Errorf("open the app: %w", err)
	}
	h.client = newClient()
	return h, nil
}

// Start chooses a port, starts the handler and waits until it is ready; it returns how long that took. Crashes on the
// way are restarted as the host does. After an error the host is closed.
func (h *Host) Start(ctx context.Context) (time.Duration, error) {
	port, err := freePort()
	if err != nil {
		return 0, fmt.Errorf("start the host: %w", err)
	}
	h.mu.Lock()
	if h.state != idle {
		h.mu.Unlock()
		return 0, errors.New("start the host: it was started or closed before; open another one")
	}
	h.port = port
	h.set(starting)
	h.mu.Unlock()

	start := time.Now()
	go h.supervise(context.WithoutCancel(ctx))
	if _, err := h.awaitHandler(ctx); err != nil {
		h.Close()
		return 0, fmt.Errorf("start the handler: %w", err)
	}
	return time.Since(start), nil
}

// Close ends this instance as the platform does, without a word to the handler: SIGKILL, and the status of an
// invocation that was running is not written, so that another host with the same Status runs it again. It returns when
// the handler is gone, and may be called more than once.
func (h *Host) Close() {
	h.closing.Do(func() { close(h.closed) })
	h.mu.Lock()
	started := h.state != idle
	h.end(errors.New("closed"))
	h.mu.Unlock()
	if started {
		<-h.stopped
	}
	h.client.CloseIdleConnections()
}

// Kill ends the handler by SIGKILL, as the kernel does when memory is short, and returns when it is dead. The host
// lives on: it counts a crash and starts the handler again.
func (h *Host) Kill() error {
	h.mu.Lock()
	c := h.child
	if h.state != ready {
		h.mu.Unlock()
		return errors.New("kill the handler: none is ready")
	}
	h.set(starting) // from now on invocations wait for the next one
	h.mu.Unlock()
	c.kill()
	return nil
}

// URL is the handler's root, for requests that the host would not send.
func (h *Host) URL() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return "http://127.0.0.1:" + strconv.Itoa(h.port)
}

// Status is what this host would have in its storage account: the schedule status of every monitored timer. A host
// opened with it goes on where this one ended.
func (h *Host) Status() map[string]ScheduleStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.status)
}

// end makes the host end for that reason, once. The caller holds h.mu.
func (h *Host) end(cause error) {
	if h.state == gone {
		return
	}
	h.endCause = cause
	h.set(gone)
	close(h.ended)
}

// set changes the state and wakes who waits for that. The caller holds h.mu.
func (h *Host) set(s state) {
	h.state = s
	close(h.changed)
	h.changed = make(chan struct{})
}

// awaitHandler waits for a handler that is ready, and says if there will be none.
func (h *Host) awaitHandler(ctx context.Context) (*child, error) {
	for {
		h.mu.Lock()
		s, c, cause, changed := h.state, h.child, h.endCause, h.changed
		h.mu.Unlock()
		switch s {
		case ready:
			return c, nil
		case idle:
			return nil, errors.New("the host was not started")
		case exited:
			return nil, fmt.Errorf("%w: connection refused: the handler exited with 0, after which the host starts no other", ErrFailed)
		case gone:
			return nil, fmt.Errorf("%w: %w", ErrEnded, cause)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the handler: %w", context.Cause(ctx))
		}
	}
}

func (h *Host) emit(from, level, format string, args ...any) {
	h.logMu.Lock()
	defer h.logMu.Unlock()
	if h.log != nil {
		h.log(Line{from, level, fmt.Sprintf(format, args...)})
	}
}

// freePort asks the system for a port and frees it again, as the host does; the handler must live with the race.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now().UTC() }

func (wallClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
