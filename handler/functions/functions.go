// Package functions is the custom-handler protocol of Azure Functions, server side: it listens where the host says,
// answers its probe, turns its timer invocations into Go calls and its HTTP ones into requests to an http.Handler, and
// answers them in the only ways in which the host neither fails nor hangs.
//
// It imports the standard library only. Every promise about the host follows the source of azure-functions-host
// (4.1037) and of its timer extension.
package functions

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxBody bounds the body of an invocation; a timer's is below 1 KiB, and a manual run's text, and what a client sends to a page,
// are all that can grow.
const maxBody = 1 << 20

// Func does the work of one function. The summary is logged by the host as one line of JSON; an error makes the
// invocation fail. The context ends at the server's own deadline, when the host closes the connection, and when the
// program is asked to stop; a logger made by NewLogger finds the invocation's id in it.
type Func func(ctx context.Context, in Invocation) (summary any, err error)

// Server answers the host. Its fields are set before the first request and not changed after it.
type Server struct {
	Functions map[string]Func // by name, which is the folder's name in its exact case
	// Pages are the functions that answer HTTP, likewise. The host has checked the client's key by then.
	Pages map[string]http.Handler
	// Timeout is the deadline of one invocation, counted from its arrival; 0 means none. It must be below the host's
	// functionTimeout, at which the host kills the whole process.
	Timeout time.Duration
	Log     *slog.Logger // nil logs nothing

	mu      sync.Mutex
	turns   map[string]chan struct{}
	running atomic.Int64
}

var _ http.Handler = (*Server)(nil)

// ServeHTTP answers the host's probe (GET or HEAD of /) at once and touches nothing for it, runs POST /<Function>, and
// refuses everything else. Every answer is a JSON object with its media type: the host fails an invocation for a
// missing type, and hangs until functionTimeout on an empty body.
//
// Invocations of one function never overlap in this process: a manual run that meets a scheduled one waits for it, or
// the other way round, and fails if its own deadline comes first.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			refuseMethod(w, r, "GET, HEAD")
			return
		}
		reply(w, http.StatusOK, struct{}{})
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	f, ok := s.Functions[name]
	page, isPage := s.Pages[name]
	if !ok && !isPage {
		fail(w, http.StatusNotFound, fmt.Errorf("find the function of path %q: there is none of that name and case", r.URL.Path))
		return
	}
	if r.Method != http.MethodPost {
		refuseMethod(w, r, http.MethodPost)
		return
	}
	s.invoke(w, r, name, f, page)
}

// invoke reads an invocation and does what it asks for: f, or else the page.
func (s *Server) invoke(w http.ResponseWriter, r *http.Request, name string, f Func, page http.Handler) {
	s.running.Add(1)
	defer s.running.Add(-1)
	id := r.Header.Get("X-Azure-Functions-InvocationId")
	if id == "" {
		id = rand.Text() // not the host: someone with curl
	}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), invocationKey{}, id))
	defer cancel()
	if s.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	}
	log := s.log()

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		err = fmt.Errorf("read the invocation: %w", err)
		log.ErrorContext(ctx, "invocation refused", "function", name, "err", err)
		fail(w, status, err)
		return
	}
	if f == nil {
		s.serve(ctx, w, name, page, body)
		return
	}
	in, err := decode(body)
	if err != nil {
		err = fmt.Errorf("decode the invocation: %w", err)
		log.ErrorContext(ctx, "invocation refused", "function", name, "err", err)
		fail(w, http.StatusBadRequest, err)
		return
	}
	in.ID, in.Function, in.TraceParent = id, name, r.Header.Get("Traceparent")
	in.TraceState = strings.Join(r.Header.Values("Tracestate"), ",")

	log.InfoContext(ctx, "invocation started", "function", name, "pastDue", in.Timer.PastDue, "attempt", in.Attempt,
		"traceparent", in.TraceParent)
	start := time.Now()
	line, err := s.run(ctx, f, in)
	if err != nil {
		log.ErrorContext(ctx, "invocation failed", "function", name, "took", time.Since(start), "err", err)
		fail(w, http.StatusInternalServerError, err)
		return
	}
	log.InfoContext(ctx, "invocation done", "function", name, "took", time.Since(start))
	reply(w, http.StatusOK, struct {
		Outputs     struct{}
		Logs        []string
		ReturnValue any
	}{Logs: line})
}

// run calls f when its turn has come and returns its summary as no line or one. A panic is an error that says where.
func (s *Server) run(ctx context.Context, f Func, in Invocation) (line []string, err error) {
	turn := s.turn(in.Function)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the other invocation of %s to end: %w", in.Function, context.Cause(ctx))
	}
	defer func() {
		if v := recover(); v != nil {
			line, err = nil, fmt.Errorf("recover from a panic at %s: %s", panicSite(), panicText(v))
		}
	}()
	summary, err := f(ctx, in)
	if err != nil {
		return nil, err
	}
	if summary == nil {
		return []string{}, nil
	}
	text, err := marshal(summary)
	if err != nil {
		return nil, fmt.Errorf("encode the summary: %w", err)
	}
	return []string{text}, nil
}

// turn is the one place that an invocation of the function takes while it runs.
func (s *Server) turn(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns == nil {
		s.turns = map[string]chan struct{}{}
	}
	if s.turns[name] == nil {
		s.turns[name] = make(chan struct{}, 1)
	}
	return s.turns[name]
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// panicText says what a panic was about: the runtime's own words, or only the type of anything else, which may hold
// somebody's data.
func panicText(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("a %T", v)
}

// panicSite names the innermost functions that were running when the panic began. It is called from the deferred
// function that recovers; the whole stack would be dozens of error records in the host's log.
func panicSite() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	var site []string
	panicking := false
	for more := true; more && len(site) < 6; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicking, site = true, nil
		case panicking && !strings.HasPrefix(f.Function, "runtime."):
			site = append(site, fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line))
		}
	}
	return strings.Join(site, " < ")
}

func refuseMethod(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", allow)
	fail(w, http.StatusMethodNotAllowed, fmt.Errorf("refuse method %s of %s: it takes %s", r.Method, r.URL.Path, allow))
}

// fail answers with an error, which the host discards: whoever must act on it reads the line on stderr.
func fail(w http.ResponseWriter, status int, err error) {
	reply(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func reply(w http.ResponseWriter, status int, v any) {
	text, err := marshal(v)
	if err != nil { // cannot be: the bodies are made here, of strings
		status, text = http.StatusInternalServerError, `{"error":"encode the reply"}`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the host is gone, which it will not be told
}

// marshal is JSON on one line, with <, > and & left readable.
func marshal(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
