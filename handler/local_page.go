package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"time"

	"signup-sync/handler/functions/devhost"
)

// localPage is where the host of a local run answers clients.
type localPage struct {
	key    string
	server *http.Server
	link   string
}

// newLocalPage makes up the key of this run.
func newLocalPage() *localPage { return &localPage{key: rand.Text()} }

// serve answers on a free port of this machine, until close.
func (p *localPage) serve(host *devhost.Host) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve the status page: %w", err)
	}
	p.server = &http.Server{Handler: host, ReadHeaderTimeout: 10 * time.Second}
	p.link = fmt.Sprintf("http://%s/api/status?code=%s", l.Addr(), p.key)
	go func() { _ = p.server.Serve(l) }() // until it is closed
	return nil
}

func (p *localPage) close() {
	if p != nil && p.server != nil {
		_ = p.server.Close()
	}
}

// keep leaves everything up, timers included, until the user has seen enough.
func (l *local) keep(ctx context.Context) {
	l.show.say("the status page stays until Ctrl-C: %s", l.page.link)
	_ = l.host.RunTimers(ctx) // it ends with the context
}
