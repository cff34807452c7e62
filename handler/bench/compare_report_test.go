package bench_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/bench"
)

// part is the report of a measurement.
func (m measured) part() bench.Part {
	p := bench.Part{Name: "compare", Title: "Against what people run today",
		Command: "CGO_ENABLED=0 GOFLAGS=-trimpath go test ./handler/bench -run TestCompare -compare -v"}
	figure := func(name string, value float64, unit, goal string, steady bool) {
		p.Figures = append(p.Figures, bench.Figure{Name: name, Value: value, Unit: unit, Goal: goal, Steady: steady})
	}
	for _, name := range slices.Sorted(maps.Keys(m.speeds)) {
		v := m.speeds[name]
		figure("burst/"+name+"/rate", v.perSecond(), "users/s", "", false)
		figure("burst/"+name+"/calls", v.perUser(), "calls/user", "", false)
		figure("burst/"+name+"/cpu", v.cpu(), "ms/user", "", false)
		figure("burst/"+name+"/memory", v.peak(), "MB", "", false)
	}
	for _, name := range []string{"default", "documented", "lifted"} {
		figure("ratio/"+name, m.ratio(name), "", ">= 20", false)
	}
	for _, name := range slices.Sorted(maps.Keys(m.delays)) {
		goal := ""
		if name == nameBoth || name == nameDirectory {
			goal = "<= 120"
		}
		figure("delay/"+name+"/p50", quantile(m.delays[name].Delays, 0.5), "s", "", false)
		figure("delay/"+name+"/p99", quantile(m.delays[name].Delays, 0.99), "s", goal, false)
	}
	for _, name := range slices.Sorted(maps.Keys(m.troubles)) {
		goal, own := "", name == nameOurs
		if own {
			goal = "<= 0"
		}
		figure("troubles/"+name+"/lost", float64(m.troubles[name].Lost), "people", goal, own)
		figure("troubles/"+name+"/repeated", float64(m.troubles[name].Repeated), "people", goal, own)
	}
	p.Plots = []bench.Plot{m.plot()}
	p.Text = m.text()
	return p
}

// ratio is how many times as many people a second we bring everywhere as the faster polling function.
func (m measured) ratio(name string) float64 {
	suffix := ""
	if name == "lifted" {
		suffix = " lifted"
	}
	return m.speeds[name].perSecond() / max(m.speeds["Go"+suffix].perSecond(), m.speeds["JavaScript"+suffix].perSecond())
}

func (m measured) plot() bench.Plot {
	plot := bench.Plot{Name: "compare-delay", Title: "From the sign-up until the user carries all ids", X: "delay, s", Y: "share of all people", LogX: true}
	for _, name := range []string{nameAudit, nameDirectory, nameBoth, "Go, marking"} {
		v := m.delays[name]
		s := bench.Series{Name: name}
		for i, d := range v.Delays {
			s.Points = append(s.Points, [2]float64{d.Seconds(), float64(i+1) / float64(len(m.people))})
		}
		plot.Series = append(plot.Series, s)
	}
	return plot
}

func (m measured) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	names := []string{nameOurs, "Go", "Go, marking"}
	if _, ok := m.troubles["JavaScript"]; ok {
		names = append(names, "JavaScript", "JavaScript, marking")
	}
	row := func(title string, cell func(name string) string) {
		cells := []string{title}
		for _, name := range names {
			cells = append(cells, cell(name))
		}
		line("| %s |", strings.Join(cells, " | "))
	}
	line("What most tenants run is a function of a page or two: every five minutes it reads the \"Add user\" records of the last ten from the")
	line("audit log and takes one user after the other. `handler/bench/plain` is that function in Go, with the Graph SDK as it comes, and")
	line("`handler/bench/plainjs` the same with Microsoft's client for JavaScript, both written with care; *marking* are those that pass over")
	line("an account whose id the user carries already. All programs are run by the same host, over the same protocol, against simulated")
	line("systems that take %v (Graph), %v (Stripe), %v (Mailchimp) and %v (Salesforce) for a call, whatever it carries. Each is brought into",
		latencies["Graph"], latencies["Stripe"], latencies["Mailchimp"], latencies["Salesforce"])
	line("three systems and its ids are written to the user. Our ledger is a file here; in Azure Tables each of its writes takes some")
	line("milliseconds more, beside the calls and not between them.")
	line("")
	line("|  | %s |", strings.Join(names, " | "))
	line("|---|%s", strings.Repeat("--:|", len(names)))
	trouble := func(f func(v tally) string) func(string) string {
		return func(name string) string { return f(m.troubles[name]) }
	}
	burst := func(format string, f func(v speed) float64) func(string) string {
		return func(name string) string {
			name, _, _ = strings.Cut(name, ",")
			if name == nameOurs {
				name = "documented"
			}
			return fmt.Sprintf(format, f(m.speeds[name]))
		}
	}
	row(fmt.Sprintf("lost, of %d people", m.troubled), trouble(func(v tally) string { return fmt.Sprint(v.Lost) }))
	row("repeated", trouble(func(v tally) string { return fmt.Sprint(v.Repeated) }))
	row("without all their ids", trouble(func(v tally) string { return fmt.Sprint(v.Unlinked) }))
	row("delay p50, s", trouble(func(v tally) string { return fmt.Sprintf("%.0f", quantile(v.Delays, 0.5)) }))
	row("delay p99, s", trouble(func(v tally) string { return fmt.Sprintf("%.0f", quantile(v.Delays, 0.99)) }))
	row("calls a user", burst("%.1f", speed.perUser))
	row("users a second", burst("%.2f", speed.perSecond))
	row("CPU, ms a user", burst("%.1f", speed.cpu))
	row("peak memory, MB", burst("%.0f", speed.peak))
	line("")
	line("*Lost* has no account at one of the systems at the end, *repeated* has more than one; both are counted there. The delay is from")
	line("the sign-up until the record carries all ids, of those whose does. These rows are of two simulated hours in which three answers in")
	line("a hundred are lost after the write had its effect, Stripe is out for half an hour and Mailchimp throttles for five minutes, the")
	line("program is killed at work, and the host is away for a quarter of an hour. The lower rows are of 300 people who sign up at once, by")
	line("the wall clock, with our rates set to the documented limits; a function that marks works as fast as one that does not.")
	line("")
	line("**Throughput.** The polling function waits for one call after the other. We are held by the platforms:")
	line("")
	line("| limits | users a second | Go | JavaScript | times the faster one |")
	line("|---|--:|--:|--:|--:|")
	for _, x := range [][2]string{{"default", "our default rates"}, {"documented", "rates at the documented limits"}, {"lifted", "none: Stripe and Salesforce alone, nothing written to the user"}} {
		suffix := ""
		if x[0] == "lifted" {
			suffix = " lifted"
		}
		line("| %s | %.1f | %.2f | %.2f | %.0f |", x[1], m.speeds[x[0]].perSecond(), m.speeds["Go"+suffix].perSecond(), m.speeds["JavaScript"+suffix].perSecond(), m.ratio(x[0]))
	}
	line("")
	line("With the defaults it is Mailchimp's rate, 10 a second, that is reached; at the documented limits Mailchimp's ten connections, each of")
	line("which takes two calls a user, 0.8 s, and so 12.5 users a second at most: whoever is in the audience is looked up before anything is")
	line("changed. Without Mailchimp Graph's 20 writes a second would be next.")
	line("")
	line("**Delay.** %d people in 90 minutes, no troubles; the audit log shows them after %.0f s in the middle and %.0f s at p99, one in two hundred",
		len(m.people), m.audit(0.5), m.audit(0.99))
	line("after 12 to 40 minutes, and the directory after up to 20 s, one in fifty after up to two minutes. We run every minute, the polling function")
	line("every five.")
	line("")
	line("| detectors | p50, s | p99, s | longest, s | never |")
	line("|---|--:|--:|--:|--:|")
	for _, name := range []string{nameAudit, nameDirectory, nameBoth, "Go, marking"} {
		v := m.delays[name]
		line("| %s | %.0f | %.0f | %.0f | %d |", strings.Replace(name, "Go, marking", "the polling function", 1),
			quantile(v.Delays, 0.5), quantile(v.Delays, 0.99), quantile(v.Delays, 1), v.Unlinked)
	}
	line("")
	line("It is the directory that is fast; the audit log is there for what the directory cannot show, and the other way round. The simulated clock")
	line("runs 100 times as fast as the wall clock here, so whatever a busy machine takes is in the delays a hundredfold, in everybody's.")
	return b.String()
}

// audit is a quantile of what the people's audit rows take to show.
func (m measured) audit(q float64) float64 {
	var lags []time.Duration
	for _, p := range m.people {
		lags = append(lags, *p.AuditLag)
	}
	slices.Sort(lags)
	return quantile(lags, q)
}
