package bench

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// Machine is where figures come from.
type Machine struct {
	Go    string `json:"go"`    // the version that compiled the program
	CPU   string `json:"cpu"`   // as the system names it
	Cores int    `json:"cores"` // that the process may use
}

// stamped is a part as it is kept, with where and of what it was measured.
type stamped struct {
	Part
	Machine
	Commit string `json:"commit"`
	Date   string `json:"date"`
}

func stamp(p Part) stamped {
	return stamped{Part: p, Machine: thisMachine(), Commit: thisCommit(), Date: time.Now().UTC().Format(time.RFC3339)}
}

func thisMachine() Machine {
	m := Machine{Go: runtime.Version(), CPU: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU()}
	info, _ := os.ReadFile("/proc/cpuinfo") // which only Linux has
	for line := range strings.Lines(string(info)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(model)
			break
		}
	}
	return m
}

// thisCommit is the commit of the working tree, "-dirty" behind it when files of it are changed, those aside that are
// written from the measurements; "unknown" without git.
func thisCommit() string {
	root, err := projectRoot()
	if err != nil {
		return "unknown"
	}
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--", ".", ":!bench.json", ":!docs/performance.md", ":!docs/performance"); err != nil || changed != "" {
		commit += "-dirty"
	}
	return commit
}
