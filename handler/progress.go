package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progress shows how far long work is: one line that changes on a terminal, else a line now and then. It may be used by
// several goroutines.
type progress struct {
	terminal bool

	mu    sync.Mutex
	w     io.Writer
	last  time.Time // of the last text
	drawn bool      // the line that changes is there
}

const (
	redraw = 100 * time.Millisecond // between two changes of the line, at least
	pause  = 2 * time.Second        // between two plain lines; what takes less says nothing
)

func newProgress(s system, json bool) *progress {
	p := &progress{w: s.stdout}
	if json {
		p.w = s.stderr
	}
	if f, ok := p.w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if !p.terminal {
		p.last = time.Now()
	}
	return p
}

// say writes a line that stays, in place of the one that changes.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.w, "\r\033[K")
		p.drawn = false
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// part shows how much of something is done, with a bar on a terminal; a total of 0 is one that nobody knows. It may be
// called for each of millions.
func (p *progress) part(done, total int, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.terminal && done != total && time.Since(p.last) < redraw:
	case total <= 0:
		p.draw(fmt.Sprintf("%d %s", done, what))
	case p.terminal:
		p.draw(fmt.Sprintf("%s %*d of %d %s", bar(done, total), len(fmt.Sprint(total)), done, total, what))
	default:
		p.draw(fmt.Sprintf("%d of %d %s", done, total, what))
	}
}

// barWidth is how many characters a bar has between its brackets.
const barWidth = 20

// bar draws a share. It is full only when everything is done.
func bar(done, total int) string {
	full := min(max(done, 0), total) * barWidth / total
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
}

func (p *progress) update(at time.Duration, people, of, rows, settled int) {
	p.line(fmt.Sprintf("simulated %5s   signed up %*d of %d   in the ledger %*d   settled %*d", at.Truncate(time.Second),
		len(fmt.Sprint(of)), people, of, len(fmt.Sprint(of)), rows, len(fmt.Sprint(of)), settled))
}

// line shows the text in place of the last one.
func (p *progress) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw(text)
}

func (p *progress) draw(text string) {
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\033[K%s", text)
		p.last, p.drawn = time.Now(), true
	case time.Since(p.last) >= pause:
		fmt.Fprintln(p.w, text)
		p.last = time.Now()
	}
}

// bar shows how much is done, from 0 to 1.
func (p *progress) bar(done float64, text string) {
	const width = 24
	done = min(max(done, 0), 1)
	line := fmt.Sprintf("%3.0f %%   %s", done*100, text)
	if p.terminal {
		full := int(done * width)
		line = "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "] " + line
	}
	p.line(line)
}

// done ends the line that changes.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprintln(p.w)
		p.drawn = false
	}
}
