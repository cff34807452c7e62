package ledgertest

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"signup-sync/handler/signup"
)

var noteChecks = []Check{
	{"a note that was never written has no body and no version", noteAbsent},
	{"a note is kept as it was written", noteKept},
	{"a note is written over the version it was given, and only over that", noteVersion},
	{"a note is made only once", noteOnce},
	{"notes do not touch each other, nor the rows", notesApart},
}

func noteAbsent(ctx context.Context, newLedger func() signup.Ledger) error {
	got, err := newLedger().Note(ctx, "watermark|audit")
	if err != nil {
		return err
	}
	return diff("a note never written", got, signup.Note{Name: "watermark|audit"})
}

func noteKept(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	big := []byte(`{"text":"` + strings.Repeat(`\"ü`, 7_000) + `"}`)
	for _, n := range []signup.Note{
		{Name: "summary|2026-01-02t03:04:05.678z", Body: []byte(`{"a": 1, "b": [null, "x<y&z"]}`)},
		{Name: strings.Repeat("n", 100), Body: big},
	} {
		put, err := l.PutNote(ctx, n)
		if err != nil {
			return err
		}
		if put.Version == "" || put.Name != n.Name || !bytes.Equal(put.Body, n.Body) {
			return fmt.Errorf("put note: got %.200v, want the note with a version", put)
		}
		got, err := l.Note(ctx, n.Name)
		if err != nil {
			return err
		}
		if err := diff("the note", got, put); err != nil {
			return err
		}
	}
	return nil
}

func noteVersion(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	first, err := l.PutNote(ctx, signup.Note{Name: "lease", Body: []byte(`"first"`)})
	if err != nil {
		return err
	}
	second := signup.Note{Name: "lease", Body: []byte(`"second"`), Version: first.Version}
	if second, err = l.PutNote(ctx, second); err != nil {
		return err
	}
	_, err = l.PutNote(ctx, signup.Note{Name: "lease", Body: []byte(`"late"`), Version: first.Version})
	if err := conflict("put a note over an old version", err); err != nil {
		return err
	}
	got, err := l.Note(ctx, "lease")
	if err != nil {
		return err
	}
	if err := diff("the note", got, second); err != nil {
		return err
	}
	got.Body = []byte(`"third"`)
	_, err = l.PutNote(ctx, got)
	return err
}

func noteOnce(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	n := signup.Note{Name: "since", Body: []byte(`1`)}
	put, err := l.PutNote(ctx, n)
	if err != nil {
		return err
	}
	_, err = l.PutNote(ctx, n)
	if err := conflict("make a note that is there", err); err != nil {
		return err
	}
	_, err = l.PutNote(ctx, signup.Note{Name: "absent", Body: []byte(`1`), Version: put.Version})
	if err := conflict("write over a note that is not there", err); err != nil {
		return err
	}
	got, err := l.Note(ctx, "absent")
	if err != nil {
		return err
	}
	return diff("a note never written", got, signup.Note{Name: "absent"})
}

func notesApart(ctx context.Context, newLedger func() signup.Ledger) error {
	l := newLedger()
	r := newRow(1, "run-1", noon)
	if _, err := insertAll(ctx, l, r); err != nil {
		return err
	}
	names := []string{"user|" + string(r.User), "watermark|audit", "watermark|audit.", "watermark"}
	for _, name := range names {
		if _, err := l.PutNote(ctx, signup.Note{Name: name, Body: fmt.Appendf(nil, "%q", name)}); err != nil {
			return err
		}
	}
	for _, name := range names {
		got, err := l.Note(ctx, name)
		if err != nil {
			return err
		}
		if err := diff("the note "+name, string(got.Body), fmt.Sprintf("%q", name)); err != nil {
			return err
		}
	}
	if err := holds(ctx, l, r); err != nil {
		return err
	}
	got, err := collect(l.All(ctx))
	if err != nil {
		return err
	}
	return diff("all rows", noVersions(got), []signup.Row{r})
}
