package devhost_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions/devhost"
)

const never = "0001-01-01T00:00:00+00:00"

// check compares a payload's timer with what the host would say; last and next are clock times of 2026-08-20.
func (p payload) check(t *testing.T, last, next string, pastDue bool) {
	t.Helper()
	full := func(s string) string {
		if s == "" {
			return never
		}
		return "2026-08-20T" + s + "+00:00"
	}
	s := p.Data.Timer.ScheduleStatus
	if s == nil {
		t.Fatal("the payload has no schedule status")
	}
	got := []any{s.Last, s.Next, p.Data.Timer.IsPastDue}
	if diff := cmp.Diff(got, []any{full(last), full(next), pastDue}); diff != "" {
		t.Errorf("last, next, past due (-got +want):\n%s", diff)
	}
}

func (p payload) checkNoStatus(t *testing.T) {
	t.Helper()
	if p.Data.Timer.ScheduleStatus != nil || p.Data.Timer.IsPastDue {
		t.Errorf("timer %+v, want no status", p.Data.Timer)
	}
}

func checkStatus(t *testing.T, h *devhost.Host, want devhost.ScheduleStatus) {
	t.Helper()
	if diff := cmp.Diff(h.Status(), map[string]devhost.ScheduleStatus{"SyncNewUsers": want}); diff != "" {
		t.Errorf("status (-got +want):\n%s", diff)
	}
}

func executed(t *testing.T, log *journal) {
	t.Helper()
	log.wait(t, "Executed 'Functions.SyncNewUsers'")
}

func TestFirstRunEver(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:31:07.5"))
	h, log := setup{clock: c}.start(t)
	stop := runTimers(t, h)
	c.jump(t) // somebody sleeps, so the listener has started
	p := log.payload(t)
	p.check(t, "", "14:35:00", false)
	if s := p.Data.Timer.ScheduleStatus; s.LastUpdated != never {
		t.Errorf("last updated %s, want year 1 in the first payload", s.LastUpdated)
	}
	if sys := p.Metadata.Sys; sys.MethodName != "SyncNewUsers" || sys.UtcNow != "2026-08-20T14:35:00Z" || len(sys.RandGuid) != 36 {
		t.Errorf("sys %+v", sys)
	}
	executed(t, log)
	c.jump(t)
	log.payload(t).check(t, "14:35:00", "14:40:00", false)
	executed(t, log)
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkStatus(t, h, devhost.ScheduleStatus{
		Last: at(t, "2026-08-20 14:40:00"), Next: at(t, "2026-08-20 14:45:00"), LastUpdated: at(t, "2026-08-20 14:40:00"),
	})
}

// TestStatusOfTheFirstStart holds that a timer that never ran is past due after a restart, counted from the first start.
func TestStatusOfTheFirstStart(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:31:07.5"))
	h, _ := setup{clock: c}.start(t)
	stop := runTimers(t, h)
	c.waitSleeper(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkStatus(t, h, devhost.ScheduleStatus{Next: at(t, "2026-08-20 14:35:00"), LastUpdated: at(t, "2026-08-20 14:31:07.5")})
	h.Close()

	c.advance(5 * time.Minute)
	again, log := setup{clock: c, status: h.Status()}.start(t)
	runTimers(t, again)
	p := log.payload(t)
	p.check(t, "", "14:35:00", true)
	if s := p.Data.Timer.ScheduleStatus; s.LastUpdated != "2026-08-20T14:31:07.5+00:00" {
		t.Errorf("last updated %s, want the first start", s.LastUpdated)
	}
}

// TestPastDue holds that any number of missed occurrences is one invocation at once, which tells the first of them.
func TestPastDue(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:52:10.25"))
	h, log := setup{clock: c, status: map[string]devhost.ScheduleStatus{"SyncNewUsers": {
		Last: at(t, "2026-08-20 14:30:00.0123456"), Next: at(t, "2026-08-20 14:35:00"), LastUpdated: at(t, "2026-08-20 14:30:00.0123456"),
	}}}.start(t)
	runTimers(t, h)
	log.payload(t).check(t, "14:30:00.0123456", "14:35:00", true)
	executed(t, log)
	c.jump(t)
	log.payload(t).check(t, "14:52:10.25", "14:55:00", false)
}

// TestStatusMovesOnFailure holds that the host does not repeat what a handler failed at, whatever the failure.
func TestStatusMovesOnFailure(t *testing.T) {
	for _, reply := range []string{"500", "exit:3", "plain", "empty"} {
		t.Run(reply, func(t *testing.T) {
			c := newClock(at(t, "2026-08-20 14:31:00"))
			h, log := setup{clock: c, replies: reply}.start(t)
			stop := runTimers(t, h)
			c.jump(t)
			log.payload(t)
			if l := log.wait(t, "Executed 'Functions.SyncNewUsers' (Failed"); l.Level != "Error" {
				t.Errorf("line %+v, want it at Error", l)
			}
			c.waitSleeper(t)
			if err := stop(); err != nil {
				t.Error(err)
			}
			checkStatus(t, h, devhost.ScheduleStatus{
				Last: at(t, "2026-08-20 14:35:00"), Next: at(t, "2026-08-20 14:40:00"), LastUpdated: at(t, "2026-08-20 14:35:00"),
			})
		})
	}
}

// TestInstanceGoneMidRun holds that another host runs the same occurrence again, as past due.
func TestInstanceGoneMidRun(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:31:00"))
	root := newApp(t, nil)
	h, log := setup{root: root, clock: c, replies: "ok,stuck"}.start(t)
	ctx := t.Context()
	done := make(chan error, 1)
	go func() { done <- h.RunTimers(ctx) }()
	c.jump(t)
	log.payload(t)
	executed(t, log)
	c.jump(t)
	log.payload(t).check(t, "14:35:00", "14:40:00", false)
	h.Close()
	if err := receive(t, done); !errors.Is(err, devhost.ErrEnded) {
		t.Errorf("run timers: %v, want ErrEnded", err)
	}
	checkStatus(t, h, devhost.ScheduleStatus{
		Last: at(t, "2026-08-20 14:35:00"), Next: at(t, "2026-08-20 14:40:00"), LastUpdated: at(t, "2026-08-20 14:35:00"),
	})
	c.advance(30 * time.Second)
	again, log := setup{root: root, clock: c, status: h.Status()}.start(t)
	runTimers(t, again)
	log.payload(t).check(t, "14:35:00", "14:40:00", true)
}

// TestOverrun is a run of 12 minutes under a schedule of 5: one run at once, not past due, then the schedule again.
func TestOverrun(t *testing.T) {
	c := newClock(at(t, "2026-08-20 09:58:00"))
	h, log := setup{clock: c, replies: "hold,ok"}.start(t)
	runTimers(t, h)
	c.jump(t)
	log.payload(t).check(t, "", "10:00:00", false)
	c.advance(12 * time.Minute)
	release(t, h)
	p := log.payload(t)
	p.check(t, "10:00:00", "10:05:00", false)
	if p.Metadata.Sys.UtcNow != "2026-08-20T10:12:00Z" {
		t.Errorf("caught up at %s, want 10:12", p.Metadata.Sys.UtcNow)
	}
	executed(t, log)
	c.jump(t)
	log.payload(t).check(t, "10:12:00", "10:15:00", false)
}

// earlyClock wakes sleepers half a second before their time.
type earlyClock struct{ *clock }

func (c earlyClock) Sleep(ctx context.Context, d time.Duration) error {
	return c.clock.Sleep(ctx, d-500*time.Millisecond)
}

// TestEarlyTimer holds that a timer that goes off a little early does not run the same occurrence twice.
func TestEarlyTimer(t *testing.T) {
	c := earlyClock{newClock(at(t, "2026-08-20 14:31:00"))}
	h, log := setup{clock: c}.start(t)
	runTimers(t, h)
	c.jump(t)
	p := log.payload(t)
	p.check(t, "", "14:35:00", false)
	if p.Metadata.Sys.UtcNow != "2026-08-20T14:34:59.5Z" {
		t.Errorf("ran at %s, want half a second early", p.Metadata.Sys.UtcNow)
	}
	executed(t, log)
	c.jump(t)
	log.payload(t).check(t, "14:35:00", "14:40:00", false)
}

func TestRetryPolicy(t *testing.T) {
	withRetry := strings.TrimSuffix(functionJSON, "}") + `,"retry":{"strategy":"fixedDelay","maxRetryCount":2,"delayInterval":"00:00:30"}}`
	tests := []struct {
		name, replies string
		attempts      int
	}{
		{"success at once", "ok", 1},
		{"success at the second attempt", "500,ok", 2},
		{"no success", "500", 3},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := newClock(at(t, "2026-08-20 14:31:00"))
			h, log := setup{clock: c, replies: tc.replies, files: map[string]string{"SyncNewUsers/function.json": withRetry}}.start(t)
			stop := runTimers(t, h)
			id := ""
			for n := range tc.attempts {
				c.jump(t)
				p := log.payload(t)
				p.check(t, "", "14:35:00", false)
				if n == 0 {
					id = p.id
				}
				r := p.Metadata.Retry
				if p.id != id || r == nil || r.RetryCount != n || r.MaxRetryCount != 2 || (r.Exception != nil) != (n > 0) {
					t.Errorf("attempt %d has id %s and %+v, want id %s", n, p.id, r, id)
				}
			}
			if d := c.waitSleeper(t); !c.Now().Add(d).Equal(at(t, "2026-08-20 14:40:00")) {
				t.Errorf("then sleeps for %s, want until the next occurrence", d)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if got := log.count("call id="); got != tc.attempts {
				t.Errorf("%d attempts, want %d", got, tc.attempts)
			}
			checkStatus(t, h, devhost.ScheduleStatus{
				Last: at(t, "2026-08-20 14:35:00"), Next: at(t, "2026-08-20 14:40:00"), LastUpdated: at(t, "2026-08-20 14:35:00"),
			})
		})
	}
}

// TestScheduleChanged holds that a new schedule makes no run of its own.
func TestScheduleChanged(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:52:10"))
	h, log := setup{clock: c, schedule: "0 0 * * * *", status: map[string]devhost.ScheduleStatus{"SyncNewUsers": {
		Last: at(t, "2026-08-20 13:55:00"), Next: at(t, "2026-08-20 14:10:00"), LastUpdated: at(t, "2026-08-20 13:55:00"),
	}}}.start(t)
	runTimers(t, h)
	c.jump(t)
	log.payload(t).check(t, "", "15:00:00", false)
}

func TestTimersWithoutMonitor(t *testing.T) {
	tests := []struct{ name, schedule, function string }{
		{"several times a minute", "*/20 * * * * *", functionJSON},
		{"switched off", "0 */5 * * * *", strings.Replace(functionJSON, `"direction"`, `"useMonitor":false,"direction"`, 1)},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := newClock(at(t, "2026-08-20 14:31:00"))
			h, log := setup{clock: c, schedule: tc.schedule, files: map[string]string{"SyncNewUsers/function.json": tc.function}}.start(t)
			runTimers(t, h)
			for range 2 {
				c.jump(t)
				log.payload(t).checkNoStatus(t)
				executed(t, log)
			}
			if _, err := h.Fire(t.Context(), "SyncNewUsers", ""); err != nil {
				t.Error(err)
			}
			log.payload(t).checkNoStatus(t)
			if len(h.Status()) > 0 {
				t.Errorf("status %v, want none", h.Status())
			}
		})
	}
}

func TestRunOnStartup(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:31:00"))
	h, log := setup{clock: c, files: map[string]string{
		"SyncNewUsers/function.json": strings.Replace(functionJSON, `"direction"`, `"runOnStartup":true,"direction"`, 1),
	}}.start(t)
	runTimers(t, h)
	log.payload(t).check(t, "", "14:35:00", false)
	executed(t, log)
	c.jump(t)
	log.payload(t).check(t, "14:31:00", "14:35:00", false)
}

// TestFire is a manual run beside a scheduled one: parallel, with its text, and without a trace in the status.
func TestFire(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:31:00"))
	h, log := setup{clock: c, replies: "hold,ok"}.start(t)
	runTimers(t, h)
	c.jump(t)
	scheduled := log.payload(t)
	before := h.Status()
	r, err := h.Fire(t.Context(), "SyncNewUsers", "")
	if err != nil {
		t.Fatal(err)
	}
	manual := log.payload(t)
	manual.check(t, "", "14:35:00", false)
	if manual.id == scheduled.id || manual.id != r.ID || manual.Metadata.Timer != "" {
		t.Errorf("manual run has id %s and input %q, the scheduled one %s", manual.id, manual.Metadata.Timer, scheduled.id)
	}
	if diff := cmp.Diff(h.Status(), before); diff != "" {
		t.Errorf("the manual run changed the status:\n%s", diff)
	}
	release(t, h)
}

func TestFireBeforeAnyRun(t *testing.T) {
	h, log := setup{}.start(t)
	r, err := h.Fire(t.Context(), "SyncNewUsers", `say "x"`)
	if err != nil {
		t.Fatal(err)
	}
	p := log.payload(t)
	p.checkNoStatus(t)
	if want := `"say \"x\""`; p.Metadata.Timer != want || p.id != r.ID {
		t.Errorf("input %s of %s, want %s of %s", p.Metadata.Timer, p.id, want, r.ID)
	}
	if _, err := h.Fire(t.Context(), "Nope", ""); err == nil {
		t.Error("an unknown function was fired")
	}
}

// TestPoliteStop holds that a running invocation comes to its end, and to its status.
func TestPoliteStop(t *testing.T) {
	c := newClock(at(t, "2026-08-20 14:31:00"))
	h, log := setup{clock: c, replies: "hold,ok"}.start(t)
	stop := runTimers(t, h)
	c.jump(t)
	log.payload(t)
	done := make(chan error, 1)
	go func() { done <- stop() }()
	release(t, h)
	if err := receive(t, done); err != nil {
		t.Error(err)
	}
	if got := h.Status()["SyncNewUsers"].Last; !got.Equal(at(t, "2026-08-20 14:35:00")) {
		t.Errorf("last %s, want the run's", got)
	}
}

func TestTimersEndWithTheHost(t *testing.T) {
	h, log := setup{clock: newClock(at(t, "2026-08-20 14:31:00")), starts: "exit:1,exit:1,good"}.start(t)
	done := make(chan error, 1)
	go func() { done <- h.RunTimers(t.Context()) }()
	log.wait(t, "answered the probe")
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, done); !errors.Is(err, devhost.ErrEnded) || !strings.Contains(err.Error(), "retry count") {
		t.Errorf("run timers: %v, want ErrEnded with the reason", err)
	}
}
