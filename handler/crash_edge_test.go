package main

import (
	"bytes"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// side is on which side of a request the program dies.
type side string

const (
	before side = "before it reaches the service"
	after  side = "after its effect, before the answer"
)

// edge is where the program's requests leave it. It gives each one that writes a name, and at the one that it is armed
// for it kills the program, before or after the request has its effect.
type edge struct {
	kill func()

	mu      sync.Mutex
	armed   *charge
	charged bool // a kill is to come, or coming
	tally   tally
}

// tally is what an edge has seen.
type tally struct {
	met      map[string]int          // requests that write, by name
	died     map[string]map[side]int // how often the program died at them
	nameless map[string]bool         // kinds of writes that nobody has thought of
}

func newTally() tally {
	return tally{met: map[string]int{}, died: map[string]map[side]int{}, nameless: map[string]bool{}}
}

// add takes another edge's into this one.
func (t tally) add(other tally) {
	for name, n := range other.met {
		t.met[name] += n
	}
	for name, sides := range other.died {
		for s, n := range sides {
			t.count(name, s, n)
		}
	}
	maps.Copy(t.nameless, other.nameless)
}

func (t tally) count(name string, s side, n int) {
	if t.died[name] == nil {
		t.died[name] = map[side]int{}
	}
	t.died[name][s] += n
}

// charge is a kill to come.
type charge struct {
	name  string
	side  side
	about string // in the request; "" = any
	fired chan struct{}
}

func newEdge(kill func()) *edge {
	return &edge{kill: kill, tally: newTally()}
}

// arm lets the program die at the next request of that name that has about in it. The channel is closed when it is dead.
func (e *edge) arm(name string, s side, about string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.armed, e.charged = &charge{name: name, side: s, about: about, fired: make(chan struct{})}, true
	return e.armed.fired
}

// haste is how long a request is held before the program is killed at it: time enough for a program that does not wait
// for the answer to do what comes next.
const haste = 50 * time.Millisecond

// dies kills the program if it is to die at this request, and reports whether it did.
func (e *edge) dies(name string, s side, body []byte) bool {
	e.mu.Lock()
	c := e.armed
	if c == nil || c.name != name || c.side != s || !bytes.Contains(body, []byte(c.about)) {
		e.mu.Unlock()
		return false
	}
	e.armed = nil
	e.tally.count(name, s, 1)
	e.mu.Unlock()
	<-time.After(haste)
	e.kill()
	e.mu.Lock()
	e.charged = false
	e.mu.Unlock()
	close(c.fired)
	return true
}

// killing reports that a kill is to come, or coming.
func (e *edge) killing() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.charged
}

// meets counts a request that writes.
func (e *edge) meets(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tally.met[name]++
}

// nameless notes a kind of write that nobody has thought of.
func (e *edge) nameless(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tally.nameless[what] = true
}

// wrap puts the edge before a service. name names a request; "" is one that only reads.
func (e *edge) wrap(name func(r *http.Request, body []byte) string, service http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // the program has died while it sent this
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		boundary := name(r, body)
		if boundary == "" {
			service.ServeHTTP(w, r)
			return
		}
		e.meets(boundary)
		if e.dies(boundary, before, body) {
			panic(http.ErrAbortHandler)
		}
		answer := httptest.NewRecorder()
		service.ServeHTTP(answer, r)
		if worked(answer) && e.dies(boundary, after, body) {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // whoever asked may be dead
	})
}

// worked reports that a request had its effect; in a transaction the status is in the body.
func worked(answer *httptest.ResponseRecorder) bool {
	return answer.Code < 300 && !bytes.Contains(answer.Body.Bytes(), []byte("\nHTTP/1.1 4")) && !bytes.Contains(answer.Body.Bytes(), []byte("\nHTTP/1.1 5"))
}

// forward is a proxy to a service of this machine.
func forward(root string) http.Handler {
	return &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", strings.TrimPrefix(root, "http://")
		r.Out.Host = r.In.Host
	}}
}
