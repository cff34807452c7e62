package functions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The names of the bindings in the function.json of every function that answers HTTP.
const (
	requestBinding  = "req"
	responseBinding = "res"
)

// pageTime is how long a page may take. The platform's own limit is 230 s, and a person has gone long before.
const pageTime = 20 * time.Second

// serve answers an invocation by HTTP: the host sends the client's request as a JSON object, and makes its reply of one.
// Pages are answered at the same time, beside the functions that run. What is not 2xx is still a good invocation: only
// a page that panics, or a request that cannot be read, is a failed one, of which the client gets an empty 500.
func (s *Server) serve(ctx context.Context, w http.ResponseWriter, name string, page http.Handler, body []byte) {
	log, start := s.log(), time.Now()
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	r, err := decodeRequest(ctx, body)
	if err != nil {
		err = fmt.Errorf("decode the request: %w", err)
		log.ErrorContext(ctx, "invocation refused", "function", name, "err", err)
		fail(w, http.StatusBadRequest, err)
		return
	}
	response := &response{header: http.Header{}}
	if err := answer(page, response, r); err != nil {
		log.ErrorContext(ctx, "invocation failed", "function", name, "took", time.Since(start), "err", err)
		fail(w, http.StatusInternalServerError, err)
		return
	}
	log.InfoContext(ctx, "page served", "function", name, "status", response.code(), "bytes", response.body.Len(), "took", time.Since(start))
	reply(w, http.StatusOK, struct {
		Outputs     map[string]any
		Logs        []string
		ReturnValue any
	}{Outputs: map[string]any{responseBinding: response.output()}, Logs: []string{}})
}

// answer calls the page. A panic is an error that says where.
func answer(page http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("recover from a panic at %s: %s", panicSite(), panicText(v))
		}
	}()
	page.ServeHTTP(w, r)
	return nil
}

// decodeRequest is the client's request, out of the host's envelope. A key in a header is taken out: it is the host's business.
// One in the query stays, since a link of the page has to carry it on.
func decodeRequest(ctx context.Context, body []byte) (*http.Request, error) {
	var call struct{ Data map[string]json.RawMessage }
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, err
	}
	var req *struct{ URL, Method, Body, Query, Headers json.RawMessage }
	raw, ok := call.Data[requestBinding]
	if err := json.Unmarshal(raw, &req); !ok || err != nil || req == nil {
		return nil, errors.New("find Data." + requestBinding + ": it is missing, or no object; name the binding " + strconv.Quote(requestBinding) + " in function.json")
	}
	method := one(req.Method)
	if method == "" {
		return nil, errors.New("read Data." + requestBinding + ": it has no Method")
	}
	var queries, headers map[string]json.RawMessage // left empty by what is none, as by older hosts' "{}"
	hint(req.Query, &queries)
	hint(req.Headers, &headers)
	query := url.Values{}
	for name, value := range queries {
		query.Set(name, one(value))
	}
	to := &url.URL{Path: "/", RawQuery: query.Encode()}
	if u, err := url.Parse(one(req.URL)); err == nil && strings.HasPrefix(u.Path, "/") {
		to.Path = u.Path
	}
	r, err := http.NewRequestWithContext(ctx, method, to.String(), strings.NewReader(one(req.Body)))
	if err != nil {
		return nil, errors.New("read Data." + requestBinding + ": its Method is none")
	}
	for name, value := range headers {
		if !strings.EqualFold(name, "x-functions-key") {
			r.Header.Set(name, one(value))
		}
	}
	r.RequestURI = to.RequestURI()
	return r, nil
}

// one is a text, or the first of a list of them: the host sends headers as lists, and the query as texts.
func one(raw json.RawMessage) string {
	var s string
	var list []string
	if hint(raw, &s); s == "" {
		if hint(raw, &list); len(list) > 0 {
			return list[0]
		}
	}
	return s
}

// response is what a page writes.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

var _ http.ResponseWriter = (*response)(nil)

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

func (w *response) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// output is the response as the host takes it: an object, since a text alone would be tried as base64 first.
func (w *response) output() any {
	headers := map[string]string{}
	for name, values := range w.header {
		headers[name] = strings.Join(values, ", ")
	}
	return struct {
		StatusCode string            `json:"statusCode"`
		Headers    map[string]string `json:"headers"`
		Body       string            `json:"body"`
	}{strconv.Itoa(w.code()), headers, w.body.String()}
}
