package bench_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
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
	quota := measureWork(t, binary, "", 1, 2500, time.Minute)
	lifted := measureWork(t, binary, "", 100, 8000, 8*time.Second)
	memory := measureWork(t, binary, "memory", 100, 8000, 8*time.Second)
	part := bench.Part{
		Name: "cpu", Title: "CPU",
		Command: "make bench PARTS=cpu",
		Figures: []bench.Figure{
			{Name: "at the quotas/rate", Value: quota.rate, Unit: "users/s"},
			{Name: "at the quotas/share of one core", Value: quota.own},
			{Name: "lifted/rate", Value: lifted.rate, Unit: "users/s"},
			{Name: "lifted/cores of the program", Value: lifted.own},
			{Name: "lifted/cores of the simulations", Value: lifted.others},
			{Name: "lifted/cores idle", Value: lifted.idle},
			{Name: "lifted/CPU a user", Value: lifted.perUser(), Unit: "ms"},
			{Name: "lifted, ledger in memory/rate", Value: memory.rate, Unit: "users/s"},
			{Name: "lifted, ledger in memory/cores of the program", Value: memory.own},
			{Name: "lifted, ledger in memory/cores of the simulations", Value: memory.others},
			{Name: "lifted, ledger in memory/cores idle", Value: memory.idle},
			{Name: "lifted, ledger in memory/CPU a user", Value: memory.perUser(), Unit: "ms"},
		},
		Text: cpuText(quota, lifted, memory),
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
	idle   float64 // and nobody
}

func (w work) perUser() float64 { return 1000 * w.own / w.rate }

func cpuText(quota, lifted, memory work) string {
	var b strings.Builder
	b.WriteString("A backlog is worked with the repository's configuration (profile, Stripe, a webhook) over HTTPS; the simulated services are on the same machine, and what " +
		"they compute is counted apart. At the quotas the services enforce their published limits, by the wall clock. For the highest rate all limits are out of " +
		"the way: the clock runs 100 times as fast for the program and the services.\n\n" +
		"| limits | ledger | users a second | cores of the program | of the services | of whatever else runs here | idle | CPU, ms a user |\n|---|---|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range []struct {
		limits, ledger string
		work
	}{{"as published", "file", quota}, {"none", "file", lifted}, {"none", "memory", memory}} {
		elsewhere := max(0, float64(runtime.NumCPU())-row.own-row.others-row.idle)
		fmt.Fprintf(&b, "| %s | %s | %.1f | %.3f | %.3f | %.3f | %.3f | %.2f |\n", row.limits, row.ledger, row.rate, row.own, row.others, elsewhere, row.idle, row.perUser())
	}
	limit := "the cores: none is idle, and the simulated services take most of what the program does not, and the rate is this machine's"
	if lifted.idle > 0.1*float64(runtime.NumCPU()) {
		limit = "not the cores, of which some are idle, but waiting: for the ledger's file, as far as the last row is faster, and for answers to the 120 users, 8 batches of 15, who are worked at once"
	}
	fmt.Fprintf(&b, "\nThe first row is held up by Graph's 20 writes a second for an app, of which the program leaves a sixtieth. In the second the limit is %s. "+
		"One instance has %.0f times the rate that Graph allows.\n", limit, lifted.rate/quota.rate)
	return b.String()
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

// measureWork lets people sign up, and measures while they are worked: so long at most, and until a tenth of them is left.
// The ledger is the file, unless another is named.
func measureWork(t *testing.T, binary, ledger string, rate float64, people int, long time.Duration) (w work) {
	p := openProcess(t, binary, rate, sim.ThrottleDocumented)
	p.allow(22, 8) // what Graph takes of an app and a little more; the defaults are 15 and 10
	if rate > 1 {
		p = openProcess(t, binary, rate, sim.ThrottleOff)
		p.allow(1000, 64)
	}
	if ledger != "" {
		p.settings["LEDGER"] = ledger
	}
	p.backlog.size = people
	p.backlog.signUp(p.Tenant, people)
	p.start()
	defer p.stop()
	ended := p.begin()
	p.await(func() bool { return p.backlog.patches.Load() >= 400 }) // the first 300 are worked while the log is read
	patches, own, others, idle, begun := p.backlog.patches.Load(), p.cpu(), ownCPU(t), idleCPU(t), time.Now()
	for deadline := begun.Add(long); time.Now().Before(deadline) && p.backlog.patches.Load() < int64(people)*9/10; time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			t.Fatalf("the run has ended before it was measured: %d of %d patches", p.backlog.patches.Load(), people)
		default:
		}
	}
	took := time.Since(begun).Seconds()
	return work{
		rate: float64(p.backlog.patches.Load()-patches) / took,
		own:  (p.cpu() - own).Seconds() / took, others: (ownCPU(t) - others).Seconds() / took, idle: (idleCPU(t) - idle).Seconds() / took,
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

// idleCPU is how long the machine's cores have had nothing to compute, waits for the disk among it.
func idleCPU(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Skip("without /proc nothing can be measured:", err)
	}
	var user, nice, system, idle, wait int
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d", &user, &nice, &system, &idle, &wait); err != nil {
		t.Fatalf("read /proc/stat: %v", err)
	}
	return time.Duration(idle+wait) * tick
}
