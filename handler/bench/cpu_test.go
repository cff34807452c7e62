package bench_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"signup-sync/handler/bench"
	"signup-sync/handler/sim"
)

var busy = flag.Bool("busy", false, "measure the program's share of a core, two minutes")

// TestCPU measures what the program computes while it works a backlog: at the services' own limits, by the wall clock, and
// with all limits out of the way. The simulated services are in the test's process, so that what they compute is not counted.
func TestCPU(t *testing.T) {
	if !*busy {
		t.Skip("for 'make bench', with -busy")
	}
	binary := built(t)
	quota := measureWork(t, binary, 1, 2500, time.Minute)
	lifted := measureWork(t, binary, 100, 4000, 8*time.Second)
	part := bench.Part{
		Name: "cpu", Title: "CPU",
		Command: "make bench PARTS=cpu",
		Figures: []bench.Figure{
			{Name: "at the quotas/rate", Value: quota.rate, Unit: "users/s"},
			{Name: "at the quotas/share of one core", Value: quota.own},
			{Name: "lifted/rate", Value: lifted.rate, Unit: "users/s"},
			{Name: "lifted/cores of the program", Value: lifted.own},
			{Name: "lifted/cores of the simulations", Value: lifted.others},
			{Name: "lifted/CPU a user", Value: 1000 * lifted.own / lifted.rate, Unit: "ms"},
		},
		Text: fmt.Sprintf("A backlog is worked with the repository's configuration (profile, Stripe, a webhook), the ledger in a SQLite file, over HTTPS. At the quotas, "+
			"by the wall clock and with the services' published limits on: %.1f users/s for a minute take %.3f of a core. With all limits out of the way (a clock that runs 100 times as fast "+
			"for the program and the services): %.0f users/s, by %.2f cores of the program, %.1f ms a user, beside %.2f cores of the simulated services on the same machine.\n",
			quota.rate, quota.own, lifted.rate, lifted.own, 1000*lifted.own/lifted.rate, lifted.others),
	}
	t.Log(part.Text)
	if err := part.Write(); err != nil {
		t.Fatal(err)
	}
}

// work is what was measured of a run on its way.
type work struct {
	rate   float64 // users whose record was patched, a second
	own    float64 // cores that the program took
	others float64 // and the test's process
}

// allow sets how much of Stripe and of the webhook is asked for at once.
func (p *process) allow(rate, concurrency int) {
	p.t.Helper()
	config, err := os.ReadFile(p.path("signup-sync.yaml"))
	if err != nil {
		p.t.Fatal(err)
	}
	text := string(config)
	for _, kind := range []string{"stripe", "webhook"} {
		before := text
		text = strings.Replace(text, "connector: "+kind+"\n", fmt.Sprintf("connector: %s\n    rate: %d\n    concurrency: %d\n", kind, rate, concurrency), 1)
		if text == before {
			p.t.Fatalf("signup-sync.yaml has no destination of the kind %s any more", kind)
		}
	}
	if err := os.WriteFile(p.path("signup-sync.yaml"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// measureWork lets people sign up, and measures for so long while they are worked.
func measureWork(t *testing.T, binary string, rate float64, people int, long time.Duration) (w work) {
	p := openProcess(t, binary, rate, sim.ThrottleDocumented)
	p.allow(22, 8) // what Graph takes of an app and a little more; the defaults are 15 and 10
	if rate > 1 {
		p = openProcess(t, binary, rate, sim.ThrottleOff)
		p.allow(1000, 64)
	}
	p.backlog.size = people
	p.backlog.signUp(p.Tenant, people)
	p.start()
	defer p.stop()
	ended := p.begin()
	p.await(func() bool { return p.backlog.patches.Load() >= 400 }) // the first 300 are worked while the log is read
	patches, own, others, begun := p.backlog.patches.Load(), p.cpu(), ownCPU(t), time.Now()
	select {
	case <-ended:
		t.Fatalf("the run has ended before it was measured for %v: %d patches", long, p.backlog.patches.Load())
	case <-time.After(long):
	}
	took := time.Since(begun).Seconds()
	return work{
		rate: float64(p.backlog.patches.Load()-patches) / took,
		own:  (p.cpu() - own).Seconds() / took, others: (ownCPU(t) - others).Seconds() / took,
	}
}

// ownCPU is how long the test's process has computed.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
