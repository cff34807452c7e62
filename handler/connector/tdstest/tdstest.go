// Package tdstest is a server that speaks the Tabular Data Stream protocol (MS-TDS 7.4 and 8.0) as far as a SQL Server
// driver needs it: it logs in by password or by token, with or without encryption, and hands each statement to a
// function that answers it. It understands no SQL.
//
// It imports the standard library only.
package tdstest

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// Login is what a client sent to log in.
type Login struct {
	User, Password string
	Token          string // by MS-TDS 2.2.6.4, FEDAUTH with a security token; "" if it sent none
	App, Database  string
	Encrypted      bool
}

// Statement is what a client wants to be run.
type Statement struct {
	SQL      string
	Declared string // sp_executesql's declarations: "@p1 nvarchar(36),@p2 bigint"; "" for a batch
	Values   []any  // string, int64, float64, bool, nil
}

// Reply is the answer to a statement.
type Reply struct {
	Columns []any   // a value of each column's type: string or int; nil = no result set
	Rows    [][]any //
	Count   int     // the rows that were changed
	Errors  []Error // in the order in which they are sent
	Cut     bool    // the connection is closed instead
}

// Error is one that the server sends.
type Error struct {
	Number   int32
	Text     string
	Severity byte // 0 = 16, "can be corrected by the user"
}

// Options is what a server does.
type Options struct {
	TLS *tls.Config // it encrypts with this; nil = it cannot
	// Login answers a login, by its errors or nil; nil = all may.
	Login func(Login) []Error
	// Answer answers a statement; ctx ends when the client breaks it off, and the answer is then not sent.
	Answer func(ctx context.Context, s Statement) Reply
	// Mute accepts connections and says nothing.
	Mute bool
}

// Server is a server on a port of this machine.
type Server struct {
	options  Options
	listener net.Listener
	wait     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// New starts a server; Close ends it.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, listener: listener, conns: map[net.Conn]bool{}}
	s.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
			s.wait.Go(func() {
				s.serve(conn)
				_ = conn.Close()
				s.mu.Lock()
				delete(s.conns, conn)
				s.mu.Unlock()
			})
		}
	})
	return s, nil
}

// Port is where it listens.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Close closes all connections.
func (s *Server) Close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

// serve is one connection: prelogin, perhaps encryption, login, and statements until it is closed.
func (s *Server) serve(raw net.Conn) {
	peek := bufio.NewReader(raw)
	first, err := peek.Peek(1)
	if err != nil || s.options.Mute {
		_, _ = peek.Discard(1 << 30)
		return
	}
	var conn net.Conn = peeked{raw, peek}
	encrypted := false
	if first[0] == tlsRecord && s.options.TLS != nil { // TDS 8.0 encrypts all
		config := s.options.TLS.Clone()
		config.NextProtos = []string{"tds/8.0"}
		conn, encrypted = tls.Server(conn, config), true
	}
	kind, body, err := readMessage(conn)
	if err != nil || kind != prelogin {
		return
	}
	if err := writeMessage(conn, reply, preloginAnswer(body, s.options.TLS != nil)); err != nil {
		return
	}
	if s.options.TLS != nil && !encrypted {
		if conn, err = encrypt(conn, s.options.TLS); err != nil {
			return
		}
		encrypted = true
	}
	kind, body, err = readMessage(conn)
	if err != nil || kind != login7 {
		return
	}
	login, err := parseLogin(body)
	if err != nil {
		return
	}
	login.Encrypted = encrypted
	var refused []Error
	if s.options.Login != nil {
		refused = s.options.Login(login)
	}
	if err := writeMessage(conn, reply, loginAnswer(login, refused)); err != nil || refused != nil {
		return
	}
	s.statements(conn)
}

type message struct {
	kind byte
	body []byte
}

// statements answers one statement after the other. While one is at work it listens for an attention, which is answered
// also when it comes too late.
func (s *Server) statements(conn net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	messages := make(chan message)
	s.wait.Go(func() {
		defer close(messages)
		defer cancel()
		for {
			kind, body, err := readMessage(conn)
			if err != nil {
				return
			}
			messages <- message{kind, body}
		}
	})
	defer func() {
		_ = conn.Close()
		for range messages { // until the reader has ended
		}
	}()
	for m := range messages {
		if m.kind == attention {
			if writeMessage(conn, reply, attentionAnswer()) != nil {
				return
			}
			continue
		}
		statement, err := parseStatement(m)
		if err != nil {
			return
		}
		working, stop := context.WithCancel(ctx)
		done := make(chan Reply, 1)
		go func() { done <- s.options.Answer(working, statement) }()
		var answer []byte
		select {
		case r := <-done:
			if r.Cut {
				stop()
				return
			}
			answer = r.encode(m.kind)
		case <-messages: // an attention, or the end
			stop()
			<-done
			answer = attentionAnswer()
		}
		stop()
		if writeMessage(conn, reply, answer) != nil {
			return
		}
	}
}
