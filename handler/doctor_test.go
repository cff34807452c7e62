package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

func TestTheDoctorFindsNothingWhereAllIsWell(t *testing.T) {
	c := openClinic(t)
	c.live()
	code, found, order := c.doctor()
	if bad := found.bad(); code != exitOK || len(bad) > 0 {
		t.Errorf("got exit code %d, and\n%s", code, strings.Join(bad, "\n"))
	}
	var areas []string
	for _, key := range order {
		if area, _, _ := strings.Cut(key, ":"); len(areas) == 0 || areas[len(areas)-1] != area {
			areas = append(areas, area)
		}
	}
	if diff := cmp.Diff([]string{"settings", "identity", "permissions", "tenant", "detectors", "ledger", "destinations", "state"}, areas); diff != "" {
		t.Errorf("areas (-want +got):\n%s", diff)
	}
	_, table, errs := c.handler("doctor")
	if !strings.HasSuffix(table, fmt.Sprintf("\n\n%d ok, 0 warn, 0 fail. All is well. Nothing was changed.\n", len(order))) || errs != "" || strings.Count(table, "\n  ok ") != len(order) {
		t.Errorf("got\n%s%s", table, errs)
	}
}

// TestQuestionsThatComeToNoAnswer are two of three; the third is answered all the same.
func TestQuestionsThatComeToNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var stderr bytes.Buffer
		p := &patient{system: system{stderr: &stderr}}
		begun := time.Now()
		found := p.examine(t.Context(), []examined{
			{"one", []examination{
				{"hangs", func(context.Context, *patient) []finding { <-release; return nil }},
				{"panics", func(context.Context, *patient) []finding { panic("s3cr3t") }},
			}},
			{"two", []examination{
				{"waits", func(ctx context.Context, _ *patient) []finding {
					<-ctx.Done()
					return []finding{broken("waits", "Look.", ctx.Err())}
				}},
				{"answers", func(context.Context, *patient) []finding { return []finding{good("answers", "yes")} }},
			}},
		}, &progress{w: &bytes.Buffer{}})
		if took := time.Since(begun); took > examinationTime+examinationGrace {
			t.Errorf("it took %v", took)
		}
		var got []string
		for _, f := range found {
			got = append(got, fmt.Sprintf("%s %s: %s: %s", f.State, f.Area, f.Name, f.Why))
		}
		want := []string{"warn one: hangs: not asked: no answer within 30s", "warn one: panics: not asked: this question has run into a defect of the program",
			"fail two: waits: no answer in time", "ok two: answers: yes"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if strings.Contains(stderr.String(), "s3cr3t") || !strings.Contains(stderr.String(), "at=panics") || !strings.Contains(stderr.String(), "doctor_test.go") {
			t.Errorf("got on stderr: %s", stderr.String())
		}
	})
}

// TestAnAnswerForSeveralQuestions is asked for once, and is no good answer after a panic.
func TestAnAnswerForSeveralQuestions(t *testing.T) {
	var a asked[int]
	ask := func(context.Context) (int, error) { panic("defect") }
	func() {
		defer func() { _ = recover() }()
		_, _ = a.get(t.Context(), ask)
	}()
	if _, err := a.get(t.Context(), ask); err == nil {
		t.Error("after the panic the next question got an answer")
	}
}

func TestTheDoctorOfARefusedConfiguration(t *testing.T) {
	c := openClinic(t)
	c.config = strings.Replace(c.config, "168h", "1 week", 1)
	delete(c.settings, "WELCOME_URL")
	delete(c.settings, "ENTRA_CLIENT_ID")
	c.settings["SYNC_SCHEDULE"] = "every minute"
	c.Vault.Delete("STRIPE-API-KEY")
	code, found, _ := c.doctor()
	if code != exitRefused {
		t.Errorf("got exit code %d", code)
	}
	for key, text := range map[string]string{
		"settings: signup-sync.yaml:1:25": "sync.auditRetention: ",
		"settings: WELCOME_URL":           "signup-sync.yaml:12:",
		"settings: ENTRA_CLIENT_ID":       "missing: set the GUID",
		"settings: STRIPE_API_KEY":        "its Key Vault reference could not be read with your login",
		"settings: SYNC_SCHEDULE":         "it is not a schedule",
	} {
		if f := found[key]; f.State != conditionFail || !strings.Contains(f.Why, text) {
			t.Errorf("%s: got %+v", key, f)
		}
	}
	for _, area := range []string{"identity", "permissions", "tenant", "detectors", "ledger", "destinations", "state"} {
		if f := found[area+": everything"]; f.State != conditionWarn || f.Why != "not asked: the configuration is refused" {
			t.Errorf("%s: got %+v", area, f)
		}
	}
	if n := len(c.Tenant.Requests()) + len(c.Entra.Requests()) + len(c.Stripe.Calls()); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// TestTheDoctorOfSettingsThatCannotBeRead says so in the form that was asked for.
func TestTheDoctorOfSettingsThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(file, []byte("Name  Value\n----  -----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	doctor := func(args ...string) int {
		stdout.Reset()
		return run(t.Context(), system{args: append([]string{"--settings", file, "doctor"}, args...), getenv: func(string) string { return "" }, stdout: &stdout, stderr: &stderr})
	}
	var object struct{ Findings []finding }
	code := doctor("--json")
	if err := json.Unmarshal(stdout.Bytes(), &object); err != nil || code != exitRefused || len(object.Findings) != 8 {
		t.Fatalf("got %v, exit code %d\n%s", err, code, stdout.String())
	}
	if f := object.Findings[0]; f.Name != "--settings" || f.State != conditionFail || !strings.Contains(f.Why, "want JSON") || !strings.Contains(f.Fix, "appsettings list --name APP --resource-group GROUP --output json") {
		t.Errorf("got %+v", f)
	}
	if code := doctor("--permissions"); code != exitRefused || stdout.Len() > 0 {
		t.Errorf("got exit code %d\n%s", code, stdout.String())
	}
}

func TestTheLeastPermissionsNeedTheFileAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "signup-sync.yaml")
	if err := os.WriteFile(file, configOf(sim.Workforce), 0o644); err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string {
		if name != "SIGNUP_SYNC_CONFIG" {
			return ""
		}
		return file
	}
	var stdout, stderr bytes.Buffer
	doctor := func(args ...string) int {
		stdout.Reset()
		return run(t.Context(), system{args: append([]string{"doctor", "--permissions"}, args...), getenv: getenv, stdout: &stdout, stderr: &stderr})
	}
	if code := doctor(); code != exitOK || stderr.Len() > 0 || !strings.Contains(stdout.String(), "\nEntitlementManagement.ReadWrite.All   9acd699f-1e81-4958-b001-93b1d2506e19   read the requests that brought guests, for signups.entitlement\n") {
		t.Errorf("got exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	var object struct {
		Permissions []struct {
			Name, ID string
			For      []string
		}
	}
	code := doctor("--json")
	err := json.Unmarshal(stdout.Bytes(), &object)
	var names []string
	for _, p := range object.Permissions {
		names = append(names, p.Name)
		if p.ID == "" || len(p.For) == 0 {
			t.Errorf("got %+v", p)
		}
	}
	want := []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All", "EntitlementManagement.ReadWrite.All"}
	if diff := cmp.Diff(want, names); code != exitOK || err != nil || diff != "" {
		t.Errorf("got exit code %d, %v (-want +got):\n%s", code, err, diff)
	}
}
