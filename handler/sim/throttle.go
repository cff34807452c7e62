package sim

import (
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// logLimit is how many report requests an app may send to a tenant in 10 s; a throttled one counts (docs: throttling
// limits, identity and access reports service).
const logLimit = 5

// writeLimit is how many writes an app may send to a tenant in 150 s (docs: throttling limits, identity and access).
const writeLimit = 3000

// unitLimit is how many resource units an app may use in a tenant in 10 s, by the tenant's size (same page).
func unitLimit(users int) int {
	switch {
	case users < 50:
		return 3500
	case users <= 500:
		return 5000
	}
	return 8000
}

// window counts what happened in the latest 10 seconds, and the most it ever was.
type window struct {
	times []time.Time
	most  int
}

func (w *window) add(t time.Time) {
	w.times = append(w.times, t)
	for len(w.times) > 0 && !w.times[0].After(t.Add(-10*time.Second)) {
		w.times = w.times[1:]
	}
	w.most = max(w.most, len(w.times))
}

// limiter keeps the sliding windows of the apps.
type limiter struct{ buckets map[string]*bucket }

type bucket struct {
	used []use
	sum  int
}

type use struct {
	at   time.Time
	cost int
}

// take uses cost, allowed or not, and returns the share of the limit in use and, if that is too much, how long to
// wait until a call of that cost would pass.
func (l *limiter) take(name string, now time.Time, length time.Duration, limit, cost int) (float64, time.Duration) {
	if l.buckets == nil {
		l.buckets = map[string]*bucket{}
	}
	b := l.buckets[name]
	if b == nil {
		b = &bucket{}
		l.buckets[name] = b
	}
	for len(b.used) > 0 && !b.used[0].at.After(now.Add(-length)) {
		b.sum -= b.used[0].cost
		b.used = b.used[1:]
	}
	b.used = append(b.used, use{now, cost})
	b.sum += cost
	share := float64(b.sum) / float64(limit)
	if b.sum <= limit {
		return share, 0
	}
	sum := b.sum
	for _, u := range b.used {
		if sum -= u.cost; sum+cost <= limit {
			return share, u.at.Add(length).Sub(now)
		}
	}
	return share, length
}

// limit charges a call to the app's limits; the reply is nil if it passes.
func (t *Tenant) limit(c *graphCall) (http.Header, *reply) {
	header := http.Header{}
	if t.o.Throttle == ThrottleOff {
		return header, nil
	}
	scale := func(n int) int {
		if t.o.Throttle == ThrottleTight {
			return max(1, n/10)
		}
		return n
	}
	if c.route.class == logClass {
		if _, wait := t.limits.take("log "+c.app, c.now, 10*time.Second, scale(logLimit), 1); wait > 0 {
			return header, t.throttled(c, wait, "", "This request is throttled. Please try again after some time.")
		}
		return header, nil
	}
	units := c.units()
	header.Set("X-Ms-Resource-Unit", strconv.Itoa(units))
	share, wait := t.limits.take("units "+c.app, c.now, 10*time.Second, scale(unitLimit(len(t.users))), units)
	reason := "ResourceUnitLimitExceeded"
	if c.route.class == writeClass {
		s, w := t.limits.take("writes "+c.app, c.now, 150*time.Second, scale(writeLimit), 1)
		share = max(share, s)
		if w > wait {
			wait, reason = w, "WriteLimitExceeded"
		}
	}
	if share > 0.8 {
		header.Set("X-Ms-Throttle-Limit-Percentage", strconv.FormatFloat(min(share, 1.8), 'f', 2, 64))
	}
	if wait == 0 {
		return header, nil
	}
	rep := t.throttled(c, wait, reason, "Please retry again later.")
	maps.Copy(rep.header, header)
	return header, rep
}

func (t *Tenant) throttled(c *graphCall, wait time.Duration, reason, message string) *reply {
	rep := refuse(http.StatusTooManyRequests, "TooManyRequests", message)
	inner := &rep.body.(*graphError).Error.Inner
	inner.Code, inner.Message, inner.Status = "429", "Please retry after", "429"
	rep.header = http.Header{}
	if reason != "" {
		rep.header.Set("X-Ms-Throttle-Scope", "Tenant_Application/ReadWrite/"+c.app+"/"+t.o.ID)
		rep.header.Set("X-Ms-Throttle-Information", reason)
	}
	switch t.o.RetryAfter {
	case RetryInteger:
		rep.header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	case RetryFractional:
		rep.header.Set("Retry-After", strconv.FormatFloat(math.Ceil(wait.Seconds()*1000)/1000, 'f', 3, 64))
	case RetryDate:
		at := c.now.Add(t.o.DateSkew + wait + time.Second - 1) // the format cuts to the second
		rep.header.Set("Retry-After", at.Format(http.TimeFormat))
	case RetryHuge:
		rep.header.Set("Retry-After", "300")
	}
	return &rep
}

// units are the resource units of a call (docs: throttling limits, identity and access): $select saves one, and so
// does a $top below 20; at least one is charged.
func (c *graphCall) units() int {
	n := c.route.units
	if c.route.class == readClass {
		if c.query.Has("$select") {
			n--
		}
		if c.query.Has("$expand") {
			n++
		}
		if top, ok := c.top(); ok && top > 0 && top < 20 {
			n--
		}
	}
	return max(n, 1)
}
