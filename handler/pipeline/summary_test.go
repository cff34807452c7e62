package pipeline_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// delays are the two quantiles of each destination that has some, in seconds.
func delays(sum pipeline.Summary) map[string][2]float64 {
	out := map[string][2]float64{}
	for _, d := range sum.Destinations {
		if d.LagP99 > 0 {
			out[d.Name] = [2]float64{d.LagP50, d.LagP99}
		}
	}
	return out
}

func TestASummaryTellsHowLongSignUpsTook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.signUp(1)
		got := delays(w.mustRun(time.Minute))
		if want := map[string][2]float64{"billing": {60, 60}, "crm": {60, 60}, "profile": {60, 60}}; !cmp.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}

		w.systems["billing"].before = always(refused)
		id := w.signUp(2)
		if got := delays(w.mustRun(time.Minute)); got["billing"] != [2]float64{} {
			t.Errorf("who has failed counts as one who took %v s", got["billing"])
		}
		w.systems["billing"].before = nil
		time.Sleep(time.Hour)
		if _, err := w.replay(t.Context(), act(failed)); err != nil {
			t.Fatal(err)
		}
		sum := w.mustRun(time.Minute)
		if got := delays(sum); len(got) != 0 || w.row(id).Associations[0].State != signup.Associated {
			t.Errorf("who was replayed counts as one who took %v s", got)
		}
	})
}

func TestASummaryTellsWhoCameAndHow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.signUp(1)
		w.signUp(2)
		w.systems["billing"].before = always(errors.New("no answer"))
		sum := w.mustRun(time.Minute)
		if len(sum.Signups) != 1 || sum.Signups[0].Users != 2 || sum.Signups[0].Origin != signup.SelfService || sum.Signups[0].Detector == "" {
			t.Errorf("got %+v, want two who signed up themselves", sum.Signups)
		}
		for range 5 {
			if sum = w.mustRun(10 * time.Minute); len(sum.Signups) > 0 {
				t.Errorf("who is tried again counts again: %+v", sum.Signups)
			}
		}
	})
}

func TestASummaryTellsWhoHoldsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		for _, c := range []struct {
			answer error
			want   pipeline.DestinationSummary
		}{
			{&signup.Error{Class: signup.Throttled, Code: "throttled", Status: 429, RetryAfter: time.Minute}, pipeline.DestinationSummary{Throttled: 1}},
			{&signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401}, pipeline.DestinationSummary{Breaker: "open"}},
			{nil, pipeline.DestinationSummary{}},
		} {
			w.signUp(1)
			w.systems["billing"].before = always(c.answer)
			sum := w.mustRun(20 * time.Minute)
			i := slices.IndexFunc(sum.Destinations, func(d pipeline.DestinationSummary) bool { return d.Name == "billing" })
			if got := (pipeline.DestinationSummary{Throttled: sum.Destinations[i].Throttled, Breaker: sum.Destinations[i].Breaker}); !cmp.Equal(got, c.want) {
				t.Errorf("when it answers %v: got %+v, want %+v", c.answer, got, c.want)
			}
		}
	})
}

func TestLagsHaveClasses(t *testing.T) {
	var l pipeline.Lags
	for _, d := range []time.Duration{0, 15 * time.Second, 16 * time.Second, 30 * 24 * time.Hour} {
		l.Add(d)
	}
	got := map[time.Duration]int{}
	for bound, n := range l.Classes() {
		if n > 0 {
			got[bound] = n
		}
	}
	if want := map[time.Duration]int{15 * time.Second: 2, 30 * time.Second: 1, 30 * 24 * time.Hour: 1}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
