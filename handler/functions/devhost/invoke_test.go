package devhost_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions/devhost"
)

// TestJudge is the table of what the host makes of a reply.
func TestJudge(t *testing.T) {
	const js = "application/json"
	h, log := setup{}.start(t)
	tests := []struct {
		name  string
		reply scriptedReply
		want  error
		text  string // of the error, or of the only defect
	}{
		{"smallest", scriptedReply{Status: 200, Type: js, Body: `{}`}, nil, ""},
		{"full", scriptedReply{Status: 200, Type: js, Body: `{"Outputs":{},"Logs":["a"],"ReturnValue":null}`}, nil, ""},
		{"any 2xx", scriptedReply{Status: 299, Type: js, Body: `{}`}, nil, ""},
		{"charset", scriptedReply{Status: 200, Type: js + "; charset=utf-8", Body: `{}`}, nil, ""},
		{"text/json", scriptedReply{Status: 200, Type: "text/json", Body: `{}`}, nil, ""},
		{"byte order mark", scriptedReply{Status: 200, Type: js, Body: "\ufeff{}"}, nil, ""},
		{"garbage after the object", scriptedReply{Status: 200, Type: js, Body: `{} tail`}, nil, ""},
		{"nulls", scriptedReply{Status: 200, Type: js, Body: `{"Outputs":null,"Logs":null}`}, nil, ""},
		{"scalars in logs", scriptedReply{Status: 200, Type: js, Body: `{"Logs":[1,true,null,"a"]}`}, nil, ""},

		{"empty", scriptedReply{Status: 200}, devhost.ErrHang, "write a JSON object"},
		{"empty as JSON", scriptedReply{Status: 200, Type: js}, devhost.ErrHang, ""},
		{"no content", scriptedReply{Status: 204}, devhost.ErrHang, "204"},
		{"null", scriptedReply{Status: 200, Type: js, Body: "null"}, devhost.ErrHang, `"null"`},
		{"white space", scriptedReply{Status: 200, Type: js, Body: " \r\n"}, devhost.ErrHang, ""},

		{"no media type", scriptedReply{Status: 200, Body: `{}`}, devhost.ErrFailed, `media type ""`},
		{"text", scriptedReply{Status: 200, Type: "text/plain; charset=utf-8", Body: `{}`}, devhost.ErrFailed, "text/plain"},
		{"problem", scriptedReply{Status: 200, Type: "application/problem+json", Body: `{}`}, devhost.ErrFailed, ""},
		{"truncated", scriptedReply{Status: 200, Type: js, Body: `{"Logs":`}, devhost.ErrFailed, "Invalid HttpResponseMessage"},
		{"array", scriptedReply{Status: 200, Type: js, Body: `[]`}, devhost.ErrFailed, "JSON object"},
		{"text value", scriptedReply{Status: 200, Type: js, Body: `"ok"`}, devhost.ErrFailed, ""},
		{"logs is a text", scriptedReply{Status: 200, Type: js, Body: `{"Logs":"a"}`}, devhost.ErrFailed, "Logs"},
		{"objects in logs", scriptedReply{Status: 200, Type: js, Body: `{"logs":[{}]}`}, devhost.ErrFailed, "Logs"},
		{"outputs is an array", scriptedReply{Status: 200, Type: js, Body: `{"OUTPUTS":[]}`}, devhost.ErrFailed, "Outputs"},
		{"server error", scriptedReply{Status: 500, Type: js, Body: `{}`}, devhost.ErrFailed, "does not indicate success: 500 (Internal Server Error)"},
		{"empty and not found", scriptedReply{Status: 404}, devhost.ErrFailed, "404 (Not Found)"},
		{"panic", scriptedReply{Panic: true}, devhost.ErrFailed, "EOF"},

		{"redirect", scriptedReply{Status: 307, Location: "/elsewhere"}, nil, "redirect to /elsewhere"},
		{"redirect in a circle", scriptedReply{Status: 307, Location: "/SyncNewUsers"}, devhost.ErrFailed, "too many redirects"},
		{"undeclared output", scriptedReply{Status: 200, Type: js, Body: `{"Outputs":{"queue":["x"]}}`}, nil, `output "queue"`},
		{"log of two lines", scriptedReply{Status: 200, Type: js, Body: `{"Logs":["a\nb"]}`}, nil, "more than one line"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			body, err := json.Marshal(struct{ Reply scriptedReply }{tc.reply})
			if err != nil {
				t.Fatal(err)
			}
			r, err := h.Invoke(t.Context(), "SyncNewUsers", body)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			switch {
			case err != nil && (!strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), r.ID)):
				t.Errorf("error %v, want one with %q and the id", err, tc.text)
			case err == nil && (len(r.Defects) > 0) != (tc.text != ""), err == nil && !strings.Contains(strings.Join(r.Defects, ""), tc.text):
				t.Errorf("defects %q, want one with %q", r.Defects, tc.text)
			}
		})
	}
	if log.count("Language Worker Process exited") > 0 {
		t.Errorf("the handler was restarted:\n%s", log)
	}
}

func TestResult(t *testing.T) {
	h, log := setup{files: map[string]string{"SyncNewUsers/function.json": `{"bindings":[
		{"name":"timer","type":"timerTrigger","direction":"in","schedule":"0 * * * * *"},
		{"name":"queue","type":"queue","direction":"out"}]}`}}.start(t)
	const reply = `{"outputs":{"queue":["x"]},"Logs":["a",1,true],"RETURNVALUE":{"b":2},"More":1}`
	body, err := json.Marshal(struct{ Reply scriptedReply }{scriptedReply{Status: 202, Type: "application/json", Body: reply}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Invoke(t.Context(), "SyncNewUsers", body)
	if err != nil {
		t.Fatal(err)
	}
	want := devhost.Result{
		ID: got.ID, Took: got.Took, Status: 202, Body: []byte(reply),
		Outputs: map[string]any{"queue": []any{"x"}}, Logs: []string{"a", "1", "true"}, ReturnValue: map[string]any{"b": 2.0},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("result (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(log.from("logs"), want.Logs); diff != "" {
		t.Errorf("log lines (-got +want):\n%s", diff)
	}
	for _, text := range []string{"Executing 'Functions.SyncNewUsers'", "Executed 'Functions.SyncNewUsers' (Succeeded, Id=" + got.ID} {
		if l := log.wait(t, text); l.Level != "Information" || l.From != "host" {
			t.Errorf("line %+v, want the host's at Information", l)
		}
	}
	if _, err := h.Invoke(t.Context(), "syncNewUsers", nil); err == nil {
		t.Error("a function of another letter case was found")
	}
}

// TestRequestsTakeTurns holds that four invocations are four kinds of requests, with the headers of the real host.
func TestRequestsTakeTurns(t *testing.T) {
	h, log := setup{}.start(t)
	seen := map[string]bool{}
	for range 4 {
		r, err := h.Invoke(t.Context(), "SyncNewUsers", []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		line := log.wait(t, "call id="+r.ID).Text
		rest := `encoding="" version=4.1037.0.23568 agent=Azure-Functions-Host/4.1037.0.23568 type="application/json; charset=utf-8" body={}`
		if !strings.HasSuffix(line, rest) {
			t.Errorf("request %s\nwant … %s", line, rest)
		}
		var chunked, trace bool
		if _, err := fmt.Sscanf(line, "call id="+r.ID+" chunked=%t trace=%t", &chunked, &trace); err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(chunked, trace)] = true
	}
	if len(seen) != 4 {
		t.Errorf("kinds of requests %v, want all four", seen)
	}
}

// TestConsole holds how the host classifies what a handler prints, to its last word.
func TestConsole(t *testing.T) {
	h, log := setup{replies: "talk"}.start(t)
	if _, err := h.Invoke(t.Context(), "SyncNewUsers", nil); !errors.Is(err, devhost.ErrFailed) {
		t.Errorf("invoke: %v, want ErrFailed", err)
	}
	log.wait(t, "Language Worker Process exited") // which comes after the last word
	for _, want := range []devhost.Line{
		{From: "stderr", Level: "Error", Text: "it failed"},
		{From: "stderr", Level: "Warning", Text: "ForeWarned"},
		{From: "host", Level: "Error", Text: "system talk"},
		{From: "stderr", Level: "Error", Text: "no end of line"},
		{From: "stdout", Level: "Information", Text: "warning: on stdout"},
		{From: "stdout", Level: "Information", Text: ""},
	} {
		if !log.has(want) {
			t.Errorf("no line %+v in:\n%s", want, log)
		}
	}
}

// TestURL holds that tests can send what the host would not.
func TestURL(t *testing.T) {
	h, _ := setup{}.start(t)
	resp, err := http.Post(h.URL()+"/Nope", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("status %d, want 404", resp.StatusCode)
	}
}
