package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// project is the texts of what infra/ must agree with, and of infra/ itself, by path from the project's root. A policy reads
// from here and from nowhere else, so that a test can break one text and see which policy minds.
type project map[string]string

// readProject reads infra/, what is deployed beside the program, and the program's source.
func readProject(t *testing.T) project {
	t.Helper()
	p := project{}
	read := func(name string) {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		p[filepath.ToSlash(name)] = string(text)
	}
	for _, name := range append([]string{"docs/operations.md", "docs/security.md"}, packageFiles...) {
		read(name)
	}
	for dir, suffixes := range map[string][]string{"infra": {".bicep", ".bicepparam", ".json"}, "handler": {".go"}} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			name := strings.TrimPrefix(filepath.ToSlash(path), "../")
			for _, suffix := range suffixes {
				if err == nil && !d.IsDir() && strings.HasSuffix(name, suffix) && !strings.HasSuffix(name, "_test.go") {
					read(name)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// files are the names that begin and end so.
func (p project) files(prefix, suffix string) (names []string) {
	for name := range p {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	return names
}

// bicep is the text of a Bicep file without its comments. It is taken apart as far as the policies need: the language itself
// is checked elsewhere. What is written in a way that is not understood here is not found, and each policy demands to find
// something.
func (p project) bicep(name string) string {
	text := p[name]
	var out strings.Builder
	from := 0
	for _, r := range outside(text) {
		if end := comment(text[r:]); end > 0 && r >= from {
			out.WriteString(text[from:r])
			from = r + end
		}
	}
	return out.String() + text[min(from, len(text)):]
}

// comment is how long the comment is that text begins with; 0 if it begins with none.
func comment(text string) int {
	switch {
	case strings.HasPrefix(text, "//"):
		return strings.IndexByte(text+"\n", '\n')
	case strings.HasPrefix(text, "/*"):
		return strings.Index(text+"*/", "*/") + len("*/")
	}
	return 0
}

// outside is where text is neither in a string nor in a comment, but for a comment's beginning.
func outside(text string) (at []int) {
	for i := 0; i < len(text); i++ {
		end := -1
		switch rest := text[i:]; {
		case strings.HasPrefix(rest, "'''"):
			end = 3 + strings.Index(rest[3:]+"'''", "'''") + 2
		case rest[0] == '\'':
			end = 1
			for end < len(rest) && rest[end] != '\'' {
				if rest[end] == '\\' {
					end++
				}
				end++
			}
		case comment(rest) > 0:
			at = append(at, i)
			end = comment(rest) - 1
		default:
			at = append(at, i)
			continue
		}
		i += end
	}
	return at
}

// bracketed is the text from the first bracket at or after start to its counterpart; "" without one.
func bracketed(text string, start int) string {
	depth, from := 0, -1
	for _, i := range outside(text) {
		if i < start {
			continue
		}
		switch text[i] {
		case '{', '[', '(':
			if depth++; from < 0 {
				from = i
			}
		case '}', ']', ')':
			if depth--; depth == 0 {
				return text[from : i+1]
			}
		}
	}
	return ""
}

// declared is the value of a variable or parameter that is an object or a list; "" if there is none.
func declared(text, name string) string {
	at := regexp.MustCompile(`(?m)^(?:var|param) ` + name + `(?: \w+)? = `).FindStringIndex(text)
	if at == nil {
		return ""
	}
	return bracketed(text, at[1])
}

// entry is a member of an object. One that is not understood, such as a spread, is its own key and has no value.
type entry struct{ key, value string }

var member = regexp.MustCompile(`(?s)^'?([\w-]+)'?\s*:\s*(.+)$`)

// entries are the members of an object, in order. Anything else is one entry that is not understood.
func entries(object string) (all []entry) {
	if !strings.HasPrefix(object, "{") {
		return []entry{{key: object}}
	}
	depth, from := 0, 1
	add := func(text string) {
		if text = strings.TrimSpace(text); text == "" {
			return
		}
		if m := member.FindStringSubmatch(text); m != nil {
			all = append(all, entry{m[1], m[2]})
		} else {
			all = append(all, entry{key: text})
		}
	}
	for _, i := range outside(object) {
		switch c := object[i]; {
		case strings.ContainsRune("{[(", rune(c)):
			depth++
		case strings.ContainsRune("}])", rune(c)):
			if depth--; depth == 0 {
				add(object[from:i])
			}
		case depth == 1 && (c == '\n' || c == ','):
			add(object[from:i])
			from = i + 1
		}
	}
	return all
}

// keys are the keys of an object's members.
func keys(object string) (names []string) {
	for _, e := range entries(object) {
		names = append(names, e.key)
	}
	return names
}

// bicepResource is one declaration of a resource.
type bicepResource struct {
	file, symbol, kind string // kind without its version
	existing           bool
	body               string // with the loop around it
}

var resourceHead = regexp.MustCompile(`(?m)^ *resource +(\w+) +'([^'@]+)@[^']+' *(existing *)?= *`)

// resources are all that a file declares.
func (p project) resources(name string) (all []bicepResource) {
	text := p.bicep(name)
	for _, m := range resourceHead.FindAllStringSubmatchIndex(text, -1) {
		body := bracketed(text, m[1])
		if strings.HasPrefix(text[m[1]:], "if (") { // the condition is the first bracket
			body += bracketed(text, m[1]+strings.Index(text[m[1]:], ") {")+1)
		}
		all = append(all, bicepResource{file: name, symbol: text[m[2]:m[3]], kind: text[m[4]:m[5]], existing: m[6] >= 0, body: body})
	}
	return all
}

// values are what a property is set to, wherever it stands in the resource.
func (r bicepResource) values(property string) (all []string) {
	for _, m := range regexp.MustCompile(`(?:[{,]|\n) *`+property+`: ('[^']*'|[^,}\n]+)`).FindAllStringSubmatch(r.body, -1) {
		all = append(all, strings.TrimSpace(m[1]))
	}
	return all
}

// bicepModule is one use of a module in main.bicep.
type bicepModule struct{ symbol, path, body string }

var moduleHead = regexp.MustCompile(`(?m)^ *module +(\w+) +'([^']+)' *= *(?:if *\(\w+\) *)?`)

// modules are those that main.bicep uses.
func (p project) modules() (all []bicepModule) {
	text := p.bicep(mainFile)
	for _, m := range moduleHead.FindAllStringSubmatchIndex(text, -1) {
		all = append(all, bicepModule{symbol: text[m[2]:m[3]], path: text[m[4]:m[5]], body: bracketed(text, m[1])})
	}
	return all
}
