package pipeline_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

type spanKey struct{}

// spanned notes the pieces of work that a run tells of, and for which of them each call to the outside is made.
type spanned struct {
	mu    sync.Mutex
	spans []string
	calls []string
}

func (s *spanned) span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(string)) {
	text := name
	for _, a := range attrs {
		text += " " + a.String()
	}
	return context.WithValue(ctx, spanKey{}, name), func(failure string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if failure != "" {
			text += ": " + failure
		}
		s.spans = append(s.spans, text)
	}
}

func (s *spanned) called(ctx context.Context, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if call := fmt.Sprintf("%s for %v", what, ctx.Value(spanKey{})); !slices.Contains(s.calls, call) {
		s.calls = append(s.calls, call)
	}
}

type spannedDirectory struct {
	signup.Directory
	*spanned
}

func (d spannedDirectory) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	d.called(ctx, "users")
	return d.Directory.Users(ctx, ids)
}

func (d spannedDirectory) Update(ctx context.Context, id signup.UserID, p signup.Patch) error {
	d.called(ctx, "update")
	return d.Directory.Update(ctx, id, p)
}

type spannedConnector struct {
	signup.Connector
	*spanned
}

func (c spannedConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	c.called(ctx, req.Destination)
	return c.Connector.Associate(ctx, req)
}

type spannedDetector struct {
	signup.Detector
	*spanned
}

func (d spannedDetector) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	d.called(ctx, d.Name())
	return d.Detector.Events(ctx, w)
}

type spannedLedger struct {
	signup.Ledger
	*spanned
}

func (l spannedLedger) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	l.called(ctx, "replace")
	return l.Ledger.Replace(ctx, rows)
}

// TestARunTellsOfItsWork holds what a trace is made of: each piece of work once, with the code by which it failed, and each
// call made for its own.
func TestARunTellsOfItsWork(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.signUp(1)
		w.signUp(2)
		w.systems["crm"].before = always(refused)
		w.directory.fail = &signup.Error{Class: signup.Throttled, Code: "throttled"}
		s := &spanned{}
		w.engine.Span, w.engine.Directory, w.engine.Ledger = s.span, spannedDirectory{w.engine.Directory, s}, spannedLedger{w.engine.Ledger, s}
		for i, d := range w.engine.Destinations {
			w.engine.Destinations[i].Connector = spannedConnector{d.Connector, s}
		}
		for i, d := range w.engine.Detectors {
			w.engine.Detectors[i] = spannedDetector{d, s}
		}
		w.mustRun(time.Minute)

		slices.Sort(s.spans)
		if want := []string{"associate destination=billing users=2", "associate destination=crm users=2: rejected", "detect detector=audit",
			"detect detector=directory: throttled", "patch users=2", "profiles users=2", "settle users=2"}; !cmp.Equal(s.spans, want) {
			t.Errorf("spans: %s", cmp.Diff(want, s.spans))
		}
		slices.Sort(s.calls)
		if want := []string{"audit for detect", "billing for associate", "crm for associate", "directory for detect", "replace for settle", "update for patch",
			"users for profiles"}; !cmp.Equal(s.calls, want) {
			t.Errorf("calls: %s", cmp.Diff(want, s.calls))
		}
	})
}

var _ pipeline.Span = (*spanned)(nil).span
