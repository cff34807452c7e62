package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

type licencesCommand struct {
	Binary string `default:"dist/handler" type:"path" help:"The program whose modules count."`
	Out    string `default:"dist/THIRD-PARTY-NOTICES.txt" type:"path" help:"Where their licences go."`
}

// Run writes the licences of all modules that are in the program, which must go along with it, and refuses any that is of
// no allowed kind. The same modules make the same bytes. What counts is what stands in a module's root; a file deeper
// inside that names another licence is not seen.
func (c licencesCommand) Run(s system) error {
	info, err := buildinfo.ReadFile(c.Binary)
	if err != nil {
		return refusal{fmt.Errorf("read the modules of %s: %w", c.Binary, err)}
	}
	places, err := exec.Command("go", "env", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find the modules: %w", err)
	}
	cache, root, _ := strings.Cut(strings.TrimSpace(string(places)), "\n")
	modules := []licensed{{name: "the Go programming language, " + info.GoVersion, source: "https://go.dev/dl", dir: root}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, licensed{name: m.Path + " " + m.Version, source: "https://pkg.go.dev/" + m.Path + "@" + m.Version,
			dir: filepath.Join(cache, filepath.FromSlash(escapeModule(m.Path))+"@"+escapeModule(m.Version))})
	}
	text, errs := "This program contains the following, under their own licences.\n", []error(nil)
	for _, m := range modules {
		notice, err := m.notice()
		errs = append(errs, err)
		text += notice
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.Out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(c.Out, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the licences: %w", err)
	}
	fmt.Fprintf(s.stdout, "%s: %d modules\n", c.Out, len(modules))
	return nil
}

// licensed is something that comes with a licence.
type licensed struct{ name, source, dir string }

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice|patents|third.?party)`)
	rootLicence = regexp.MustCompile(`(?i)^(licen[sc]e|copying)(\.(txt|md))?$`)
)

// notice is a module's part of the file.
func (m licensed) notice() (string, error) {
	files, err := os.ReadDir(m.dir)
	if err != nil {
		return "", fmt.Errorf("look for the licence of %s: %w", m.name, err)
	}
	kind, text := "", ""
	for _, f := range files { // by name
		if f.IsDir() || !licenceFile.MatchString(f.Name()) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(m.dir, f.Name()))
		if err != nil {
			return "", fmt.Errorf("read the licence of %s: %w", m.name, err)
		}
		content := strings.TrimSpace(strings.ReplaceAll(string(data), "\r\n", "\n"))
		if rootLicence.MatchString(f.Name()) && kind == "" {
			kind = licenceKind(content)
		}
		if word := forbiddenLicence.FindString(content); word != "" && !strings.Contains(content, "Mozilla Public License") { // which names the GPL
			return "", fmt.Errorf("%s: %s mentions %q: a person must look at it", m.name, f.Name(), word)
		}
		text += "\n--- " + f.Name() + "\n\n" + content + "\n"
	}
	if kind == "" {
		return "", fmt.Errorf("%s has no licence of an allowed kind (%s) in its root", m.name, strings.Join(licenceNames(), ", "))
	}
	return "\n" + strings.Repeat("=", 80) + "\n" + m.name + "\n" + kind + "; source: " + m.source + "\n" + text, nil
}

// licences are the kinds that may be in the program, by words that only they have, white space aside.
var licences = []struct{ name, has string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"},
	{"BSD", "Redistribution and use in source and binary forms, with or without modification, are permitted provided that"},
}

// forbiddenLicence are licences that ask for more than to be passed on.
var forbiddenLicence = regexp.MustCompile(`(?i)GNU (Affero |Lesser )?General Public|Server Side Public|Business Source|Commons Clause`)

// licenceKind is which of them a text is, "" for none.
func licenceKind(text string) string {
	plain := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == '*' || r == '#' || r == '/' }), " ")
	for _, l := range licences {
		if strings.Contains(strings.ToLower(plain), strings.ToLower(l.has)) {
			return l.name
		}
	}
	return ""
}

func licenceNames() (names []string) {
	for _, l := range licences {
		names = append(names, l.name)
	}
	return slices.Sorted(slices.Values(names))
}

// escapeModule is how the module cache spells capital letters, which some file systems cannot tell from small ones
// (go.dev/ref/mod, module cache).
func escapeModule(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
