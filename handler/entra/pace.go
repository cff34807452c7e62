package entra

import (
	"sync"
	"time"
)

// pace lets through at most as many calls in any period as it has places. Graph answers 5 requests for reports in 10 s
// for an app and tenant, and counts the throttled ones as well; a token bucket cannot give both that bound and its whole
// rate, a window that slides can.
type pace struct {
	period time.Duration

	mu     sync.Mutex
	starts []time.Time // of the latest calls, a ring
	next   int         // the oldest of them
}

func newPace(calls int, period time.Duration) *pace {
	return &pace{period: period, starts: make([]time.Time, calls)}
}

// reserve takes the next place and says how long to wait for it; if that is more than most, which may be negative, no
// place is taken. A call that need not wait is never held back.
func (p *pace) reserve(now time.Time, most time.Duration) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A place that was taken for a time far from now is from before the clock was put back.
	if oldest := p.starts[p.next]; !oldest.IsZero() && oldest.Sub(now) < time.Hour {
		wait = max(0, oldest.Add(p.period).Sub(now))
	}
	if wait > max(0, most) {
		return wait, false
	}
	p.starts[p.next] = now.Add(wait)
	p.next = (p.next + 1) % len(p.starts)
	return wait, true
}
