package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows is which packages of the project each may import, tests aside. main may import all of them.
var arrows = map[string][]string{
	"handler/signup":                  {},
	"handler/pipeline":                {"handler/signup"},
	"handler/functions":               {},
	"handler/functions/devhost":       {},
	"handler/entra":                   {"handler/signup"},
	"handler/identity":                {"handler/signup"},
	"handler/ledger":                  {"handler/signup"},
	"handler/ledger/ledgertest":       {"handler/signup"},
	"handler/connector":               {"handler/signup"},
	"handler/connector/connectortest": {"handler/signup", "handler/sim"},
	"handler/connector/databasetest":  {},
	"handler/connector/tdstest":       {},
	"handler/sim":                     {"handler/signup"},
	"handler/soak":                    {},
	"handler/status":                  {"handler/pipeline", "handler/signup"},
	"handler/bench":                   {},
	"handler/bench/plain":             {"handler/signup"}, // the subject of a comparison, no part of the program
	"handler/telemetry":               {},
	"handler/telemetry/collectortest": {},
}

// fences is who may import what is heavy or dangerous to have everywhere.
var fences = map[string][]string{
	"github.com/microsoftgraph/":                               {"handler/entra", "handler/bench/plain"},
	"github.com/microsoft/kiota":                               {"handler/entra", "handler/bench/plain"},
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity":         {"handler/identity", "handler/bench/plain"},
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/": {"handler/identity"},
	"software.sslmate.com/":                                    {"handler/identity"},
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables":      {"handler/ledger"},
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue":    {"handler/connector"},
	"github.com/microsoft/go-mssqldb":                          {"handler/connector"},
	"github.com/jackc/":                                        {"handler/connector"},
	"github.com/go-sql-driver/":                                {"handler/connector"},
	"github.com/golang-jwt/":                                   {"handler/connector"},
	"github.com/stripe/":                                       {"handler/connector"},
	"github.com/expr-lang/":                                    {"handler/pipeline"},
	"github.com/goccy/":                                        {"handler"},
	"github.com/alecthomas/":                                   {"handler"},
	"go.opentelemetry.io/":                                     {"handler/telemetry", "handler/telemetry/collectortest"},
	"google.golang.org/":                                       {"handler/telemetry", "handler/telemetry/collectortest"},
}

// plain are the packages that keep to the standard library.
var plain = []string{"handler/signup", "handler/functions", "handler/functions/devhost", "handler/connector/databasetest", "handler/connector/tdstest", "handler/sim", "handler/bench"}

const module = "signup-sync/"

func TestImportsFollowTheArrows(t *testing.T) {
	imports := map[string]map[string]string{} // of each package: what it imports, and a file that does
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "node_modules") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := strings.TrimSuffix(filepath.ToSlash(filepath.Join("handler", filepath.Dir(path))), "/.")
		if imports[pkg] == nil {
			imports[pkg] = map[string]string{}
		}
		for _, i := range file.Imports {
			imports[pkg][strings.Trim(i.Path.Value, `"`)] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) < len(arrows) {
		t.Fatalf("found %d packages, want at least %d: does the test look in the right place?", len(imports), len(arrows))
	}
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		allowed, known := arrows[pkg]
		if !known && pkg != "handler" {
			t.Errorf("%s is new: write into arrows what it may import", pkg)
		}
		for _, path := range slices.Sorted(maps.Keys(imports[pkg])) {
			file := imports[pkg][path]
			if own, ok := strings.CutPrefix(path, module); ok {
				if pkg != "handler" && !slices.Contains(allowed, own) {
					t.Errorf("%s imports %s: %s may import %v of the project", file, own, pkg, allowed)
				}
				continue
			}
			if slices.Contains(plain, pkg) && strings.Contains(path, ".") {
				t.Errorf("%s imports %s: %s keeps to the standard library", file, path, pkg)
			}
			for _, prefix := range slices.Sorted(maps.Keys(fences)) {
				if strings.HasPrefix(path, prefix) && !slices.Contains(fences[prefix], pkg) {
					t.Errorf("%s imports %s: only %v may", file, path, fences[prefix])
				}
			}
		}
	}
}
