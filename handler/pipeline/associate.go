package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

const (
	reasonOrigin      = "origin"
	reasonNotRedeemed = "not-redeemed"
	reasonDeleted     = "deleted"
	reasonRule        = "rule"
	reasonObserve     = "observe"
	reasonRemoved     = "removed"

	// replication is how long a new user may be unreadable.
	replication = 30 * time.Minute
	// keysForgotten is when idempotency keys can no longer be relied upon, with a margin: Stripe may prune them after 24 h.
	keysForgotten = 20 * time.Hour
)

func skip(destination, code, detail string) *signup.Outcome {
	return &signup.Outcome{Destination: destination, Err: &signup.Error{Class: signup.Skip, Code: code, Detail: detail}}
}

// associate works one destination for all users of a batch. What is not sent is not asked of the destination's gate.
func (r *run) associate(ctx context.Context, name string, jobs []*job) {
	d := r.destinationNamed(name)
	var send []*job
	var reqs []signup.Request
	var since []time.Time
	for _, j := range jobs {
		a, ok := j.due(name)
		if !ok {
			continue
		}
		req, outcome := r.request(d, j, a)
		if outcome != nil {
			j.set(outcome)
			continue
		}
		send, reqs, since = append(send, j), append(reqs, req), append(since, j.since(a))
	}
	if len(send) == 0 {
		return
	}
	ctx, end := r.span(ctx, "associate", slog.String("destination", name), slog.Int("users", len(send)))
	defer func() { end(failedAt(name, send)) }()
	if b, ok := d.Connector.(signup.Batcher); ok {
		results := r.through(ctx, name, since, func() []signup.Result { return b.AssociateAll(ctx, reqs) })
		for i, j := range send {
			j.set(results(i))
		}
		return
	}
	r.Each(len(send), func(i int) {
		result := r.through(ctx, name, since[i:i+1], func() []signup.Result {
			account, err := d.Connector.Associate(ctx, reqs[i])
			return []signup.Result{{Account: account, Err: err}}
		})
		send[i].set(result(0))
	})
}

// through makes one call for some users when the destination's gate lets it, and returns each one's outcome; nil for a
// call that was cut short and may have taken effect. A user's 403 does not count against the destination if others have
// been accepted since.
func (r *run) through(ctx context.Context, name string, since []time.Time, call func() []signup.Result) func(i int) *signup.Outcome {
	g, n := r.gates[name], len(since)
	leave, wait := g.enter(ctx)
	if leave == nil {
		return func(int) *signup.Outcome {
			return &signup.Outcome{Destination: name, NotStarted: true, Wait: max(wait, time.Second)}
		}
	}
	last := g.snapshot().LastSuccess
	results := r.guard(name, n, call)
	errs := make([]error, 0, n)
	for i, res := range results {
		if e, ok := errors.AsType[*signup.Error](res.Err); ok && e.Status == 403 && g.snapshot().LastSuccess.After(since[i]) {
			continue
		}
		if ctx.Err() == nil || res.Err == nil {
			errs = append(errs, res.Err)
		}
	}
	answers := failures(errs)
	r.throttled(name, answers)
	if opened := leave(answers...); opened != nil {
		r.leftAlone(name, opened)
	}
	cut := ctx.Err() != nil
	return func(i int) *signup.Outcome {
		if cut && results[i].Err != nil {
			return nil
		}
		return &signup.Outcome{Destination: name, Account: results[i].Account, Err: results[i].Err, LastSuccess: last}
	}
}

// throttled counts the turns of a destination that were answered with throttling.
func (r *run) throttled(name string, answers []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range answers {
		if err != nil && signup.ClassOf(err) == signup.Throttled {
			r.sum.destination(name).Throttled++
		}
	}
}

// failures are the answers of one turn, of which the failure of a call for many users is one.
func failures(errs []error) (out []error) {
	for _, err := range errs {
		if !slices.ContainsFunc(out, func(other error) bool { return oneFailure(err, other) }) {
			out = append(out, err)
		}
	}
	return out
}

// leftAlone tells that a destination's breaker has opened: its users are pending, and would be so for days without a word.
func (r *run) leftAlone(name string, why error) {
	r.log.Warn("destination left alone for a while", "destination", name, "until", r.gates[name].snapshot().Until, "reason", codeOf(why), "detail", detailOf(why))
}

// oneFailure reports that two users' answers are that of one call, which has failed for all: one error, wrapped or not.
func oneFailure(a, b error) bool {
	x, ok := errors.AsType[*signup.Error](a)
	y, _ := errors.AsType[*signup.Error](b)
	return ok && x == y
}

// guard makes a panic in a connector the outcome of its call: one user's data is no reason for the process to die at
// all the others' work.
func (r *run) guard(name string, n int, call func() []signup.Result) (results []signup.Result) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked(name, v)
			results = slices.Repeat([]signup.Result{{Err: &signup.Error{Class: signup.Transient, Code: "panic"}}}, n)
		}
	}()
	if results = call(); len(results) != n {
		panic(fmt.Errorf("%d answers for %d users", len(results), n))
	}
	return results
}

// panicked tells of a defect. It is to be called by the deferred function that recovers.
func (r *run) panicked(where string, v any) {
	r.log.Error("a call has panicked; this is a defect of the program", "at", where, "err", panicText(v), "stack", string(debug.Stack()))
}

// panicText says what a panic was about: the runtime's own words, or only the type of anything else, which may hold
// somebody's data.
func panicText(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("a %T", v)
}

// request maps one user for one destination, or says why nothing is to be sent.
func (r *run) request(d Destination, j *job, a signup.Association) (signup.Request, *signup.Outcome) {
	needs := r.Mapping.Needs(d.Name)
	pending, failed := j.waits(needs)
	switch {
	case failed != "":
		return signup.Request{}, skip(d.Name, signup.ReasonNeeds, failed)
	case len(pending) > 0:
		return signup.Request{}, &signup.Outcome{Destination: d.Name, NotStarted: true, For: pending}
	}
	record, want, err := r.Mapping.Want(d.Name, j.input(needs))
	if err != nil {
		return signup.Request{}, &signup.Outcome{Destination: d.Name, Err: err}
	}
	if !want {
		return signup.Request{}, skip(d.Name, reasonRule, "")
	}
	if d.Observe {
		fields := strings.Join(slices.Sorted(maps.Keys(record)), ", ")
		r.log.Info("observed: nothing sent", "user", j.row.User, "destination", d.Name, "fields", fields)
		return signup.Request{}, skip(d.Name, reasonObserve, "would send "+fields)
	}
	req := signup.Request{
		Tenant: r.Tenant, User: j.row.User, Destination: d.Name, Key: Key(r.Tenant, j.row.User, d.Name, a.Generation),
		Unsure:  j.row.Tried(a) || r.Clock.Now().Sub(j.row.At) > keysForgotten || r.state.olderThan(d.Name, j.row.At),
		Spent:   a.Spent,
		Created: j.row.At, Origin: j.row.Origin, Email: j.user.Email, EmailVerified: j.user.EmailVerified, Record: record,
	}
	if attribute, ok := r.Mapping.LinkBack(d.Name); ok {
		req.Known, _ = j.user.Attributes[attribute].(string)
	}
	return req, nil
}

// Key is the idempotency key of one user at one destination: the same for every try of a generation.
func Key(tenant string, user signup.UserID, destination string, generation int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%s|%d", tenant, user, destination, generation))
	return hex.EncodeToString(sum[:])
}

func (e *Engine) destinationNamed(name string) Destination {
	for _, d := range e.Destinations {
		if d.Name == name {
			return d
		}
	}
	panic("pipeline: no destination " + name) // only configured ones are asked for
}

// order is the destinations' names, each behind those whose accounts it needs. Compile refuses cycles and unknown names.
func (e *Engine) order() []string {
	var order []string
	placed := func(name string) bool { return slices.Contains(order, name) }
	for len(order) < len(e.Destinations) {
		for _, d := range e.Destinations {
			waits := slices.ContainsFunc(e.Mapping.Needs(d.Name), func(n string) bool { return !placed(n) })
			if !placed(d.Name) && !waits {
				order = append(order, d.Name)
			}
		}
	}
	return order
}
