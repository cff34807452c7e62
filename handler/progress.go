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

// part shows how many of something are done; a total of 0 is one that nobody knows.
func (p *progress) part(done, total int, what string) {
	text := fmt.Sprintf("%d %s", done, what)
	if total > 0 {
		text = fmt.Sprintf("%*d of %d %s", len(fmt.Sprint(total)), done, total, what)
	}
	p.share(done, total, text)
}

// share shows a text, with a bar before it on a terminal if the total is known. It may be called for each of millions.
func (p *progress) share(done, total int, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		if done != total && time.Since(p.last) < redraw {
			return
		}
		if total > 0 {
			text = bar(done, total) + " " + text
		}
		fmt.Fprintf(p.w, "\r\033[K%s", text)
		p.last, p.drawn = time.Now(), true
	} else if time.Since(p.last) >= pause {
		fmt.Fprintln(p.w, text)
		p.last = time.Now()
	}
}

// barWidth is how many characters a bar has between its brackets.
const barWidth = 20

// bar draws a share. It is full only when everything is done.
func bar(done, total int) string {
	full := min(max(done, 0), total) * barWidth / total
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
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
