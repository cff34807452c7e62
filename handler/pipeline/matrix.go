package pipeline

import (
	"context"
	"fmt"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// DetectorStatus is how far a detector is, and whom it has shown: first, or after which other.
type DetectorStatus struct {
	Name      string          `json:"name"`
	Watermark time.Time       `json:"watermark,omitzero"` // zero = not read yet
	Gaps      []signup.Window `json:"gaps,omitempty"`
	Seen      Sightings       `json:"seen"`   // since the installation
	Recent    Lags            `json:"recent"` // of the latest thousand or two
}

const (
	// enoughLags are needed before a lag says anything.
	enoughLags = 100
	// warnAgain is how long a person is left alone who was told that a detector is late.
	warnAgain = 24 * time.Hour
)

// Late reports that the detector shows sign-ups so late that the overlap, by which each window reaches back, has less
// than the same again to spare: the 99th percentile of the latest lags is more than half of it.
func (s DetectorStatus) Late(overlap time.Duration) bool { return late(s.Recent, overlap) }

func late(l Lags, overlap time.Duration) bool {
	return l.N() >= enoughLags && l.Quantile(0.99) > overlap/2
}

// Matrix reads from the ledger how far every configured detector is.
func (e *Engine) Matrix(ctx context.Context) ([]DetectorStatus, error) {
	all := make([]DetectorStatus, len(e.Detectors))
	for i, d := range e.Detectors {
		var m mark
		if _, err := e.readNote(ctx, markNote(d.Name()), &m); err != nil {
			return nil, fmt.Errorf("read the watermark of %s: %w", d.Name(), err)
		}
		all[i] = DetectorStatus{Name: d.Name(), Watermark: m.Watermark, Seen: m.Seen, Recent: m.Recent.all()}
		for _, g := range m.Gaps {
			all[i].Gaps = append(all[i].Gaps, g.Window)
		}
	}
	return all, nil
}

// markNote is the name of a detector's note; those have no capitals.
func markNote(detector string) string { return "watermark|" + strings.ToLower(detector) }
