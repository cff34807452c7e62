package devhost_test

import (
	"strings"
	"testing"
	"time"

	"signup-sync/handler/functions/devhost"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	got, err := time.Parse("2006-01-02 15:04:05.999999999", s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSchedule(t *testing.T) {
	tests := []struct{ name, text, after, want string }{
		{"every minute", "0 * * * * *", "2026-08-20 14:35:00", "2026-08-20 14:36:00"},
		{"every minute, five fields", "* * * * *", "2026-08-20 14:35:00", "2026-08-20 14:36:00"},
		{"a fraction before the occurrence", "0 * * * * *", "2026-08-20 14:35:59.9999999", "2026-08-20 14:36:00"},
		{"step", "0 */5 * * * *", "2026-08-20 14:35:00.0123456", "2026-08-20 14:40:00"},
		{"step that does not divide the hour", "0 */25 * * * *", "2026-08-20 14:50:00", "2026-08-20 15:00:00"},
		{"seconds", "*/10 * * * * *", "2026-08-20 14:35:51", "2026-08-20 14:36:00"},
		{"list", "0 0,15,45 * * * *", "2026-08-20 14:15:00", "2026-08-20 14:45:00"},
		{"range", "0 0 9-17 * * *", "2026-08-20 17:00:00", "2026-08-21 09:00:00"},
		{"range with a step", "0 0 9-17/4 * * *", "2026-08-20 09:30:00", "2026-08-20 13:00:00"},
		{"value with a step runs to the end", "0 50/5 * * * *", "2026-08-20 14:55:00", "2026-08-20 15:50:00"},
		{"list of ranges", "0 0 1-2,22-23 * * *", "2026-08-20 02:00:00", "2026-08-20 22:00:00"},
		{"day of month", "0 0 0 31 * *", "2026-08-31 00:00:00", "2026-10-31 00:00:00"},
		{"month by name", "0 0 0 1 Jan,JUL *", "2026-08-20 00:00:00", "2027-01-01 00:00:00"},
		{"month by its whole name", "0 0 0 1 september *", "2026-08-20 00:00:00", "2026-09-01 00:00:00"},
		{"day of week by name", "0 30 9 * * Mon", "2026-08-20 00:00:00", "2026-08-24 09:30:00"},
		{"range of days of week", "0 0 9 * * mon-fri", "2026-08-21 09:00:00", "2026-08-24 09:00:00"},
		{"sunday is 0", "0 0 0 * * 0", "2026-08-20 00:00:00", "2026-08-23 00:00:00"},
		{"day and day of week must both match", "0 0 0 13 * fri", "2026-08-20 00:00:00", "2026-11-13 00:00:00"},
		{"leap day", "0 0 0 29 2 *", "2026-08-20 00:00:00", "2028-02-29 00:00:00"},
		{"end of the year", "0 0 0 * * *", "2026-12-31 23:59:59", "2027-01-01 00:00:00"},
		{"last second of a day", "59 59 23 * * *", "2026-08-20 23:59:59", "2026-08-21 23:59:59"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, err := devhost.ParseSchedule(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			after, want := at(t, tc.after), at(t, tc.want)
			if got := s.Next(after); !got.Equal(want) {
				t.Errorf("next after %s is %s, want %s", tc.after, got, want)
			}
			berlin := after.In(time.FixedZone("", 2*3600))
			if got := s.Next(berlin); !got.Equal(want) || got.Location() != time.UTC {
				t.Errorf("next after the same instant in another zone is %s, want %s", got, want)
			}
		})
	}
}

func TestScheduleErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "it has 0 fields, want 6"},
		{"four fields", "* * * *", "it has 4 fields"},
		{"time span", "00:05:00", "it has 1 fields"},
		{"out of range", "0 60 * * * *", `minute is "60", want 0 to 59`},
		{"day 0", "0 0 0 0 * *", `day is "0", want 1 to 31`},
		{"sunday is not 7", "0 0 0 * * 7", `day of week is "7", want 0 to 6`},
		{"negative", "0 -1 * * * *", `minute is ""`},
		{"step 0", "0 */0 * * * *", `has the step "0"`},
		{"no step", "0 */ * * * *", `has the step ""`},
		{"empty item", "0 1, * * * *", `minute is ""`},
		{"backwards", "0 0 22-2 * * *", `hour "22-2" runs backwards`},
		{"short name", "0 0 0 * ja *", `month is "ja"`},
		{"name in a field without names", "0 mon * * * *", `minute is "mon"`},
		{"never", "0 0 0 30 feb *", "it never fires"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := devhost.ParseSchedule(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// FuzzSchedule holds that whatever is accepted fires later than asked, and that Next is its own inverse.
func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"0 */5 * * * *", "* * * * *", "0 0 9-17/4 * jan-jun mon,fri", "0 0 0 29 2 *"} {
		f.Add(s, int64(1787236500))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := devhost.ParseSchedule(text)
		if err != nil {
			return
		}
		after := time.Unix(unix%4e9, 0)
		next := s.Next(after)
		if next.IsZero() {
			return
		}
		if !next.After(after) {
			t.Errorf("%q: next after %s is %s", text, after, next)
		}
		if again := s.Next(next.Add(-time.Nanosecond)); !again.Equal(next) {
			t.Errorf("%q: next just before %s is %s", text, next, again)
		}
	})
}
