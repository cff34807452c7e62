package scripts_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// shellcheck fails the test for what shellcheck finds.
func shellcheck(t *testing.T, script string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		skip(t, "there is no shellcheck: 'make shell' installs it where this is Debian")
	}
	cmd := exec.Command("shellcheck", append(args, "-")...)
	cmd.Dir, cmd.Stdin = "..", strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestShellScriptsAreClean(t *testing.T) {
	for _, name := range []string{"scripts/calls.sh", "scripts/register-app.sh", "scripts/rotate-certificate.sh", ".ci/run", ".ci/databases", ".ci/shell"} {
		t.Run(name, func(t *testing.T) {
			script, err := os.ReadFile("../" + name)
			if err != nil {
				t.Fatal(err)
			}
			shellcheck(t, string(script), "-x")
		})
	}
}
