package bench_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"signup-sync/handler/bench"
)

const comparePart = "compare"

// part is the report of a measurement.
func (m measured) part() bench.Part {
	p := bench.Part{Name: comparePart, Title: "Against what people run today",
		Command: "make bench PARTS=compare"}
	figure := func(name string, value float64, unit, goal string) {
		if !math.IsInf(value, 0) {
			p.Figures = append(p.Figures, bench.Figure{Name: name, Value: value, Unit: unit, Goal: goal})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.speeds)) {
		v := m.speeds[name]
		figure("burst/"+name+"/rate", v.perSecond(), "users/s", "")
		figure("burst/"+name+"/calls", v.perUser(), "calls/user", "")
		figure("burst/"+name+"/cpu", v.cpu(), "ms/user", "")
		figure("burst/"+name+"/memory", v.peak(), "MB", "")
	}
	for _, name := range []string{"default", "documented", "lifted"} {
		figure("ratio/"+name, m.ratio(name), "", ">= 20")
	}
	for _, name := range slices.Sorted(maps.Keys(m.delays)) {
		goal := ""
		if name == nameBoth { // which is what is configured where nothing is
			goal = "<= 120"
		}
		figure("delay/"+name+"/p50", m.delays[name].quantile(0.5), "s", "")
		figure("delay/"+name+"/p99", m.delays[name].quantile(0.99), "s", goal)
	}
	p.Figures = append(p.Figures, troubleFigures(m.troubles)...)
	p.Plots = []bench.Plot{m.plot()}
	p.Text = m.text()
	return p
}

// troubleFigures are what the troubles did to whom. That they did nothing to ours is held.
func troubleFigures(troubles map[string]tally) (all []bench.Figure) {
	for _, name := range slices.Sorted(maps.Keys(troubles)) {
		goal, own := "", name == nameOurs
		if own {
			goal = "= 0"
		}
		all = append(all, bench.Figure{Name: "troubles/" + name + "/lost", Value: float64(troubles[name].Lost), Unit: "people", Goal: goal, Steady: own},
			bench.Figure{Name: "troubles/" + name + "/repeated", Value: float64(troubles[name].Repeated), Unit: "people", Goal: goal, Steady: own})
	}
	return all
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

// prose is Markdown on its way.
type prose struct{ strings.Builder }

func (b *prose) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

// row is a row of a table.
func (b *prose) row(cells ...string) { b.line("| %s |", strings.Join(cells, " | ")) }

func (m measured) text() string {
	b := &prose{}
	b.line("What most tenants run is a function of a page or two: every five minutes it reads the \"Add user\" records of the last ten from the")
	b.line("audit log and takes one user after the other. `handler/bench/plain` is that function in Go, with the Graph SDK as it comes, and")
	b.line("`handler/bench/plainjs` the same with Microsoft's client for JavaScript, both written with care; *marking* are those that pass over")
	b.line("an account whose id the user carries already. All programs are run by the same host, over the same protocol, against simulated")
	b.line("systems that take %v (Graph), %v (Stripe), %v (Mailchimp) and %v (Salesforce) for a call, whatever it carries. Each user is",
		latencies["Graph"], latencies["Stripe"], latencies["Mailchimp"], latencies["Salesforce"])
	b.line("brought into three systems, whose ids are written to the user. Our ledger is a file here; in Azure Tables each of its writes takes")
	b.line("some milliseconds more.")
	b.line("")
	m.writeTable(b)
	m.writeThroughput(b)
	m.writeDelays(b)
	return b.String()
}

func (m measured) writeTable(b *prose) {
	names := []string{nameOurs, "Go", "Go, marking"}
	if _, ok := m.troubles["JavaScript"]; ok {
		names = append(names, "JavaScript", "JavaScript, marking")
	}
	b.row(append([]string{""}, names...)...)
	b.line("|---|%s", strings.Repeat("--:|", len(names)))
	of := func(title string, cell func(name string) string) {
		cells := []string{title}
		for _, name := range names {
			cells = append(cells, cell(name))
		}
		b.row(cells...)
	}
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
	of(fmt.Sprintf("lost, of %d people", m.troubled), trouble(func(v tally) string { return fmt.Sprint(v.Lost) }))
	of("repeated", trouble(func(v tally) string { return fmt.Sprint(v.Repeated) }))
	of("without all their ids", trouble(func(v tally) string { return fmt.Sprint(v.Unlinked) }))
	of("delay p50, s", trouble(func(v tally) string { return seconds(v.quantile(0.5)) }))
	of("delay p99, s", trouble(func(v tally) string { return seconds(v.quantile(0.99)) }))
	of("calls a user", burst("%.1f", speed.perUser))
	of("users a second", burst("%.2f", speed.perSecond))
	of("CPU, ms a user", burst("%.1f", speed.cpu))
	of("peak memory, MB", burst("%.0f", speed.peak))
	b.line("")
	b.line("*Lost* has no account at one of the systems at the end, *repeated* has more than one; both are counted there. The delay is from")
	b.line("the sign-up until the record carries all ids, which of some it never does. These rows are of two simulated hours in which three")
	b.line("answers in a hundred are lost after the write had its effect, Stripe is out for half an hour and Mailchimp throttles for five")
	b.line("minutes, the program is killed at work, and the host is away for a quarter of an hour. The lower rows are of 300 people who sign")
	b.line("up at once, by the wall clock, with the vendors' documented limits in use; a function that marks works as fast as one that does not.")
	b.line("")
}

func (m measured) writeThroughput(b *prose) {
	b.line("**Throughput.** The polling function waits for one call after the other. We are held by the platforms:")
	b.line("")
	b.line("| limits | users a second | Go | JavaScript | times the faster one |")
	b.line("|---|--:|--:|--:|--:|")
	for _, x := range [][3]string{{"default", "our default rates", ""}, {"documented", "the documented limits: Stripe 25 in any second, Mailchimp ten connections", ""},
		{"lifted", "none: Stripe and Salesforce alone, nothing written to the user", " lifted"}} {
		b.line("| %s | %.1f | %.2f | %.2f | %.0f |", x[1], m.speeds[x[0]].perSecond(), m.speeds["Go"+x[2]].perSecond(), m.speeds["JavaScript"+x[2]].perSecond(), m.ratio(x[0]))
	}
	b.line("")
	b.line("With the defaults it is Stripe's rate, 15 a second, that is reached; at the documented limits Graph's 20 writes a second.")
	b.line("")
}

func (m measured) writeDelays(b *prose) {
	b.line("**Delay.** %d people in an hour, no troubles; the audit log shows them after %.0f s in the middle and %.0f s at p99, one in two hundred",
		len(m.people), m.audit(0.5), m.audit(0.99))
	b.line("after 12 to 40 minutes, and each replica of the directory after up to 20 s, one in fifty after up to two minutes. We run every minute,")
	b.line("the polling function every five.")
	b.line("")
	b.line("| detectors | p50, s | p99, s | longest, s | never |")
	b.line("|---|--:|--:|--:|--:|")
	for _, name := range []string{nameAudit, nameDirectory, nameBoth, "Go, marking"} {
		v := m.delays[name]
		b.row(strings.Replace(name, "Go, marking", "the polling function", 1), seconds(v.quantile(0.5)), seconds(v.quantile(0.99)), seconds(v.quantile(1)), fmt.Sprint(v.Unlinked))
	}
	b.line("")
	b.line("It is the directory that is fast; the audit log is there for the day on which it is not. The simulated clock runs %d times as fast", delayRate)
	b.line("as the wall clock here, so whatever the machine takes is in all of these delays, so many times.")
}

// seconds is a delay as people read it.
func seconds(v float64) string {
	if math.IsInf(v, 0) {
		return "never"
	}
	return fmt.Sprintf("%.0f", v)
}

// audit is a quantile of what the people's audit rows take to show.
func (m measured) audit(q float64) float64 {
	var lags tally
	for _, p := range m.people {
		lags.Delays = append(lags.Delays, *p.AuditLag)
	}
	slices.Sort(lags.Delays)
	return lags.quantile(q)
}
