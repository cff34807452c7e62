package devhost_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/functions/devhost"
)

// patience bounds every wait of these tests; nothing is expected to take that long.
const patience = 30 * time.Second

const (
	hostJSON     = `{"version":"2.0","functionTimeout":"00:00:25","customHandler":{"description":{"defaultExecutablePath":"bin/handler","arguments":["serve %A_SETTING% %NONE%"]}}}`
	functionJSON = `{"bindings":[{"name":"timer","type":"timerTrigger","direction":"in","schedule":"%SYNC_SCHEDULE%"}]}`
)

// newApp makes an app folder whose handler is this test binary; files replace or add to its own.
func newApp(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{"host.json": hostJSON, "SyncNewUsers/function.json": functionJSON}
	maps.Copy(all, files)
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(root, "bin/handler")); err != nil {
		t.Fatal(err)
	}
	return root
}

// setup is what a test says about its host; all of it is optional.
type setup struct {
	root            string            // "" = a new app
	files           map[string]string // of a new app
	starts, replies string            // see handler_test.go
	schedule        string
	key             string // of HTTP functions
	clock           devhost.Clock
	status          map[string]devhost.ScheduleStatus
}

// open makes a host and its log; it is closed at the test's end.
func (s setup) open(t testing.TB) (*devhost.Host, *journal) {
	t.Helper()
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	if s.root == "" {
		s.root = newApp(t, s.files)
	}
	log := &journal{more: make(chan struct{}), taken: map[int]bool{}}
	h, err := devhost.Open(devhost.Options{
		Root: s.root, Clock: s.clock, Status: s.status, Key: s.key, Log: log.add,
		Settings: map[string]string{
			"A_SETTING": "x y", "SYNC_SCHEDULE": or(s.schedule, "0 */5 * * * *"),
			startsVariable: or(s.starts, "good"), repliesVariable: or(s.replies, "ok"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h, log
}

func (s setup) start(t testing.TB) (*devhost.Host, *journal) {
	t.Helper()
	h, log := s.open(t)
	if _, err := h.Start(t.Context()); err != nil {
		t.Fatalf("start: %v\n%s", err, log)
	}
	return h, log
}

// runTimers starts the timers; stop ends them politely and returns their error.
func runTimers(t testing.TB, h *devhost.Host) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.RunTimers(ctx) }()
	return func() error {
		cancel()
		return receive(t, done)
	}
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

// journal keeps the host's log and lets a test wait for a line.
type journal struct {
	mu    sync.Mutex
	lines []devhost.Line
	taken map[int]bool // lines that were waited for
	more  chan struct{}
}

func (j *journal) add(l devhost.Line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, l)
	close(j.more)
	j.more = make(chan struct{})
}

// wait returns the first line with that text that no earlier wait returned. A handler's output and the host's own lines
// come in no order between them.
func (j *journal) wait(t testing.TB, text string) devhost.Line {
	t.Helper()
	deadline := time.After(patience)
	for {
		j.mu.Lock()
		for i, l := range j.lines {
			if !j.taken[i] && strings.Contains(l.Text, text) {
				j.taken[i] = true
				j.mu.Unlock()
				return l
			}
		}
		more := j.more
		j.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no line with %q in:\n%s", text, j)
		}
	}
}

func (j *journal) has(line devhost.Line) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Contains(j.lines, line)
}

// from returns the texts that came from there so far, whatever their level.
func (j *journal) from(source string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var texts []string
	for _, l := range j.lines {
		if l.From == source {
			texts = append(texts, l.Text)
		}
	}
	return texts
}

// payload is the next invocation that the handler saw.
func (j *journal) payload(t testing.TB) payload {
	t.Helper()
	line := j.wait(t, "call id=").Text
	_, body, _ := strings.Cut(line, " body=")
	var p payload
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("payload %s: %v", body, err)
	}
	_, id, _ := strings.Cut(line, "id=")
	p.id, _, _ = strings.Cut(id, " ")
	return p
}

// count returns how many lines began with that text so far.
func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, l := range j.lines {
		if strings.HasPrefix(l.Text, text) {
			n++
		}
	}
	return n
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	for _, l := range j.lines {
		b.WriteString(l.Level + " " + l.From + ": " + l.Text + "\n")
	}
	return b.String()
}

// payload is a timer's payload as a stranger would read it.
type payload struct {
	id   string
	Data struct {
		Timer struct {
			ScheduleStatus *struct{ Last, Next, LastUpdated string }
			IsPastDue      bool
		}
	}
	Metadata struct {
		Timer string
		Sys   struct{ MethodName, UtcNow, RandGuid string }
		Retry *struct {
			RetryCount, MaxRetryCount int
			Exception                 *struct{ Message string }
		} `json:"RetryContext"`
	}
}

// clock stands still until a test moves it.
type clock struct {
	mu       sync.Mutex
	now      time.Time
	sleepers []sleeper
	more     chan struct{}
}

type sleeper struct {
	until time.Time
	wake  chan struct{}
}

func newClock(now time.Time) *clock { return &clock{now: now, more: make(chan struct{})} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	s := sleeper{c.now.Add(d), make(chan struct{})}
	c.sleepers = append(c.sleepers, s)
	close(c.more)
	c.more = make(chan struct{})
	c.mu.Unlock()
	select {
	case <-s.wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// advance moves the clock and wakes who slept until then.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	var rest []sleeper
	for _, s := range c.sleepers {
		if s.until.After(c.now) {
			rest = append(rest, s)
		} else {
			close(s.wake)
		}
	}
	c.sleepers = rest
}

// waitSleeper waits until somebody sleeps and returns for how long.
func (c *clock) waitSleeper(t testing.TB) time.Duration {
	t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		if len(c.sleepers) > 0 {
			defer c.mu.Unlock()
			return c.sleepers[0].until.Sub(c.now)
		}
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatal("nobody sleeps")
		}
	}
}

// jump waits until somebody sleeps and moves the clock to when that one wakes.
func (c *clock) jump(t testing.TB) {
	t.Helper()
	c.advance(c.waitSleeper(t))
}

// release lets the invocation go that the handler holds.
func release(t testing.TB, h *devhost.Host) {
	t.Helper()
	resp, err := http.Get(h.URL() + "/release")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
