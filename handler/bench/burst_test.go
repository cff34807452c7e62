package bench_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/bench"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

var (
	burstUsers = flag.Int("burst", 0, "the full measurement of the burst, with so many sign-ups; 0 = a gate with fewer")
	burstOnly  = flag.String("mix", "", "only this mix of destinations")
)

const (
	// burstArrivals is how long the sign-ups take to come.
	burstArrivals = 10 * time.Minute
	// burstRun is the longest that a run takes, as in package main.
	burstRun = 4 * time.Minute
	// burstGoal is how much longer than the quotas demand a burst may take.
	burstGoal = 1.10
	// burstTail is what the last users of a burst may take longer, whose calls are slow, one after the other: in a burst of
	// a hundred it shows, in one of a thousand half as much, and in one of ten thousand no more.
	burstTail = 6.0
)

// arrive lets n people sign up within ten minutes.
func (w *burstWorld) arrive(n int, each func(signup.UserID)) {
	begun := time.Now()
	var people []sim.Person
	for seed := uint64(17); len(people) < n; seed++ {
		for i, p := range sim.Crowd(n, seed) {
			if p.How == sim.Email || p.How == sim.Social {
				p.Email = fmt.Sprintf("p%d.%d@example.%s", seed, i, []string{"com", "org"}[i%2])
				people = append(people, p)
			}
		}
	}
	for i, p := range people[:n] {
		time.Sleep(time.Until(begun.Add(burstArrivals * time.Duration(i) / time.Duration(n))))
		each(w.sim.Tenant.SignUp(p))
	}
}

// run is one invocation.
func (w *burstWorld) run() {
	ctx, cancel := context.WithTimeout(context.Background(), burstRun)
	defer cancel()
	begun := time.Now()
	if _, err := w.engine.Run(ctx, pipeline.Trigger{Invocation: "burst"}); err != nil {
		w.problems = append(w.problems, err.Error())
	}
	w.runs = append(w.runs, [2]time.Time{begun, time.Now()})
}

// host is the host's timer: a run each minute, the next one after the last has ended.
func (w *burstWorld) host(n int) {
	for len(w.ledger.settled) < n && len(w.runs) < 60 {
		now := time.Now()
		time.Sleep(now.Truncate(time.Minute).Add(time.Minute).Sub(now))
		w.run()
	}
}

// play lets n people sign up, and the program associate them: live, or as a backlog that is in the ledger.
func (w *burstWorld) play(n int, live bool) {
	w.run() // from here on the ledger knows the destinations
	time.Sleep(time.Minute)
	if live {
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.arrive(n, func(signup.UserID) {})
		}()
		w.host(n)
		<-done
		return
	}
	var backlog []signup.Row
	w.arrive(n, func(id signup.UserID) {
		now := time.Now().UTC()
		backlog = append(backlog, signup.NewRow(signup.Event{User: id, Kind: signup.Created, At: now.Truncate(time.Second)}, "audit", w.mix.with, now))
	})
	time.Sleep(20 * time.Minute) // the lists and the log have shown everybody, but for the log's latest
	if _, err := w.ledger.Ledger.Insert(context.Background(), backlog); err != nil {
		w.problems = append(w.problems, err.Error())
	}
	w.forget()
	w.host(n)
}

// burstOf plays a burst of one mix.
func burstOf(t *testing.T, m burstMix, n int, live bool) (r burstResult) {
	synctest.Test(t, func(*testing.T) {
		w := newBurstWorld(m)
		w.play(n, live)
		r = w.result(n)
	})
	return r
}

// TestBurst: many people sign up within ten minutes, and the simulated systems enforce the limits that their vendors publish.
// From the first intent to the last settle it may take a tenth longer than the slowest system needs at the rate configured.
func TestBurst(t *testing.T) {
	n, full := 1000, *burstUsers > 0
	if raceDetector {
		n = 100
	}
	if full {
		n = *burstUsers
	}
	var all []burstResult
	for _, m := range burstMixes {
		if *burstOnly != "" && m.name != *burstOnly {
			continue
		}
		began := time.Now()
		r := burstOf(t, m, n, false)
		all = append(all, r)
		t.Logf("%s: %.0f s, minimum %.0f s by %s, ratio %.3f, within runs %.3f; %d of %d calls throttled; played in %v",
			m.name, r.took, r.minimum, r.by, r.ratio(), r.within(), r.throttled, r.calls, time.Since(began).Round(time.Second/10))
		most := burstGoal * r.minimum
		switch {
		case raceDetector:
			most += burstTail
		case !full:
			most += burstTail / 2
		}
		r.judge(t, most)
	}
	p := bench.Part{Name: "burst", Title: "A burst at the quotas", Command: "make bench PARTS=burst", Figures: burstFigures(all, full)}
	bench.Hold(t, p)
	if !full || *burstOnly != "" {
		return
	}
	live := burstOf(t, burstMix{name: "all", with: burstAll}, n, true)
	t.Logf("live: %.0f s, minimum %.0f s by %s, ratio %.3f", live.took, live.minimum, live.by, live.ratio())
	live.judge(t, math.Inf(1)) // nobody can be worked before being detected
	p.Text = burstText(n, all, live)
	p.Plots = []bench.Plot{burstPlot(all, live)}
	if err := p.Write(); err != nil {
		t.Error(err)
	}
}
