package functions_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/functions"
)

func TestListen(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	tests := []struct{ name, port, want string }{
		{"not set", "", "FUNCTIONS_CUSTOMHANDLER_PORT is not set"},
		{"no number", "http", `is "http", want a port from 1 to 65535`},
		{"zero", "0", "want a port"},
		{"too large", "65536", "want a port"},
		{"negative", "-1", "want a port"},
		{"taken", port, "end the process that holds the port"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := functions.Listen(tc.port)
			if err == nil {
				got.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
	l.Close()
	got, err := functions.Listen(port)
	if err != nil {
		t.Fatalf("listen on a free port: %v", err)
	}
	defer got.Close()
	if addr := got.Addr().String(); addr != "127.0.0.1:"+port {
		t.Errorf("listens on %s, want the loopback address only", addr)
	}
}

// TestProbeDuringInvocation holds that the host's pings are answered while a function works, and quietly.
func TestProbeDuringInvocation(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	s, stdout, stderr := serve1(func(context.Context, functions.Invocation) (any, error) {
		close(started)
		<-release
		return nil, nil
	})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served, answered := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	root := "http://" + l.Addr().String()
	go func() {
		resp, err := http.Post(root+"/SyncNewUsers", "application/json", strings.NewReader(normal))
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-started
	before := stdout.String()
	for range 10 { // while the run is at work: it ends when the pings are done
		resp, err := http.Get(root + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if after := stdout.String(); after != before || stderr.Len() > 0 {
		t.Errorf("the pings were logged: %q, %q", strings.TrimPrefix(after, before), stderr)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v, want no error after the context's end", err)
	}
}

// TestGracefulEnd holds that a running invocation is told, answers, and is not cut off.
func TestGracefulEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stderr := serve1(func(ctx context.Context, _ functions.Invocation) (any, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // the last write
			return "handed back", nil
		})
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, l) }()
		answered := make(chan string, 1)
		go func() { answered <- l.post(t) }()
		synctest.Wait()
		cancel()
		if got := <-answered; !strings.Contains(got, "handed back") {
			t.Errorf("answer %q", got)
		}
		if err := <-served; err != nil || stderr.Len() > 0 {
			t.Errorf("serve: %v, stderr %q, want neither", err, stderr)
		}
	})
}

// TestEndWithDeafInvocation holds that a function which does not end makes the end unclean, within 5 seconds.
func TestEndWithDeafInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, _, _ := serve1(func(context.Context, functions.Invocation) (any, error) {
			<-release
			return nil, nil
		})
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, l) }()
		go l.post(t)
		synctest.Wait()
		start := time.Now()
		cancel()
		err := <-served
		if err == nil || !strings.Contains(err.Error(), "1 invocations did not end within 4s") || time.Since(start) > 5*time.Second {
			t.Errorf("serve: %v after %s", err, time.Since(start))
		}
		close(release)
		synctest.Wait()
	})
}

// TestEndWithUnusedConnection holds that a connection on which the host never sent anything does not make the end
// unclean: net/http waits for those longer than we may.
func TestEndWithUnusedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := serve1(nil)
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, l) }()
		conn := l.dial()
		defer conn.Close()
		synctest.Wait()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v, want no error", err)
		}
	})
}

// TestUnexpectedEnd holds that a listener that breaks is an error, so that the program exits with a code other than 0,
// and that running invocations learn of it.
func TestUnexpectedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan struct{})
		s, _, _ := serve1(func(ctx context.Context, _ functions.Invocation) (any, error) {
			<-ctx.Done()
			close(told)
			return nil, nil
		})
		l := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context(), l) }()
		go l.post(t)
		synctest.Wait()
		l.broken <- errors.New("accept: too bad")
		if err := <-served; err == nil || !strings.Contains(err.Error(), "too bad") {
			t.Errorf("serve: %v, want the listener's error", err)
		}
		<-told
	})
}

// TestSlowBody holds that a caller who sends half an invocation does not keep a place for ever, and that the time for the
// body does not end the work.
func TestSlowBody(t *testing.T) {
	head := "POST /SyncNewUsers HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(normal)) + "\r\n\r\n"
	for _, tc := range []struct{ name, body, want string }{
		{"half a body", normal[:10], "400 Bad Request"},
		{"a whole one and long work", normal, "200 OK"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, _ := serve1(func(ctx context.Context, _ functions.Invocation) (any, error) {
					time.Sleep(3 * time.Minute)
					return nil, ctx.Err()
				})
				l := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- s.Serve(ctx, l) }()
				conn := l.dial()
				defer conn.Close()
				start := time.Now()
				go func() { _, _ = io.WriteString(conn, head+tc.body) }()
				answer := make([]byte, 4096)
				n, err := conn.Read(answer)
				if err != nil || !strings.Contains(string(answer[:n]), tc.want) {
					t.Errorf("got %q, %v, want %s", answer[:n], err, tc.want)
				}
				if took := time.Since(start); tc.body != normal && took > 30*time.Second {
					t.Errorf("half a body was waited for during %v", took)
				}
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// pipes is a listener in memory, so that connections can live in a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	broken chan error
	closed chan struct{}
}

func newPipes() *pipes {
	return &pipes{make(chan net.Conn), make(chan error), make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.broken:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// post sends one invocation over a connection of its own and returns the body of the answer, or "" if it was cut off.
func (p *pipes) post(t *testing.T) string {
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil },
		DisableKeepAlives: true,
	}
	resp, err := (&http.Client{Transport: transport}).Post("http://memory/SyncNewUsers", "application/json", strings.NewReader(normal))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}
