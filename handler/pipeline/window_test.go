package pipeline

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

var now = time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func TestWindow(t *testing.T) {
	const overlap, week = time.Hour, 168 * time.Hour
	since := ago(30 * 24 * time.Hour)
	for name, c := range map[string]struct {
		mark      mark
		since     time.Time
		retention time.Duration
		trigger   Trigger
		want      signup.Window
		gap       signup.Window
	}{
		"first run": {since: ago(24 * time.Hour), retention: week, want: signup.Window{From: ago(24 * time.Hour), To: now}},
		"from the watermark less the overlap": {mark: mark{Watermark: ago(time.Minute)}, since: since, retention: week,
			want: signup.Window{From: ago(61 * time.Minute), To: now}},
		"never before the installation": {mark: mark{Watermark: ago(time.Minute)}, since: ago(10 * time.Minute), retention: week,
			want: signup.Window{From: ago(10 * time.Minute), To: now}},
		"past due with an earlier start": {mark: mark{Watermark: ago(time.Minute)}, since: since, retention: week,
			trigger: Trigger{PastDue: true, Last: ago(3 * time.Hour)}, want: signup.Window{From: ago(4 * time.Hour), To: now}},
		"an earlier start that is not past due": {mark: mark{Watermark: ago(time.Minute)}, since: since, retention: week,
			trigger: Trigger{Last: ago(3 * time.Hour)}, want: signup.Window{From: ago(61 * time.Minute), To: now}},
		"past due in year 1": {mark: mark{Watermark: ago(time.Minute)}, since: since, retention: week,
			trigger: Trigger{PastDue: true, Last: time.Date(1, 1, 1, 0, 54, 0, 0, time.UTC)}, want: signup.Window{From: ago(61 * time.Minute), To: now}},
		"past due with a start in the future": {mark: mark{Watermark: ago(time.Minute)}, since: since, retention: week,
			trigger: Trigger{PastDue: true, Last: now.Add(time.Hour)}, want: signup.Window{From: ago(61 * time.Minute), To: now}},
		"past due with a start before the installation": {mark: mark{Watermark: ago(time.Minute)}, since: since, retention: week,
			trigger: Trigger{PastDue: true, Last: ago(300 * 24 * time.Hour)}, want: signup.Window{From: ago(61 * time.Minute), To: now}},
		"the watermark beats the host's later start": {mark: mark{Watermark: ago(5 * time.Hour)}, since: since, retention: week,
			trigger: Trigger{PastDue: true, Last: ago(time.Hour)}, want: signup.Window{From: ago(6 * time.Hour), To: now}},
		"the rest of a window comes first": {mark: mark{Watermark: ago(3 * time.Hour), Rest: signup.Window{From: ago(150 * time.Minute), To: ago(time.Hour)}}, since: since,
			retention: week, want: signup.Window{From: ago(150 * time.Minute), To: ago(time.Hour)}},
		"a rest that the log no longer has": {mark: mark{Watermark: ago(8 * 24 * time.Hour), Rest: signup.Window{From: ago(8 * 24 * time.Hour), To: ago(time.Hour)}}, since: since,
			retention: week, want: signup.Window{From: ago(week), To: now}, gap: signup.Window{From: ago(8 * 24 * time.Hour), To: ago(week)}},
		"a rest of a clock that was wrong": {mark: mark{Watermark: ago(time.Minute), Rest: signup.Window{From: ago(time.Minute), To: now.Add(time.Hour)}}, since: since,
			retention: week, want: signup.Window{From: ago(61 * time.Minute), To: now}},
		"a watermark from a clock that was wrong": {mark: mark{Watermark: now.Add(9 * time.Hour)}, since: since, retention: week,
			want: signup.Window{From: ago(time.Hour), To: now}},
		"an outage longer than the retention leaves a gap": {mark: mark{Watermark: ago(9 * 24 * time.Hour)}, since: since, retention: week,
			want: signup.Window{From: ago(week), To: now}, gap: signup.Window{From: ago(9 * 24 * time.Hour), To: ago(week)}},
		"only the overlap is older than the retention": {mark: mark{Watermark: ago(week - time.Minute)}, since: since, retention: week,
			want: signup.Window{From: ago(week), To: now}},
		"the directory has no retention": {mark: mark{Watermark: ago(9 * 24 * time.Hour)}, since: since,
			want: signup.Window{From: ago(9*24*time.Hour + time.Hour), To: now}},
	} {
		t.Run(name, func(t *testing.T) {
			w, gap := c.mark.window(now, c.since, overlap, c.retention, c.trigger)
			if gap.Empty() {
				gap = signup.Window{}
			}
			if diff := cmp.Diff([]signup.Window{w, gap}, []signup.Window{c.want, c.gap}); diff != "" {
				t.Errorf("got (-) want (+) of window and gap:\n%s", diff)
			}
		})
	}
}

func TestHeadsCoverTheWindowOldestFirst(t *testing.T) {
	w := signup.Window{From: ago(150 * time.Minute), To: now}
	for _, step := range []time.Duration{time.Second, 7 * time.Minute, time.Hour, 48 * time.Hour} {
		rest, at := w, w.From
		for !rest.Empty() {
			s := head(rest, step)
			if !s.From.Equal(at) || s.Empty() || s.To.Sub(s.From) > step+step/2 || s.To.Before(w.To) && w.To.Sub(s.To) < step/2 {
				t.Fatalf("step %v: got slice %v after %v", step, s, at)
			}
			at, rest.From = s.To, s.To
		}
		if !at.Equal(w.To) {
			t.Errorf("step %v: covered up to %v, want %v", step, at, w.To)
		}
	}
}

func TestAdvance(t *testing.T) {
	slice := signup.Window{From: ago(time.Hour), To: now}
	if got := (mark{}).advance(slice, 0, time.Time{}).Watermark; !got.Equal(now) {
		t.Errorf("no date served: got %v, want %v", got, now)
	}
	if got := (mark{}).advance(slice, 0, ago(time.Minute)).Watermark; !got.Equal(ago(time.Minute)) {
		t.Errorf("our clock is ahead of the service's: got %v, want the service's time", got)
	}
	if got := (mark{Watermark: now.Add(time.Minute)}).advance(slice, 0, time.Time{}).Watermark; !got.Equal(now.Add(time.Minute)) {
		t.Errorf("got %v: a watermark never moves back", got)
	}
	if got := (mark{Watermark: ago(3 * time.Hour)}).advance(slice, 0, ago(2*time.Hour)).Watermark; !got.Equal(ago(3 * time.Hour)) {
		t.Errorf("a slice that has not begun by the service's time: got %v, although nothing was read up to there", got)
	}
	ahead := mark{Rest: signup.Window{From: slice.From, To: now.Add(time.Hour)}}.advance(slice, 0, ago(30*time.Minute))
	if !ahead.Rest.From.Equal(ago(30*time.Minute)) || !ahead.Watermark.Equal(ahead.Rest.From) {
		t.Errorf("a slice that is half in the future: got the rest %v behind %v", ahead.Rest, ahead.Watermark)
	}
	m := mark{Rest: signup.Window{From: slice.From, To: now.Add(time.Hour)}}
	if m = m.advance(slice, 0, time.Time{}); m.Rest != (signup.Window{From: now, To: now.Add(time.Hour)}) {
		t.Errorf("in the middle of a window: got the rest %v", m.Rest)
	}
	if m = m.advance(m.Rest, 0, time.Time{}); m.Rest != (signup.Window{}) {
		t.Errorf("at its end: got the rest %v", m.Rest)
	}
}

func TestGaps(t *testing.T) {
	hours := func(from, to int) signup.Window {
		return signup.Window{From: now.Add(time.Duration(from) * time.Hour), To: now.Add(time.Duration(to) * time.Hour)}
	}
	for name, c := range map[string]struct{ add, want []signup.Window }{
		"apart":                 {[]signup.Window{hours(0, 1), hours(2, 3)}, []signup.Window{hours(0, 1), hours(2, 3)}},
		"touching":              {[]signup.Window{hours(0, 1), hours(1, 2)}, []signup.Window{hours(0, 2)}},
		"inside":                {[]signup.Window{hours(0, 4), hours(1, 2)}, []signup.Window{hours(0, 4)}},
		"around":                {[]signup.Window{hours(1, 2), hours(0, 4)}, []signup.Window{hours(0, 4)}},
		"earlier":               {[]signup.Window{hours(5, 6), hours(0, 1)}, []signup.Window{hours(0, 1), hours(5, 6)}},
		"what is between joins": {[]signup.Window{hours(0, 2), hours(4, 6), hours(1, 5)}, []signup.Window{hours(0, 6)}},
	} {
		var m mark
		for _, w := range c.add {
			before := m
			m = m.miss(w)
			if len(before.Gaps) > 0 && cmp.Equal(before.Gaps, m.Gaps) && len(c.want) > 1 {
				t.Errorf("%s: the old note was changed", name)
			}
		}
		var got []signup.Window
		for _, g := range m.Gaps {
			got = append(got, g.Window)
		}
		if diff := cmp.Diff(got, c.want); diff != "" {
			t.Errorf("%s: got (-) want (+):\n%s", name, diff)
		}
	}
	var m mark
	for i := range 3 * maxGaps {
		m = m.miss(hours(2*i, 2*i+1))
	}
	if last := m.Gaps[len(m.Gaps)-1]; len(m.Gaps) != maxGaps || last.To != hours(0, 6*maxGaps-1).To || !m.Watermark.Equal(last.To) {
		t.Errorf("got %d gaps, the last %v, the watermark %v; want no more than fit, and none lost", len(m.Gaps), last, m.Watermark)
	}
	if m = m.fill(hours(0, 1), time.Minute); len(m.Gaps) != maxGaps-1 || !m.Gaps[0].From.Equal(hours(2, 3).From) {
		t.Errorf("filled one: got %d, the first %v", len(m.Gaps), m.Gaps[0])
	}
	old := mark{}.miss(hours(0, 4))
	if next := old.fill(hours(0, 1), time.Minute); !old.Gaps[0].From.Equal(now) || next.Gaps[0] != (gap{hours(1, 4), time.Minute}) {
		t.Errorf("filled a part: got %v, and the old note says %v", next.Gaps, old.Gaps)
	}
}

func TestBreaker(t *testing.T) {
	transient, systemic := &signup.Error{Class: signup.Transient}, &signup.Error{Class: signup.Systemic, Code: "unauthorized"}
	b := Breaker{}
	for range DefaultFuse.Failures - 1 {
		b = b.Report(transient, now, Fuse{})
	}
	if b.Open(now) {
		t.Fatal("open before the fifth failure")
	}
	if b = b.Report(&signup.Error{Class: signup.Permanent}, now, Fuse{}); b.Failures != 0 {
		t.Error("a refused record shows that the destination works: want the count gone")
	}
	for _, err := range []error{&signup.Error{Class: signup.Skip, Code: "no-consent"}, &signup.Error{Class: signup.Permanent, Code: "invalid-record"}} {
		if got := (Breaker{Failures: 3, Opened: 1}).Report(err, now, Fuse{}); got != (Breaker{Failures: 3, Opened: 1}) {
			t.Errorf("%v, for which nobody was asked: got %+v, want no change", err, got)
		}
	}
	for range 2 * DefaultFuse.Failures {
		b = b.Report(&signup.Error{Class: signup.Transient, Code: "not-found", Status: 404}, now, Fuse{})
		b = b.Report(&signup.Error{Class: signup.Transient, Code: "in-progress", Status: 400}, now, Fuse{})
	}
	if b.Failures != 0 || b.Open(now) {
		t.Error("users that are not there yet opened the breaker")
	}
	if b = b.Report(systemic, now, Fuse{}); !b.Open(now) || b.Code != "unauthorized" || b.Open(now.Add(DefaultFuse.Pause)) || !b.HalfOpen(now.Add(DefaultFuse.Pause)) {
		t.Errorf("after one systemic answer: got %+v, want open for %v and then half-open", b, DefaultFuse.Pause)
	}
	if again := b.Report(systemic, now, Fuse{}); again != b {
		t.Errorf("an answer to a call from before it opened: got %+v, want no change", again)
	}
	later := now.Add(DefaultFuse.Pause)
	if b = b.Report(transient, later, Fuse{}); !b.Open(later.Add(2*DefaultFuse.Pause-1)) || b.Open(later.Add(2*DefaultFuse.Pause)) {
		t.Errorf("the probe failed: got %+v, want open for twice as long", b)
	}
	if b = b.Report(&signup.Error{Class: signup.Throttled}, later, Fuse{}); !b.Open(later) {
		t.Error("a throttled answer says nothing of the breaker")
	}
	if b = b.Report(nil, later, Fuse{}); b != (Breaker{LastSuccess: later}) {
		t.Errorf("after success: got %+v, want closed", b)
	}
	for range 50 {
		later = b.Until
		b = b.Report(systemic, later, Fuse{})
	}
	if got := b.Until.Sub(later); got != breakForMost {
		t.Errorf("failing for long: open for %v, want %v", got, breakForMost)
	}
}

func TestAFuseOfItsOwn(t *testing.T) {
	transient, own := &signup.Error{Class: signup.Transient}, Fuse{Failures: 2, Pause: time.Hour}
	b := Breaker{}.Report(transient, now, own)
	if b.Open(now) {
		t.Error("open after one failure of two")
	}
	if b = b.Report(transient, now, own); !b.Open(now.Add(time.Hour-1)) || b.Open(now.Add(time.Hour)) {
		t.Errorf("got %+v, want open for an hour", b)
	}
	if b = b.Report(transient, b.Until, own); b.Until.Sub(now) != 2*time.Hour {
		t.Errorf("failing again: open until %v, want an hour more, which is longer than the default's most", b.Until)
	}
}

func TestOnlyTheProbesAnswerEndsTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate("x", signup.ScaledClock{}, 0, 0, 8, Fuse{})
		enter := func() func(...error) error { leave, _ := g.enter(t.Context()); return leave }
		before, opens := enter(), enter()
		opens(&signup.Error{Class: signup.Systemic, Status: 401})
		time.Sleep(DefaultFuse.Pause + time.Second)
		if enter() == nil || enter() != nil {
			t.Fatal("half-open: want one to pass")
		}
		before(&signup.Error{Class: signup.Throttled, Status: 429, RetryAfter: time.Second})
		time.Sleep(2 * time.Second)
		if enter() != nil {
			t.Error("a call from before it opened has ended the probe")
		}
	})
}
