package functions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// stopGrace is how long running invocations have to answer once the program is asked to stop. Whoever stops a process
// politely waits a few seconds before doing it the other way.
const stopGrace = 4 * time.Second

// Listen opens the port that the host chose, on 127.0.0.1, the only address that it dials. Its error names what to do.
func Listen(port string) (net.Listener, error) {
	const variable = "FUNCTIONS_CUSTOMHANDLER_PORT"
	if port == "" {
		return nil, errors.New("listen for the host: " + variable + " is not set; the Functions host sets it when it starts the program")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("listen for the host: %s is %q, want a port from 1 to 65535", variable, port)
	}
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen for the host: %w; end the process that holds the port, perhaps an earlier handler", err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the host: %w", err)
	}
	return l, nil
}

// Serve answers the host on l until ctx ends. Then the contexts of running invocations end too, they have 4 seconds to
// answer, and Serve returns nil, or an error if one of them did not. Any other end is an error: the caller must exit
// with a code other than 0, since after a 0 the host starts no new process.
//
// There is no write timeout, which would cut long invocations, and idle connections are kept longer than the host
// pauses between two runs of a minute's schedule.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second, // of the body too; the work begins behind it
		IdleTimeout:       3 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.log().Handler(), slog.LevelError),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		_ = server.Close() // which also ends the contexts of running invocations
		return fmt.Errorf("serve the host on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer stop()
	err := server.Shutdown(grace)
	// Shutdown also waits for connections on which nothing was sent yet; those are no reason to call the end unclean.
	if n := s.running.Load(); err != nil && n > 0 {
		_ = server.Close()
		return fmt.Errorf("stop serving the host: %d invocations did not end within %s", n, stopGrace)
	}
	_ = server.Close()
	<-ended
	return nil
}
