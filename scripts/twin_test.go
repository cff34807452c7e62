package scripts_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	callInText = regexp.MustCompile(`(?:look_up|get|change|insist) +\S+ +(POST |PATCH )?"([^"]*)"`)
	variable   = regexp.MustCompile(`\$\{?(\w+)(?:##\*/)?\}?`)
)

// callsOf are the calls that a script's text has, in their order, with variables left open.
func callsOf(t *testing.T, name string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("`$", "", `\$`, "").Replace(string(data)) // those that are no variables
	for _, m := range callInText.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[2], "/") {
			all = append(all, m[1]+variable.ReplaceAllString(m[2], "{}"))
		}
	}
	return all
}

// PowerShell does not run here, so all that is known of the twins is that they are about the same calls in the same order.
func TestTwinsMakeTheSameCalls(t *testing.T) {
	for name, least := range map[string]int{"calls": 6, "register-app": 14, "rotate-certificate": 5} {
		bash, powershell := callsOf(t, name+".sh"), callsOf(t, name+".ps1")
		if diff := cmp.Diff(bash, powershell); diff != "" || len(bash) < least {
			t.Errorf("%s: %d calls (-bash +PowerShell):\n%s", name, len(bash), diff)
		}
	}
}
