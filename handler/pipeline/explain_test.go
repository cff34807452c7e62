package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func (w *world) explain(id signup.UserID) pipeline.Explanation {
	w.t.Helper()
	x, err := w.engine.Explain(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

func TestExplainSaysWhatAUserWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		start := time.Now().UTC()
		stranger := signup.UserID("75b523ca-d064-4ddf-80af-000000000099")
		if x := w.explain(stranger); x.Row != nil || !x.Since.IsZero() || x.State != "" || len(x.Detectors) != 2 || !x.Detectors[0].Watermark.IsZero() {
			t.Errorf("before the first run: %+v", x)
		}
		w.systems["billing"].before = always(&signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401})
		id := w.signUp(1)
		w.mustRun(time.Minute)
		x := w.explain(id)
		row := w.row(id)
		next := func(name string) time.Time { a, _ := row.Association(name); return a.Next }
		want := []pipeline.Wait{
			{Destination: "billing", Open: start.Add(time.Minute + 30*time.Second), Code: "unauthorized"},
			{Destination: "crm", For: []string{"billing"}}, {Destination: "profile", For: []string{"billing"}},
		}
		if diff := cmp.Diff(want, x.Waits); diff != "" || x.State != signup.Pending || !cmp.Equal(&row, x.Row) || x.AtWork != "" {
			t.Errorf("%+v (-want +got):\n%s", x, diff)
		}
		if !next("crm").Equal(next("billing")) {
			t.Errorf("crm is due %v, billing %v", next("crm"), next("billing"))
		}
		absent := w.explain(stranger)
		for i := range absent.Detectors {
			absent.Detectors[i].Seen, absent.Detectors[i].Recent = pipeline.Sightings{}, pipeline.Lags{}
		}
		marks := []pipeline.DetectorStatus{{Name: "audit", Watermark: start.Add(time.Minute)}, {Name: "directory", Watermark: start.Add(time.Minute)}}
		if diff := cmp.Diff(marks, absent.Detectors); diff != "" || absent.Row != nil || !absent.Since.Equal(start.Add(time.Minute-24*time.Hour)) {
			t.Errorf("since %v (-want +got):\n%s", absent.Since, diff)
		}

		time.Sleep(time.Minute)
		if wait := w.explain(id).Waits[0]; !wait.Open.IsZero() {
			t.Errorf("got %+v: the breaker is half-open", wait)
		}
		n, err := w.ledger.Note(t.Context(), "run")
		n.Name, n.Body = "run", fmt.Appendf(nil, `{"owner":"dead","expires":%q}`, time.Now().Add(-time.Second).UTC().Format(time.RFC3339))
		if _, e := w.ledger.PutNote(t.Context(), n); err != nil || e != nil {
			t.Fatal(err, e)
		}
		if x := w.explain(id); x.AtWork != "" {
			t.Errorf("%s is at work, and has died", x.AtWork)
		}

		w.systems["billing"].before = nil
		w.systems["crm"].before = always(errors.New("down"))
		w.mustRun(10 * time.Minute)
		if diff := cmp.Diff([]pipeline.Wait{{Destination: "crm"}}, w.explain(id).Waits); diff != "" {
			t.Errorf("billing is there (-want +got):\n%s", diff)
		}

		reads := w.users.reads
		less := spec()
		less.Destinations, less.Attributes = less.Destinations[2:], nil
		w.configure(less)
		if diff := cmp.Diff([]pipeline.Wait{{Destination: "crm", Removed: true}}, w.explain(id).Waits); diff != "" {
			t.Errorf("with other destinations (-want +got):\n%s", diff)
		}
		if w.users.reads != reads {
			t.Errorf("it has read %d profiles", w.users.reads-reads)
		}
	})
}

func TestExplainTellsAnIntentAtWorkFromADeadOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		asked := 0
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			asked++
			if x := w.explain(id); x.AtWork == "" || x.AtWork != x.Row.Owner || x.Row.Intent.IsZero() || x.Row.Starts != 1 {
				t.Errorf("at work: %+v, %+v", x, x.Row)
			}
			return nil
		}
		w.mustRun(time.Minute)
		if x := w.explain(id); asked != 1 || x.AtWork != "" || !x.Row.Intent.IsZero() {
			t.Errorf("after it, asked %d times: %+v", asked, x)
		}
	})
}
