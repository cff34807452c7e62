package devhost

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	hostVersion  = "4.1037.0.23568"
	timeoutGrace = 2 * time.Second // between functionTimeout and SIGKILL
	maxRedirects = 50
)

// Result is what the host made of one invocation.
type Result struct {
	ID          string // the invocation's
	Status      int    // of the reply; 0 if there was none
	Body        []byte // of the reply, which the host discards unless it is a success
	Outputs     map[string]any
	Logs        []string
	ReturnValue any
	Response    Response // of an HTTP function
	Defects     []string // what the host lets pass, but should be put right
	Took        time.Duration
}

// Invoke sends the payload to a function as the host does and judges the reply. The error is ErrFailed, ErrHang,
// ErrTimeout, ErrEnded, or the context's. While the handler is starting, it waits.
func (h *Host) Invoke(ctx context.Context, function string, payload []byte) (Result, error) {
	f, err := h.app.find(function)
	if err != nil {
		return Result{}, err
	}
	return h.invoke(ctx, f, newGUID(), payload)
}

func (h *Host) invoke(ctx context.Context, f *function, id string, payload []byte) (Result, error) {
	h.emit("host", "Information", "Executing 'Functions.%s' (Id=%s)", f.name, id)
	start := time.Now()
	r, err := h.await(ctx, f, id, payload)
	r.ID, r.Took = id, time.Since(start)
	for _, line := range r.Logs {
		h.emit("logs", "Information", "%s", line)
	}
	for _, defect := range r.Defects {
		h.emit("host", "Warning", "Defect in the reply of 'Functions.%s' (Id=%s): %s", f.name, id, defect)
	}
	ms := r.Took.Milliseconds()
	if err != nil {
		h.emit("host", "Error", "Executed 'Functions.%s' (Failed, Id=%s, Duration=%dms): %v", f.name, id, ms, err)
		return r, fmt.Errorf("invoke %s (%s): %w", f.name, id, err)
	}
	h.emit("host", "Information", "Executed 'Functions.%s' (Succeeded, Id=%s, Duration=%dms)", f.name, id, ms)
	return r, nil
}

// await sends and waits, until functionTimeout at the longest, the handler's start included.
func (h *Host) await(ctx context.Context, f *function, id string, payload []byte) (Result, error) {
	var overdue <-chan time.Time
	if h.app.timeout > 0 {
		t := time.NewTimer(h.app.timeout)
		defer t.Stop()
		overdue = t.C
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r Result
	var err error
	var c atomic.Pointer[child] // the handler that got it
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		r, err = h.send(ctx, f, id, payload, &c)
	}()
	select {
	case <-sent:
		return r, err
	case <-h.closed:
		cancel()
		<-sent
		return r, fmt.Errorf("%w: closed while it ran", ErrEnded)
	case <-overdue:
	}
	h.emit("host", "Error", "Timeout value of %s exceeded by function 'Functions.%s' (Id: '%s'). Initiating cancellation.", h.app.timeout, f.name, id)
	select {
	case <-time.After(timeoutGrace):
	case <-h.closed:
	}
	h.recycle(c.Load())
	cancel()
	<-sent
	return r, fmt.Errorf("%w: it is %s; the handler was killed", ErrTimeout, h.app.timeout)
}

// send makes one request, to the handler that it stores in to, and judges the reply.
func (h *Host) send(ctx context.Context, f *function, id string, payload []byte, to *atomic.Pointer[child]) (Result, error) {
	c, err := h.awaitHandler(ctx)
	if err != nil {
		return Result{}, err
	}
	to.Store(c)
	req, err := h.request(ctx, f, id, payload)
	if err != nil {
		return Result{}, err
	}
	var redirects []string
	client := *h.client
	client.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		redirects = append(redirects, fmt.Sprintf("redirect to %s, which the host follows: answer on the path itself", next.URL.Path))
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		return nil
	}
	resp, err := client.Do(req)
	if err != nil {
		return Result{}, h.broken(ctx, c, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Result{Status: resp.StatusCode}, h.broken(ctx, c, err)
	}
	r, err := judge(resp, body, f.outputs)
	r.Defects = append(redirects, r.Defects...)
	if err == nil && f.http != nil {
		if err = r.respond(r.Outputs[f.response]); err != nil {
			err = fmt.Errorf("%w: %w", ErrFailed, err)
		}
	}
	return r, err
}

// request has the headers of the real host. The body is sent in chunks and with its length in turn, and so is the
// optional traceparent, which makes four kinds of requests that a handler must take.
func (h *Host) request(ctx context.Context, f *function, id string, payload []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL()+"/"+f.name, bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	h.mu.Lock()
	turn := h.calls
	h.calls++
	h.mu.Unlock()
	if turn%2 == 0 {
		req.ContentLength = -1
	}
	if turn/2%2 == 0 {
		var trace [24]byte
		_, _ = rand.Read(trace[:]) // never fails
		req.Header.Set("traceparent", fmt.Sprintf("00-%x-%x-00", trace[:16], trace[16:]))
	}
	req.Header.Set("X-Azure-Functions-HostVersion", hostVersion)
	req.Header.Set("X-Azure-Functions-InvocationId", id)
	req.Header.Set("User-Agent", "Azure-Functions-Host/"+hostVersion)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	return req, nil
}

// broken is the error of a request that got no whole reply. If the handler died, the host is given the moment to
// notice, so that the next invocation finds it restarting instead of dead.
func (h *Host) broken(ctx context.Context, c *child, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-c.handled:
		return fmt.Errorf("%w: the handler ended in it (%s): %w", ErrFailed, c.cmd.ProcessState, err)
	case <-h.closed:
		return fmt.Errorf("%w: closed while it ran", ErrEnded)
	case <-time.After(250 * time.Millisecond):
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableCompression:  true, // the host asks for none
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     2 * time.Minute,
	}}
}

// reason is a status as .NET prints it.
func reason(resp *http.Response) string {
	_, text, _ := strings.Cut(resp.Status, " ")
	return fmt.Sprintf("%d (%s)", resp.StatusCode, text)
}
