package ledger

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOpsAreHeldToTheServicesLimits(t *testing.T) {
	many := make([]op, 101)
	for i := range many {
		many[i] = op{insert, entity{Key: "k" + strings.Repeat("x", i)}}
	}
	full := make([]op, 100)
	for i := range full {
		full[i] = op{insert, entity{Key: many[i].Key, Body: strings.Repeat("x", maxBody)}}
	}
	cases := []struct {
		name string
		ops  []op
		want string
	}{
		{"none", nil, "0 operations"},
		{"too many", many, "101 operations"},
		{"a key twice", []op{{insert, entity{Key: "a"}}, {remove, entity{Key: "a"}}}, "occurs twice"},
		{"a key with a quote", []op{{insert, entity{Key: "o'brien"}}}, "holds"},
		{"a long body", []op{{insert, entity{Key: "a", Body: strings.Repeat("x", maxBody+1)}}}, "32769 bytes"},
		{"too much in all", full, "4194304"},
		{"as much as there may be", many[:100], ""},
	}
	for _, c := range cases {
		err := checkOps(c.ops)
		if got := err == nil; got != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want %q", c.name, err, c.want)
		}
	}
}

// TestRefusedTransactionChangesNothing has a store do and undo the first operations for the sake of the last.
func TestRefusedTransactionChangesNothing(t *testing.T) {
	file, err := OpenSQLite(filepath.Join(t.TempDir(), "ledger.db"), "tenant")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, s := range map[string]store{"memory": Memory("tenant").store, "sqlite": file.store} {
		t.Run(name, func(t *testing.T) {
			versions, err := s.apply(t.Context(), signups, []op{{insert, entity{Key: "a", Body: "1"}}, {insert, entity{Key: "b", Body: "1"}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, last := range []op{{insert, entity{Key: "a"}}, {replace, entity{Key: "a", Version: "99"}}, {replace, entity{Key: "a", Version: "x"}},
				{replace, entity{Key: "d", Version: versions[0]}}, {remove, entity{Key: "d"}}} {
				_, err := s.apply(t.Context(), signups, []op{{replace, entity{Key: "b", Version: versions[1], Body: "2"}}, {insert, entity{Key: "c"}}, last})
				if !errors.Is(err, errRefused) {
					t.Errorf("%+v: got error %v, want errRefused", last, err)
				}
			}
			page, more, err := s.scan(t.Context(), signups, "", "~", 10)
			want := []entity{{Key: "a", Version: versions[0], Body: "1"}, {Key: "b", Version: versions[1], Body: "1"}}
			if d := cmp.Diff(want, page); d != "" || more || err != nil {
				t.Errorf("entities after refused transactions: more %v, error %v (-want +got):\n%s", more, err, d)
			}
		})
	}
}

// lies is a store that refuses without a reason.
type lies struct{ store }

func (lies) apply(context.Context, string, []op) ([]string, error) { return nil, errRefused }

func TestRefusalWithoutReasonIsAnError(t *testing.T) {
	l := newLedger("tenant", lies{Memory("tenant").store})
	_, err := l.Insert(t.Context(), rowsOf("a", "b"))
	if err == nil || !strings.Contains(err.Error(), "index entry") {
		t.Errorf("got error %v, want one about the index", err)
	}
}

func TestSortedKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s sortedKeys
	var want []string
	random := func() string {
		return strings.Repeat("k", r.IntN(3)) + string(rune('a'+r.IntN(26))) + string(rune('a'+r.IntN(26)))
	}
	for range 20_000 {
		k := random()
		at, found := slices.BinarySearch(want, k)
		if r.IntN(3) > 0 {
			s.add(k)
			if !found {
				want = slices.Insert(want, at, k)
			}
		} else {
			s.remove(k)
			if found {
				want = slices.Delete(want, at, at+1)
			}
		}
	}
	for _, after := range []string{"", "a", "k", want[0], want[len(want)/2], want[len(want)-1], "~"} {
		var got []string
		for k := range s.behind(after) {
			got = append(got, k)
		}
		at, found := slices.BinarySearch(want, after)
		if found {
			at++
		}
		if d := cmp.Diff(strings.Join(want[at:], " "), strings.Join(got, " ")); d != "" {
			t.Fatalf("keys behind %q (-want +got):\n%s", after, d)
		}
	}
	if len(want) < 2*maxRun {
		t.Errorf("got %d keys, want enough for several runs", len(want))
	}
}
