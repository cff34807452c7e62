package pipeline_test

import (
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
