package devhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// stopGrace is how long the host waits for a running invocation when it is stopped politely.
const stopGrace = 10 * time.Second

// ScheduleStatus is what the host keeps of a timer between two invocations. A zero time is "never".
type ScheduleStatus struct {
	Last        time.Time // when the previous invocation started, failed or not
	Next        time.Time // the occurrence after it
	LastUpdated time.Time
}

// RunTimers runs all timer functions by their schedules until ctx ends; a running invocation then has 10 seconds to
// come to its end. Failed invocations are logged and do not stop it. It returns ErrEnded when the host ends. It must not
// run twice at once.
//
// A timer never overlaps itself. What was missed while no host was running is one invocation at the start, marked past
// due; what an over-run missed is one invocation at once, not marked.
func (h *Host) RunTimers(ctx context.Context) error {
	h.mu.Lock()
	s := h.state
	h.mu.Unlock()
	if s == idle {
		return errors.New("run the timers: the host was not started")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var listeners sync.WaitGroup
	for _, f := range h.app.functions {
		if f.timer {
			listeners.Go(func() { h.listen(ctx, f) })
		}
	}
	select {
	case <-ctx.Done():
	case <-h.ended:
		stop()
	}
	listeners.Wait()
	select {
	case <-h.ended:
		_, err := h.awaitHandler(ctx)
		return fmt.Errorf("run the timers: %w", err)
	default:
		return nil
	}
}

// Fire runs a timer function now, as a person does through the host's admin endpoint, parallel to its schedule and
// without a trace in its status. The input is the text given with it; "" is none.
func (h *Host) Fire(ctx context.Context, function, input string) (Result, error) {
	f, err := h.app.find(function)
	if err != nil {
		return Result{}, err
	}
	if !f.timer {
		return Result{}, fmt.Errorf("fire %s: it has no timer", function)
	}
	c := call{input: input, manual: true}
	if status, ok := h.Status()[f.name]; ok {
		c.status = &status
	}
	return h.attempts(ctx, ctx, f, c)
}

// listen is one timer: its start, then one occurrence after the other.
func (h *Host) listen(ctx context.Context, f *function) {
	now := h.clock.Now()
	status, pastDue := ScheduleStatus{Next: f.schedule.Next(now)}, false
	if f.monitor {
		status, pastDue = h.attend(f, now)
	}
	ok := true
	if pastDue {
		h.emit("host", "Information", "Function '%s' is past due on startup. Executing now.", f.name)
		status, ok = h.occurrence(ctx, f, status, now, call{pastDue: true})
	} else if f.startup {
		status, ok = h.occurrence(ctx, f, status, now, call{startup: true})
	}
	for ok {
		if wait := status.Next.Sub(h.clock.Now()); wait > 0 && h.clock.Sleep(ctx, wait) != nil {
			return
		}
		if ctx.Err() != nil {
			return
		}
		status, ok = h.occurrence(ctx, f, status, h.clock.Now(), call{})
	}
}

// attend reads the kept status at a listener's start and reports whether an occurrence was missed. A status that does
// not fit the schedule is from an earlier schedule: it is brought up to date, and nothing was missed.
func (h *Host) attend(f *function, now time.Time) (s ScheduleStatus, pastDue bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.status[f.name]
	if !ok {
		s = ScheduleStatus{Next: f.schedule.Next(now)}
		kept := s
		kept.LastUpdated = now // the first payload does not show this yet
		h.status[f.name] = kept
		return s, false
	}
	since := s.Last
	if since.IsZero() {
		since = s.LastUpdated
	}
	if since.IsZero() {
		since = now
	}
	if next := f.schedule.Next(since); !s.Next.Equal(next) {
		if now.After(next) {
			next = f.schedule.Next(now)
		}
		s = ScheduleStatus{Next: next, LastUpdated: since}
		h.status[f.name] = s
	}
	return s, now.After(s.Next)
}

// occurrence runs the function for one occurrence, with its retries, and returns the status after it. The status moves
// on whether the function failed or not; only if the host itself went away meanwhile it does not, and ok is false.
func (h *Host) occurrence(ctx context.Context, f *function, status ScheduleStatus, now time.Time, c call) (after ScheduleStatus, ok bool) {
	if f.monitor {
		c.status = &status
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(stopGrace, cancel)
		context.AfterFunc(running, func() { t.Stop() })
	})()
	_, err := h.attempts(ctx, running, f, c)
	if errors.Is(err, ErrEnded) || running.Err() != nil {
		return status, false
	}
	start := now
	if !c.pastDue && !c.startup && status.Next.After(now) {
		start = status.Next // the timer was a little early: without this the same occurrence would come twice
	}
	after = ScheduleStatus{Last: start, Next: f.schedule.Next(start), LastUpdated: start}
	if f.monitor {
		h.mu.Lock()
		h.status[f.name] = after
		h.mu.Unlock()
	}
	return after, true
}

// call is what a timer's payload is made from.
type call struct {
	status  *ScheduleStatus // nil = the host keeps none
	pastDue bool
	startup bool // runOnStartup
	manual  bool
	input   string
}

// attempts invokes the function until it succeeds or its retry policy is at an end. All attempts of an occurrence have
// one invocation id; those of a manual run do not. stopping ends the waiting between two attempts, ctx an attempt too.
func (h *Host) attempts(stopping, ctx context.Context, f *function, c call) (Result, error) {
	id := newGUID()
	var last error
	for n := 0; ; n++ {
		payload, err := h.payload(f, c, n, last)
		if err != nil {
			return Result{}, err
		}
		r, err := h.invoke(ctx, f, id, payload)
		if err == nil || errors.Is(err, ErrEnded) || ctx.Err() != nil {
			return r, err
		}
		if f.retry == nil || f.retry.max >= 0 && n >= f.retry.max {
			return r, err
		}
		last = err
		h.emit("host", "Information", "Waiting %s before the next attempt of 'Functions.%s' (Id=%s).", f.retry.delay, f.name, id)
		if h.clock.Sleep(stopping, f.retry.delay) != nil {
			return r, err
		}
		if c.manual {
			id = newGUID()
		}
	}
}

// dotNet is how the host writes a time: at most seven digits of a fraction without trailing zeros, and an offset.
const dotNet = "2006-01-02T15:04:05.9999999-07:00"

// payload is the body of a timer invocation.
func (h *Host) payload(f *function, c call, attempt int, last error) ([]byte, error) {
	type object map[string]any
	timer := object{"Schedule": object{"AdjustForDST": true}, "ScheduleStatus": nil, "IsPastDue": c.pastDue}
	if s := c.status; s != nil {
		timer["ScheduleStatus"] = object{
			"Last": s.Last.UTC().Format(dotNet), "Next": s.Next.UTC().Format(dotNet), "LastUpdated": s.LastUpdated.UTC().Format(dotNet),
		}
	}
	metadata := object{"sys": object{
		"MethodName": f.name, "UtcNow": h.clock.Now().UTC().Format("2006-01-02T15:04:05.9999999Z"), "RandGuid": newGUID(),
	}}
	if c.input != "" {
		text, err := json.Marshal(c.input)
		if err != nil {
			return nil, fmt.Errorf("encode the input: %w", err)
		}
		metadata[f.binding] = string(text) // JSON in JSON, as the host encodes every scalar
	}
	if f.retry != nil {
		retry := object{"RetryCount": attempt, "MaxRetryCount": f.retry.max, "Exception": nil, "Instance": nil, "State": object{}}
		if last != nil {
			retry["Exception"] = object{"ClassName": "Microsoft.Azure.WebJobs.Host.FunctionInvocationException", "Message": last.Error()}
		}
		metadata["RetryContext"] = retry
	}
	body, err := json.Marshal(object{"Data": object{f.binding: timer}, "Metadata": metadata})
	if err != nil {
		return nil, fmt.Errorf("encode the payload: %w", err)
	}
	return body, nil
}
