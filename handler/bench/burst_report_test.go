package bench_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"signup-sync/handler/bench"
)

// burstResult is what came of one burst.
type burstResult struct {
	mix       string
	users     int
	took      float64 // seconds, from the first intent to the last settle
	minimum   float64 // seconds
	by        string  // the limit that asks for that much
	rates     float64 // seconds: the most that any system's calls take at its rate, whatever time each takes
	paused    float64 // seconds between two runs
	runs      int
	settled   []float64 // seconds from the first intent, of each user
	failed    int
	calls     int
	throttled int
	worst     float64 // the largest share of throttled calls that a system had
	problems  []string
}

func (r burstResult) ratio() float64  { return r.took / r.minimum }
func (r burstResult) within() float64 { return (r.took - r.paused) / r.minimum }

// result judges what was counted. A destination is as fast as its rate allows, in turns at its gate, of which one may be several
// calls, or one call for many users; and as the time that the calls took allows, with as many at once as are configured.
func (w *burstWorld) result(n int) burstResult {
	r := burstResult{mix: w.mix.name, users: n, runs: len(w.runs), failed: w.ledger.failed, problems: w.problems}
	for _, at := range w.ledger.settled {
		r.settled = append(r.settled, at.Sub(w.ledger.first).Seconds())
	}
	if len(r.settled) == 0 {
		return r
	}
	last := w.ledger.settled[len(w.ledger.settled)-1]
	r.took = last.Sub(w.ledger.first).Seconds()
	for i, run := range w.runs[1:] {
		if before := w.runs[i][1]; before.After(w.ledger.first) && run[0].Before(last) {
			r.paused += run[0].Sub(before).Seconds()
		}
	}
	limit := func(seconds float64, by string) {
		if seconds > r.minimum {
			r.minimum, r.by = seconds, by
		}
	}
	limit(float64(w.patches)/configured("pipeline/gate.go", `patchRate += (\d+)`), "patches of users")
	limit(float64(w.calls[atGraphWrites])/configured("entra/client.go", `updateCall\] = newPace\((\d+), 1017\*time.Millisecond\)`)*1.017, "writes to the directory")
	limit(float64(w.calls[atGraphLogs])/configured("entra/client.go", `auditCall\] = newPace\((\d+), 10\*time.Second\)`)*10, "reports")
	for _, d := range w.engine.Destinations {
		limit(float64(w.turns[d.Name])/d.Rate, fmt.Sprintf("%s at %v a second", d.Name, d.Rate))
	}
	r.rates = r.minimum
	systems := map[string]string{"billing": atStripe, "newsletter": atMailchimp, "crm": atSalesforce, "welcome": atWebhook}
	for _, d := range w.engine.Destinations {
		if s := systems[d.Name]; s != "" {
			r.rates = max(r.rates, float64(w.calls[s])/d.Rate)
			limit(w.busy[s].Seconds()/float64(d.Concurrency), fmt.Sprintf("%s with %d calls at once", d.Name, d.Concurrency))
		}
	}
	for system, calls := range w.calls {
		r.calls, r.throttled = r.calls+calls, r.throttled+w.refused[system]
		r.worst = max(r.worst, float64(w.refused[system])/float64(calls))
	}
	return r
}

// configured reads a limit out of the program's text.
func configured(file, pattern string) float64 {
	text, err := os.ReadFile("../" + file)
	if err != nil {
		panic(err)
	}
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		panic(file + " has no " + pattern)
	}
	n, _ := strconv.ParseFloat(string(m[1]), 64) // digits
	return n
}

// judge fails the test for what is wrong; a burst may take at most so many seconds.
func (r burstResult) judge(t *testing.T, most float64) {
	t.Helper()
	if len(r.settled) != r.users || r.failed > 0 {
		t.Errorf("%s: %d of %d users settled, %d associations failed", r.mix, len(r.settled), r.users, r.failed)
	}
	if r.took > most {
		t.Errorf("%s: took %.1f s, at most %.1f s were to be", r.mix, r.took, most)
	}
	if r.worst >= 0.01 {
		t.Errorf("%s: %.1f %% of a system's calls were throttled", r.mix, 100*r.worst)
	}
	for _, p := range r.problems {
		t.Errorf("%s: %s", r.mix, p)
	}
}

// burstFigures are the figures of all mixes. The shares of throttled calls are the same in any size.
func burstFigures(all []burstResult, full bool) (figures []bench.Figure) {
	for _, r := range all {
		figures = append(figures, bench.Figure{Name: r.mix + "/throttled", Value: 100 * r.worst, Unit: "%", Goal: "< 1", Steady: true})
		if goal := fmt.Sprintf("<= %.2f", burstGoal); full {
			figures = append(figures, bench.Figure{Name: r.mix + "/time : minimum", Value: r.ratio(), Goal: goal},
				bench.Figure{Name: r.mix + "/time : minimum, without the pauses between runs", Value: r.within()},
				bench.Figure{Name: r.mix + "/time : calls by their rates", Value: r.took / r.rates, Goal: goal},
				bench.Figure{Name: r.mix + "/time", Value: r.took, Unit: "s"}, bench.Figure{Name: r.mix + "/minimum", Value: r.minimum, Unit: "s"})
		}
	}
	return figures
}

func burstText(n int, all []burstResult, live burstResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sign-ups of ten minutes lie in the ledger, and the host's timer runs the engine each minute, for four minutes at most. "+
		"The engine and all clients are the real ones; tenant and vendors are simulated, in simulated time, with the limits that are published: "+
		"Graph 3,000 writes in 150 s, its resource units and 5 reports in 10 s; Stripe 25 calls a second at an endpoint; Mailchimp 10 at the same time; "+
		"Salesforce 25 long ones at the same time. Destinations have the rates that their kinds have by default.\n\n", n)
	b.WriteString("The time is that from the first intent to the last settle. The minimum is the largest, over all limits, of what was counted, divided by what is configured: " +
		"patches, writes and reports of Graph by their pace; turns at each destination's gate by its rate; and the time that a destination's calls took by the number of calls at once. " +
		"A turn is one user at Stripe, Mailchimp (with tags two calls) and the webhook, and one call for up to 15 users at Salesforce and the groups. Calls take as a rule ")
	for i, s := range []string{atGraphReads, atGraphWrites, atStripe, atMailchimp, atSalesforce, atWebhook} {
		fmt.Fprintf(&b, "%s%s %v", []string{"", ", "}[min(i, 1)], s, burstLatency[s])
	}
	b.WriteString(", and one in a hundred eight times as long; the ledger takes 25 ms for a read and 40 ms for a write.\n\n" +
		"| destinations | minimum | of which limit | time | : minimum | without pauses | : calls ÷ rate | calls | throttled |\n|---|---:|---|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %.0f s | %s | %.0f s | %.3f | %.3f | %.3f | %d | %d |\n", r.mix, r.minimum, r.by, r.took, r.ratio(), r.within(), r.took/r.rates, r.calls, r.throttled)
	}
	fmt.Fprintf(&b, "\nWhile the %d sign up live, with all destinations, the time is %.0f s and the minimum %.0f s: %.3f: a run works whom it has "+
		"detected, and detects again when that has taken a minute.\n\n", n, live.took, live.minimum, live.ratio())
	b.WriteString("What is left above 1 are mostly the pauses: a run ends 5 to 12 s before its four minutes are over, and the next one begins with the minute. " +
		"Mailchimp's limit is calls at the same time, of which 8 of 10 are used: with tags, at two calls of 400 ms a user, that is less than its rate. " +
		"The last column but two leaves that aside: it is the time to what the calls of the slowest system take at its rate.\n")
	return b.String()
}

// burstPlot shows who was settled when, beside the least time in which the quotas let it be done.
func burstPlot(all []burstResult, live burstResult) bench.Plot {
	p := bench.Plot{Name: "burst", Title: "A burst with all destinations, settled", X: "seconds since the first intent", Y: "users"}
	for _, r := range all {
		if r.mix == "all" {
			p.Series = append(p.Series, bench.Series{Name: "settled, from the ledger", Points: burstPoints(r.settled)},
				bench.Series{Name: "the quotas' minimum", Points: [][2]float64{{0, 0}, {r.minimum, float64(r.users)}}})
		}
	}
	p.Series = append(p.Series, bench.Series{Name: "settled, signing up live", Points: burstPoints(live.settled)})
	return p
}

// burstPoints are some 200 of a line's points.
func burstPoints(settled []float64) (points [][2]float64) {
	step := max(1, len(settled)/200)
	for i := 0; i < len(settled); i += step {
		points = append(points, [2]float64{settled[i], float64(i + 1)})
	}
	return append(points, [2]float64{settled[len(settled)-1], float64(len(settled))})
}
