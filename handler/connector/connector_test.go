package connector_test

import (
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

func TestKindsAreDescribed(t *testing.T) {
	kinds := connector.Kinds()
	if !slices.IsSortedFunc(kinds, func(a, b connector.Kind) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("kinds are not sorted by name")
	}
	for _, k := range kinds {
		if k.Doc == "" || k.Concurrency < 1 || k.Rate > 0 && k.Burst < 1 {
			t.Errorf("%s: doc %q, concurrency %d, burst %d: something is missing", k.Name, k.Doc, k.Concurrency, k.Burst)
		}
		described(t, k.Name, reflect.TypeOf(k.Settings))
	}
}

func described(t *testing.T, kind string, s reflect.Type) {
	for f := range s.Fields() {
		if f.Anonymous {
			described(t, kind, f.Type)
		} else if f.Tag.Get("json") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s: setting %s has no json or doc tag", kind, f.Name)
		}
	}
}

func TestOpenReportsAllThatIsWrong(t *testing.T) {
	const secret = "hunter2"
	tests := []struct {
		name     string
		kind     string
		settings map[string]any
		want     []string
	}{
		{"nothing", "stripe", nil, []string{"settings.apiKey: missing"}},
		{"empty required", "stripe", map[string]any{"apiKey": ""}, []string{"settings.apiKey: missing"}},
		{"null required", "stripe", map[string]any{"apiKey": nil}, []string{"settings.apiKey: missing"}},
		{
			"everything", "stripe", map[string]any{"apikey": secret, "timeout": "soon", "url": "http://api.stripe.com", "adopt": "all"},
			[]string{
				"settings.apikey: not known; there are adopt, apiKey, timeout, url", `settings.timeout: wants a duration above 0 such as "30s" or "10m"`,
				"settings.apiKey: missing", "settings.url: http:// is for this machine only; use https://",
				"settings.adopt: wants metadata or email",
			},
		},
		{"far from any", "stripe", map[string]any{"apiKey": "sk_x", "password": secret}, []string{"settings.password: not known; there are adopt, apiKey, timeout, url"}},
		{"publishable key", "stripe", map[string]any{"apiKey": "pk_live_" + secret}, []string{"settings.apiKey: is a publishable key; use a restricted (rk_…) or secret (sk_…) one"}},
		{"key with a line end", "stripe", map[string]any{"apiKey": "sk_" + secret + "\n"}, []string{"settings.apiKey: has a blank or a character that no key has"}},
		{"number for text", "stripe", map[string]any{"apiKey": 5}, []string{"settings.apiKey: wants text: put quotes around it"}},
		{"number for a duration", "stripe", map[string]any{"apiKey": "sk_x", "timeout": 5}, []string{`settings.timeout: wants a duration above 0 such as "30s" or "10m"`}},
		{"version in the root", "stripe", map[string]any{"apiKey": "sk_x", "url": "https://api.stripe.com/v1"}, []string{"settings.url: wants the root only, without a path or query"}},
		{"password in the URL", "stripe", map[string]any{"apiKey": "sk_x", "url": "https://me:" + secret + "@api.stripe.com"}, []string{"settings.url: must not hold a user name or password"}},
		{"no host", "stripe", map[string]any{"apiKey": "sk_x", "url": "api.stripe.com"}, []string{"settings.url: wants a URL such as https://example.com"}},
		{"other scheme", "stripe", map[string]any{"apiKey": "sk_x", "url": "ftp://api.stripe.com"}, []string{"settings.url: wants https://"}},
		{
			"webhook", "webhook", map[string]any{"url": "https://example.com", "secret": secret, "previousSecret": "whsec_c2hvcnQ=", "allowPrivate": "yes"},
			[]string{"settings.allowPrivate: wants true or false", "settings.secret: wants whsec_ and base64", "settings.previousSecret: wants 24 to 64 bytes, has 5"},
		},
		{"no base64", "webhook", map[string]any{"url": "https://example.com", "secret": "whsec_" + secret}, []string{"settings.secret: is not base64 after whsec_"}},
		{
			"plain webhook on this machine", "webhook", map[string]any{"url": "http://localhost:1", "secret": whsec},
			[]string{"settings.url: http:// is for this machine, and with allowPrivate, only; use https://"},
		},
		{
			"sql", "sql", map[string]any{"driver": "oracle", "dsn": secret, "table": "a;b", "key": "a b"},
			[]string{
				"settings.driver: not known; there are mysql, postgres, sqlite, sqlserver", "settings.table: wants a name of letters, digits and _, or schema.name",
				"settings.key: wants a name of letters, digits and _",
			},
		},
		{"sqlite in memory", "sql", map[string]any{"driver": "sqlite", "dsn": ":memory:", "table": "a", "key": "k"}, []string{"settings.dsn: is not one that sqlite takes"}},
		{
			"mailchimp", "mailchimp", map[string]any{"apiKey": secret, "audience": "a/b", "tags": []any{""}, "idField": "entraObjectId", "resubscribe": "yes"},
			[]string{
				"settings.apiKey: does not end in a data centre such as -us21", "settings.audience: wants the audience's id, which has letters and digits only",
				"settings.tags: wants tags of 1 to 100 characters", "settings.idField: wants the tag of a merge field: at most 10 capital letters, digits and _",
				"settings.resubscribe: wants never or pending",
			},
		},
		{"mailchimp, nothing", "mailchimp", nil, []string{"settings.apiKey: missing", "settings.audience: missing"}},
		{"data centre of another host", "mailchimp", map[string]any{"apiKey": secret + "-us21.example.com/", "audience": "a"}, []string{"settings.apiKey: does not end in a data centre such as -us21"}},
		{"the address as idField", "mailchimp", map[string]any{"apiKey": secret + "-us21", "audience": "a", "idField": "EMAIL"}, []string{"settings.idField: wants the tag of a merge field: at most 10 capital letters, digits and _"}},
		{"good mailchimp", "mailchimp", map[string]any{"apiKey": "5eed-us21", "audience": "1a2b3c", "tags": []any{"a b"}, "idField": "ENTRAOID", "resubscribe": "pending"}, nil},
		{"mailchimp at another root", "mailchimp", map[string]any{"apiKey": "5eed", "audience": "1a2b3c", "url": "http://localhost:1"}, nil},
		{"good", "stripe", map[string]any{"apiKey": "rk_live_x", "timeout": "10s", "url": "http://127.0.0.1:9/"}, nil},
		{"good with defaults", "webhook", map[string]any{"url": "https://example.com/a?b=c", "secret": whsec}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, errs := kindOf(t, tt.kind).Open(tt.settings, connector.Env{})
			var got []string
			for _, err := range errs {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("errors (-got +want):\n%s", diff)
			}
			if (c == nil) != (len(errs) > 0) {
				t.Errorf("connector %v beside %d errors", c, len(errs))
			}
			if strings.Contains(strings.Join(got, "\n"), secret) {
				t.Error("an error holds a value")
			}
		})
	}
}

func kindOf(t testing.TB, name string) connector.Kind {
	t.Helper()
	k, err := connector.Find(connector.Kinds(), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKindsAreSortedAndFound(t *testing.T) {
	var names []string
	for _, k := range connector.Kinds() {
		names = append(names, k.Name)
		if k.Doc == "" || k.Concurrency < 1 || k.Rate > 0 && k.Burst < 1 {
			t.Errorf("kind %s lacks a word or a default", k.Name)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("kinds are not sorted: %v", names)
	}
	if _, err := connector.Find(connector.Kinds(), "x"); err == nil || err.Error() != `connector "x" is not known; there are `+strings.Join(names, ", ") {
		t.Errorf("got %v", err)
	}
}

func TestAWebhookThatCannotBeGuardedIsRefused(t *testing.T) {
	client := &http.Client{Transport: roundTripper(nil)}
	settings := map[string]any{"url": "https://example.com", "secret": whsec}
	if _, errs := kindOf(t, "webhook").Open(settings, connector.Env{HTTP: client}); len(errs) != 1 {
		t.Errorf("got %v, want one error", errs)
	}
	settings["allowPrivate"] = true
	if _, errs := kindOf(t, "webhook").Open(settings, connector.Env{HTTP: client}); len(errs) != 0 {
		t.Errorf("got %v, want no error", errs)
	}
}

// watched is a transport that looks at the calls of another one.
type watched struct {
	http.RoundTripper
	calls *int
}

func (w watched) Unwrap() http.RoundTripper { return w.RoundTripper }

func (w watched) Around(inner http.RoundTripper) http.RoundTripper { return watched{inner, w.calls} }

func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	*w.calls++
	return w.RoundTripper.RoundTrip(r)
}

// TestAWebhookIsGuardedWhereItsCallsAreWatched as well: the address is refused, and the call was seen.
func TestAWebhookIsGuardedWhereItsCallsAreWatched(t *testing.T) {
	calls := 0
	settings := map[string]any{"url": "https://127.0.0.1:1", "secret": whsec}
	c := open(t, "webhook", settings, connector.Env{HTTP: &http.Client{Transport: watched{&http.Transport{}, &calls}}, Clock: signup.ScaledClock{}})
	_, err := c.Associate(t.Context(), signup.Request{User: "u", Record: map[string]any{}})
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != "private-address" || calls != 1 {
		t.Errorf("got %v after %d calls, want private-address after one", err, calls)
	}
	if _, errs := kindOf(t, "webhook").Open(settings, connector.Env{HTTP: &http.Client{Transport: watched{roundTripper(nil), &calls}}}); len(errs) != 1 {
		t.Errorf("around a transport that cannot be guarded: got %v, want one error", errs)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCheckRecord(t *testing.T) {
	tests := []struct {
		name   string
		kind   string
		fields map[string]any
		want   []string
	}{
		{"stripe", "stripe", map[string]any{"email": nil, "name": nil, "phone": nil, "description": nil, "preferredLocales": nil, "metadata": map[string]any{"plan": nil}}, nil},
		{"stripe, wrong", "stripe", map[string]any{"mail": nil, "email": map[string]any{"x": nil}, "metadata": nil}, []string{
			"record.email: wants a value, not fields below it", "record.mail: not known; there are description, email, metadata.*, name, phone, preferredLocales", "record.metadata: wants fields below it",
		}},
		{"stripe, reserved", "stripe", map[string]any{"metadata": map[string]any{"entra_object_id": nil, "a": map[string]any{}}}, []string{
			"record.metadata.a: wants a value, not fields below it", "record.metadata.entra_object_id: is set by the connector itself",
		}},
		{"mailchimp", "mailchimp", map[string]any{"email": nil, "status": nil, "mergeFields": map[string]any{"FNAME": nil}, "marketingPermissions": map[string]any{"d7ce21601c": nil}}, nil},
		{"mailchimp, wrong", "mailchimp", map[string]any{"tags": nil, "mergeFields": map[string]any{"fname": nil, "EMAIL": nil}}, []string{
			"record.tags: not known; there are email, ipSignup, language, marketingPermissions.*, mergeFields.*, status",
			"record.mergeFields.EMAIL: is the address; use record.email", "record.mergeFields.fname: a merge tag has at most 10 capital letters, digits and _",
		}},
		{"sql", "sql", map[string]any{"email": nil, "Name_2": nil}, nil},
		{"sql, wrong", "sql", map[string]any{`e"mail`: nil, "deep": map[string]any{"x": nil}}, []string{
			"record.deep: wants a value, not fields below it", `record.e"mail: a column is a name of letters, digits and _`,
		}},
		{"webhook takes anything", "webhook", map[string]any{"a": map[string]any{"b": map[string]any{"c": nil}}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, err := range kindOf(t, tt.kind).CheckRecord(tt.fields) {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("errors (-got +want):\n%s", diff)
			}
		})
	}
}
