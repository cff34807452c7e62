package bench_test

import (
	"flag"
	"net/http"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/bench"
	"signup-sync/handler/sim"
)

var compare = flag.Bool("compare", false, "measure this contestant against a plain polling function, for some minutes")

// trouble is something that happens in a world, so long after the start.
type trouble struct {
	at time.Duration
	do func(s *subject)
}

// lose lets a share of the answers of what is written be lost, after its effect.
func lose(w *contestWorld, share float64) {
	for _, f := range []*sim.Faults{&w.Stripe.Faults, &w.Mailchimp.Faults, &w.Salesforce.Faults, &w.Tenant.Faults} {
		f.Seed(1)
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
			f.Add(sim.Fault{Method: method, After: true, Times: -1, Chance: share})
		}
	}
}

// worse is a system that answers so until it is healed, and then loses answers again.
func worse(f *sim.Faults, fault sim.Fault) {
	f.Clear()
	fault.Times = -1
	f.Add(fault)
}

func heal(w *contestWorld, share float64) {
	for _, f := range []*sim.Faults{&w.Stripe.Faults, &w.Mailchimp.Faults, &w.Salesforce.Faults, &w.Tenant.Faults} {
		f.Clear()
	}
	lose(w, share)
}

// killAtWork kills the program when it has made a few customers more, before it learns of it.
func killAtWork(s *subject) {
	s.Stripe.Faults.Clear()
	s.Stripe.Faults.Add(sim.Fault{Method: http.MethodPost, Skip: 3, After: true, Then: s.kill})
}

// play lets the people sign up while the program works by its timer and the troubles come, until the end. Who may take
// longer gets more, if anybody is left: on a busy machine the scaled clock runs away from the program.
func play(t *testing.T, p contestant, rate float64, people []newcomer, troubles []trouble, end time.Duration, longer bool) (*subject, tally) {
	t.Helper()
	s := p.open(t, openContestWorld(t, rate, people, false))
	s.start(true)
	s.begin = s.clock.Now()
	var all sync.WaitGroup
	all.Go(func() { s.signUps(t) })
	all.Go(func() {
		for _, x := range troubles {
			if s.until(t, x.at) != nil {
				return
			}
			x.do(s)
		}
	})
	all.Wait()
	_ = s.until(t, end) // ends early with the test
	v := s.tally()
	for longer && v.Lost+v.Unlinked > 0 && s.clock.Now().Before(s.begin.Add(4*end)) && s.clock.Sleep(t.Context(), time.Minute) == nil {
		v = s.tally()
	}
	s.stop()
	return s, s.tally()
}

// bear plays a program through troubles, after which ours has lost and repeated nobody.
func bear(t *testing.T, p contestant, rate float64, people []newcomer, troubles []trouble, end time.Duration) tally {
	t.Helper()
	ours := p.config != ""
	s, v := play(t, p, rate, people, troubles, end, ours)
	if ours && v.Lost+v.Repeated+v.Unlinked > 0 {
		t.Errorf("%d lost, %d repeated, %d without their ids; the end of the log:\n%s", v.Lost, v.Repeated, v.Unlinked, s.lines())
	}
	return v
}

// together plays all programs at the same time, each in a world of its own.
func together(t *testing.T, all []contestant, one func(p contestant) tally) map[string]tally {
	t.Helper()
	var mu sync.Mutex
	var wait sync.WaitGroup
	out := map[string]tally{}
	for _, p := range all {
		wait.Go(func() {
			v := one(p)
			mu.Lock()
			defer mu.Unlock()
			out[p.name] = v
		})
	}
	wait.Wait()
	return out
}

// Under the same troubles, with the same people, this program loses and repeats nobody, and a plain polling function
// does, whoever wrote it in what.
func TestCompare(t *testing.T) {
	if *compare {
		measure(t)
		return
	}
	ours, plain, js := programs(t)
	all := []contestant{ours.configured("signup-sync", contestSettings{}), plain, plain.marking()}
	if js.exe != "" {
		all = append(all, js)
	}
	const share = 0.1
	troubles := []trouble{
		{0, func(s *subject) { lose(s.contestWorld, share) }},
		{12 * time.Minute, killAtWork},
		{18 * time.Minute, func(s *subject) { heal(s.contestWorld, share) }},
		{20 * time.Minute, (*subject).stop},
		{32 * time.Minute, func(s *subject) { s.start(true) }},
	}
	people := newcomers(50, 24*time.Minute, 1)
	got := together(t, all, func(p contestant) tally {
		return bear(t, p, 270, people, troubles, 38*time.Minute)
	})
	bench.Hold(t, bench.Part{Name: comparePart, Figures: troubleFigures(got)})
	for _, p := range all {
		v := got[p.name]
		t.Logf("%-20s lost %2d, repeated %2d, p50 %3.0f s, p99 %4.0f s, %d calls", p.name, v.Lost, v.Repeated, v.quantile(0.5), v.quantile(0.99), total(v.Calls))
		if p.config == "" && v.Lost+v.Repeated == 0 {
			t.Errorf("%s lost and repeated nobody: the troubles are none", p.name)
		}
	}
}
