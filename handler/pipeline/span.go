package pipeline

import (
	"context"
	"log/slog"

	"signup-sync/handler/signup"
)

// Span tells somebody outside that a piece of work begins. What is done for it is done with the context that it returns; end
// says that it is over, and by which code it failed ("" = it did not). What is told is of no user.
type Span func(ctx context.Context, name string, attrs ...slog.Attr) (_ context.Context, end func(failure string))

func (e *Engine) span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(failure string)) {
	if e.Span == nil {
		return ctx, func(string) {}
	}
	return e.Span(ctx, name, attrs...)
}

// failed is the code of an error, or of what comes of an outcome; "" = none. That nothing was to be done is no failure.
func failed(err error) string {
	if err == nil || signup.ClassOf(err) == signup.Skip {
		return ""
	}
	return codeOf(err)
}

// failedAt is the code of the first user whom a destination has failed.
func failedAt(name string, jobs []*job) string {
	for _, j := range jobs {
		if o := j.outcome(name); o != nil && failed(o.Err) != "" {
			return failed(o.Err)
		}
	}
	return ""
}
