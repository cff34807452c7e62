package pipeline_test

import (
	"regexp"
	"testing"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// slug runs the function as an expression does.
func slug(tb testing.TB) func(string) string {
	m, problems := pipeline.Compile(pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "d", Record: map[string]any{"s": "slug(user.surname)"}}}})
	if len(problems) > 0 {
		tb.Fatal(problems)
	}
	return func(s string) string {
		record, _, err := m.Want("d", pipeline.Input{User: signup.User{Surname: s}})
		if err != nil {
			tb.Fatalf("slug(%q): %v", s, err)
		}
		text, _ := record["s"].(string)
		return text
	}
}

func TestSlug(t *testing.T) {
	slug := slug(t)
	for in, want := range map[string]string{
		"": "", "Jane.Doe": "jane.doe", "O'Brien": "obrien", "Müller": "muller", "Straße": "strasse", "Æther Ørsted": "aether-orsted",
		"Þór Đorđe Łódź": "thor-dorde-lodz", "İstanbul ılık": "istanbul-ilik", "José María": "jose-maria", "..a..b..": "a.b", "-a--b-": "a-b",
		"a.-.b": "a.b", "a - . b": "a.b", "田中": "", "田中.x": "x", "Ｆｕｌｌ": "full", "ﬁn": "fin", "a_b": "a-b", "x@y+z": "xyz", "№5": "no5",
		"Ngô Đình Diệm": "ngo-dinh-diem", "a–b": "a-b", "\u202eabc": "abc", "a\x00b": "ab", "😀": "", "ℌ": "h",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bcd": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	} {
		if got := slug(in); got != want {
			t.Errorf("slug(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzSlug(f *testing.F) {
	for _, s := range []string{"", "Jane", "..", "ß", "\xff\xfe", "e\u0301", "İ", "a.-b"} {
		f.Add(s)
	}
	valid := regexp.MustCompile(`^([a-z0-9]+([.-][a-z0-9]+)*)?$`)
	slug := slug(f)
	f.Fuzz(func(t *testing.T, s string) {
		got := slug(s)
		if !valid.MatchString(got) || len(got) > 55 {
			t.Errorf("slug(%q) = %q", s, got)
		}
		if again := slug(got); again != got {
			t.Errorf("slug(%q) = %q, and slug of that %q", s, got, again)
		}
	})
}
