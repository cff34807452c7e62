package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func TestSignUpBecomesLinkedAccounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		before := w.ledger.Transactions()
		sum := w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if got := w.ledger.Transactions() - before; got != 2 {
			t.Errorf("got %d ledger transactions for a lone sign-up, want 2", got)
		}
		want := []signup.Patch{{DisplayName: "Ana Nr1", UserPrincipalName: "ana.nr1@contoso.onmicrosoft.com", Attributes: map[string]string{"billingId": "billing_1"}}}
		if diff := cmp.Diff(w.users.patches, want); diff != "" {
			t.Errorf("patches: got (-) want (+):\n%s", diff)
		}
		if diff := cmp.Diff(w.systems["billing"].requests[0].Record, map[string]any{"email": "ana1@example.com", "name": "Ana Nr1"}); diff != "" {
			t.Errorf("billing sees the name to be: got (-) want (+):\n%s", diff)
		}
		if got := w.systems["crm"].requests[0].Record["billing"]; got != "billing_1" {
			t.Errorf("crm got billing's id %v", got)
		}
		if sum.Users != 1 || sum.Detectors[0].New+sum.Detectors[1].New != 1 {
			t.Errorf("got %+v", sum)
		}
		before, reads := w.ledger.Transactions(), w.users.reads
		w.mustRun(time.Minute)
		if got := w.ledger.Transactions() - before; got != 0 || w.users.reads != reads || len(w.users.patches) != 1 {
			t.Errorf("a run with nothing new made %d transactions, %d profile reads", got, w.users.reads-reads)
		}
	})
}

func TestBurstTakesFewTransactionsAndReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		for n := range 200 {
			w.signUp(n)
		}
		before := w.ledger.Transactions()
		w.mustRun(time.Minute)
		if got := w.ledger.Transactions() - before; got > 200 {
			t.Errorf("got %d transactions for 200 users, want at most one each", got)
		}
		if want := (200 + 14) / 15; w.users.reads > want {
			t.Errorf("got %d profile reads for 200 users, want %d", w.users.reads, want)
		}
		if len(w.users.patches) != 200 || w.systems["crm"].made != 200 {
			t.Errorf("got %d patches and %d accounts, want 200", len(w.users.patches), w.systems["crm"].made)
		}
	})
}

func TestBacklogBeyondMemoryIsWorkedFromTheLedger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		for n := range 900 {
			w.signUp(n)
		}
		for range 3 {
			w.mustRun(time.Minute)
		}
		if s := w.systems["billing"]; len(s.accounts) != 900 || s.made != 900 {
			t.Errorf("got %d users with %d accounts, want 900 and 900", len(s.accounts), s.made)
		}
	})
}

// A run of four minutes is to be over five seconds before that. The next one comes with the minute, so that what is left
// idle at the end is lost; but whoever is begun is to be done.
func TestARunBeginsWorkUntilABatchsTimeBeforeItsEnd(t *testing.T) {
	for _, takes := range []time.Duration{8 * time.Second, 14 * time.Second} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "crm"}}})
			w.engine.Destinations[0].Concurrency = 8 * 15
			for n := range int(8 * 15 * 4 * time.Minute / takes) {
				w.signUp(n)
			}
			begun, last := time.Now().Add(time.Minute), make(chan time.Time, 1)
			last <- begun
			w.systems["crm"].before = func(context.Context, signup.Request) error {
				<-last
				last <- time.Now()
				time.Sleep(takes)
				return nil
			}
			sum := w.mustRun(time.Minute)
			end := 4*time.Minute - 5*time.Second
			from, to := end-2*max(takes, 5*time.Second), end-takes
			if at := (<-last).Sub(begun); at < from || at > to {
				t.Errorf("calls take %v: the last one began after %v, want %v to %v", takes, at, from, to)
			}
			if made := w.systems["crm"].made; sum.Users != made {
				t.Errorf("calls take %v: %d users were settled, and %d accounts made", takes, sum.Users, made)
			}
		})
	}
}

func TestIntentIsDurableBeforeTheFirstByte(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		look := func(_ context.Context, req signup.Request) error {
			row := w.row(req.User)
			if a, _ := row.Association(req.Destination); a.FirstTry.IsZero() || row.Intent.IsZero() || row.Starts == 0 || row.Owner == "" {
				t.Errorf("%s was called without a durable intent: %+v", req.Destination, row)
			}
			return nil
		}
		w.systems["billing"].before, w.systems["crm"].before = look, look
		for n := range 400 { // some from memory, some from the ledger
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		if got := len(w.systems["crm"].requests); got < 400 {
			t.Errorf("got %d calls", got)
		}
	})
}

func TestAnEffectThatCouldNotBeWrittenDownIsFoundAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.faults.set("Replace")
		if _, err := w.run(time.Minute); err == nil || !strings.Contains(err.Error(), "settle 1 rows") {
			t.Fatalf("got %v, want the run to fail for the ledger", err)
		}
		if w.systems["billing"].made != 1 {
			t.Fatal("the test needs the effect")
		}
		w.faults.set()
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		for _, name := range []string{"billing", "crm"} {
			if s := w.systems[name]; s.made != 1 {
				t.Errorf("%s has %d accounts, want 1", name, s.made)
			}
		}
	})
}

func TestALostAnswerIsFollowedByALook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		billing := w.systems["billing"]
		billing.after = func(context.Context, signup.Request) error {
			billing.after = nil
			return errors.New("connection reset")
		}
		w.mustRun(time.Minute)
		w.want(id, "billing: pending transient", "crm: pending", "news: skipped rule", "profile: pending")
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if billing.made != 1 || !billing.requests[1].Unsure || billing.requests[0].Unsure || billing.requests[0].Key != billing.requests[1].Key {
			t.Errorf("got %d accounts, requests %+v; want one, and the second with the same key and unsure", billing.made, billing.requests)
		}
		if len(w.users.patches) != 2 || w.users.patches[0].DisplayName == "" || w.users.patches[1].Attributes["billingId"] != "billing_1" || w.users.patches[1].DisplayName != "" {
			t.Errorf("got patches %+v; want the name first, and then what was learned", w.users.patches)
		}
	})
}

func TestAnOldSignUpIsNeverSure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.mustRun(21 * time.Hour)
		if reqs := w.systems["billing"].requests; len(reqs) != 1 || !reqs[0].Unsure {
			t.Errorf("got %+v; idempotency keys may have been forgotten after 24 h", reqs)
		}
	})
}

func TestRowsAreDurableBeforeTheWatermarkMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.engine.Settings.Overlap = 0 // so that only the watermark brings it back
		id := w.signUp(1)
		w.faults.set("Insert")
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrNoDetector) {
			t.Fatalf("got %v, want %v", err, pipeline.ErrNoDetector)
		}
		w.faults.set()
		w.mustRun(3 * time.Hour)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestAHalfReadSliceHoldsTheWatermark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		w.engine.Settings.Overlap = 0
		first, second := w.signUp(1), w.signUp(2)
		w.audit.fail, w.audit.failAfter = errors.New("page 2: unexpected EOF"), 1
		sum, err := w.run(time.Minute)
		if !errors.Is(err, pipeline.ErrNoDetector) || sum.Detectors[0].Slices != 0 {
			t.Fatalf("got %v, %+v", err, sum)
		}
		w.audit.fail = nil
		w.mustRun(time.Minute)
		for _, id := range []signup.UserID{first, second} {
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
	})
}

func TestOneDetectorDownDoesNotKeepTheOtherBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.audit.fail = errors.New("down")
		id := w.signUp(1)
		sum := w.mustRun(time.Minute)
		if w.row(id).Detector != "directory" || sum.Detectors[0].Slices != 0 || sum.Detectors[1].Slices == 0 {
			t.Errorf("got detector %q, %+v", w.row(id).Detector, sum.Detectors)
		}
	})
}

func TestALateAuditRecordIsFoundInTheOverlap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		id := w.signUp(1)
		late := w.audit.events
		w.audit.events = nil
		for range 45 {
			w.mustRun(time.Minute)
		}
		w.audit.events = late
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestAnOutageLongerThanTheRetentionIsHealedFromTheDirectory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		time.Sleep(time.Hour)
		id := w.signUp(1)
		sum := w.mustRun(9 * 24 * time.Hour)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if sum.Detectors[0].Gaps != 0 {
			t.Errorf("got %d gaps left", sum.Detectors[0].Gaps)
		}
	})
}

func TestAClockAheadOfTheServicesLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.audit.ahead = 3 * time.Hour // ours says 3 h more than the service's
		w.mustRun(0)
		time.Sleep(time.Minute)
		id := signup.UserID("75b523ca-d064-4ddf-80af-000000000001")
		w.signUp(1)
		w.audit.events[0].At = time.Now().UTC().Add(-3 * time.Hour)
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestOnlyOneRunAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.systems["billing"].before = first(func(context.Context, signup.Request) error {
			if sum, err := w.run(30 * time.Second); err != nil || !sum.Busy {
				t.Errorf("a second run got %+v, %v; want it to find the lease held", sum, err)
			}
			return nil
		})
		if sum := w.mustRun(time.Minute); sum.Busy || w.systems["billing"].made != 1 {
			t.Errorf("got %+v", sum)
		}
	})
}

func TestAStolenLeaseEndsTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.systems["billing"].before = func(ctx context.Context, _ signup.Request) error {
			n, _ := w.ledger.Note(ctx, "run")
			n.Body = []byte(`{"owner":"thief","expires":"2099-01-01T00:00:00Z"}`)
			if _, err := w.ledger.PutNote(ctx, n); err != nil {
				t.Error(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
				t.Error("the call goes on without a lease")
			}
			return ctx.Err()
		}
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrLeaseLost) {
			t.Fatalf("got %v, want %v", err, pipeline.ErrLeaseLost)
		}
		if n, _ := w.ledger.Note(context.Background(), "run"); !strings.Contains(string(n.Body), "thief") {
			t.Errorf("the lease was written over: %s", n.Body)
		}
	})
}

func TestADeadRunsLeaseEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.faults.set("PutNote")
		_, _ = w.run(time.Minute)
		w.faults.set()
		n := signup.Note{Name: "run", Body: []byte(`{"owner":"dead","expires":"` + time.Now().UTC().Add(2*time.Minute).Format(time.RFC3339) + `"}`)}
		if _, err := w.ledger.PutNote(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		if sum := w.mustRun(time.Minute); !sum.Busy {
			t.Error("took a lease that had not ended")
		}
		w.mustRun(2 * time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

// hangingLease is a ledger in which, from then on, the lease cannot be written: each try ends after a minute, as those
// of a client do that repeats them.
type hangingLease struct {
	signup.Ledger
	from time.Time
}

func (l *hangingLease) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if n.Name != "run" || time.Now().Before(l.from) {
		return l.Ledger.PutNote(ctx, n)
	}
	select {
	case <-time.After(65 * time.Second):
		return n, errors.New("unreachable")
	case <-ctx.Done():
		return n, ctx.Err()
	}
}

func TestNobodyIsWorkedAfterALeaseWhoseRenewalHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		for i := range 3000 {
			w.signUp(i)
		}
		taken := time.Now().Add(time.Minute)
		w.engine.Ledger = &hangingLease{Ledger: w.faults, from: taken.Add(time.Second)}
		var late atomic.Int32
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			if time.Since(taken) > 2*time.Minute {
				late.Add(1)
			}
			time.Sleep(5 * time.Second)
			return nil
		}
		if _, err := w.run(time.Minute); err == nil {
			t.Error("a run that has lost its lease has said nothing")
		}
		if n := late.Load(); n > 0 || w.systems["billing"].calls() < 100 {
			t.Errorf("%d of %d calls were made without a lease", n, w.systems["billing"].calls())
		}
	})
}
