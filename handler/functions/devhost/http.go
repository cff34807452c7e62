package devhost

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRequest bounds the body of a client's request.
const maxRequest = 1 << 20

// ServeHTTP answers clients as the host's front does: the app's HTTP functions stand under the route prefix, a function that
// wants a key refuses who has none with 401, and whatever else is asked for is 404. What the handler replies with is judged
// as every reply is, and then as an HTTP response: where that fails, the client gets an empty 500.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := h.app.route(r)
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if !h.allowed(f, r) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	payload, err := h.envelope(f, r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	result, err := h.invoke(r.Context(), f, newGUID(), payload)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	header := w.Header()
	for name, value := range result.Response.Header {
		header[name] = value
	}
	w.WriteHeader(result.Response.Status)
	_, _ = io.WriteString(w, result.Response.Body) // the client is gone
}

// Response is what an HTTP function has the host answer with.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// route finds the function that the request is for; routes know no case.
func (a *app) route(r *http.Request) *function {
	for _, f := range a.functions {
		if f.http != nil && strings.EqualFold(strings.Trim(r.URL.Path, "/"), strings.Trim(a.prefix+"/"+f.http.route, "/")) &&
			(len(f.http.methods) == 0 || slices.Contains(f.http.methods, r.Method)) {
			return f
		}
	}
	return nil
}

// httpTrigger is what function.json says of an HTTP function.
type httpTrigger struct {
	route, level string
	methods      []string // nil = all
}

var plainRoute = regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`)

// bindHTTP takes the trigger of an HTTP function.
func (f *function) bindHTTP(b binding) error {
	f.binding, f.http = b.Name, &httpTrigger{route: b.Route, level: strings.ToLower(b.AuthLevel)}
	if f.http.route == "" {
		f.http.route = f.name
	}
	if !plainRoute.MatchString(f.http.route) {
		return fmt.Errorf("route %q: only one without parameters is supported here", b.Route)
	}
	if f.http.level == "" {
		f.http.level = "function"
	}
	if !slices.Contains([]string{"anonymous", "function", "admin"}, f.http.level) {
		return fmt.Errorf("authLevel is %q, want function, admin or anonymous", b.AuthLevel)
	}
	for _, m := range b.Methods {
		f.http.methods = append(f.http.methods, strings.ToUpper(m))
	}
	return nil
}

// allowed reports that the client may ask: with the key in a header, or in the query, where a browser can give it.
func (h *Host) allowed(f *function, r *http.Request) bool {
	key := r.Header.Get("X-Functions-Key")
	if key == "" {
		key = r.URL.Query().Get("code")
	}
	return f.http.level == "anonymous" || h.key != "" && subtle.ConstantTimeCompare([]byte(key), []byte(h.key)) == 1
}

// envelope is the invocation of an HTTP function: the request as a JSON object (GetRequestAsJObject of the host), beside the
// metadata that every trigger has. The body is a text, and absent where its length is not known.
func (h *Host) envelope(f *function, r *http.Request) ([]byte, error) {
	lists, headers, query := map[string][]string{}, map[string]string{}, map[string]string{}
	r.Header.Set("Host", r.Host)
	for name, values := range r.Header {
		lists[name], headers[name] = values, strings.Join(values, ",")
	}
	for name, values := range r.URL.Query() {
		query[name] = strings.Join(values, ",")
	}
	request := map[string]any{"Url": "http://" + r.Host + r.URL.RequestURI(), "Method": r.Method, "Query": query, "Headers": lists, "Params": map[string]string{},
		"Identities": []any{map[string]any{"AuthenticationType": "WebJobsAuthLevel", "IsAuthenticated": true, "Claims": []any{}}}}
	if r.ContentLength > 0 {
		body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRequest))
		if err != nil {
			return nil, err
		}
		request["Body"] = string(body)
	}
	return json.Marshal(map[string]any{
		"Data": map[string]any{f.binding: request},
		"Metadata": map[string]any{"Headers": headers, "Query": query, "sys": map[string]string{
			"MethodName": f.name, "UtcNow": h.clock.Now().UTC().Format(time.RFC3339Nano), "RandGuid": newGUID()}},
	})
}

// respond judges the output of an HTTP function: an object with statusCode, headers and body, in any letter case.
func (r *Result) respond(output any) error {
	object, ok := output.(map[string]any)
	if !ok {
		return fmt.Errorf("the response is %T; write an object with statusCode, headers and body", output)
	}
	r.Response = Response{Status: http.StatusOK, Header: http.Header{}}
	for name, value := range object {
		var err error
		switch strings.ToLower(name) {
		case "statuscode", "status":
			err = r.Response.code(value)
		case "headers":
			err = r.Response.headers(value)
		case "body":
			err = r.Response.text(value)
		}
		if err != nil {
			return fmt.Errorf("read the response: %w", err)
		}
	}
	if r.Response.Header.Get("Content-Type") == "" {
		r.Defects = append(r.Defects, "the response has no Content-Type: the host calls it text/plain")
		r.Response.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Connection"} {
		if r.Response.Header.Get(name) != "" {
			r.Defects = append(r.Defects, "the response sets "+name+", which is the host's")
			r.Response.Header.Del(name)
		}
	}
	return nil
}

func (p *Response) code(value any) error {
	text := fmt.Sprint(value)
	n, err := strconv.Atoi(text)
	if err != nil || n < 100 || n > 599 {
		return fmt.Errorf("statusCode is %q, want a number of three digits", text)
	}
	p.Status = n
	return nil
}

func (p *Response) headers(value any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return errors.New("headers is no object")
	}
	for name, value := range object {
		text, err := scalar(value)
		if err != nil {
			return fmt.Errorf("header %s is neither text nor number", name)
		}
		if strings.ContainsAny(name+text, "\r\n") {
			return fmt.Errorf("header %q has a line break", name)
		}
		p.Header[textproto.CanonicalMIMEHeaderKey(name)] = []string{text}
	}
	return nil
}

// text takes the body: a text as it is, anything else as JSON.
func (p *Response) text(value any) error {
	if text, ok := value.(string); ok {
		p.Body = text
		return nil
	}
	text, err := json.Marshal(value)
	p.Body = string(text)
	return err
}
