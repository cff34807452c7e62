package sim

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// Fault is something that goes wrong with calls to a simulated system.
type Fault struct {
	Method string  // "" = any
	Path   string  // a part of the path; "" = any
	Skip   int     // so many matching calls go well first
	Times  int     // so many calls go wrong; 0 = one, negative = all until Clear
	Chance float64 // of a matching call going wrong; 0 = always

	Then   func()        // called when it happens, after the effect if there is one
	After  bool          // the effect happens first, and then this is all that the caller sees of it
	Delay  time.Duration // the caller waits for so long first (wall clock)
	Status int           // the answer's status; 0 = the connection is cut without an answer
	Header http.Header   // of the answer
	Body   string        // of the answer
}

// Faults are the faults of one simulated system; the zero value has none.
type Faults struct {
	mu   sync.Mutex
	list []*Fault
	rand *rand.Rand
	Hits int // how many calls went wrong
}

// Add adds a fault; the first that matches a call is the one that happens.
func (f *Faults) Add(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range faults {
		if x.Times == 0 {
			x.Times = 1
		}
		f.list = append(f.list, &x)
	}
}

// Clear removes all faults.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// Seed makes the chances repeatable.
func (f *Faults) Seed(seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rand = rand.New(rand.NewPCG(seed, 17))
}

func (f *Faults) pick(r *http.Request) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.list {
		if x.Times == 0 || x.Method != "" && x.Method != r.Method || !strings.Contains(r.URL.Path, x.Path) {
			continue
		}
		if x.Skip > 0 {
			x.Skip--
			continue
		}
		if x.Chance > 0 {
			if f.rand == nil {
				f.rand = rand.New(rand.NewPCG(1, 17))
			}
			if f.rand.Float64() >= x.Chance {
				continue
			}
		}
		if x.Times > 0 {
			x.Times--
		}
		f.Hits++
		return x
	}
	return nil
}

// Wrap lets the faults happen to the calls of next.
func (f *Faults) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := f.pick(r)
		if x == nil {
			next.ServeHTTP(w, r)
			return
		}
		if x.After {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		if x.Then != nil {
			x.Then()
		}
		if x.Delay > 0 {
			select {
			case <-time.After(x.Delay):
			case <-r.Context().Done():
				return
			}
		}
		if x.Status == 0 {
			panic(http.ErrAbortHandler)
		}
		for k, v := range x.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(x.Status)
		_, _ = w.Write([]byte(x.Body))
	})
}
