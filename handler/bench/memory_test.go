package bench_test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// memory is what the program has of the machine's, in MB.
type memory struct {
	now  float64 // resident
	most float64 // ever; of the system's own count
	file float64 // of now: pages of files, nearly all of them the program's, which the system can take back
	heap float64 // Go's heap, with the goroutines' stacks
	rest float64 // Go's own tables, the program's variables, SQLite's memory
}

// own is what is not a file's.
func (m memory) own() float64 { return m.heap + m.rest }

func (p *process) memory() memory {
	p.t.Helper()
	if _, err := os.Stat("/proc/self/smaps"); err != nil {
		p.t.Skip("without /proc nothing can be measured:", err)
	}
	m, err := readMemory(p.cmd.Process.Pid)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// isHeap reports that an address is of Go's heap: above the program's own file, and below what is asked of the system without
// saying where, as Go does for its tables and SQLite for everything.
func isHeap(at uint64) bool {
	end := uint64(0x6000 << 32) // Go's heap ends at 0x4000 << 32
	if runtime.GOARCH == "arm64" {
		end = 0x8000 << 32
	}
	return at >= 1<<32 && at < end
}

func readMemory(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return m, err
	}
	var at uint64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kB, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		mb := kB * 1024 / 1e6
		switch {
		case name == "Rss" && err == nil:
			m.now += mb
		case name == "Anonymous" && err == nil && isHeap(at):
			m.heap += mb
		case name == "Anonymous" && err == nil:
			m.rest += mb
		case strings.Contains(name, "-"): // a mapping's first line: 00400000-0134f000 r-xp …
			first, _, _ := strings.Cut(name, "-")
			if at, err = strconv.ParseUint(first, 16, 64); err != nil {
				return m, fmt.Errorf("read %q: %w", line, err)
			}
		}
	}
	m.file = m.now - m.own()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	_, hwm, _ := strings.Cut(string(status), "VmHWM:")
	hwm, _, _ = strings.Cut(hwm, " kB")
	kB, err := strconv.ParseFloat(strings.TrimSpace(hwm), 64)
	if m.most = max(kB*1024/1e6, m.now); err != nil || m.heap == 0 || m.rest == 0 || m.file <= 0 {
		return m, fmt.Errorf("got %+v (%v) of\n%s%s", m, err, text, status)
	}
	return m, nil
}

// watch looks at the program's memory, some 20 times a second until peak is called, which tells when it had most.
func (p *process) watch() (peak func() memory) {
	over, seen := make(chan struct{}), make(chan memory)
	go func() {
		var most memory
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if m, err := readMemory(p.cmd.Process.Pid); err == nil && m.now > most.now { // the test itself finds out if none can be read
					most = m
				}
			case <-over:
				seen <- most
				return
			}
		}
	}()
	return func() memory { close(over); return <-seen }
}

// collected is of a line of GODEBUG=gctrace=1: MiB when the collection began, when it ended, and alive.
var collected = regexp.MustCompile(`(?m)^gc \d+ @.* \d+->\d+->(\d+) MB,`)

// alive is the most that a collection of Go's has found in use, in MB. The program must have been started with
// GODEBUG=gctrace=1, and be stopped.
func (p *process) alive() (most float64) {
	p.t.Helper()
	lines := collected.FindAllStringSubmatch(p.log.String(), -1)
	if len(lines) == 0 {
		p.t.Errorf("the program tells nothing of its collections: %.2000s", p.log.String())
	}
	for _, line := range lines {
		mib, _ := strconv.ParseFloat(line[1], 64) // digits
		most = max(most, mib*(1<<20)/1e6)
	}
	return most
}
