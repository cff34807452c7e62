package signup

import (
	"context"
	"time"
)

// Clock is where the time comes from, so that a run can be tested and scaled.
type Clock interface {
	Now() time.Time                                   // UTC
	Sleep(ctx context.Context, d time.Duration) error // ctx's error if that ends first
}

// ScaledClock runs Rate times as fast as the wall clock; both show the same time at Start. The zero value, or a Rate
// of 1, is the wall clock itself. Processes that share Start and Rate share the clock.
type ScaledClock struct {
	Start time.Time
	Rate  float64
}

var _ Clock = ScaledClock{}

// Now is Start + Rate × (the wall clock − Start).
func (c ScaledClock) Now() time.Time {
	now := time.Now()
	if c.scaled() {
		now = c.Start.Add(time.Duration(float64(now.Sub(c.Start)) * c.Rate))
	}
	return now.UTC()
}

// Sleep waits for d of this clock's time.
func (c ScaledClock) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.scaled() {
		d = time.Duration(float64(d) / c.Rate)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Steady is the clock as it goes on from now by the time that passes, whatever becomes of the machine's in the meantime.
func Steady(c Clock) Clock {
	s := steady{Clock: c, start: c.Now(), begun: time.Now(), rate: 1}
	if scaled, ok := c.(ScaledClock); ok && scaled.scaled() {
		s.rate = scaled.Rate
	}
	return s
}

type steady struct {
	Clock
	start, begun time.Time
	rate         float64
}

func (s steady) Now() time.Time {
	return s.start.Add(time.Duration(float64(time.Since(s.begun)) * s.rate))
}

func (c ScaledClock) scaled() bool { return c.Rate > 0 && c.Rate != 1 }
