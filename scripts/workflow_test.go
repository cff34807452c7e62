package scripts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

type workflow struct {
	Name        string
	On          any
	Permissions map[string]string
	Concurrency any
	Jobs        map[string]job
}

type job struct {
	Uses        string
	Needs       string
	RunsOn      string `yaml:"runs-on"`
	Timeout     int    `yaml:"timeout-minutes"`
	Environment string
	Permissions map[string]string
	Env         map[string]string
	Steps       []step
}

type step struct {
	Name string
	Uses string
	If   string
	With map[string]any
	Run  string
	Env  map[string]string
}

// pinned is an action by the full id of a commit.
var pinned = regexp.MustCompile(`^(actions/checkout|actions/setup-go|actions/upload-artifact|azure/login)@[0-9a-f]{40}$`)

func parse(t *testing.T, name string, into any) string {
	t.Helper()
	data, err := os.ReadFile("../" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalWithOptions(data, into, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(data)
}

func TestWorkflowsAreSafe(t *testing.T) {
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil || len(files) != 3 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var w workflow
			text := parse(t, strings.TrimPrefix(file, "../"), &w)
			if fmt.Sprint(w.Permissions) != "map[contents:read]" {
				t.Errorf("every job may %v", w.Permissions)
			}
			if strings.Contains(text, "secrets.") || strings.Contains(text, "creds:") || strings.Contains(text, "pull_request_target") {
				t.Error("it uses a stored secret, or gives a stranger's change one")
			}
			for name, j := range w.Jobs {
				j.check(t, name)
			}
		})
	}
}

func (j job) check(t *testing.T, name string) {
	t.Helper()
	if j.Uses != "" {
		if j.Uses != "./.github/workflows/ci.yml" || len(j.Steps) > 0 {
			t.Errorf("%s uses %s", name, j.Uses)
		}
		return
	}
	logsIn := slices.ContainsFunc(j.Steps, func(s step) bool { return strings.HasPrefix(s.Uses, "azure/login@") })
	releases := slices.ContainsFunc(j.Steps, func(s step) bool { return strings.HasPrefix(s.Run, "gh release create") })
	if got := j.Permissions["id-token"] == "write"; got != logsIn {
		t.Errorf("%s: id-token is writable: %v, and it logs in: %v", name, got, logsIn)
	}
	if got := j.Permissions["contents"] == "write"; got != releases {
		t.Errorf("%s: contents are writable: %v, and it releases: %v", name, got, releases)
	}
	if j.Timeout == 0 || j.RunsOn == "" {
		t.Errorf("%s has no limit or no machine", name)
	}
	for _, s := range j.Steps {
		switch {
		case s.Uses != "" && !pinned.MatchString(s.Uses):
			t.Errorf("%s uses %s, which is not one of ours by its commit", name, s.Uses)
		case strings.Contains(s.Run, "${{"):
			t.Errorf("%s: what is put into a script before it is read may be a script: %s", name, s.Run)
		case s.Run != "":
			shellcheck(t, "#!/bin/bash\nset -e\n"+s.Run, "-x")
			checkTargets(t, s.Run)
		}
	}
}

// checkTargets fails the test for a target that the Makefile does not have, and for a file that is not there.
func checkTargets(t *testing.T, run string) {
	t.Helper()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^make (?:-C \S+ )?([a-z ]+)$`).FindAllStringSubmatch(run, -1) {
		for _, target := range strings.Fields(m[1]) {
			if !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
				t.Errorf("there is no target %s", target)
			}
		}
	}
	for _, file := range regexp.MustCompile(`(infra|scripts|\.ci)/[\w./-]+`).FindAllString(run, -1) {
		if _, err := os.Stat("../" + file); err != nil {
			t.Error(err)
		}
	}
}

// The deployment hands the infrastructure all variables that it reads, and asks the doctor only about what it has deployed.
func TestDeploymentFitsTheInfrastructure(t *testing.T) {
	var w workflow
	parse(t, ".github/workflows/deploy.yml", &w)
	parameters, err := os.ReadFile("../infra/main.bicepparam")
	if err != nil {
		t.Fatal(err)
	}
	deploy := w.Jobs["deploy"]
	for _, m := range regexp.MustCompile(`readEnvironmentVariable\('(\w+)'`).FindAllStringSubmatch(string(parameters), -1) {
		if deploy.Env[m[1]] == "" {
			t.Errorf("deploy.yml does not set %s", m[1])
		}
	}
	var changing []string
	for _, s := range deploy.Steps {
		if strings.Contains(s.Run, "deployment group create") || strings.Contains(s.Run, "config-zip") || strings.Contains(s.Run, "doctor") {
			changing = append(changing, s.If)
		}
	}
	if want := []string{"inputs.apply", "inputs.apply", "inputs.apply"}; !slices.Equal(changing, want) {
		t.Errorf("steps that deploy have the conditions %v", changing)
	}
	if at := len(deploy.Steps) - 1; !strings.Contains(deploy.Steps[at].Run, "doctor") || !strings.HasPrefix(deploy.Steps[at-1].Uses, "azure/login@") {
		t.Error("the doctor, who wants tokens of its own, is not asked last and just after a login: that of the beginning gets none any more")
	}
	if deploy.Needs != "test" || w.Jobs["test"].Uses == "" {
		t.Error("it deploys what was not tested")
	}
}

func TestAzdNamesFit(t *testing.T) {
	var azd struct {
		Name             string
		RequiredVersions struct{ Azd string } `yaml:"requiredVersions"`
		Infra            struct{ Provider, Path, Module string }
		Services         map[string]struct {
			Project, Host, Language, Dist string
			Hooks                         map[string]map[string]struct{ Shell, Run string }
		}
	}
	parse(t, "azure.yaml", &azd)
	site, err := os.ReadFile("../infra/modules/functionapp.bicep")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../handler/package.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range azd.Services {
		if !strings.Contains(string(site), "'azd-service-name': '"+name+"'") {
			t.Errorf("the Function App is not tagged as the service %s", name)
		}
		if s.Language != "custom" || s.Host != "function" || !strings.Contains(string(source), `default:"`+s.Dist+`"`) {
			t.Errorf("got %+v", s)
		}
		if got := s.Hooks["prepackage"]; got["posix"].Run != "go run ./handler package" || got["windows"].Run != got["posix"].Run {
			t.Errorf("the package is made by %+v", got)
		}
	}
	if _, err := os.Stat(filepath.Join("..", azd.Infra.Path, azd.Infra.Module+".bicep")); err != nil || len(azd.Services) != 1 {
		t.Errorf("%d services, %v", len(azd.Services), err)
	}
}
