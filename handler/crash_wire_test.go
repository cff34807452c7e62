package main

import (
	"bytes"
	"net"
	"strconv"
	"sync"
	"testing"
)

// rowUpserted is the boundary of the customers table.
const rowUpserted = "customers: row written"

// serveWire puts the edge before a PostgreSQL server, and returns the port where it listens. It knows the request that
// writes by its statement, and its effect by the tag of a row that was written, which the server sends when the
// transaction is committed.
func (e *edge) serveWire(t *testing.T, socket string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wires sync.WaitGroup
	wires.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wires.Go(func() {
				defer client.Close()
				server, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer server.Close()
				wires.Go(func() { // ends when either side does
					defer server.Close()
					e.relay(client, server, []byte("INSERT INTO"), before)
				})
				e.relay(server, client, []byte("INSERT 0 1"), after)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wires.Wait() // the program is gone by now, and its connections
	})
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// relay passes on what one side sends. What has mark in it is where the program may die, and then nothing is passed on.
func (e *edge) relay(from, to net.Conn, mark []byte, s side) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if bytes.Contains(buffer[:n], mark) {
			if s == before {
				e.meets(rowUpserted)
			}
			if e.dies(rowUpserted, s, nil) {
				return
			}
		}
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
			return
		}
	}
}
