package devhost

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is an NCRONTAB expression, as the host's NCrontab library reads it: six fields, {second} {minute} {hour}
// {day} {month} {day of week}, or five without the second. A moment must match all fields; unlike in a Unix crontab,
// that holds for day and day of week together too. All times are UTC.
type Schedule struct {
	sets [6]uint64 // one bit per allowed value
	text string
}

type field struct {
	name     string
	min, max int
	names    []string // of the values from min on
}

var fields = [6]field{
	{"second", 0, 59, nil},
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day", 1, 31, nil},
	{"month", 1, 12, []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}},
	{"day of week", 0, 6, []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}},
}

// ParseSchedule reads an NCRONTAB expression. It refuses one that never fires.
func ParseSchedule(text string) (Schedule, error) {
	s := Schedule{text: text}
	parts := strings.Fields(text)
	if len(parts) == 5 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 6 {
		return Schedule{}, fmt.Errorf("read schedule %q: it has %d fields, want 6, or 5 without the seconds", text, len(parts))
	}
	for i, part := range parts {
		for item := range strings.SplitSeq(part, ",") {
			set, err := fields[i].parse(item)
			if err != nil {
				return Schedule{}, fmt.Errorf("read schedule %q: %w", text, err)
			}
			s.sets[i] |= set
		}
	}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, fmt.Errorf("read schedule %q: it never fires", text)
	}
	return s, nil
}

// parse reads one item of a field's list: *, a, a-b, and each of them with a step /n. A single value with a step runs
// to the field's end.
func (f field) parse(item string) (uint64, error) {
	base, stepText, stepped := strings.Cut(item, "/")
	step := 1
	if stepped {
		var err error
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
			return 0, fmt.Errorf("%s %q has the step %q, want a number from 1", f.name, item, stepText)
		}
	}
	from, to := f.min, f.max
	if base != "*" {
		fromText, toText, ranged := strings.Cut(base, "-")
		var err error
		if from, err = f.value(fromText); err != nil {
			return 0, err
		}
		switch {
		case ranged:
			if to, err = f.value(toText); err != nil {
				return 0, err
			}
		case !stepped:
			to = from
		}
	}
	if from > to {
		return 0, fmt.Errorf("%s %q runs backwards; write it as two ranges", f.name, item)
	}
	var set uint64
	for v := from; v <= to; v += step {
		set |= 1 << v
	}
	return set, nil
}

// value reads a number or a name, the latter from three letters on.
func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if len(text) >= 3 && strings.HasPrefix(name, strings.ToLower(text)) {
			return f.min + i, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < f.min || v > f.max {
		return 0, fmt.Errorf("%s is %q, want %d to %d", f.name, text, f.min, f.max)
	}
	return v, nil
}

// Next is the first occurrence after t; zero if there is none in the next forty years.
func (s Schedule) Next(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Second).Add(time.Second)
	for end := t.AddDate(40, 0, 0); t.Before(end); {
		y, m, d := t.Date()
		switch {
		case !s.has(4, int(m)):
			t = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
		case !s.has(3, d) || !s.has(5, int(t.Weekday())):
			t = time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
		case !s.has(2, t.Hour()):
			t = t.Truncate(time.Hour).Add(time.Hour)
		case !s.has(1, t.Minute()):
			t = t.Truncate(time.Minute).Add(time.Minute)
		case !s.has(0, t.Second()):
			t = t.Add(time.Second)
		default:
			return t
		}
	}
	return time.Time{}
}

func (s Schedule) has(field, value int) bool { return s.sets[field]&(1<<value) != 0 }

// String is the expression as it was written.
func (s Schedule) String() string { return s.text }
