package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryModuleMayBeDistributed reads the licences of all that is in the program as it is deployed.
func TestEveryModuleMayBeDistributed(t *testing.T) {
	out := filepath.Join(t.TempDir(), "notices.txt")
	write := func() []byte {
		var stderr bytes.Buffer
		if code := run(t.Context(), system{args: []string{"licences", "--binary", builtBinary(t), "--out", out}, getenv: os.Getenv, stdout: &stderr, stderr: &stderr}); code != exitOK {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data := write()
	if !bytes.Equal(data, write()) {
		t.Error("the same program made different bytes")
	}
	for _, part := range []string{"\nthe Go programming language, go1.", "\ngithub.com/stripe/stripe-go/v85 ", "\ngithub.com/AzureAD/microsoft-authentication-library-for-go ",
		"MPL-2.0; source: https://pkg.go.dev/github.com/go-sql-driver/mysql@", "Copyright (c) Microsoft Corporation", "--- PATENTS"} {
		if !bytes.Contains(data, []byte(part)) {
			t.Errorf("there is no %q", part)
		}
	}
}

func TestALicenceIsKnownByItsWords(t *testing.T) {
	const mit = "The MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\nof this software and"
	for _, test := range []struct{ name, file, text, want string }{
		{"MIT", "LICENSE", mit, "MIT; "},
		{"in any case of the name", "Copying.md", strings.ToUpper(mit), "MIT; "},
		{"Apache", "LICENSE.txt", "    Apache License\n    Version 2.0, January 2004", "Apache-2.0; "},
		{"none", "README", mit, "no licence of an allowed kind"},
		{"not the main file", "LICENSE-LOGO", mit, "no licence of an allowed kind"},
		{"one of its own", "LICENSE", "You may use this on Sundays.", "no licence of an allowed kind"},
		{"GPL", "LICENSE", "GNU GENERAL PUBLIC LICENSE Version 3", "a person must look at it"},
		{"a clause behind it", "LICENSE", mit + "\n\nCommons Clause", "a person must look at it"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, test.file), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := licensed{name: "example.com/m v1.0.0", source: "there", dir: dir}.notice()
		if err != nil {
			text += err.Error()
		}
		if !strings.Contains(text, test.want) || !strings.Contains(text, "example.com/m v1.0.0") {
			t.Errorf("%s: got %q, want %q", test.name, text, test.want)
		}
	}
	if got := escapeModule("github.com/AzureAD/x"); got != "github.com/!azure!a!d/x" {
		t.Errorf("got %s", got)
	}
}
