package sim

import (
	"context"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// Clock stands still until it is moved; for tests.
type Clock struct {
	mu    sync.Mutex
	now   time.Time
	moved chan struct{} // closed, and made anew, at each move
}

var _ signup.Clock = (*Clock)(nil)

// NewClock returns a clock that shows t.
func NewClock(t time.Time) *Clock {
	return &Clock{now: t.UTC(), moved: make(chan struct{})}
}

// Now is the time to which the clock was last moved.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d and wakes those whose sleep is over.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	close(c.moved)
	c.moved = make(chan struct{})
}

// Sleep returns once the clock was moved by d or more.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	end := c.now.Add(d)
	c.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.mu.Lock()
		now, moved := c.now, c.moved
		c.mu.Unlock()
		if !now.Before(end) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
}
