package bench

import (
	"strings"
	"testing"
)

func TestHoldNamesWhatIsWorse(t *testing.T) {
	record := Record{Figures: []Recorded{
		{Figure: Figure{Name: "ratio", Value: 1.05, Goal: "<= 1.10"}, Part: "burst"},
		{Figure: Figure{Name: "share", Value: 100, Goal: ">= 20"}, Part: "burst"},
		{Figure: Figure{Name: "lost", Value: 0}, Part: "burst"},
		{Figure: Figure{Name: "calls", Value: 3}, Part: "burst"},
	}}
	steady := func(name string, value float64, goal string) Part {
		return Part{Name: "burst", Figures: []Figure{{Name: name, Value: value, Goal: goal, Steady: true}}}
	}
	for name, c := range map[string]struct {
		part Part
		want string // "" = nothing
	}{
		"as it was":                         {steady("ratio", 1.05, "<= 1.10"), ""},
		"a little worse":                    {steady("ratio", 1.09, "<= 1.10"), ""},
		"better":                            {steady("ratio", 0.5, "<= 1.10"), ""},
		"less, where more is better":        {steady("share", 90, ">= 20"), "burst: share is 90, and was 100: worse by more than 5 %"},
		"more, where more is better":        {steady("share", 200, ">= 20"), ""},
		"worse than the goal":               {steady("ratio", 1.101, "<= 1.10"), "burst: ratio is 1.101, its goal is <= 1.10"},
		"more, where no goal is set":        {steady("calls", 3.2, ""), "burst: calls is 3.2, and was 3: worse"},
		"one, where there was none":         {steady("lost", 1, ""), "burst: lost is 1, and was 0: worse"},
		"a figure that has no record":       {steady("new", 1, ""), "burst: new is not in bench.json: run 'make bench'"},
		"a goal that cannot be read":        {steady("ratio", 1, "below 1.10"), `its goal is "below 1.10"`},
		"a part that has no record":         {Part{Name: "size", Figures: []Figure{{Name: "MB", Value: 9, Goal: "<= 10", Steady: true}}}, ""},
		"a goal of a part without a record": {Part{Name: "size", Figures: []Figure{{Name: "MB", Value: 11, Goal: "<= 10", Steady: true}}}, "size: MB is 11, its goal is <= 10"},
		"what is not steady":                {Part{Name: "burst", Figures: []Figure{{Name: "ratio", Value: 9, Goal: "<= 1.10"}}}, ""},
	} {
		got := strings.Join(record.Worse(c.part), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 3: "3", 1.0499: "1.05", 0.001234567: "0.001235", 12345: "12,345", -1234567: "-1,234,567", 1234.56: "1,235", 999.96: "1,000", 0.27: "0.27"} {
		if got := number(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
