package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"signup-sync/handler/signup"
)

const (
	maxNote     = 30_000
	maxNoteName = 100
)

// Note reads a note; one that was never written has no Body and no Version.
func (l *Ledger) Note(ctx context.Context, name string) (signup.Note, error) {
	if err := checkNoteName(name); err != nil {
		return signup.Note{}, err
	}
	found, err := l.get(ctx, state, []string{name})
	if err != nil {
		return signup.Note{}, fmt.Errorf("read the note %s: %w", name, err)
	}
	e, ok := found[name]
	if !ok {
		return signup.Note{Name: name}, nil
	}
	return signup.Note{Name: name, Body: []byte(e.Body), Version: e.Version}, nil
}

// PutNote writes a note over the version it carries ("" = there is none yet) and returns it with its new version;
// signup.ErrConflict if that version is not the current one.
func (l *Ledger) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if err := checkNoteName(n.Name); err != nil {
		return signup.Note{}, err
	}
	if len(n.Body) > maxNote {
		return signup.Note{}, fmt.Errorf("write the note %s: it has %d bytes, want at most %d", n.Name, len(n.Body), maxNote)
	}
	if !json.Valid(n.Body) {
		return signup.Note{}, fmt.Errorf("write the note %s: it is not JSON", n.Name)
	}
	o := op{insert, entity{Key: n.Name, Version: n.Version, Mark: rand.Text(), Body: string(n.Body)}}
	if n.Version != "" {
		o.action = replace
	}
	versions, err := l.apply(ctx, state, []op{o})
	if err == nil && versions != nil {
		n.Version = versions[0]
		return n, nil
	}
	if err != nil && !errors.Is(err, errRefused) {
		return signup.Note{}, fmt.Errorf("write the note %s: %w", n.Name, err)
	}
	found, err := l.get(ctx, state, []string{n.Name})
	if err != nil {
		return signup.Note{}, fmt.Errorf("read back the note %s: %w", n.Name, err)
	}
	if e, ok := found[n.Name]; ok && e.Mark == o.Mark {
		n.Version = e.Version
		return n, nil
	}
	return signup.Note{}, fmt.Errorf("write the note %s: %w", n.Name, signup.ErrConflict)
}

func checkNoteName(name string) error {
	if len(name) > maxNoteName {
		return fmt.Errorf("check the note's name: it has %d characters, want at most %d", len(name), maxNoteName)
	}
	if err := checkKey(name); err != nil {
		return fmt.Errorf("check the note's name: %w", err)
	}
	return nil
}
