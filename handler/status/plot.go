package status

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The plot's size, in units of its view box: the bars stand between left and width, and between top and the foot.
const (
	plotWidth = 960
	plotLeft  = 48
	plotTop   = 8
	plotBars  = 78
	plotFoot  = plotTop + plotBars
	plotTall  = plotFoot + 22
)

// Plot is a bar chart, with its geometry done.
type Plot struct {
	Name   string // what it shows, in few words
	About  string // the same for who does not see it, with the numbers that matter
	Series []Area // drawn over each other, from the foot upwards
	Ticks  []Tick
	Marks  []Mark
}

// Area is all bars of one series.
type Area struct{ Class, Path string }

// Tick is a line across with its number.
type Tick struct {
	Y    float64
	Text string
}

// Mark is a text below, and if Line is set a line through the bars.
type Mark struct {
	X      float64
	Text   string
	Anchor string // start or middle
	Line   bool
}

func (Plot) Width() int { return plotWidth }
func (Plot) Tall() int  { return plotTall }
func (Plot) Left() int  { return plotLeft }
func (Plot) Foot() int  { return plotFoot }
func (Plot) Top() int   { return plotTop }
func (Plot) MarkY() int { return plotFoot + 16 }
func (Plot) TickX() int { return plotLeft - 6 }

// stack draws columns of the given values, a row of them for each class, up to most.
func (p *Plot) stack(classes []string, values [][]int, most int) {
	n := len(values[0])
	step := float64(plotWidth-plotLeft) / float64(n)
	gap := min(step/5, 3)
	base := make([]int, n)
	for i, class := range classes {
		var path strings.Builder
		for j, v := range values[i] {
			if v == 0 {
				continue
			}
			from, to := height(base[j], most), height(base[j]+v, most)
			base[j] += v
			to = max(to, from+1) // one of a thousand is to be seen too
			fmt.Fprintf(&path, "M%s %sh%sv%sh-%sz", num(plotLeft+float64(j)*step+gap/2), num(plotFoot-from), num(step-gap), num(from-to), num(step-gap))
		}
		p.Series = append(p.Series, Area{class, path.String()})
	}
	for _, v := range []int{0, most / 2, most} {
		if v == 0 || v*2 == most || v == most {
			p.Ticks = append(p.Ticks, Tick{plotFoot - height(v, most), number(v)})
		}
	}
}

func height(v, most int) float64 { return plotBars * float64(v) / float64(most) }

// num is a coordinate, to a tenth.
func num(x float64) string {
	return strconv.FormatFloat(float64(int(x*10+0.5*sign(x)))/10, 'f', -1, 64)
}

func sign(x float64) float64 {
	if x < 0 {
		return -1
	}
	return 1
}

// round is the next of 1, 2, 5, 10, 20, 50 … that is not below n, 2 at least, so that the half is a whole number or left out.
func round(n int) int {
	for unit := 1; unit < math.MaxInt/100; unit *= 10 {
		for _, f := range []int{2, 4, 6, 10} {
			if f*unit >= n {
				return f * unit
			}
		}
	}
	return math.MaxInt // of a note that somebody has written wrongly
}

// flows are two plots of one scale: who signed up, and who was settled.
func flows(all []Bucket, unit, span string, marks []Mark) []Plot {
	values := make([][]int, 4)
	most := 0
	for _, b := range all {
		for i, v := range []int{b.SignUps, b.Associated, b.Skipped, b.Failed} {
			values[i] = append(values[i], v)
		}
		most = max(most, b.SignUps, b.Associated+b.Skipped+b.Failed)
	}
	var sum Counts
	var peak Bucket
	for _, b := range all {
		if sum.add(b.Counts); b.SignUps > peak.SignUps {
			peak = b
		}
	}
	about := fmt.Sprintf("Sign-ups by %s, %s: %s in all", unit, span, number(sum.SignUps))
	if peak.SignUps > 0 {
		about += fmt.Sprintf(", at most %s in the %s from %s", number(peak.SignUps), unit, stamp(peak.At))
	}
	up := Plot{Name: "Sign-ups by " + unit, About: about + ".", Marks: marks}
	up.stack([]string{"signups"}, values[:1], round(most))
	down := Plot{Name: "Settled by " + unit, Marks: marks, About: fmt.Sprintf("Users settled by %s, %s: %s associated, %s skipped, %s failed.",
		unit, span, number(sum.Associated), number(sum.Skipped), number(sum.Failed))}
	down.stack([]string{"associated", "skipped", "failed"}, values[1:], round(most))
	return []Plot{up, down}
}

// byHour plots the last seven days; a line stands at each midnight.
func byHour(all []Bucket) []Plot {
	var marks []Mark
	for i, b := range all {
		if b.At.Hour() == 0 {
			marks = append(marks, Mark{X: place(i, len(all)), Text: b.At.Format("Mon 2 Jan"), Anchor: "start", Line: true})
		}
	}
	return flows(all, "hour", "the last seven days", marks)
}

// byDay plots the last ninety days; a line stands at each Monday, and a date at every other one.
func byDay(all []Bucket) []Plot {
	var marks []Mark
	for i, b := range all {
		if b.At.Weekday() == time.Monday {
			m := Mark{X: place(i, len(all)), Anchor: "start", Line: true}
			if len(marks)%2 == 0 && i < len(all)-4 {
				m.Text = b.At.Format("2 Jan")
			}
			marks = append(marks, m)
		}
	}
	return flows(all, "day", "the last ninety days", marks)
}

// place is where the i-th of n columns begins.
func place(i, n int) float64 { return plotLeft + float64(plotWidth-plotLeft)*float64(i)/float64(n) }

// histogram plots how many users took how long.
func histogram(d Delay) Plot {
	last := 7 // a plot of few classes would have columns like walls
	for i, c := range d.Classes {
		if c.Users > 0 {
			last = max(last, i)
		}
	}
	shown := d.Classes[:min(last+2, len(d.Classes))]
	values, most := make([][]int, 1), 0
	p := Plot{Name: "Users by delay", About: fmt.Sprintf("Delay from sign-up to associated of %s: half within %s, 99 of 100 within %s, at most %s.",
		number(d.Users)+" "+plural(d.Users, "user", "users"), seconds(d.P50), seconds(d.P99), seconds(d.Most))}
	for i, c := range shown {
		values[0] = append(values[0], c.Users)
		most = max(most, c.Users)
		text := "≤ " + seconds(c.UpTo)
		if c.UpTo == 0 {
			text = "more"
		}
		p.Marks = append(p.Marks, Mark{X: (place(i, len(shown)) + place(i+1, len(shown))) / 2, Text: text, Anchor: "middle"})
	}
	if n := len(p.Marks); n > 16 { // every other one, or they would touch
		for i := range p.Marks {
			if i%2 == 1 {
				p.Marks[i].Text = ""
			}
		}
	}
	p.stack([]string{"associated"}, values, round(most))
	return p
}
