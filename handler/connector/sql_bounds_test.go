package connector_test

import (
	"io"
	"net"
	"runtime"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

// TestADatabaseThatAnnouncesMuchGetsNoMemory is about a server that is not ours: PostgreSQL's driver takes the memory for
// a message when its length is announced, up to a gibibyte.
func TestADatabaseThatAnnouncesMuchGetsNoMemory(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.ReadAtLeast(c, make([]byte, 512), 8)                          // the startup message
				_, _ = c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0, 'S', 0x1f, 0, 0, 0}) // welcome, and half a gibibyte follows
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	c := open(t, "sql", map[string]any{"driver": "postgres", "table": "t", "key": "k", "timeout": "300ms",
		"dsn": "postgres://u:p@" + l.Addr().String() + "/d?sslmode=disable"}, connector.Env{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err = c.Check(t.Context())
	runtime.ReadMemStats(&after)
	if signup.ClassOf(err) != signup.Transient || err == nil {
		t.Errorf("got %v, want a transient error", err)
	}
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 32 {
		t.Errorf("%d MiB of memory were taken", took)
	}
}
