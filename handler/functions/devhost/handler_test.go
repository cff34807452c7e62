package devhost_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"signup-sync/handler/functions"
)

// The test binary is its own handler: with this variable set it serves instead of testing. Its value is what each
// start of it does, in order, the last one for ever: good, exit:CODE, deaf (takes connections and never answers),
// mute (never listens), server (package functions, with a function that fails without an input). HANDLER_REPLIES is what each invocation of one process does: ok, exit:CODE, hold (answers
// after GET /release), stuck (never answers), talk (prints, then dies), a status, or a name out of bodies.
const (
	startsVariable  = "HANDLER_STARTS"
	repliesVariable = "HANDLER_REPLIES"
)

func TestMain(m *testing.M) {
	if starts := os.Getenv(startsVariable); starts != "" {
		handle(pick(starts, countStart()))
		return
	}
	os.Exit(m.Run())
}

// pick is the nth item of a list, or its last one.
func pick(list string, n int) string {
	items := strings.Split(list, ",")
	return items[min(n, len(items)-1)]
}

// countStart returns how often a handler was started in this folder before.
func countStart() int {
	f, err := os.OpenFile("starts", os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	old, err := io.ReadAll(f)
	if err != nil {
		panic(err)
	}
	if _, err := f.WriteString("."); err != nil {
		panic(err)
	}
	return len(old)
}

// exit ends the process if the step says so.
func exit(step string) {
	if code, ok := strings.CutPrefix(step, "exit:"); ok {
		n, err := strconv.Atoi(code)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, "leaving with %d\n", n)
		os.Exit(n)
	}
}

func handle(step string) {
	exit(step)
	input, _ := io.ReadAll(os.Stdin)
	dir, _ := os.Getwd()
	port := os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT")
	fmt.Printf("started pid=%d port=%s same=%t ids=%t root=%s dir=%s args=%q stdin=%d setting=%s\n", os.Getpid(), port,
		os.Getenv("FUNCTIONS_HTTPWORKER_PORT") == port,
		len(os.Getenv("FUNCTIONS_CUSTOMHANDLER_WORKER_ID")) == 36 && os.Getenv("FUNCTIONS_HTTPWORKER_ID") == os.Getenv("FUNCTIONS_CUSTOMHANDLER_WORKER_ID"),
		os.Getenv("FUNCTIONS_APP_ROOT_PATH"), dir, os.Args[1:], len(input), os.Getenv("A_SETTING"))
	switch step {
	case "mute":
		time.Sleep(time.Hour) // select {} is a deadlock, and the end, where nothing else runs
	case "server":
		serve(port)
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if step == "deaf" {
		for {
			if _, err := l.Accept(); err != nil {
				panic(err)
			}
		}
	}
	fmt.Fprintln(os.Stderr, http.Serve(l, scripted()))
	os.Exit(1)
}

// serve is a well-behaved handler: what main would make of package functions.
func serve(port string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := functions.NewLogger(os.Stdout, os.Stderr)
	s := &functions.Server{Timeout: time.Minute, Log: log, Functions: map[string]functions.Func{
		"SyncNewUsers": func(_ context.Context, in functions.Invocation) (any, error) {
			if in.Input == "" {
				return nil, errors.New("no input")
			}
			return in, nil
		},
	}, Pages: map[string]http.Handler{"Page": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x-echo")
		w.Header().Set("X-Frame-Options", "DENY")
		w.WriteHeader(http.StatusTeapot)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q %s", r.Method, r.URL, body, r.Header.Get("Accept-Language"))
	})}}
	l, err := functions.Listen(port)
	if err == nil {
		err = s.Serve(ctx, l)
	}
	if err != nil {
		log.Error("end", "err", err)
		os.Exit(1)
	}
}

// bodies are replies that the real host hangs or fails on, with the status 200.
var bodies = map[string]struct{ media, body string }{
	"empty": {"", ""},
	"plain": {"text/plain; charset=utf-8", "{}"},
	"null":  {"application/json", "null"},
}

// scripted answers as the environment says, or as a payload with a Reply says.
func scripted() http.Handler {
	release := make(chan struct{})
	var calls atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /release", func(http.ResponseWriter, *http.Request) { close(release) })
	mux.HandleFunc("POST /elsewhere", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	})
	mux.HandleFunc("POST /Page", func(w http.ResponseWriter, r *http.Request) {
		var payload struct {
			Data struct{ Req struct{ Body string } }
		}
		var reply scriptedReply
		body, _ := io.ReadAll(r.Body)
		if err := errors.Join(json.Unmarshal(body, &payload), json.Unmarshal([]byte(payload.Data.Req.Body), &reply)); err != nil {
			panic(err)
		}
		reply.write(w)
	})
	mux.HandleFunc("POST /SyncNewUsers", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		var payload struct{ Reply *scriptedReply }
		step := ""
		if json.Unmarshal(body, &payload) != nil || payload.Reply == nil {
			step = pick(os.Getenv(repliesVariable), int(calls.Add(1)-1)) // before a test learns of the call
		}
		fmt.Printf("call id=%s chunked=%t trace=%t encoding=%q version=%s agent=%s type=%q body=%s\n",
			r.Header.Get("X-Azure-Functions-InvocationId"), r.ContentLength < 0, len(r.Header.Get("Traceparent")) == 55, r.Header.Get("Accept-Encoding"),
			r.Header.Get("X-Azure-Functions-HostVersion"), r.UserAgent(), r.Header.Get("Content-Type"), body)
		if payload.Reply != nil {
			payload.Reply.write(w)
			return
		}
		exit(step)
		switch step {
		case "hold":
			<-release
		case "stuck":
			time.Sleep(time.Hour)
		case "talk":
			os.Stderr.WriteString("it failed\nForeWarned\r\nlanguageworkerconsolelogsystem talk\nno end of line")
			os.Stdout.WriteString("warning: on stdout\n\n")
			os.Exit(3)
		}
		if status, err := strconv.Atoi(step); err == nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			io.WriteString(w, "{}")
			return
		}
		if reply, ok := bodies[step]; ok {
			(&scriptedReply{Status: 200, Type: reply.media, Body: reply.body}).write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"Outputs":{},"Logs":["done"],"ReturnValue":null}`)
	})
	return mux
}

type scriptedReply struct {
	Status               int
	Type, Body, Location string
	Panic                bool
}

func (s *scriptedReply) write(w http.ResponseWriter) {
	if s.Panic {
		panic(http.ErrAbortHandler)
	}
	w.Header()["Content-Type"] = nil
	if s.Type != "" {
		w.Header().Set("Content-Type", s.Type)
	}
	if s.Location != "" {
		w.Header().Set("Location", s.Location)
	}
	w.WriteHeader(s.Status)
	io.WriteString(w, s.Body)
}
