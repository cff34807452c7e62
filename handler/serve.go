package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"signup-sync/handler/functions"
	"signup-sync/handler/status"
)

// maxMemory is what Go's memory should stay below: from there on it is collected before it grows. What is alive is less than
// half of it; what the system keeps of the program's file, and SQLite's own, come on top.
const maxMemory = 28 << 20

type serveCommand struct{}

// Run serves the host until it is told to stop. With a configuration that is wrong it serves as well, and every
// invocation says what is wrong: three bad exits would shut the host down, and hide the reason with it.
func (serveCommand) Run(ctx context.Context, s system) error {
	debug.SetMemoryLimit(maxMemory)
	log := functions.NewLogger(s.stdout, s.stderr)
	a, err := openApp(s.getenv, log)
	if err == nil {
		defer a.telemetry.Close(ctx)
		defer a.ledger.Close()
	}
	// Not before: the host tries again when it is refused, and waits for minutes when it is taken and not answered.
	l, listenErr := functions.Listen(s.getenv("FUNCTIONS_CUSTOMHANDLER_PORT"))
	if listenErr != nil {
		return refusal{fmt.Errorf("%w; to see the job on this machine run 'handler local'", listenErr)}
	}
	server := &functions.Server{Log: log, Pages: map[string]http.Handler{"Status": status.Refused()}}
	if err != nil {
		for _, e := range eachError(err) {
			log.Error("configuration refused", "err", e)
		}
		refused := fmt.Errorf("configuration refused: %w", err)
		refuse := func(context.Context, functions.Invocation) (any, error) { return nil, refused }
		server.Functions = map[string]functions.Func{"SyncNewUsers": refuse, "TakeCensus": refuse}
		return server.Serve(ctx, l)
	}
	server.Timeout, server.Functions = a.timeout, map[string]functions.Func{"SyncNewUsers": frugal(a.syncNewUsers), "TakeCensus": frugal(a.takeCensus)}
	server.Pages = map[string]http.Handler{"Status": a.statusPage(log)}
	return server.Serve(ctx, l)
}

// frugal gives memory back when an invocation is over. Go by itself waits for the next collection, which an idle program
// puts off for two minutes, and keeps most of it. It collects twice: what lies in a sync.Pool outlives one collection, and
// net/http has 16 KB there for each answer that was on its way at the same time.
func frugal(f functions.Func) functions.Func {
	return func(ctx context.Context, in functions.Invocation) (any, error) {
		defer func() {
			runtime.GC()
			debug.FreeOSMemory()
		}()
		return f(ctx, in)
	}
}

// invocationTime is how long an invocation may take: functionTimeout less a margin, at most four minutes. The setting
// overrides host.json, as it does for the host; without either it is the consumption plan's default of five minutes.
func invocationTime(root, setting string) (time.Duration, error) {
	text := setting
	if text == "" {
		data, err := os.ReadFile(filepath.Join(root, "host.json"))
		if err != nil && !os.IsNotExist(err) {
			return runTime, fmt.Errorf("read functionTimeout: %w", err)
		}
		var host struct{ FunctionTimeout string }
		if err == nil {
			if err := json.Unmarshal(data, &host); err != nil {
				return runTime, fmt.Errorf("read functionTimeout: host.json: %w", err)
			}
		}
		text = host.FunctionTimeout
	}
	if text == "" || text == "-1" {
		return runTime, nil
	}
	var h, m, s int
	if n, err := fmt.Sscanf(text, "%d:%d:%d", &h, &m, &s); n != 3 || err != nil {
		return runTime, fmt.Errorf("read functionTimeout: %q, want hh:mm:ss", text)
	}
	limit := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	if limit <= 2*runMargin {
		return limit / 2, nil
	}
	return min(limit-runMargin, runTime), nil
}
