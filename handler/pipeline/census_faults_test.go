package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// mortal is the ledger of a process that dies at its nth write: before it has any effect, or after.
type mortal struct {
	signup.Ledger
	mu     sync.Mutex
	writes int
	dieAt  int
	after  bool
	dead   bool
}

var errDead = errors.New("the process is dead")

func (m *mortal) write(do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writes++; m.writes == m.dieAt {
		m.dead = true
		if m.after {
			_ = do()
		}
	}
	if m.dead {
		return errDead
	}
	return do()
}

func (m *mortal) Insert(ctx context.Context, rows []signup.Row) (out []signup.Row, err error) {
	e := m.write(func() error { out, err = m.Ledger.Insert(ctx, rows); return nil })
	if e != nil {
		return nil, e
	}
	return out, err
}

func (m *mortal) Replace(ctx context.Context, rows []signup.Row) (out []signup.Row, err error) {
	e := m.write(func() error { out, err = m.Ledger.Replace(ctx, rows); return nil })
	if e != nil {
		return nil, e
	}
	return out, err
}

func (m *mortal) PutNote(ctx context.Context, n signup.Note) (out signup.Note, err error) {
	e := m.write(func() error { out, err = m.Ledger.PutNote(ctx, n); return nil })
	if e != nil {
		return n, e
	}
	return out, err
}

// A census that dies at any of its writes, before or after the effect, goes on and counts as one that never died.
func TestACensusThatDiesAtAnyWriteLosesAndRepeatsNothing(t *testing.T) {
	play := func(t *testing.T, dieAt int, after bool) (c pipeline.Census, died bool) {
		bubble(t, func(t *testing.T) {
			w := newCensusWorld(t, oneDestination())
			w.takesGuests()
			var everyone []signup.UserID
			for n := range 12 {
				time.Sleep(20 * 24 * time.Hour)
				switch n % 3 {
				case 0:
					everyone = append(everyone, w.signUp(n))
				case 1:
					everyone = append(everyone, w.unseen(n))
				case 2:
					everyone = append(everyone, w.invite(n))
				}
				w.mustRun(time.Minute)
				if n == 8 {
					w.accept(everyone[8])
					w.audit.forgetLast()
				}
			}
			w.mustRun(3 * time.Hour)
			m := &mortal{Ledger: w.ledger, dieAt: dieAt, after: after}
			w.engine.Ledger = m
			var err error
			c, err = w.census(pipeline.CensusOptions{Act: true})
			if died = m.dead; died {
				time.Sleep(15 * time.Minute)
				w.configure(oneDestination()) // another process
				w.withRegister()
				w.takesGuests()
				w.mustRun(time.Minute) // which works, before the census goes on, whom the dead one took in
				c, err = w.census(pipeline.CensusOptions{Act: true})
			}
			if err == nil && c.Idle != "" { // the dead one had written its certificate
				c, err = w.engine.LastCensus(t.Context())
			}
			if err != nil {
				t.Fatalf("died at write %d: %v", dieAt, err)
			}
			w.engine.Ledger = w.ledger
			w.mustRun(time.Minute)
			for _, id := range everyone {
				if a, _ := w.row(id).Association("crm"); a.State == signup.Pending {
					t.Errorf("died at %d: user %s is pending", dieAt, id)
				}
			}
			if s := w.systems["crm"]; s.made != 9 || len(s.accounts) != 9 {
				t.Errorf("died at %d: %d accounts for %d people, want 9 for 9", dieAt, s.made, len(s.accounts))
			}
		})
		return c, died
	}
	whole, died := play(t, 0, false)
	if died || whole.Users != 12 || whole.Missing != 4 || whole.Redeemed != 1 || whole.Associated != 4 || whole.Pending != 1 {
		t.Fatalf("undisturbed: got %+v", whole)
	}
	points := 0
	for _, after := range []bool{false, true} {
		for dieAt := 1; ; dieAt++ {
			c, died := play(t, dieAt, after)
			if !died {
				break
			}
			points++
			sum := func(c pipeline.Census) [4]int {
				skipped := 0
				for _, s := range c.Skipped {
					skipped += s.Users
				}
				return [4]int{c.Users, c.Missing, c.Associated + c.Pending, skipped}
			}
			if sum(c) != sum(whole) || c.Ended.IsZero() || c.CheckSum() != nil {
				t.Errorf("died at write %d, after its effect %v: got %+v, want %+v", dieAt, after, c, whole)
			}
		}
	}
	if points < 20 {
		t.Errorf("it died at %d points: is there anything left to write?", points)
	}
}

func TestACensusThatDoesNotAddUpIsNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		w.signUp(1)
		w.mustRun(time.Minute)
		w.mustRun(3 * time.Hour)
		c := w.certify()
		for name, bend := range map[string]func(*pipeline.Census){
			"a user too many":        func(c *pipeline.Census) { c.Users++ },
			"a user in two states":   func(c *pipeline.Census) { c.Missing++ },
			"seen by nobody":         func(c *pipeline.Census) { c.Detectors = nil },
			"skipped beside the sum": func(c *pipeline.Census) { c.Skipped = []pipeline.Tally{{Reason: "rule", Users: 1}} },
			"ended half-way":         func(c *pipeline.Census) { c.Cursor = c.Cursor.Add(-time.Hour) },
		} {
			bent := c
			if bend(&bent); bent.CheckSum() == nil {
				t.Errorf("%s: got no error", name)
			}
		}
		n, _ := w.ledger.Note(t.Context(), "census")
		var open pipeline.Census
		if err := json.Unmarshal(n.Body, &open); err != nil {
			t.Fatal(err)
		}
		open.ID, open.Ended, open.Cursor, open.Users = "bent", time.Time{}, open.From, 7
		n.Body, _ = json.Marshal(open)
		if _, err := w.ledger.PutNote(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if c, err := w.census(pipeline.CensusOptions{Act: true}); err == nil || !strings.Contains(err.Error(), "add up") {
			t.Errorf("counts that were wrong before: got %+v, %v", c, err)
		}
		if last, err := w.engine.LastCensus(t.Context()); err != nil || last.ID != c.ID {
			t.Errorf("it became the certificate: %+v, %v", last, err)
		}
	})
}

func TestOfTwoCensusesAtOnceOneGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		for n := range 8 {
			time.Sleep(40 * 24 * time.Hour)
			w.unseen(n)
			w.mustRun(time.Minute)
		}
		w.mustRun(3 * time.Hour)
		w.engine.Backstop = slowDetector{w.register, time.Second}
		var got [2]pipeline.Census
		w.engine.Each(2, func(i int) {
			var err error
			time.Sleep(time.Duration(i) * 2500 * time.Millisecond) // the second finds a walk under way
			if got[i], err = w.census(pipeline.CensusOptions{Act: true}); err != nil {
				t.Error(err)
			}
		})
		if got[0].Busy == got[1].Busy {
			t.Fatalf("got %+v\nand %+v; want one busy", got[0], got[1])
		}
		c, err := w.engine.LastCensus(t.Context())
		if err != nil || c.Users != 8 || c.Missing != 8 || c.CheckSum() != nil {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

// illegible passes over a record in each read.
type illegible struct {
	*register
	passed int64
}

func (i *illegible) PassedOver() int64 { return i.passed }

func (i *illegible) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	i.passed++
	return i.register.Events(ctx, w)
}

func TestACensusCountsTheRecordsThatWerePassedOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(50 * 24 * time.Hour) // two slices, the first of a month and the second from the installation on
		w.mustRun(0)
		i := &illegible{register: w.register, passed: 7}
		w.engine.Backstop = i
		slices := int64(0)
		c, err := w.census(pipeline.CensusOptions{Show: func(pipeline.Census) { slices++ }})
		if err != nil || slices < 2 || c.PassedOver != slices {
			t.Errorf("got %d passed over in %d slices, %v", c.PassedOver, slices, err)
		}
	})
}

// boring is a directory with n people, all of one second, and others a year before and after.
type boring struct {
	at      time.Time
	n, read int
	windows int
	most    int // records of a window longer than a second
}

func (*boring) Name() string             { return "directory" }
func (*boring) Served() time.Time        { return time.Time{} }
func (*boring) Retention() time.Duration { return 0 }

func (b *boring) Events(_ context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		b.windows++
		before := b.read
		defer func() {
			if w.To.Sub(w.From) > time.Second {
				b.most = max(b.most, b.read-before)
			}
		}()
		year := 365 * 24 * time.Hour
		for n := range b.n + 2 {
			at := b.at
			if n < 2 {
				at = b.at.Add(time.Duration(2*n-1) * year)
			}
			// As in Graph, the ends are inclusive, and a record may be shown twice.
			if at.Before(w.From) || at.After(w.To) {
				continue
			}
			for range 1 + n%50/49 {
				b.read++
				if !yield(signup.Event{User: signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", n)), Kind: signup.Created, At: at}, nil) {
					return
				}
			}
		}
	}
}

func TestManyUsersOfOneSecondAndEmptyYearsTakeFewCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		time.Sleep(20 * 365 * 24 * time.Hour)
		b := &boring{at: time.Now().UTC(), n: 12_000}
		w.engine.Backstop = b
		time.Sleep(5 * 365 * 24 * time.Hour)
		w.mustRun(0)
		c := w.certify()
		if c.Users != 12_002 || c.Before != 12_002 {
			t.Errorf("got %+v", c)
		}
		if b.most > 8200 {
			t.Errorf("%d records of one slice were held", b.most)
		}
		if b.windows > 100 || b.read > 200_000 {
			t.Errorf("it took %d reads of %d records", b.windows, b.read)
		}
	})
}

func TestEmptyYearsTakeFewCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		time.Sleep(20 * 365 * 24 * time.Hour)
		w.withRegister()
		w.mustRun(0)
		before := len(w.register.windows)
		w.certify()
		if n := len(w.register.windows) - before; n > 12 {
			t.Errorf("it took %d calls over 20 empty years, want 12 at most", n)
		}
	})
}

func TestACensusStopsBeforeItsDeadlineAndGoesOnInTheNext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		for n := range 40 {
			time.Sleep(24 * time.Hour)
			w.unseen(n)
		}
		w.mustRun(3 * time.Hour)
		w.register.pause = 10 * time.Second // so that a month does not fit into a call
		calls := 0
		for c := (pipeline.Census{}); c.Ended.IsZero(); calls++ {
			begun := time.Now()
			var err error
			if c, err = w.census(pipeline.CensusOptions{Act: true}); err != nil || calls > 40 {
				t.Fatalf("call %d: %+v, %v", calls, c, err)
			}
			if took := time.Since(begun); took > 4*time.Minute {
				t.Errorf("it took %v", took)
			}
			if last := w.register.asked.Sub(begun); last > 4*time.Minute-25*time.Second {
				t.Errorf("it began a slice after %v", last)
			}
			if !c.Ended.IsZero() && (c.Users != 40 || c.Missing+c.Associated+c.Pending != 40) {
				t.Errorf("got %+v", c)
			}
			time.Sleep(time.Minute)
		}
		if calls < 3 {
			t.Errorf("it was over in %d calls: the test shows nothing", calls)
		}
	})
}

// laterInserts inserts a run's row between the census' look and its insert.
type laterInserts struct {
	signup.Ledger
	once sync.Once
}

func (l *laterInserts) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	l.once.Do(func() {
		row := rows[0]
		row.Detector, row.Unsure, row.Owner = "audit", false, "a run"
		_, _ = l.Ledger.Insert(ctx, []signup.Row{row})
	})
	return l.Ledger.Insert(ctx, rows)
}
