package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress shows how far long work is: one line that changes on a terminal, else a line now and then. It may be used by
// several goroutines.
type progress struct {
	terminal bool

	mu   sync.Mutex
	w    io.Writer
	last time.Time
}

func newProgress(s system, json bool) *progress {
	p := &progress{w: s.stdout}
	if json {
		p.w = s.stderr
	}
	if f, ok := p.w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *progress) update(at time.Duration, people, of, rows, settled int) {
	p.line(fmt.Sprintf("simulated %5s   signed up %*d of %d   in the ledger %*d   settled %*d", at.Truncate(time.Second),
		len(fmt.Sprint(of)), people, of, len(fmt.Sprint(of)), rows, len(fmt.Sprint(of)), settled))
}

// line shows the text in place of the last one.
func (p *progress) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\033[K%s", text)
		p.last = time.Now()
	case time.Since(p.last) >= 2*time.Second:
		fmt.Fprintln(p.w, text)
		p.last = time.Now()
	}
}

// done ends the line that changes.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
}

func (p *progress) endLine() {
	if p.terminal && !p.last.IsZero() {
		fmt.Fprintln(p.w)
		p.last = time.Time{}
	}
}
