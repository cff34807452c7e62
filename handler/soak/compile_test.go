package soak_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checker type-checks packages of the program with a changed file, against what the build has left of their imports.
// That takes a moment, where building takes a minute for all faults.
type checker struct {
	files    *token.FileSet
	imports  types.Importer
	packages map[string]builtPackage // by import path
}

type builtPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func newChecker(dirs []string) (*checker, error) {
	list := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles"}, dirs...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	c := &checker{files: token.NewFileSet(), packages: map[string]builtPackage{}}
	c.imports = importer.ForCompiler(c.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(c.packages[path].Export) })
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p builtPackage
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return c, nil
		case err != nil:
			return nil, err
		}
		c.packages[p.ImportPath] = p
	}
}

// check says why the package of the file does not compile when the file has this text.
func (c *checker) check(file, text string) error {
	p, ok := c.packages["signup-sync/handler/"+filepath.ToSlash(filepath.Dir(file))]
	if !ok {
		return fmt.Errorf("no package has %s", file)
	}
	var parsed []*ast.File
	for _, name := range p.GoFiles {
		var src any
		if name == filepath.Base(file) {
			src = text
		}
		f, err := parser.ParseFile(c.files, filepath.Join(p.Dir, name), src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed = append(parsed, f)
	}
	_, err := (&types.Config{Importer: c.imports}).Check(p.ImportPath, c.files, parsed, nil)
	return err
}
