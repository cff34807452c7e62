// Package bench keeps what `make bench` measures. Tests anywhere in the program write down the figures of their part, and
// the report makes bench.json and docs/performance.md of all parts. It imports the standard library only, and nothing but
// tests imports it.
package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Figure is one measured number.
type Figure struct {
	Name   string  `json:"name"`             // within its part: "all/ratio"
	Value  float64 `json:"value"`            //
	Unit   string  `json:"unit,omitempty"`   // "s", "MB", "calls/user"; "" for a ratio
	Goal   string  `json:"goal,omitempty"`   // "<= 1.10", ">= 20"; "" = none was set
	Steady bool    `json:"steady,omitempty"` // a ratio or a count that every machine gives: CI holds it to what stands in bench.json
}

// Plot is one picture: lines over an axis.
type Plot struct {
	Name   string   `json:"name"`  // of its file, below docs/performance/
	Title  string   `json:"title"` //
	X      string   `json:"x"`     // the axes, with units
	Y      string   `json:"y"`
	LogX   bool     `json:"logX,omitempty"`
	LogY   bool     `json:"logY,omitempty"`
	Series []Series `json:"series"`
}

// Series is one line of a plot.
type Series struct {
	Name   string       `json:"name"`
	Points [][2]float64 `json:"points"`
}

// Part is what one test measured.
type Part struct {
	Name    string   `json:"name"`    // "burst"
	Title   string   `json:"title"`   // of its section
	Command string   `json:"command"` // that measures it again, from the project's root
	Text    string   `json:"text"`    // Markdown: what was measured and how, tables, what it means, which limit was reached
	Figures []Figure `json:"figures"`
	Plots   []Plot   `json:"plots,omitempty"`
}

// Write keeps the part for the report, in the folder that BENCH_DIR names. Without one it does nothing, so that the test
// of a part can be a gate as well.
func (p Part) Write() error {
	dir := os.Getenv("BENCH_DIR")
	if dir == "" {
		return nil
	}
	if !filepath.IsAbs(dir) { // of the project's root, since a test runs in its package's folder
		root, err := projectRoot()
		if err != nil {
			return err
		}
		dir = filepath.Join(root, dir)
	}
	body, err := json.MarshalIndent(stamp(p), "", "\t")
	if err != nil {
		return fmt.Errorf("write the part %s: %w", p.Name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the part %s: %w", p.Name, err)
	}
	return os.WriteFile(filepath.Join(dir, p.Name+".json"), body, 0o644)
}
