package functions_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"signup-sync/handler/functions"
)

// TestLogger holds each level to its stream, and each record to its line.
func TestLogger(t *testing.T) {
	tests := []struct {
		level         slog.Level
		stderr, warns bool
	}{
		{slog.LevelDebug, false, false},
		{slog.LevelInfo, false, false},
		{slog.LevelWarn, true, true},
		{slog.LevelError, true, false},
	}
	for _, tc := range tests {
		t.Run(tc.level.String(), func(t *testing.T) {
			var stdout, stderr strings.Builder
			log := functions.NewLogger(&stdout, &stderr).With("a\nb", "c\r\nd").WithGroup("g")
			log.Log(context.Background(), tc.level, "line one\nline two", "err", "Warning:\u2028 beWARNed")
			got, other := &stdout, &stderr
			if tc.stderr {
				got, other = other, got
			}
			if n := strings.Count(got.String(), "\n"); n != 1 || strings.ContainsAny(got.String(), "\r\u2028") {
				t.Errorf("%d lines, want 1: %q", n, got)
			}
			if other.Len() > 0 {
				t.Errorf("the other stream has %q", other)
			}
			if warns := strings.Contains(strings.ToLower(stderr.String()), "warn"); warns != tc.warns {
				t.Errorf("the host would take %q for a warning: %t, want %t", &stderr, warns, tc.warns)
			}
		})
	}
}

// TestInvocationInLog holds that a function's own records carry the id if they are logged with its context.
func TestInvocationInLog(t *testing.T) {
	var log *slog.Logger
	s, stdout, stderr := serve1(func(ctx context.Context, _ functions.Invocation) (any, error) {
		log.InfoContext(ctx, "progress")
		log.WarnContext(ctx, "look here")
		return nil, nil
	})
	log = s.Log
	post(s, normal)
	for output, message := range map[*strings.Builder]string{stdout: "progress", stderr: "look here"} {
		if !strings.Contains(output.String(), message) {
			t.Errorf("output has no %q: %q", message, output)
		}
		checkLines(t, output.String(), "invocation="+invocationID)
	}
}

// TestLoggerIsSafe holds that all levels may be logged at once, even to one writer; the race detector judges.
func TestLoggerIsSafe(t *testing.T) {
	var output strings.Builder
	log := functions.NewLogger(&output, &output)
	var writers sync.WaitGroup
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		writers.Go(func() {
			for range 100 {
				log.Log(context.Background(), level, "line")
			}
		})
	}
	writers.Wait()
	if n := strings.Count(output.String(), "msg=line\n"); n != 300 {
		t.Errorf("%d whole lines, want 300", n)
	}
}
