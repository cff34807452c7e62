package devhost_test

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"signup-sync/handler/functions/devhost"
)

// TestOpenErrors holds what is refused before anything is started.
func TestOpenErrors(t *testing.T) {
	host := func(custom string) string { return `{"version":"2.0","customHandler":` + custom + `}` }
	bindings := func(list string) map[string]string {
		return map[string]string{"SyncNewUsers/function.json": `{"bindings":[` + list + `]}`}
	}
	timer := func(schedule string) string {
		return `{"name":"timer","type":"timerTrigger","direction":"in","schedule":"` + schedule + `"}`
	}
	retry := func(text string) map[string]string {
		return map[string]string{"SyncNewUsers/function.json": `{"bindings":[` + timer("0 * * * * *") + `],"retry":` + text + `}`}
	}
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"host.json is no JSON", map[string]string{"host.json": "{"}, "host.json"},
		{"version", map[string]string{"host.json": strings.Replace(hostJSON, "2.0", "1.0", 1)}, `version is "1.0", want "2.0"`},
		{"no custom handler", map[string]string{"host.json": `{"version":"2.0"}`}, "customHandler is missing"},
		{"no path", map[string]string{"host.json": host(`{"description":{}}`)}, "defaultExecutablePath is not set"},
		{"misspelt key", map[string]string{"host.json": host(`{"description":{"defaultExecutablepaths":"x"}}`)}, "unknown field"},
		{"missing binary", map[string]string{"host.json": host(`{"description":{"defaultExecutablePath":"bin/other"}}`)}, "build the handler first"},
		{"binary is a folder", map[string]string{"host.json": host(`{"description":{"defaultExecutablePath":"bin"}}`)}, "not executable"},
		{"binary without its bit", map[string]string{"host.json": host(`{"description":{"defaultExecutablePath":"host.json"}}`)}, "not executable"},
		{"name that publishing does not find", map[string]string{"host.json": host(`{"description":{"defaultExecutablePath":"./bin/handler"}}`)}, "exactly that name"},
		{"timeout is no duration", map[string]string{"host.json": strings.Replace(hostJSON, "00:00:25", "5m", 1)}, `functionTimeout: "5m"`},
		{"timeout of 24 hours", map[string]string{"host.json": strings.Replace(hostJSON, "00:00:25", "24:00:00", 1)}, "1.00:00:00"},
		{"timeout below a second", map[string]string{"host.json": strings.Replace(hostJSON, "00:00:25", "00:00:00", 1)}, "below a second"},

		{"folder's name", map[string]string{"9lives/function.json": functionJSON}, "load function 9lives: the folder's name"},
		{"folder called host", map[string]string{"Host/function.json": functionJSON}, `not "host"`},
		{"names that differ in case", map[string]string{"syncnewusers/function.json": functionJSON}, "differs only in letter case"},
		{"function.json is no JSON", map[string]string{"SyncNewUsers/function.json": "["}, "read function.json"},
		{"no trigger", bindings(`{"name":"q","type":"queue","direction":"out"}`), "0 triggers, want one"},
		{"two triggers", bindings(timer("0 * * * * *") + "," + timer("0 * * * * *")), "2 triggers, want one"},
		{"queue trigger", bindings(`{"name":"q","type":"queueTrigger","direction":"in"}`), `"queueTrigger" is not supported`},
		{"schedule", bindings(timer("every minute")), "it has 2 fields"},
		{"unknown setting", bindings(timer("%NOPE%")), "resolve %NOPE%"},
		{"one file beside function.json", map[string]string{"SyncNewUsers/notes.txt": "x"}, "one file beside function.json"},
		{"HTTP function without a response", map[string]string{"Page/function.json": `{"bindings":[{"name":"req","type":"httpTrigger","direction":"in"}]}`}, "an output of type http"},
		{"route with parameters", map[string]string{"Page/function.json": strings.Replace(pageJSON, "page", "page/{id}", 1)}, "only one without parameters"},
		{"level of access", map[string]string{"Page/function.json": strings.Replace(pageJSON, `"function"`, `"everybody"`, 1)}, `authLevel is "everybody"`},
		{"forwarding", map[string]string{"host.json": strings.Replace(hostJSON, `"customHandler":{`, `"customHandler":{"enableForwardingHttpRequest":true,`, 1)}, "forwarding and proxying"},
		{"retry strategy", retry(`{"strategy":"exponentialBackoff","maxRetryCount":1}`), "fixedDelay"},
		{"retry count", retry(`{"strategy":"fixedDelay","delayInterval":"00:00:01"}`), "maxRetryCount"},
		{"retry delay", retry(`{"strategy":"fixedDelay","maxRetryCount":1}`), "retry.delayInterval"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, err := open(newApp(t, tc.files))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("open: %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func open(root string) (*devhost.Host, error) {
	return devhost.Open(devhost.Options{Root: root, Settings: map[string]string{"SYNC_SCHEDULE": "0 */5 * * * *"}})
}

func TestOpenReportsAllAtOnce(t *testing.T) {
	_, err := open(newApp(t, map[string]string{
		"host.json":             strings.Replace(hostJSON, "2.0", "3", 1),
		"Other/function.json":   `{"bindings":[]}`,
		"Another/function.json": `x`,
	}))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`version is "3"`, "load function Other", "load function Another"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error has no %q:\n%v", want, err)
		}
	}
}

func TestOpenAnEmptyFolder(t *testing.T) {
	_, err := open(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "host.json") || !strings.Contains(err.Error(), "there is no */function.json") {
		t.Errorf("open: %v, want both to be missed", err)
	}
}

func TestOpenTakesWhatTheHostTakes(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		files map[string]string
	}{
		{"default", nil},
		{"absolute path", map[string]string{"host.json": strings.Replace(hostJSON, "bin/handler", exe, 1)}},
		{"unbounded timeout", map[string]string{"host.json": strings.Replace(hostJSON, "00:00:25", "-1", 1)}},
		{"timeout of a day", map[string]string{"host.json": strings.Replace(hostJSON, "00:00:25", "1.00:00:00", 1)}},
		{"HTTP function", map[string]string{"Page/function.json": pageJSON}},
		{"retry for ever", map[string]string{"SyncNewUsers/function.json": strings.TrimSuffix(functionJSON, "}") + `,"retry":{"strategy":"fixedDelay","maxRetryCount":-1,"delayInterval":"00:00:30"}}`}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := open(newApp(t, tc.files)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForeignBinary holds that a binary for another machine, or a script, is named before the host fails in silence.
func TestForeignBinary(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the binary's format is checked on Linux only")
	}
	foreign := make([]byte, 64)
	copy(foreign, elf.ELFMAG)
	foreign[elf.EI_CLASS], foreign[elf.EI_DATA], foreign[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	binary.LittleEndian.PutUint16(foreign[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(foreign[18:], uint16(elf.EM_S390))
	binary.LittleEndian.PutUint32(foreign[20:], uint32(elf.EV_CURRENT))
	tests := []struct{ name, text, want string }{
		{"other machine", string(foreign), "is built for EM_S390"},
		{"script", "#!/bin/sh\nexec ./handler\n", "is no ELF binary"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			root := newApp(t, map[string]string{"host.json": strings.Replace(hostJSON, "bin/handler", "bin/foreign", 1)})
			if err := os.WriteFile(filepath.Join(root, "bin/foreign"), []byte(tc.text), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := open(root); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("open: %v, want an error with %q", err, tc.want)
			}
		})
	}
}
