package entra

import (
	"math"
	"net/url"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

func TestNoPeriodHasMoreCallsThanItsPace(t *testing.T) {
	tests := []struct {
		name   string
		calls  int
		period time.Duration
		every  time.Duration // between two calls' wishes
	}{
		{"audit, all at once", 4, 10 * time.Second, 0},
		{"audit, one a second", 4, 10 * time.Second, time.Second},
		{"audit, one in three seconds", 4, 10 * time.Second, 3 * time.Second},
		{"writes, all at once", 20, 1017 * time.Millisecond, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPace(test.calls, test.period)
			now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
			var starts []time.Time
			for i := range 200 {
				at := now.Add(time.Duration(i) * test.every)
				wait, ok := p.reserve(at, math.MaxInt64)
				if !ok || wait < 0 {
					t.Fatalf("call %d: wait %v, %v", i, wait, ok)
				}
				starts = append(starts, at.Add(wait))
			}
			for i := test.calls; i < len(starts); i++ {
				if d := starts[i].Sub(starts[i-test.calls]); d < test.period {
					t.Fatalf("calls %d to %d are within %v", i-test.calls, i, d)
				}
			}
			shortest := time.Duration(200/test.calls-1) * test.period
			if d := starts[199].Sub(starts[0]); d > max(shortest, 199*test.every)+test.period {
				t.Errorf("200 calls took %v: slower than the pace", d)
			}
		})
	}
}

type noCredential struct{ azcore.TokenCredential }

// Graph counts writes when they arrive: 3,000 in any 150 s, also if some are two seconds longer on their way than those after
// them.
func TestWritesThatAreLateAreWithinGraphsLimit(t *testing.T) {
	root, err := url.Parse("http://127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClient(Options{Credential: noCredential{}}, root)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	var starts []time.Time
	for range 8000 {
		wait, _ := c.paces[updateCall].reserve(now, math.MaxInt64)
		starts = append(starts, now.Add(wait))
	}
	for i := 3000; i < len(starts); i++ {
		if d := starts[i].Sub(starts[i-3000]); d < 152*time.Second {
			t.Fatalf("3,001 writes begin within %v: if the first are two seconds late Graph refuses the last", d)
		}
	}
	if took := starts[len(starts)-1].Sub(now); took > 8000*time.Second/19 {
		t.Errorf("8,000 writes take %v, which is less than 19 a second", took)
	}
}

func TestAWaitThatIsTooLongTakesNoPlace(t *testing.T) {
	p := newPace(1, 10*time.Second)
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	if wait, ok := newPace(1, 10*time.Second).reserve(now, -time.Second); wait != 0 || !ok {
		t.Errorf("got %v, %v: a call that need not wait is held back though the deadline is near", wait, ok)
	}
	for i, want := range []bool{true, false, false} {
		if _, ok := p.reserve(now, 9*time.Second); ok != want {
			t.Errorf("call %d: got %v, want %v", i, ok, want)
		}
	}
	if wait, ok := p.reserve(now.Add(time.Second), 9*time.Second); !ok || wait != 9*time.Second {
		t.Errorf("got %v, %v, want 9s", wait, ok)
	}
}
