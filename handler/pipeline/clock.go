package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// ErrClock ends a run before it has done anything: everything that it would write down, from the lease to when a user is
// due again, would be by a clock that is wrong.
var ErrClock = errors.New("this machine's clock is wrong")

// clockPatience is how long a run waits to be told the time.
const clockPatience = 10 * time.Second

// checkClock compares our clock with the tenant's, which is in every answer of it, also in one that is an error. If nobody
// there answers nothing is done: no user can be worked without a profile, and our clock is not known to be right.
func (r *run) checkClock(ctx context.Context) error {
	var errs []error
	for _, d := range append([]signup.Detector{r.Backstop}, r.Detectors...) {
		ctx, cancel := context.WithTimeout(ctx, clockPatience)
		at, err := r.askTime(ctx, d)
		cancel()
		switch off := r.Clock.Now().Sub(at); {
		case at.IsZero():
			err = cmp.Or(err, errors.New("an answer does not say when it was given"))
			if !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == err.Error() }) { // the directory is asked twice
				errs = append(errs, err)
			}
			continue
		case off.Abs() > skew:
			return fmt.Errorf("%w: it shows %s, and the tenant's %s", ErrClock, r.Clock.Now().Format(time.RFC3339), at.Format(time.RFC3339))
		}
		return nil
	}
	return fmt.Errorf("%w, nor the time: %w", ErrNoDetector, errors.Join(errs...))
}

// askTime is the service's own time, zero if it does not say.
func (r *run) askTime(ctx context.Context, d signup.Detector) (at time.Time, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked(d.Name(), v)
			err = errors.New("the detector has panicked")
		}
	}()
	for _, err := range d.Events(ctx, signup.Window{From: r.start.Add(-time.Second), To: r.start}) {
		if err != nil {
			return d.Served(), err
		}
	}
	return d.Served(), nil
}
