// Package status is the page that shows how the installation is: an http.Handler that reads the ledger's account through
// the engine, asks nobody else, and changes nothing. It names nobody but by object id.
//
// A page is made in three steps: Report puts together what the ledger says, with warnings first; render.go lays it out,
// with plots whose geometry is in plot.go; page.html and style.css are the page itself, in one answer without a script.
package status

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// Source is where a page has what it shows from; *pipeline.Engine is one.
type Source interface {
	Status(ctx context.Context) (pipeline.Status, error)
	History(ctx context.Context) (pipeline.History, error)
	Explain(ctx context.Context, id signup.UserID) (pipeline.Explanation, error)
}

const (
	// fresh is how long a report is shown again, so that a reload every second costs the ledger no more than this.
	fresh = 3 * time.Second
	// patience is how long one reading of the ledger may take.
	patience = 10 * time.Second
)

// Page answers GET with the page, or with ?format=json with a Report; ?user=ID shows one user as well. Of any number of
// requests at the same time one asks the ledger.
type Page struct {
	source Source
	log    *slog.Logger

	turn   chan struct{} // one element: whoever has it asks the ledger
	report Report
	err    error
	read   time.Time // when report and err were read
}

// New makes the page. It reads nothing yet.
func New(source Source, log *slog.Logger) *Page {
	p := &Page{source: source, log: log, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

var _ http.Handler = (*Page)(nil)

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	v := view{Code: query.Get("code")}
	asJSON := query.Get("format") == "json"
	switch format := query.Get("format"); {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		v.fail(w, asJSON, http.StatusMethodNotAllowed, "method", "This page is only read: ask with GET.")
		return
	case format != "" && format != "html" && format != "json":
		v.fail(w, false, http.StatusBadRequest, "format", "There is no such format: leave it out, or write format=json.")
		return
	}
	var user signup.UserID
	if text := strings.TrimSpace(query.Get("user")); text != "" {
		var err error
		if user, err = signup.ParseUserID(text); err != nil { // the text may be somebody's address: it is not repeated
			v.fail(w, asJSON, http.StatusBadRequest, "user", "That is no user's object id: it looks like 11111111-2222-3333-4444-555555555555.")
			return
		}
	}
	ctx := r.Context()
	report, err := p.take(ctx, user)
	if err != nil {
		p.log.ErrorContext(ctx, "the status page cannot read the ledger", "code", codeOf(err), "err", err)
		v.fail(w, asJSON, http.StatusServiceUnavailable, codeOf(err), "The ledger cannot be read at the moment, so there is nothing to show. Whether users are brought anywhere is not known from this: look at the alerts and the function's log.")
		return
	}
	v.Report = report
	v.answer(w, asJSON, http.StatusOK)
}

// take is the report, with the user if one is asked for. A report that is some seconds old is taken again, an error too.
// Whoever asks may leave meanwhile: others are served by the same reading.
func (p *Page) take(ctx context.Context, user signup.UserID) (Report, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return Report{}, &signup.Error{Class: signup.Transient, Code: "busy", Detail: "others are asking for the page, and the ledger is slow"}
	}
	if p.read.IsZero() || time.Since(p.read) >= fresh {
		p.report, p.err = p.load(ctx)
		p.read = time.Now()
	}
	if p.err != nil || user == "" {
		return p.report, p.err
	}
	report := p.report
	x, err := p.source.Explain(ctx, user)
	report.User = &x
	return report, err
}

// load reads the ledger. Without the history, which a run begins anew where it is damaged, the report has the rest, and says so.
func (p *Page) load(ctx context.Context) (Report, error) {
	s, err := p.source.Status(ctx)
	if err != nil {
		return Report{}, err
	}
	h, lost := p.source.History(ctx)
	if lost != nil {
		p.log.ErrorContext(ctx, "the status page cannot read the ledger", "code", codeOf(lost), "err", lost)
		h = pipeline.History{}
	}
	r := NewReport(s, h)
	if lost != nil {
		r.Warnings = append(r.Warnings, Warning{"look", "history", "It cannot be read (" + codeOf(lost) + "): sign-ups, delays and runs are not shown, whatever there were."})
	}
	return r, nil
}

// codeOf is a word for an error, which is shown; the error itself is for the log.
func codeOf(err error) string {
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Code != "" {
		return e.Code
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return "ledger"
}

// Off answers as if there were no page: it is not in the configuration.
func Off() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		secure(w.Header())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintln(w, "not found")
	})
}

// Refused answers that the configuration is wrong, so that nobody takes the page's absence for calm.
func Refused() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		v := view{Code: query.Get("code")}
		v.fail(w, query.Get("format") == "json", http.StatusServiceUnavailable, "configuration",
			"The configuration is refused, and nobody is brought anywhere: the function's log says what is wrong.")
	})
}

// secure sets what keeps a page from being framed, kept, sniffed, or from doing anything but show itself.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+styleHash+"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Robots-Tag", "noindex")
}

// view is what a page is laid out of.
type view struct {
	Report
	Code    string // the key in the query, which links carry on; "" where it came in a header
	Problem *Problem
}

// Problem is why there is no report.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Code   string `json:"code"`
	Text   string `json:"text"`
}

func (v *view) fail(w http.ResponseWriter, asJSON bool, status int, code, text string) {
	v.Problem = &Problem{Status: status, Title: http.StatusText(status), Code: code, Text: text}
	v.answer(w, asJSON, status)
}

func (v *view) answer(w http.ResponseWriter, asJSON bool, status int) {
	var b bytes.Buffer
	var err error
	media := "text/html; charset=utf-8"
	switch {
	case asJSON && v.Problem != nil:
		media, err = "application/json", json.NewEncoder(&b).Encode(v.Problem)
	case asJSON:
		media, err = "application/json", json.NewEncoder(&b).Encode(v.Report)
	default:
		err = page.Execute(&b, v)
	}
	if err != nil {
		panic(err) // the template and the report are ours: package functions says where, and the client gets a 500
	}
	secure(w.Header())
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client is gone
}
