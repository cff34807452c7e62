package soak_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

var (
	seeds = flag.Int("seeds", 0, "how many seeds of their own are played beside the fixed ones; 0 = as many as -for allows")
	long  = flag.Duration("for", 10*time.Second, "for how long seeds of their own are played")
	seed  = flag.Uint64("seed", 0, "the only seed that is played")
	first = flag.Uint64("first", 0, "the first of those seeds; 0 = by the time")
	twice = flag.Int("twice", 3, "how many seeds are played twice, to see that nothing but the seed decides")
)

// TestMain gives the garbage collector less to do: seeds are played in a process that ends soon.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	code := m.Run()
	if played.seeds > 0 {
		if n := len(played.delays); n > 0 {
			slices.Sort(played.delays)
			fmt.Printf("%d times nothing was wrong: median %v, p99 %v, at most %v\n", n, quantile(played.delays, .5), quantile(played.delays, .99), quantile(played.delays, 1))
		}
		fmt.Printf("%d seeds, %d sign-ups, %d lost, %d repeated\n", played.seeds, played.signUps, played.lost, played.repeated)
	}
	os.Exit(code)
}

// played is what came of all seeds of TestSoak.
var played struct {
	seeds int
	score
}

// result is what is left of a seed.
type result struct {
	score
	hash     uint64
	picks    int
	runs     int
	kinds    []string
	problems []string
	trace    string
	plan     plan
	took     time.Duration
	all      []pick
}

// newSeed is the world of a seed.
func newSeed(seed uint64) *world {
	chance := rand.New(rand.NewPCG(seed, 1))
	pl := newPlan(chance)
	people := newArrivals(pl, seed, chance)
	more := rand.New(rand.NewPCG(seed, 5))
	for i := range people {
		if people[i].How == sim.Social && more.IntN(2) == 0 { // a provider that tells no address
			people[i].Email = ""
		}
	}
	if more.IntN(6) == 0 {
		// Just as somebody comes billing begins to lose its answers, and then is down for longer than it remembers keys.
		from := people[more.IntN(len(people))].at
		pl.troubles = append(pl.troubles, trouble{"billing", "lost-refused", from, from + 25*time.Hour + time.Duration(more.Int64N(int64(20*time.Hour)))})
	}
	pl.invited = more.IntN(4) == 0
	if more.IntN(4) == 0 { // runs take minutes, and their log is read at once, so that they go in rounds
		pl.pageSize = 0
		for _, system := range []string{"billing", "crm", "welcome"} {
			pl.troubles = append(pl.troubles, trouble{system, "crawl", 0, pl.span})
		}
		if !pl.quiet {
			pl.troubles = append(pl.troubles, trouble{"patch", "crawl", 0, pl.span})
		}
	}
	return newWorld(seed, pl, people)
}

// play plays a seed.
func play(t *testing.T, seed uint64) (r result) {
	began := time.Now()
	var all []pick
	synctest.Test(t, func(t *testing.T) {
		w := newSeed(seed)
		w.play()
		all = w.sched.picks
		r.score = w.audit()
		r.hash, r.picks, r.runs, r.kinds, r.problems, r.plan = w.sched.hash.Sum64(), len(w.sched.picks), w.runs, w.kinds, w.problems, w.plan
		if len(r.problems) > 0 {
			r.trace = w.trace()
		}
	})
	r.all = all
	r.took = time.Since(began)
	return r
}

// TestSeedReproducesARun plays seeds twice.
func TestSeedReproducesARun(t *testing.T) {
	if raceDetector {
		t.Skip("it is slow, and the same without the race detector")
	}
	for s := range uint64(*twice) {
		a, b := play(t, s+1), play(t, s+1)
		if a.hash == b.hash {
			continue
		}
		for i := range min(len(a.all), len(b.all)) {
			if a.all[i] != b.all[i] {
				t.Errorf("seed %d: turn %d of %d differs:\n%v\n%v\nafter %v", s+1, i, len(a.all), a.all[i], b.all[i], a.all[max(0, i-4):i])
				break
			}
		}
	}
}

// trace is the last turns of the users of whom the problems speak.
func (w *world) trace() string {
	var about []string
	for _, p := range w.problems {
		for _, id := range guidPattern.FindAllString(p, -1) {
			if w.people[signup.UserID(id)] != nil {
				about = append(about, id[:8])
			}
		}
		if len(about) > 3 {
			break
		}
	}
	var lines []string
	for i := len(w.sched.picks) - 1; i >= 0 && len(lines) < 60; i-- {
		p := w.sched.picks[i]
		for _, id := range about {
			if strings.Contains(p.key, id) && !strings.HasPrefix(p.key, "on the way") {
				lines = append(lines, fmt.Sprintf("%12v %s %s", p.at.Round(time.Millisecond), p.key, p.what))
				break
			}
		}
	}
	for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	logs := w.log.lines[max(0, len(w.log.lines)-20):]
	return strings.Join(lines, "\n") + "\nlog:\n" + strings.Join(logs, "")
}

func (r result) report(t *testing.T, seed uint64) {
	t.Helper()
	if len(r.problems) > 0 {
		t.Errorf("seed %d: %s\nplan: %+v\nto see it again: go test ./handler/soak -run TestSoak -seed %d\n%s\n%s", seed, strings.Join(r.kinds, ", "), r.plan, seed, strings.Join(r.problems, "\n"), r.trace)
	}
}

// fixedSeeds are played each time: with the race detector, which is slow, there is one.
var fixedSeeds = map[bool]int{false: 5, true: 1}[raceDetector]

func TestSoak(t *testing.T) {
	if *seed != 0 {
		r := play(t, *seed)
		t.Logf("%d picks, %d runs, %v", r.picks, r.runs, r.took)
		r.report(t, *seed)
		return
	}
	fresh := *first
	if fresh == 0 {
		fresh = uint64(time.Now().UnixNano())
	}
	n, began := 0, time.Now()
	more := func() bool {
		switch own := n - fixedSeeds; {
		case own < 0:
			return true
		case *seeds > 0:
			return own < *seeds
		default:
			return !raceDetector && time.Since(began) < *long
		}
	}
	for more() {
		s := uint64(n + 1)
		if n >= fixedSeeds {
			s = fresh + s
		}
		r := play(t, s)
		r.report(t, s)
		n++
		played.seeds++
		played.signUps, played.lost, played.repeated = played.signUps+r.signUps, played.lost+r.lost, played.repeated+r.repeated
		played.delays = append(played.delays, r.delays...)
		t.Logf("seed %d: %d sign-ups, %d runs, %d turns, %v %v", s, r.signUps, r.runs, r.picks, r.took.Round(time.Millisecond), r.kinds)
		if len(r.kinds) > 0 && *untilFound {
			fmt.Printf("found after %d seeds: %s\n", n, strings.Join(r.kinds, ", "))
			return
		}
	}
}
