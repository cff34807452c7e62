package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// slowFirst makes the first user whom the system gets take so long, while others sign up, who are seen by the next round; they take
// as long as then says.
func slowFirst(w *world, takes time.Duration, others int, then func(ctx context.Context)) {
	var begun atomic.Bool
	w.systems["crm"].before = func(ctx context.Context, _ signup.Request) error {
		if !begun.CompareAndSwap(false, true) {
			then(ctx)
			return ctx.Err()
		}
		for n := range others {
			w.signUp(1000 + n)
		}
		select {
		case <-time.After(takes):
		case <-ctx.Done():
		}
		return ctx.Err()
	}
}

// The lease is renewed when it is time for that, wherever one round ends and another begins; if it cannot be, nobody is worked
// after it has ended.
func TestALeaseThatCannotBeRenewedEndsALaterRound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		taken := time.Now().Add(time.Minute)
		w.engine.Ledger = &hangingLease{Ledger: w.faults, from: taken.Add(41 * time.Second)} // the renewal after 40 s is the last
		var calls, late atomic.Int32
		slowFirst(w, 90*time.Second, 3000, func(context.Context) {
			if calls.Add(1); time.Since(taken) > 160*time.Second {
				late.Add(1)
			}
			time.Sleep(5 * time.Second)
		})
		if _, err := w.run(time.Minute); err == nil {
			t.Error("a run that has lost its lease has said nothing")
		}
		if n := late.Load(); n > 0 || calls.Load() < 100 {
			t.Errorf("%d of %d calls were made without a lease", n, calls.Load())
		}
	})
}

// A run whose lease was taken in its first round has no second one.
func TestAStolenLeaseIsNotFollowedByAnotherRound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		w.systems["crm"].before = func(ctx context.Context, _ signup.Request) error {
			time.Sleep(70 * time.Second)
			n, _ := w.ledger.Note(ctx, "run")
			n.Body = []byte(`{"owner":"thief","expires":"2099-01-01T00:00:00Z"}`)
			if _, err := w.ledger.PutNote(ctx, n); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return ctx.Err()
		}
		before := len(w.audit.windows)
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrLeaseLost) {
			t.Errorf("got %v, want %v", err, pipeline.ErrLeaseLost)
		}
		if got := len(w.audit.windows) - before; got != 1 {
			t.Errorf("the log was read %d times, want once", got)
		}
	})
}

// Without the ledger there is no second round either.
func TestARunThatCannotWriteHasNoOtherRound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		slowFirst(w, 70*time.Second, 1, nil)
		time.AfterFunc(2*time.Minute, func() { w.faults.set("Replace") })
		before := len(w.audit.windows)
		if _, err := w.run(time.Minute); err == nil {
			t.Error("what was done could not be written, and the run says nothing")
		}
		if got := len(w.audit.windows) - before; got != 1 {
			t.Errorf("the log was read %d times, want once", got)
		}
	})
}

// A detector that hangs has half of the time, and is not read again.
func TestADetectorThatHangsHasHalfOfTheTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		id := w.signUp(1)
		var reads atomic.Int32
		w.engine.Detectors[0] = hanging{w.audit, &reads}
		begun := time.Now().Add(time.Minute)
		sum := w.mustRun(time.Minute)
		if took := sum.Ended.Sub(begun); took != 2*time.Minute || reads.Load() != 1 || sum.Detectors[0].Trouble == "" {
			t.Errorf("%d reads, %v: %+v", reads.Load(), took, sum)
		}
		w.want(id, "crm: associated", "profile: associated")
	})
}

// hanging is a detector that does not answer.
type hanging struct {
	*detector
	reads *atomic.Int32
}

func (d hanging) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		d.reads.Add(1)
		<-ctx.Done()
		yield(signup.Event{}, ctx.Err())
	}
}

// How far a detector has been read by one round is not the future to the next.
func TestARoundMayBeginLongAfterTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		n := 1
		w.systems["crm"].before = func(context.Context, signup.Request) error {
			if n++; n < 4 {
				w.signUp(n)
			}
			time.Sleep(6 * time.Minute)
			return nil
		}
		time.Sleep(time.Minute)
		begun, before := time.Now(), len(w.audit.windows)
		if _, err := w.engine.Run(t.Context(), pipeline.Trigger{}); err != nil { // as with a clock that is fast, without end
			t.Fatal(err)
		}
		windows := w.audit.windows[before:]
		if want := begun.Add(6*time.Minute - w.engine.Settings.Overlap); len(windows) != 4 || !windows[2].From.Equal(want) {
			t.Errorf("the third of the windows %v is to begin at %v", windows, want)
		}
	})
}

// How long batches take is known to the next round: nobody is begun so shortly before the end that the call is cut short.
func TestALaterRoundKnowsHowLongBatchesTake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.engine.Destinations[0].Concurrency = 8 * 15
		w.mustRun(0)
		w.signUp(1)
		end := time.Now().Add(time.Minute + 4*time.Minute - 5*time.Second)
		var calls, cut atomic.Int32
		slowFirst(w, 170*time.Second, 8*15*30, func(ctx context.Context) {
			takes := 4 * time.Second
			if time.Until(end) < 20*time.Second {
				takes = 19 * time.Second
			}
			calls.Add(1)
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				cut.Add(1)
			}
		})
		w.mustRun(time.Minute)
		if n := cut.Load(); n > 0 || calls.Load() < 8*15 {
			t.Errorf("%d of %d calls were cut short", n, calls.Load())
		}
	})
}

// unreadNotes is a ledger of which some notes cannot be read for a while.
type unreadNotes struct {
	signup.Ledger
	down func(name string) bool
}

func (l unreadNotes) Note(ctx context.Context, name string) (signup.Note, error) {
	if l.down(name) {
		return signup.Note{}, errors.New("the ledger is down")
	}
	return l.Ledger.Note(ctx, name)
}

// A summary tells of each detector how far it is read for certain, whichever round has failed; its trouble is that of the last.
func TestASummaryIsOfAllRounds(t *testing.T) {
	tests := []struct {
		name    string
		down    func(round int) bool
		trouble string
	}{
		{"the first round cannot read the note", func(round int) bool { return round == 1 }, ""},
		{"the second", func(round int) bool { return round == 2 }, "transient"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, oneDestination())
				w.mustRun(0)
				w.signUp(1)
				begun := time.Now().Add(time.Minute)
				w.engine.Ledger = unreadNotes{w.faults, func(name string) bool {
					round := 1
					if time.Since(begun) >= time.Minute {
						round = 2
					}
					return name == "watermark|audit" && tt.down(round)
				}}
				slowFirst(w, 70*time.Second, 0, nil)
				d := w.mustRun(time.Minute).Detectors[0]
				at := begun // of the round that could be read
				if tt.trouble == "" {
					at = begun.Add(70 * time.Second)
				}
				// the run before was a minute earlier
				if from := begun.Add(-time.Minute - time.Hour); !d.From.Equal(from) || !d.To.Equal(at) || !d.Watermark.Equal(at) || d.Trouble != tt.trouble {
					t.Errorf("got %+v, want from %v to %v, trouble %q", d, from, at, tt.trouble)
				}
			})
		})
	}
}

// mark changes the note of the audit log.
func (w *world) mark(key string, value any) {
	w.t.Helper()
	n, err := w.ledger.Note(w.t.Context(), "watermark|audit")
	if err != nil {
		w.t.Fatal(err)
	}
	var mark map[string]any
	if err := json.Unmarshal(n.Body, &mark); err != nil {
		w.t.Fatal(err)
	}
	mark[key] = value
	if n.Body, err = json.Marshal(mark); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.ledger.PutNote(w.t.Context(), n); err != nil {
		w.t.Fatal(err)
	}
}

// A gap that the first round has left is there, although the second cannot look.
func TestASummaryKeepsTheGapsOfARound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		begun := time.Now().Add(time.Minute)
		w.mark("gaps", []signup.Window{{From: begun.Add(-3 * time.Hour), To: begun.Add(-2 * time.Hour)}})
		w.engine.Backstop = &detector{name: "backstop", fail: errors.New("down")}
		w.engine.Ledger = unreadNotes{w.faults, func(name string) bool {
			return name == "watermark|audit" && time.Since(begun) >= time.Minute
		}}
		slowFirst(w, 70*time.Second, 0, nil)
		if d := w.mustRun(time.Minute).Detectors[0]; d.Gaps != 1 {
			t.Errorf("%d gaps, want 1", d.Gaps)
		}
	})
}

// What the rounds have counted is added up.
func TestASummaryAddsUpTheRounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		for n := range 200 {
			w.signUp(n)
		}
		intents := &insertedWith{Ledger: w.faults}
		w.engine.Ledger = intents
		slowFirst(w, 70*time.Second, 150, func(context.Context) {}) // more than 300 are not worked from memory in one round
		sum := w.mustRun(time.Minute)
		a, b := sum.Detectors[0], sum.Detectors[1]
		if a.Events != 550 || b.Events != 550 || a.New+b.New != 350 || a.Also+b.Also != 350 { // each round sees the first 200
			t.Errorf("got %v and %v", a, b)
		}
		// 200 took a minute to be seen, and 150 seventy seconds.
		if a.Lags.N() != 350 || a.Lags.Counts[3] != 200 || a.LagP50 != 60 || a.LagP99 != 70 {
			t.Errorf("got %+v, half of them %v s, most %v s", a.Lags, a.LagP50, a.LagP99)
		}
		if intents.without > 0 {
			t.Errorf("%d were recorded without an intent", intents.without)
		}
	})
}

// insertedWith counts rows that are inserted without an intent.
type insertedWith struct {
	signup.Ledger
	without int
}

func (l *insertedWith) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	for _, row := range rows {
		if row.Intent.IsZero() {
			l.without++
		}
	}
	return l.Ledger.Insert(ctx, rows)
}

// What a first round has left of a window lies behind the window of the next: the summary's has both.
func TestASummarysWindowHasThoseOfAllRounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		begun := time.Now().Add(time.Minute)
		w.mark("rest", signup.Window{From: begun.Add(-2 * time.Minute), To: begun})
		slowFirst(w, 70*time.Second, 0, nil)
		d := w.mustRun(time.Minute).Detectors[0]
		if from, to := begun.Add(-time.Hour), begun.Add(70*time.Second); !d.From.Equal(from) || !d.To.Equal(to) {
			t.Errorf("got %+v, want from %v to %v", d, from, to)
		}
	})
}

// lostInsert is a ledger whose answer is lost when it has first been given a user.
type lostInsert struct {
	signup.Ledger
	of   signup.UserID
	done atomic.Bool
}

func (l *lostInsert) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	inserted, err := l.Ledger.Insert(ctx, rows)
	if slices.ContainsFunc(rows, func(r signup.Row) bool { return r.User == l.of }) && l.done.CompareAndSwap(false, true) {
		return nil, errors.New("no answer")
	}
	return inserted, err
}

// Who was recorded by an insert whose answer was lost is worked by the next round, which looks before it makes anything.
func TestWhoseInsertWasNotAnsweredIsTheNextRounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		lost, starts := signup.UserID("75b523ca-d064-4ddf-80af-000000000002"), 0
		slowFirst(w, 70*time.Second, 0, func(context.Context) { starts = w.row(lost).Starts })
		w.directory.events = nil // the log shows the one, the list the other
		w.signUp(2)
		w.audit.events = w.audit.events[:len(w.audit.events)-1]
		w.engine.Ledger = &lostInsert{Ledger: w.faults, of: lost}
		w.mustRun(time.Minute)
		w.want(lost, "crm: associated", "profile: associated")
		requests := w.systems["crm"].requests
		if len(requests) != 2 || !requests[1].Unsure {
			t.Fatalf("got %+v", requests)
		}
		if starts != 1 { // nobody has died
			t.Errorf("it was the user's start number %d, want 1", starts)
		}
	})
}

// empty is a directory that answers with no map where nobody is found.
type empty struct{ signup.Directory }

func (d empty) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	users, err := d.Directory.Users(ctx, ids)
	if len(users) == 0 {
		users = nil
	}
	return users, err
}

func TestADirectoryMayAnswerWithoutAMap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		late := w.signUp(1)
		there := w.users.all[late]
		delete(w.users.all, late)
		w.engine.Directory = empty{&showing{w.users, func(int) { w.users.put(there) }}}
		w.mustRun(time.Minute)
		w.want(late, "crm: associated", "profile: associated")
	})
}
