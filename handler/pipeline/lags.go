package pipeline

import (
	"iter"
	"slices"
	"time"
)

// lagBounds are the upper bounds of the classes of Lags, in ascending order; the last class has none.
var lagBounds = []time.Duration{
	15 * time.Second, 30 * time.Second, 45 * time.Second, time.Minute, 90 * time.Second, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute,
	5 * time.Minute, 7 * time.Minute, 10 * time.Minute, 15 * time.Minute, 20 * time.Minute, 30 * time.Minute, 45 * time.Minute, time.Hour,
	90 * time.Minute, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour,
}

// Lags counts how late things were, in classes; the zero value has counted nothing. Its size does not grow.
type Lags struct {
	Counts []int         `json:"counts,omitempty"` // by class of lagBounds, as far as there are any
	Most   time.Duration `json:"most,omitempty"`   // nanoseconds
}

// Add counts one; a negative lag, as of clocks that differ, is none.
func (l *Lags) Add(d time.Duration) {
	d = max(d, 0)
	class, _ := slices.BinarySearch(lagBounds, d)
	for len(l.Counts) <= class {
		l.Counts = append(l.Counts, 0)
	}
	l.Counts[class]++
	l.Most = max(l.Most, d)
}

// Classes yields the upper bound of each class, which belongs to it, and how many it has; the last class has no bound but
// the greatest lag of all.
func (l Lags) Classes() iter.Seq2[time.Duration, int] {
	return func(yield func(time.Duration, int) bool) {
		for class, n := range l.Counts {
			bound := l.Most
			if class < len(lagBounds) {
				bound = lagBounds[class]
			}
			if !yield(bound, n) {
				return
			}
		}
	}
}

// LagBounds are the upper bounds of the classes but for the last, which has none.
func LagBounds() []time.Duration { return slices.Clone(lagBounds) }

// Merge counts what the other has counted.
func (l *Lags) Merge(other Lags) {
	for class, n := range other.Counts {
		for len(l.Counts) <= class {
			l.Counts = append(l.Counts, 0)
		}
		l.Counts[class] += n
	}
	l.Most = max(l.Most, other.Most)
}

// N is how many were counted.
func (l Lags) N() int {
	n := 0
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// Quantile is how late the p-th part was at most: the upper bound of its class, or the greatest lag of all if that is
// less; 0 if nothing was counted.
func (l Lags) Quantile(p float64) time.Duration {
	rank, sum := int(p*float64(l.N())), 0
	for class, n := range l.Counts {
		if sum += n; sum > rank || sum == l.N() {
			if class < len(lagBounds) {
				return min(lagBounds[class], l.Most)
			}
			return l.Most
		}
	}
	return 0
}

// recentLags is how many lags, and up to twice as many, speak of how late something is at present; those since the
// installation would take as long to show a change.
const recentLags = 1000

// recent are the latest lags: those that are being counted, and those before.
type recent [2]Lags

// plus shares nothing with what it was made of.
func (r recent) plus(l Lags) recent {
	latest := Lags{}
	latest.Merge(r[0])
	latest.Merge(l)
	if latest.N() >= recentLags {
		return recent{{}, latest}
	}
	return recent{latest, r[1]}
}

func (r recent) all() Lags {
	var l Lags
	l.Merge(r[1])
	l.Merge(r[0])
	return l
}
