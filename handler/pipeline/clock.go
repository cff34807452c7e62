package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signup-sync/handler/signup"
)

// ErrClock ends a run before it has done anything: everything that it would write down, from the lease to when a user is
// due again, would be by a clock that is wrong.
var ErrClock = errors.New("this machine's clock is wrong")

// clockPatience is how long a run waits to be told the time.
const clockPatience = 10 * time.Second

// checkClock compares our clock with the tenant's, which is in every answer of it. Nobody answers when there is nothing to
// do either: without the tenant no user can be worked.
func (r *run) checkClock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	for _, d := range append([]signup.Detector{r.Backstop}, r.Detectors...) {
		at, _ := r.askTime(ctx, d) // an answer that is an error tells the time as well
		if at.IsZero() {
			continue
		}
		if off := r.Clock.Now().Sub(at); off.Abs() > skew {
			return fmt.Errorf("%w: it shows %s, and the tenant's %s", ErrClock, r.Clock.Now().Format(time.RFC3339), at.Format(time.RFC3339))
		}
		return nil
	}
	return nil
}
