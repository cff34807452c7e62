package bench_test

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/sim"
)

// speed is what a program makes of many people who sign up at once.
type speed struct {
	done  int           // people brought everywhere
	took  time.Duration // until the last of them
	calls map[string]int
	usage usage
}

func (s speed) perSecond() float64 { return float64(s.done) / max(s.took, 1).Seconds() }
func (s speed) perUser() float64   { return float64(total(s.calls)) / float64(max(s.done, 1)) }
func (s speed) cpu() float64       { return s.usage.cpu.Seconds() * 1000 / float64(max(s.done, 1)) }
func (s speed) peak() float64      { return float64(s.usage.peak) / (1 << 20) }

func total(calls map[string]int) (n int) {
	for _, k := range calls {
		n += k
	}
	return n
}

// rush measures a program, by the wall clock, on n people who sign up at once, until they are done or the time is over.
func rush(t *testing.T, p contestant, n int, most time.Duration, lifted bool) speed {
	t.Helper()
	s := p.open(t, openContestWorld(t, 1, allAtOnce(n, 1), lifted))
	s.start(false)
	defer s.stop()
	fire := func() error {
		_, err := s.host.Fire(t.Context(), "SyncNewUsers", "")
		return err
	}
	if err := fire(); err != nil { // the first run opens connections and finds nobody
		t.Errorf("%s: %v\n%s", p.name, err, s.lines())
		return speed{took: 1}
	}
	_ = s.clock.Sleep(t.Context(), 2*time.Second) // whole seconds: they sign up after our destinations were known
	s.begin = s.clock.Now()
	s.signUps(t)
	done := func() []time.Duration { return s.tally().Delays }
	if lifted {
		done = s.billed
	}
	before, calls, start := s.usage(), s.tally().Calls, time.Now()
	ended := make(chan error, 1)
	go func() { ended <- fire() }()
	for len(done()) < n && time.Since(start) < most {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v\n%s", p.name, err, s.lines())
				return speed{took: 1}
			}
			go func() { ended <- fire() }()
		case <-time.After(100 * time.Millisecond):
		}
	}
	delays := done()
	out := speed{usage: s.usage(), calls: s.tally().Calls, done: len(delays), took: slices.Max(append(delays, 1))}
	out.usage.cpu -= before.cpu
	for kind, k := range calls {
		out.calls[kind] -= k
	}
	return out
}

// rushes are measurements at the same time, each in a world of its own.
func rushes(all map[string]func() speed) map[string]speed {
	var mu sync.Mutex
	var wait sync.WaitGroup
	out := map[string]speed{}
	for name, one := range all {
		wait.Go(func() {
			v := one()
			mu.Lock()
			defer mu.Unlock()
			out[name] = v
		})
	}
	wait.Wait()
	return out
}

// The names of the programs and variants in the report.
const (
	nameOurs      = "signup-sync"
	nameAudit     = "audit alone"
	nameDirectory = "directory alone"
	nameBoth      = "both"
)

// measured is all that the report is made of.
type measured struct {
	speeds   map[string]speed // "default", "documented", "lifted", "Go", "JavaScript", "Go lifted", "JavaScript lifted"
	people   []newcomer       // of delays
	delays   map[string]tally
	troubled int // people
	troubles map[string]tally
}

// delayRate is how many times as fast as the wall clock the delays pass. What the machine takes counts so many times.
const delayRate = 20

func measure(t *testing.T) {
	ours, plain, js := programs(t)
	m := measured{}
	documented := contestSettings{billing: "rate: 20\n    concurrency: 10", newsletter: "rate: 25\n    burst: 10\n    concurrency: 10"}
	fast := "rate: 1000\n    burst: 1000\n    concurrency: 64"
	first := map[string]func() speed{
		"default": func() speed { return rush(t, ours.configured("default", contestSettings{}), 300, time.Minute, false) },
		"Go":      func() speed { return rush(t, plain, 300, 30*time.Second, false) },
	}
	second := map[string]func() speed{
		"documented": func() speed { return rush(t, ours.configured("documented", documented), 300, time.Minute, false) },
		"Go lifted":  func() speed { return rush(t, plain.lifted(), 300, 25*time.Second, true) },
	}
	if js.exe != "" {
		first["JavaScript"] = func() speed { return rush(t, js, 300, 30*time.Second, false) }
		second["JavaScript lifted"] = func() speed { return rush(t, js.lifted(), 300, 25*time.Second, true) }
	}
	m.speeds = rushes(first)
	for name, v := range rushes(second) {
		m.speeds[name] = v
	}
	m.speeds["lifted"] = rush(t, ours.configured("lifted", contestSettings{billing: fast, crm: fast, lifted: true}), 300, time.Minute, true)

	for _, name := range slices.Sorted(maps.Keys(m.speeds)) {
		t.Log(name, m.speeds[name].calls)
	}
	m.people = newcomers(1000, time.Hour, 1)
	m.delays = together(t, []contestant{ours.configured(nameAudit, contestSettings{detectors: "audit"}),
		ours.configured(nameBoth, contestSettings{}), plain.marking(),
		ours.configured(nameDirectory, contestSettings{detectors: "directory"})}, func(p contestant) tally {
		_, v := play(t, p, delayRate, m.people, nil, 72*time.Minute, p.config != "")
		return v
	})

	troubled := newcomers(300, 90*time.Minute, 2)
	m.troubled = len(troubled)
	all := []contestant{ours.configured(nameOurs, contestSettings{}), plain, plain.marking()}
	if js.exe != "" {
		all = append(all, js, js.marking())
	}
	m.troubles = together(t, all, func(p contestant) tally {
		return bear(t, p, 120, troubled, badDay(), 135*time.Minute)
	})
	part := m.part()
	t.Log("\n" + part.Text)
	if err := part.Write(); err != nil {
		t.Fatal(err)
	}
}

// badDay is what goes wrong in two hours.
func badDay() []trouble {
	const share = 0.03
	mend := func(s *subject) { heal(s.contestWorld, share) }
	return []trouble{
		{0, func(s *subject) { lose(s.contestWorld, share) }},
		{15 * time.Minute, func(s *subject) { worse(&s.Stripe.Faults, sim.Fault{Status: http.StatusServiceUnavailable}) }},
		{45 * time.Minute, mend},
		{50 * time.Minute, killAtWork},
		{58 * time.Minute, mend},
		{60 * time.Minute, func(s *subject) {
			worse(&s.Mailchimp.Faults, sim.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}})
		}},
		{65 * time.Minute, mend},
		{70 * time.Minute, (*subject).stop},
		{85 * time.Minute, func(s *subject) { s.start(true) }},
	}
}
