package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
)

// The picture, in pixels of its own; it is shown in any size.
const (
	plotWidth, plotHeight = 760, 440
	plotLeft, plotRight   = 84, 740
	plotTop, plotBottom   = 52, 360
	mostMarkers           = 14 // on one line
)

// looks tell the lines apart with colour and without: a dash and a marker each. The colours are Okabe and Ito's, which the
// colour-blind can tell apart, darker in light mode and lighter in dark mode where that needs it.
var looks = []struct{ light, dark, dash, marker string }{
	{"#0067a8", "#56b4e9", "", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"},
	{"#c04a00", "#ff8c42", "7 4", "M-4 -4h8v8h-8z"},
	{"#007a55", "#2fd3a0", "2 3", "M0 -5L5 4H-5z"},
	{"#a3477d", "#ee9ccd", "10 3 2 3", "M0 -5L5 0L0 5L-5 0z"},
	{"#7a6200", "#f0e442", "12 5", "M0 5L5 -4H-5z"},
	{"#444444", "#cccccc", "4 2 1 2", "M-4 -4L4 4M-4 4L4 -4"},
}

// axis turns values into pixels.
type axis struct {
	log      bool
	min, max float64 // of what is shown
	from, to float64 // pixels
	ticks    []float64
}

func (a axis) at(v float64) float64 {
	low, high := a.min, a.max
	if a.log {
		v, low, high = math.Log10(v), math.Log10(low), math.Log10(high)
	}
	return a.from + (v-low)/(high-low)*(a.to-a.from)
}

// newAxis has room for all of the values, between two round numbers.
func newAxis(log bool, values []float64, from, to float64) axis {
	a := axis{log: log, from: from, to: to, min: math.Inf(1), max: math.Inf(-1)}
	for _, v := range values {
		a.min, a.max = min(a.min, v), max(a.max, v)
	}
	if a.min > a.max {
		a.min, a.max = 1, 1
	}
	if log {
		return a.decades()
	}
	if a.min > 0 {
		a.min = 0 // a line that looks steep is steep
	}
	if a.max <= a.min {
		a.max = a.min + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((a.max-a.min)/5)))
	for _, n := range []float64{1, 2, 5, 10} {
		if (a.max-a.min)/(step*n) <= 6 {
			step *= n
			break
		}
	}
	a.min, a.max = math.Floor(a.min/step)*step, math.Ceil(a.max/step-1e-9)*step
	for i := 0.0; a.min+i*step <= a.max+step/2; i++ {
		a.ticks = append(a.ticks, math.Round((a.min+i*step)/step)*step)
	}
	return a
}

// decades puts ticks at the powers of ten, and at twice and five times those where they are few.
func (a axis) decades() axis {
	low, high := math.Floor(math.Log10(a.min)+1e-9), math.Ceil(math.Log10(a.max)-1e-9)
	if high <= low {
		high = low + 1
	}
	every := math.Ceil((high - low) / 8)
	for p := low; p <= high; p += every {
		a.ticks = append(a.ticks, math.Pow(10, p))
		if high-low <= 2 && p < high {
			a.ticks = append(a.ticks, 2*math.Pow(10, p), 5*math.Pow(10, p))
		}
	}
	a.min, a.max = math.Pow(10, low), math.Pow(10, high)
	return a
}

// svg draws the plot. A value that a logarithmic axis cannot show, and what is no number, is left out.
func (p Plot) svg() []byte {
	var xs, ys []float64
	shown := make([][][2]float64, len(p.Series))
	for i, s := range p.Series {
		for _, point := range s.Points {
			if showable(p.LogX, point[0]) && showable(p.LogY, point[1]) {
				shown[i] = append(shown[i], point)
				xs, ys = append(xs, point[0]), append(ys, point[1])
			}
		}
	}
	x, y := newAxis(p.LogX, xs, plotLeft, plotRight), newAxis(p.LogY, ys, plotBottom, plotTop)
	legend := (len(p.Series) + 2) / 3
	height := plotHeight - 20 + 20*legend
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title desc" font-family="system-ui, sans-serif" font-size="13">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, "<title id=\"title\">%s</title>\n<desc id=\"desc\">%s</desc>\n", escape(p.Title), escape(p.describe(shown)))
	b.WriteString(style())
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="26" font-size="16" font-weight="600">%s</text>`+"\n", plotLeft, escape(p.Title))
	p.drawAxes(&b, x, y)
	for i, points := range shown {
		drawLine(&b, i, points, x, y)
	}
	for i, s := range p.Series {
		left, top := float64(plotLeft+(i%3)*222), float64(plotBottom+62+20*(i/3))
		fmt.Fprintf(&b, `<path class="s%d" d="M%.0f %.0fh34"/><path class="m%d" transform="translate(%.0f %.0f)" d="%s"/><text x="%.0f" y="%.0f">%s</text>`+"\n",
			i%len(looks), left, top, i%len(looks), left+17, top, looks[i%len(looks)].marker, left+42, top+4, escape(s.Name))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func showable(log bool, v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!log || v > 0)
}

// describe says what the picture shows to who does not see it.
func (p Plot) describe(shown [][][2]float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s by %s.", p.Y, p.X)
	for i, s := range p.Series {
		if n := len(shown[i]); n > 0 {
			first, last := shown[i][0], shown[i][n-1]
			fmt.Fprintf(&b, " %s: from %s at %s to %s at %s.", s.Name, number(first[1]), number(first[0]), number(last[1]), number(last[0]))
		}
	}
	return b.String()
}

func style() string {
	var b strings.Builder
	write := func(paper, ink, line string, colour func(i int) string) {
		fmt.Fprintf(&b, ".paper{fill:%s}text{fill:%s}.grid{stroke:%s}.axis{stroke:%s}", paper, ink, line, ink)
		for i := range looks {
			fmt.Fprintf(&b, ".s%d,.m%d{stroke:%s}.m%d{fill:%s}", i, i, colour(i), i, colour(i))
		}
	}
	b.WriteString("<style>path{fill:none;stroke-width:2}.grid{stroke-width:1}.axis{stroke-width:1}")
	for i, l := range looks {
		if l.dash != "" {
			fmt.Fprintf(&b, ".s%d{stroke-dasharray:%s}", i, l.dash)
		}
	}
	write("#ffffff", "#1f2328", "#d8dee4", func(i int) string { return looks[i].light })
	b.WriteString("@media (prefers-color-scheme: dark){")
	write("#0d1117", "#e6edf3", "#30363d", func(i int) string { return looks[i].dark })
	b.WriteString("}</style>\n")
	return b.String()
}

func (p Plot) drawAxes(b *bytes.Buffer, x, y axis) {
	for _, v := range y.ticks {
		at := y.at(v)
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft, at, plotRight, plotLeft-8, at+4, tick(v))
	}
	for _, v := range x.ticks {
		at := x.at(v)
		fmt.Fprintf(b, `<path class="grid" d="M%.1f %dV%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", at, plotTop, plotBottom, at, plotBottom+18, tick(v))
	}
	fmt.Fprintf(b, `<path class="axis" d="M%d %dV%dH%d"/>`+"\n", plotLeft, plotTop, plotBottom, plotRight)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (plotLeft+plotRight)/2, plotBottom+38, escape(scaled(p.X, p.LogX)))
	fmt.Fprintf(b, `<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (plotTop+plotBottom)/2, escape(scaled(p.Y, p.LogY)))
}

func scaled(title string, log bool) string {
	if log {
		return title + " (logarithmic)"
	}
	return title
}

// tick is short: 10k, 2.5M.
func tick(v float64) string {
	switch size := max(v, -v); {
	case size >= 1e9:
		return number(v/1e9) + "G"
	case size >= 1e6:
		return number(v/1e6) + "M"
	case size >= 1e4:
		return number(v/1e3) + "k"
	}
	return number(v)
}

// drawLine draws a line, and markers on at most mostMarkers of its points.
func drawLine(b *bytes.Buffer, i int, points [][2]float64, x, y axis) {
	if len(points) == 0 {
		return
	}
	i %= len(looks)
	fmt.Fprintf(b, `<path class="s%d" d="`, i)
	for n, p := range points {
		fmt.Fprintf(b, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[n == 0], x.at(p[0]), y.at(p[1]))
	}
	b.WriteString("\"/>\n")
	every := max(1, (len(points)+mostMarkers-1)/mostMarkers)
	for n := 0; n < len(points); n += every {
		fmt.Fprintf(b, `<path class="m%d" transform="translate(%.1f %.1f)" d="%s"/>`, i, x.at(points[n][0]), y.at(points[n][1]), looks[i].marker)
	}
	b.WriteString("\n")
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

func TestAPlotIsWellFormedAndInsideItsFrame(t *testing.T) {
	for name, p := range map[string]Plot{
		"linear":         {Series: []Series{{"a", [][2]float64{{0, 0}, {10, 3.7}}}, {"b", [][2]float64{{5, 1}}}}},
		"logarithmic":    {LogX: true, LogY: true, Series: []Series{{"a", [][2]float64{{1000, 0.1}, {1e7, 12000}, {0, 1}, {1, math.NaN()}}}}},
		"one point":      {LogX: true, Series: []Series{{"a", [][2]float64{{1, 1}}}}},
		"nothing":        {Series: []Series{{"a", nil}}},
		"below zero":     {Series: []Series{{"a", [][2]float64{{-4, -2}, {4, 2}}}}},
		"<signs> & more": {Title: "<&>", X: "\"x\"", Series: []Series{{"<&", [][2]float64{{1, 1}, {2, 2}}}}},
	} {
		p.Series = append(p.Series, make([]Series, 5)...) // more lines than looks
		d := xml.NewDecoder(bytes.NewReader(p.svg()))
		elements := map[string]int{}
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := token.(xml.StartElement); ok {
				elements[e.Name.Local]++
			}
		}
		if elements["title"] != 1 || elements["desc"] != 1 || elements["text"] < 5 {
			t.Errorf("%s: got the elements %v", name, elements)
		}
		if text := string(p.svg()); strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Errorf("%s: not a number in:\n%s", name, text)
		}
	}
	x := newAxis(false, []float64{0.3, 9.1}, 0, 100)
	if x.min != 0 || x.max != 10 || x.at(5) != 50 {
		t.Errorf("got %+v, want an axis from 0 to 10", x)
	}
	y := newAxis(true, []float64{12, 90_000}, 100, 0)
	if y.min != 10 || y.max != 100_000 || y.at(10) != 100 || y.at(100_000) != 0 {
		t.Errorf("got %+v, want an axis from 10 to 100,000", y)
	}
}
