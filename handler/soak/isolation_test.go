package soak_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/sim"
)

var (
	perDay  = flag.Int("per-day", 200, "sign-ups a day in the test of isolation")
	deadFor = flag.Duration("dead-for", 8*time.Hour, "for how long three of four destinations are dead in it")
)

const deadAfter = time.Hour

// ways of three destinations to be dead.
var deaths = []struct {
	name string
	how  [3]string
}{
	{"refused", [3]string{"refused", "refused", "refused"}},
	{"hanging", [3]string{"hang", "hang", "hang"}},
	{"503", [3]string{"503", "503", "503"}},
	{"429 with Retry-After", [3]string{"429-long", "429-long", "429-long"}},
	{"each its own", [3]string{"hang", "refused", "429-long"}},
}

// stream is how people sign up while destinations are dead.
type stream struct {
	name   string
	people int
	at     func(i int, chance *rand.Rand) time.Duration // since it began
}

func streams() []stream {
	all := []stream{
		{"steady", max(30, int(float64(*perDay)*deadFor.Hours()/24)), func(_ int, chance *rand.Rand) time.Duration {
			return time.Duration(chance.Int64N(int64(*deadFor - time.Hour)))
		}},
		{"300 within five minutes", 300, func(_ int, chance *rand.Rand) time.Duration {
			return *deadFor/2 + time.Duration(chance.Int64N(int64(5*time.Minute)))
		}},
	}
	if days := int(deadFor.Hours() / 24); days > 0 {
		all = append(all, stream{"a day's within ten minutes", *perDay * days, func(i int, chance *rand.Rand) time.Duration {
			return time.Duration(i%days)*24*time.Hour + time.Duration(chance.Int64N(int64(10*time.Minute)))
		}})
	}
	return all
}

// TestIsolation: three of four destinations are dead for three days, and the fourth does not notice. By default they are
// for some hours, in two ways.
func TestIsolation(t *testing.T) {
	if raceDetector {
		t.Skip("it is slow, and the same without the race detector")
	}
	for _, s := range streams() {
		t.Run(s.name, func(t *testing.T) {
			before := delays(t, s, nil)
			for i, d := range deaths {
				if *deadFor < 24*time.Hour && i != 1 && i != 4 {
					continue
				}
				var troubles []trouble
				for i, system := range []string{"billing", "newsletter", "crm"} {
					troubles = append(troubles, trouble{system, d.how[i], deadAfter, deadAfter + *deadFor})
				}
				after := delays(t, s, troubles)
				b, a := quantile(before, .99), quantile(after, .99)
				t.Logf("%s: %d sign-ups, median %v -> %v, p99 %v -> %v (%+.1f %%), most %v -> %v", d.name, len(after),
					quantile(before, .5), quantile(after, .5), b, a, 100*(a.Seconds()/b.Seconds()-1), quantile(before, 1), quantile(after, 1))
				if len(after) != len(before) || a.Seconds() > 1.05*b.Seconds() {
					t.Errorf("%s: the p99 of the fourth went from %v to %v, and %d of %d came there", d.name, b, a, len(after), len(before))
				}
			}
		})
	}
}

// delays are the times from sign-up to associated at the destination that is well, of those who came while the others
// were dead.
func delays(t *testing.T, s stream, troubles []trouble) (all []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		const seed = 4711
		chance := rand.New(rand.NewPCG(seed, 1))
		pl := plan{people: s.people, span: deadAfter + *deadFor - time.Hour, retention: 168 * time.Hour, steady: true, troubles: troubles, only: 4}
		var people []arrival
		for i, p := range sim.Crowd(pl.people, seed) {
			at := deadAfter + s.at(i, chance)
			// They show at the same time wherever one looks: which replica answers depends on how often others were asked.
			shows, logged := time.Duration(chance.Int64N(int64(20*time.Second))), time.Duration(chance.Int64N(int64(2*time.Minute)))
			if chance.IntN(50) == 0 {
				shows = 20*time.Second + time.Duration(chance.Int64N(int64(100*time.Second)))
			}
			if p.ReplicaLag, p.AuditLag = &shows, &logged; p.How != sim.Guest && p.How != sim.Admin {
				people = append(people, arrival{Person: p, at: at})
			}
		}
		w := newWorld(seed, pl, people)
		w.end = w.sched.begun.Add(deadAfter + *deadFor + 10*time.Minute)
		w.play()
		w.audit()
		if len(w.problems) > 0 {
			t.Errorf("%v: %v", troubles, w.problems)
		}
		for _, p := range w.order {
			if at, ok := p.reached["welcome"]; ok {
				all = append(all, at.Sub(p.since).Round(time.Millisecond))
			}
		}
	})
	slices.Sort(all)
	return all
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
