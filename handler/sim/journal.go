package sim

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Call is one request as it reached a simulated system.
type Call struct {
	At     time.Time   // by the simulated clock
	Method string      //
	Route  string      // the route's template, such as /v1.0/users/{id}
	URL    string      // path and query, as sent
	Header http.Header // of the request
	Body   []byte      // of the request, without its compression
	Status int         // of the answer; 0 while there is none, or when the connection was cut
}

// journalSize is how many calls a journal remembers; it counts all of them.
const journalSize = 10_000

// maxBody is the largest request body that is read, in bytes; Graph's own limit is 4 MB.
const maxBody = 4 << 20

// journal records the calls to one simulated system.
type journal struct {
	mu     sync.Mutex
	calls  []*Call
	counts map[string]int
}

func (j *journal) add(c *Call) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.counts == nil {
		j.counts = map[string]int{}
	}
	j.counts[c.Method+" "+c.Route]++
	if len(j.calls) >= 2*journalSize {
		j.calls = slices.Clone(j.calls[journalSize:])
	}
	j.calls = append(j.calls, c)
}

func (j *journal) answered(c *Call, status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c.Status = status
}

// Requests returns the latest calls, oldest first.
func (j *journal) Requests() []Call {
	j.mu.Lock()
	defer j.mu.Unlock()
	calls := j.calls[max(0, len(j.calls)-journalSize):]
	out := make([]Call, len(calls))
	for i, c := range calls {
		out[i] = *c
	}
	return out
}

// Counts returns how many calls there were, by "METHOD route".
func (j *journal) Counts() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make(map[string]int, len(j.counts))
	for k, n := range j.counts {
		out[k] = n
	}
	return out
}

// record notes the call, and its answer's status when next is done. The answer carries the simulated clock's Date,
// whatever the faults make of the rest.
func (j *journal) record(c *Call, served time.Time, next http.Handler, w http.ResponseWriter, r *http.Request) {
	j.add(c)
	w.Header().Set("Date", served.UTC().Format(http.TimeFormat))
	s := &statusWriter{ResponseWriter: w}
	defer func() { j.answered(c, s.status) }()
	next.ServeHTTP(s, r)
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusWriter) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	return s.ResponseWriter.Write(p)
}

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// readBody reads a request's body, plain or compressed as its header says; false if it is not what the header says.
func readBody(r *http.Request) ([]byte, bool) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, false
	}
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
		return raw, true
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return raw, false
		}
		plain, err := io.ReadAll(io.LimitReader(z, maxBody))
		if err != nil {
			return raw, false
		}
		return plain, true
	}
	return raw, false
}
