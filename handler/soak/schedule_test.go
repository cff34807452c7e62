package soak_test

import (
	"bytes"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// fate is what befalls a step.
type fate struct {
	dead   bool          // its process has died: nothing happens any more
	what   string        // for the trace; "" = all goes well
	before time.Duration // until the effect
	after  time.Duration // from the effect until the answer
	none   bool          // there is no effect
	lost   bool          // there is no answer
	hang   bool          // … and the caller waits for it until its patience ends
	half   bool          // the answer breaks off, or half of the rows are written
	status int           // of an answer that something on the way gives
	header map[string]string
	body   string
	serve  func() // just before the effect
	dies   string // "before" or "after" the effect: the process does
}

// step is a goroutine that waits for its turn.
type step struct {
	key    string
	proc   *process // nil: it belongs to the world
	decide func() fate
	wake   chan fate
}

// pick is what the trace keeps of one turn.
type pick struct {
	at   time.Duration // since the beginning
	key  string
	what string
}

// schedule lets one goroutine run at a time, in an order that the seed decides.
type schedule struct {
	chance *rand.Rand
	begun  time.Time
	poke   chan struct{}
	hash   hash.Hash64
	picks  []pick

	mu     sync.Mutex
	parked []*step
	names  map[uint64]*goroutine
	over   bool
}

// goroutine is one with a name that is the same in every run of a seed.
type goroutine struct {
	name string
	next int // children so far
}

func newSchedule(seed uint64) *schedule {
	return &schedule{chance: rand.New(rand.NewPCG(seed, 2)), begun: time.Now(), poke: make(chan struct{}, 1), hash: fnv.New64a(),
		names: map[uint64]*goroutine{}}
}

// park waits for the caller's turn. A nil decide means that nothing can befall the step.
func (s *schedule) park(p *process, key string, decide func() fate) fate {
	st := &step{key: key, proc: p, decide: decide, wake: make(chan fate, 1)}
	s.mu.Lock()
	s.parked = append(s.parked, st)
	s.mu.Unlock()
	s.nudge()
	return <-st.wake
}

func (s *schedule) nudge() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// end lets drive return once nobody is parked.
func (s *schedule) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.nudge()
}

// drive gives turns until the end.
func (s *schedule) drive() {
	for {
		synctest.Wait()
		st, until, over := s.choose()
		switch {
		case st == nil && over:
			return
		case st == nil:
			if until.IsZero() {
				<-s.poke
				continue
			}
			t := time.NewTimer(time.Until(until))
			select {
			case <-s.poke:
			case <-t.C:
			}
			t.Stop()
			continue
		}
		var f fate
		if st.proc != nil && st.proc.dead.Load() {
			f.dead = true // the dead leave no trace
		} else {
			if st.decide != nil {
				f = st.decide()
			}
			s.note(st.key, f.what)
		}
		st.wake <- f
	}
}

// choose takes one of the parked out; if there is none that may run, until says when one of a paused process may.
func (s *schedule) choose() (st *step, until time.Time, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var ready []*step
	for _, x := range s.parked {
		switch {
		case x.proc != nil && x.proc.dead.Load():
			s.remove(x)
			return x, until, false
		case x.proc != nil && x.proc.paused.After(now):
			if until.IsZero() || x.proc.paused.Before(until) {
				until = x.proc.paused
			}
		default:
			ready = append(ready, x)
		}
	}
	if len(ready) == 0 {
		return nil, until, s.over && len(s.parked) == 0
	}
	slices.SortStableFunc(ready, func(a, b *step) int { return strings.Compare(a.key, b.key) })
	st = ready[0]
	if len(ready) > 1 {
		st = ready[s.chance.IntN(len(ready))]
	}
	s.remove(st)
	return st, until, false
}

func (s *schedule) remove(st *step) {
	i := slices.Index(s.parked, st)
	s.parked = slices.Delete(s.parked, i, i+1)
}

// note writes the trace.
func (s *schedule) note(key, what string) {
	at := time.Since(s.begun)
	fmt.Fprintf(s.hash, "%d %s %s\n", at, key, what)
	s.picks = append(s.picks, pick{at, key, what})
}

// each is Engine.Each: every goroutine waits for its turn before it begins.
func (s *schedule) each(p *process, n int, f func(i int)) {
	me := s.self()
	me.next++
	prefix := me.name + "." + strconv.Itoa(me.next) + "/"
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := prefix + strconv.Itoa(i)
			defer s.named(name)()
			s.park(p, "go "+p.name+" "+name, nil)
			f(i)
		})
	}
	wg.Wait()
}

// named gives the calling goroutine a name until the returned function is called.
func (s *schedule) named(name string) func() {
	id := goid()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[id] = &goroutine{name: name}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.names, id)
	}
}

func (s *schedule) self() *goroutine {
	id := goid()
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.names[id]; g != nil {
		return g
	}
	return &goroutine{name: "?"}
}

// goid is the runtime's number of the calling goroutine, which its stack begins with.
func goid() uint64 {
	var buf [40]byte
	b := buf[:runtime.Stack(buf[:], false)]
	b = bytes.TrimPrefix(b, []byte("goroutine "))
	n, _, _ := bytes.Cut(b, []byte(" "))
	id, _ := strconv.ParseUint(string(n), 10, 64)
	return id
}

// constant is a source of chance for an engine: what it draws follows from the seed, the process and the instant, so that
// the order in which goroutines draw at one instant makes no difference.
type constant struct {
	seed uint64
	last int64
	n    uint64
}

func (c *constant) Uint64() uint64 {
	now := time.Now().UnixNano()
	if now != c.last {
		c.last, c.n = now, 0
	}
	c.n++
	x := c.seed ^ uint64(now) ^ c.n>>10<<40 // changes at last, for a caller who draws until it likes the number
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
