package functions

import (
	"context"
	"io"
	"log/slog"
	"regexp"
	"sync"
)

// invocationKey is where a context carries the id of its invocation.
type invocationKey struct{}

// NewLogger returns a logger for a program under the host, which takes a line on stdout for information, a line on
// stderr that contains "warn" for a warning, and any other line on stderr for an error. So Debug and Info go to
// stdout, Warn and Error to stderr; a record is one line, whatever is in it; and an error's line never contains
// "warn", even if its texts do: there it becomes "w_arn".
//
// The host does not tie these lines to an invocation, so records logged with an invocation's context carry its id.
func NewLogger(stdout, stderr io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelDebug}
	var mu sync.Mutex
	return slog.New(&levels{
		info: slog.NewTextHandler(stream{&mu, stdout, false}, opts),
		warn: slog.NewTextHandler(stream{&mu, stderr, false}, opts),
		fail: slog.NewTextHandler(stream{&mu, stderr, true}, opts),
	})
}

// levels hands each record to the handler of its level.
type levels struct{ info, warn, fail slog.Handler }

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }

func (l *levels) Handle(ctx context.Context, r slog.Record) error {
	if id, ok := ctx.Value(invocationKey{}).(string); ok {
		r = r.Clone()
		r.AddAttrs(slog.String("invocation", id))
	}
	switch {
	case r.Level >= slog.LevelError:
		return l.fail.Handle(ctx, r)
	case r.Level >= slog.LevelWarn:
		return l.warn.Handle(ctx, r)
	}
	return l.info.Handle(ctx, r)
}

func (l *levels) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &levels{l.info.WithAttrs(attrs), l.warn.WithAttrs(attrs), l.fail.WithAttrs(attrs)}
}

func (l *levels) WithGroup(name string) slog.Handler {
	return &levels{l.info.WithGroup(name), l.warn.WithGroup(name), l.fail.WithGroup(name)}
}

// stream writes whole lines, one at a time: the handlers above it make one call a line, and share the lock since they may
// share the writer. A calm one keeps the host from reading an error as a warning.
type stream struct {
	mu   *sync.Mutex
	w    io.Writer
	calm bool
}

var warnWord = regexp.MustCompile(`(?i)(w)(arn)`)

func (s stream) Write(line []byte) (int, error) {
	text := line
	if s.calm {
		text = warnWord.ReplaceAll(line, []byte("${1}_${2}"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.w.Write(text); err != nil {
		return 0, err
	}
	return len(line), nil
}
