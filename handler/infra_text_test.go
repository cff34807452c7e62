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
	for _, name := range append([]string{"docs/operations.md"}, packageFiles...) {
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
		if text[r] == '/' && strings.HasPrefix(text[r:], "//") && r >= from {
			out.WriteString(text[from:r])
			from = r + strings.IndexByte(text[r:]+"\n", '\n')
		}
	}
	return out.String() + text[min(from, len(text)):]
}

// outside is where text is neither in a string nor in a comment.
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
		case strings.HasPrefix(rest, "//"):
			at = append(at, i)
			end = strings.IndexByte(rest+"\n", '\n') - 1
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

// keys are the keys of an object whose lines have one each.
func keys(object string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^  (\w+): `).FindAllStringSubmatch(object, -1) {
		names = append(names, m[1])
	}
	return names
}

// bicepResource is one declaration of a resource.
type bicepResource struct {
	file, symbol, kind string // kind without its version
	existing           bool
	body               string // with the loop around it
}

var resourceHead = regexp.MustCompile(`(?m)^ *resource (\w+) '([^'@]+)@[^']+' (existing )?= `)

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
