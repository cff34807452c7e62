package connector_test

import (
	"bytes"
	"net"
	"strconv"
	"sync"
	"testing"
)

// proxy stands between a connector and a real server, and breaks their connections.
type proxy struct {
	listener net.Listener
	socket   string
	effect   func(asked byte, answer []byte) bool // whether a server's answer says that something was changed

	mu      sync.Mutex
	lose    bool
	down    bool
	stalled chan struct{}
	open    map[net.Conn]bool
}

func newProxy(t testing.TB, d *testDatabase) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, socket: d.server.Socket, effect: postgresEffect, open: map[net.Conn]bool{}}
	if d.driver == "mysql" {
		p.effect = mysqlEffect
	}
	var accepted sync.WaitGroup
	accepted.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.set(func() { p.cutAll() })
		accepted.Wait()
	})
	return p
}

// postgresEffect knows the tag of a row that was written.
func postgresEffect(_ byte, answer []byte) bool { return bytes.Contains(answer, []byte("INSERT 0 1")) }

// mysqlEffect knows the OK packet to COM_STMT_EXECUTE whose number of rows is not 0.
func mysqlEffect(asked byte, answer []byte) bool {
	return asked == 0x17 && len(answer) > 5 && answer[4] == 0 && answer[5] > 0
}

func (p *proxy) port() string { return strconv.Itoa(p.listener.Addr().(*net.TCPAddr).Port) }

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *proxy) cutAll() {
	for conn := range p.open {
		_ = conn.Close()
	}
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("unix", p.socket)
	if err != nil {
		_ = client.Close()
		return
	}
	p.set(func() {
		p.open[client], p.open[server] = true, true
		if p.down {
			p.cutAll()
		}
	})
	var asked byte
	var both sync.WaitGroup
	both.Go(func() {
		relay(client, server, func(b []byte) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(b) > 4 {
				asked = b[4]
			}
			if p.stalled == nil {
				return true
			}
			close(p.stalled)
			p.stalled = nil
			return false
		})
	})
	both.Go(func() {
		relay(server, client, func(b []byte) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.lose && p.effect(asked, b) {
				p.lose = false
				return false
			}
			return true
		})
		_ = client.Close()
		_ = server.Close()
	})
	both.Wait()
	p.set(func() { delete(p.open, client); delete(p.open, server) })
}

// relay passes on what look approves of. What it does not is dropped, and then relay only waits for the end of the
// connection, unless it came from the server: then relay returns.
func relay(from, to net.Conn, look func([]byte) bool) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !look(buffer[:n]) {
				_, toServer := to.(*net.UnixConn)
				for toServer && err == nil {
					_, err = from.Read(buffer)
				}
				_ = to.Close()
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}
