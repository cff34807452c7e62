package status

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/pipeline"
)

//go:embed style.css
var style string

//go:embed page.html
var pageText string

// styleHash lets this one style in, and no other.
var styleHash = func() string {
	sum := sha256.Sum256([]byte(style))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}()

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"style":   func() template.CSS { return template.CSS(style) },
	"number":  number,
	"seconds": seconds,
	"stamp":   stamp,
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"date":    func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
	"span":    roughly,
	"minus":   func(a, b time.Time) time.Duration { return a.Sub(b) },
	"num":     num,
	"join":    func(list []string) string { return strings.Join(list, ", ") },
	"explain": func(x *pipeline.Explanation) Words { return Explain(*x) },
	"times":   func(n int) string { return plural(n, "time", "times") },
}).Parse(pageText))

// number is n with its thousands apart.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// seconds is a delay in the largest unit that says it.
func seconds(s float64) string {
	short := func(x float64, unit string) string {
		return strconv.FormatFloat(float64(int(x*10+0.5))/10, 'f', -1, 64) + " " + unit
	}
	switch {
	case s < 90:
		return short(s, "s")
	case s < 90*60:
		return short(s/60, "min")
	case s < 48*3600:
		return short(s/3600, "h")
	}
	return short(s/86400, "d")
}

// roughly is a duration as a person says it.
func roughly(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d/day))
}

// stamp is a time with its zone.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Link is the page again, with what the query names, and with the key if it came in the query.
func (v view) Link(name, value string) string {
	query := url.Values{}
	if v.Code != "" {
		query.Set("code", v.Code)
	}
	if v.User != nil && name != "user" {
		query.Set("user", string(v.User.User))
	}
	if name != "" && value != "" {
		query.Set(name, value)
	}
	return "?" + query.Encode()
}

// HourPlots, DayPlots and DelayPlot are the plots.
func (v view) HourPlots() []Plot { return byHour(v.Hours) }

func (v view) DayPlots() []Plot { return byDay(v.Days) }

func (v view) DelayPlot() Plot { return histogram(v.Delay) }

// BusyHours and BusyDays are those with somebody in them, latest first.
func (v view) BusyHours() []Bucket { return busy(v.Hours) }

func (v view) BusyDays() []Bucket { return busy(v.Days) }

func busy(all []Bucket) []Bucket {
	var out []Bucket
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Any() {
			out = append(out, all[i])
		}
	}
	return out
}

// Notes say what is to be known of a run beside its counts.
func (v view) Notes(r pipeline.RunRecord) string {
	var notes []string
	if r.Ended.IsZero() {
		notes = append(notes, "died at work")
	}
	if r.Trouble != "" {
		notes = append(notes, r.Trouble)
	}
	for _, d := range r.Detectors {
		if d.Trouble != "" {
			notes = append(notes, d.Name+": "+d.Trouble)
		}
	}
	if r.Before > 0 {
		notes = append(notes, fmt.Sprintf("so did the %s before it", plural(r.Before, "run", fmt.Sprintf("%d runs", r.Before))))
	}
	return strings.Join(notes, "; ")
}

// New is how many users the run saw first.
func (v view) New(r pipeline.RunRecord) int {
	n := 0
	for _, d := range r.Detectors {
		n += d.New
	}
	return n
}

// Also is how many users the detector has shown after another one.
func (v view) Also(d pipeline.DetectorStatus) int {
	n := 0
	for _, a := range d.Seen.Also {
		n += a.Users
	}
	return n
}

// Late is the 99th percentile of the detector's latest lags, in seconds; negative = there is none yet.
func (v view) Late(d pipeline.DetectorStatus) float64 {
	if d.Recent.N() == 0 {
		return -1
	}
	return d.Recent.Quantile(0.99).Seconds()
}
