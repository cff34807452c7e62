package scripts_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// azCall is a call of the Azure CLI, as the process that stands for it has been started.
type azCall struct {
	Args  []string
	Login string // AZURE_CONFIG_DIR
	Body  []byte // of --body @FILE
}

// azAnswer is what that process does.
type azAnswer struct {
	Stdout, Stderr string
	Code           int
}

// azCommands are the commands that the scripts use, with the options that those have.
var azCommands = map[string][]string{
	"rest":                                {"--method", "--url", "--resource", "--headers", "--body", "--query", "--output"},
	"account show":                        {"--query", "--output"},
	"account get-access-token":            {"-o", "--resource", "--tenant"},
	"functionapp config appsettings list": {"--name", "--resource-group", "--query", "--output"},
}

// standForAz is the Azure CLI in the tests: it asks the world.
func standForAz(world string) error {
	call := azCall{Args: os.Args[1:], Login: os.Getenv("AZURE_CONFIG_DIR")}
	if i := slices.Index(call.Args, "--body"); i >= 0 {
		name, isFile := strings.CutPrefix(call.Args[i+1], "@")
		if !isFile {
			return errors.New("a body on the command line does not survive every shell")
		}
		var err error
		if call.Body, err = os.ReadFile(name); err != nil {
			return err
		}
	}
	data, err := json.Marshal(call)
	if err != nil {
		return err
	}
	resp, err := http.Post(world+"/az", "application/json", bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer azAnswer
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	_, _ = io.WriteString(os.Stdout, answer.Stdout)
	_, _ = io.WriteString(os.Stderr, answer.Stderr)
	os.Exit(answer.Code)
	return nil
}

// az does what a call of the Azure CLI does.
func (w *world) az(call azCall) azAnswer {
	words := slices.IndexFunc(call.Args, func(a string) bool { return strings.HasPrefix(a, "-") })
	if words < 0 {
		words = len(call.Args)
	}
	command, options := strings.Join(call.Args[:words], " "), map[string]string{}
	known, isOne := azCommands[command]
	if !isOne || (len(call.Args)-words)%2 != 0 {
		return azAnswer{"", "ERROR: '" + command + "' is misspelled or not recognized by the system.\n", 2}
	}
	for i := words; i < len(call.Args); i += 2 {
		if !slices.Contains(known, call.Args[i]) {
			return azAnswer{"", "ERROR: unrecognized arguments: " + call.Args[i] + "\n", 2}
		}
		options[call.Args[i]] = call.Args[i+1]
	}
	tenant, loggedIn := w.logins[filepath.Base(call.Login)]
	if !loggedIn {
		return azAnswer{"", "ERROR: Please run 'az login' to setup account.\n", 1}
	}
	var result any
	switch command {
	case "rest":
		var failure string
		if result, failure = w.rest(tenant, options, call.Body); failure != "" {
			return azAnswer{"", "ERROR: " + failure + "\n", 1}
		}
	case "account show":
		result = map[string]any{"tenantId": tenant}
	case "account get-access-token":
		result = map[string]any{"accessToken": token(options["--resource"], tenant), "expires_on": 4102444800, "tokenType": "Bearer"}
	default:
		list := []any{}
		for name, value := range w.settings {
			list = append(list, map[string]any{"name": name, "slotSetting": false, "value": value})
		}
		result = list
	}
	return azAnswer{Stdout: w.show(result, options)}
}

// rest is `az rest`: one call, with the token of the login for the resource.
func (w *world) rest(tenant string, options map[string]string, body []byte) (result any, failure string) {
	r := httptest.NewRequest(options["--method"], options["--url"], bytes.NewReader(body))
	if name, value, found := strings.Cut(options["--headers"], "="); found {
		r.Header.Set(name, value)
	}
	r.Header.Set("Authorization", "Bearer "+token(options["--resource"], tenant))
	befalls := fine
	if w.befalls != nil {
		befalls = w.befalls(w.calls, r)
	}
	w.calls++
	if befalls == refused {
		return nil, `Service Unavailable({"error":{"code":"ServiceUnavailable"}})`
	}
	answer := httptest.NewRecorder()
	w.serve(answer, r, tenant, body)
	if r.Method != http.MethodGet {
		w.changes = append(w.changes, r.Method+" "+r.URL.Path)
	}
	w.watch()
	switch {
	case befalls == lost:
		return nil, "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))"
	case answer.Code >= 400:
		return nil, http.StatusText(answer.Code) + "(" + answer.Body.String() + ")"
	case answer.Body.Len() == 0:
		return nil, ""
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &result); err != nil {
		w.t.Error(err)
	}
	return result, ""
}

// show writes a result as the Azure CLI does (knack, output.py); nothing at all where it is null.
func (w *world) show(result any, options map[string]string) string {
	if q := options["--query"]; q != "" && result != nil {
		result = query(w.t, q, result)
	}
	if result == nil {
		return ""
	}
	if options["--output"] != "tsv" {
		text, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			w.t.Error(err)
		}
		return string(text) + "\n"
	}
	rows, isList := result.([]any)
	if !isList {
		rows = []any{result}
	}
	var out strings.Builder
	for _, row := range rows {
		cells, isRow := row.([]any)
		if !isRow {
			cells = []any{row}
		}
		var all []string
		for _, c := range cells {
			all = append(all, cell(c, isRow))
		}
		out.WriteString(strings.Join(all, "\t") + "\n")
	}
	return out.String()
}

func cell(value any, inRow bool) string {
	switch v := value.(type) {
	case nil:
		return "None"
	case bool:
		if text := fmt.Sprint(v); !inRow {
			return text
		} else {
			return strings.ToUpper(text[:1]) + text[1:]
		}
	case float64:
		return fmt.Sprintf("%.0f", v)
	case []any:
		return fmt.Sprint(len(v))
	case map[string]any:
		return ""
	}
	return fmt.Sprint(value)
}

// queries is the process that evaluates queries, one at a time.
var queries struct {
	sync.Mutex
	in  io.Writer
	out *bufio.Reader
}

// query evaluates a query by the library that the Azure CLI uses.
func query(t *testing.T, text string, value any) (result any) {
	t.Helper()
	queries.Lock()
	defer queries.Unlock()
	if queries.in == nil {
		cmd := exec.Command(python(t), "testdata/query.py") // ends with this process, whose end closes its input
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		queries.in, queries.out = in, bufio.NewReader(out)
	}
	line, err := json.Marshal([]any{text, value})
	if err == nil {
		_, err = queries.in.Write(append(line, '\n'))
	}
	var answer []byte
	if err == nil {
		answer, err = queries.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(answer, &result)
	}
	if err != nil {
		t.Errorf("query %q: %v", text, err)
	}
	return result
}

// interpreter is a Python with that library; "" if there is none.
var interpreter = sync.OnceValue(func() string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if path, err := exec.LookPath(name); err == nil && exec.Command(path, "-c", "import jmespath").Run() == nil {
			return path
		}
	}
	return ""
})

func python(t *testing.T) string {
	t.Helper()
	if interpreter() == "" {
		skip(t, "there is no Python with jmespath, by which the Azure CLI evaluates queries: 'make shell' installs it where this is Debian")
	}
	return interpreter()
}
