package devhost

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// app is what the host knows of an app from its files.
type app struct {
	exe       string // absolute
	dir       string // the handler's working directory
	args      []string
	timeout   time.Duration // functionTimeout; 0 = unbounded
	probe     time.Duration // how long the handler may take to listen
	prefix    string        // of the routes of HTTP functions
	functions []*function
}

// function is one folder with a function.json.
type function struct {
	name     string
	binding  string // of the trigger
	outputs  map[string]bool
	timer    bool
	http     *httpTrigger // nil = it is no HTTP function
	response string       // its output that is the response
	schedule Schedule
	monitor  bool // the host keeps a status; false also for schedules below a minute
	startup  bool // run at the listener's start
	retry    *retryPolicy
}

type retryPolicy struct {
	max   int // -1 = for ever
	delay time.Duration
}

// load reads host.json and every */function.json, and reports all that is wrong with them at once.
func load(root string, settings map[string]string, now time.Time) (*app, error) {
	a := &app{}
	errs := []error{a.loadHost(root, settings)}
	files, err := filepath.Glob(filepath.Join(root, "*", "function.json"))
	if err != nil {
		errs = append(errs, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		f, err := loadFunction(file, settings, now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if lower := strings.ToLower(f.name); seen[lower] {
			errs = append(errs, fmt.Errorf("load function %s: another one differs only in letter case", f.name))
		} else {
			seen[lower] = true
		}
		a.functions = append(a.functions, f)
	}
	if len(files) == 0 {
		errs = append(errs, fmt.Errorf("find functions in %s: there is no */function.json", root))
	}
	return a, errors.Join(errs...)
}

func (a *app) find(name string) (*function, error) {
	for _, f := range a.functions {
		if f.name == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("find function %q: the app has none of that name", name)
}

// loadHost reads host.json. Inside customHandler unknown keys are errors, since the host ignores them in silence.
func (a *app) loadHost(root string, settings map[string]string) error {
	file := filepath.Join(root, "host.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read host.json: %w", err)
	}
	var host struct {
		Version         string
		FunctionTimeout *string
		CustomHandler   json.RawMessage
		Extensions      struct{ HTTP struct{ RoutePrefix *string } }
	}
	if err := json.Unmarshal(text, &host); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	var custom struct {
		Description struct {
			DefaultExecutablePath string   `json:"defaultExecutablePath"`
			WorkingDirectory      string   `json:"workingDirectory"`
			Arguments             []string `json:"arguments"`
		} `json:"description"`
		EnableForwardingHTTPRequest bool   `json:"enableForwardingHttpRequest"`
		EnableProxyingHTTPRequest   bool   `json:"enableProxyingHttpRequest"`
		InitializationTimeout       string `json:"initializationTimeout"`
	}
	dec := json.NewDecoder(bytes.NewReader(host.CustomHandler))
	dec.DisallowUnknownFields()
	if len(host.CustomHandler) == 0 {
		return fmt.Errorf("read %s: customHandler is missing; it needs description.defaultExecutablePath", file)
	} else if err := dec.Decode(&custom); err != nil {
		return fmt.Errorf("read %s: customHandler: %w", file, err)
	}
	var errs []error
	if host.Version != "2.0" {
		errs = append(errs, fmt.Errorf("read %s: version is %q, want \"2.0\"", file, host.Version))
	}
	if a.prefix = "api"; host.Extensions.HTTP.RoutePrefix != nil {
		a.prefix = *host.Extensions.HTTP.RoutePrefix
	}
	if custom.EnableForwardingHTTPRequest || custom.EnableProxyingHTTPRequest {
		errs = append(errs, fmt.Errorf("read %s: forwarding and proxying of HTTP requests are not supported here", file))
	}
	a.timeout = 30 * time.Minute // the default of the Flex Consumption plan
	if host.FunctionTimeout != nil {
		a.timeout, err = parseTimeSpan(*host.FunctionTimeout)
		if *host.FunctionTimeout == "-1" {
			a.timeout, err = 0, nil
		} else if err == nil && a.timeout < time.Second {
			err = errors.New("it is below a second")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: functionTimeout: %w", file, err))
		}
	}
	a.probe = 30 * time.Second
	if custom.InitializationTimeout != "" {
		if a.probe, err = parseTimeSpan(custom.InitializationTimeout); err != nil {
			errs = append(errs, fmt.Errorf("read %s: customHandler.initializationTimeout: %w", file, err))
		}
	}
	d := custom.Description
	a.dir = filepath.Join(root, d.WorkingDirectory)
	a.args = strings.Fields(expand(strings.Join(d.Arguments, " "), settings)) // the host does not quote: spaces split
	if a.exe, err = executable(root, d.DefaultExecutablePath); err != nil {
		errs = append(errs, fmt.Errorf("find the handler of %s: %w", file, err))
	}
	return errors.Join(errs...)
}

// executable finds the handler's binary as the host does. What would be started from somewhere else, or not at all, is
// an error here: the host swallows it, and every invocation waits two minutes for nothing.
func executable(root, path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("customHandler.description.defaultExecutablePath is not set")
	case path != filepath.Clean(path) || strings.Contains(path, "%"):
		return "", fmt.Errorf("defaultExecutablePath is %q: publishing sets the executable bit only on the entry of exactly that name; write it without ./ and %%", path)
	case !filepath.IsAbs(path):
		path = filepath.Join(root, path)
	}
	stat, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%w; build the handler first", err)
	}
	if !stat.Mode().IsRegular() || stat.Mode().Perm()&0o111 == 0 {
		return "", fmt.Errorf("%s is not executable (mode %s)", path, stat.Mode())
	}
	if runtime.GOOS != "linux" {
		return path, nil
	}
	bin, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s is no ELF binary: %w", path, err)
	}
	defer bin.Close()
	if want, ok := machines[runtime.GOARCH]; ok && bin.Machine != want {
		return "", fmt.Errorf("%s is built for %s, this machine is %s", path, bin.Machine, want)
	}
	return path, nil
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

var functionName = regexp.MustCompile(`(?i)^[a-z][a-z0-9_-]{0,127}$`)

func loadFunction(file string, settings map[string]string, now time.Time) (*function, error) {
	f := &function{name: filepath.Base(filepath.Dir(file)), outputs: map[string]bool{}}
	fail := func(format string, args ...any) (*function, error) {
		return nil, fmt.Errorf("load function %s: %w", f.name, fmt.Errorf(format, args...))
	}
	if !functionName.MatchString(f.name) || strings.EqualFold(f.name, "host") {
		return fail("the folder's name must be a letter and up to 127 letters, digits, _ and -, and not \"host\"")
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err == nil && len(entries) == 2 {
		return fail("the folder has one file beside function.json, which the host would take for its script; move it")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fail("%w", err)
	}
	var def struct {
		Bindings []binding
		Retry    *struct {
			Strategy      string
			MaxRetryCount *int
			DelayInterval string
		}
	}
	if err := json.Unmarshal(text, &def); err != nil {
		return fail("read function.json: %w", err)
	}
	triggers := 0
	for _, b := range def.Bindings {
		trigger, err := f.bind(b, settings, now)
		if err != nil {
			return fail("%w", err)
		}
		if trigger {
			triggers++
		}
	}
	if f.http != nil && f.response == "" {
		return fail("an HTTP function needs an output of type http")
	}
	if triggers != 1 {
		return fail("function.json has %d triggers, want one", triggers)
	}
	if r := def.Retry; r != nil {
		if r.Strategy != "fixedDelay" || r.MaxRetryCount == nil {
			return fail("retry has strategy %q; here it must be fixedDelay with maxRetryCount and delayInterval", r.Strategy)
		}
		delay, err := parseTimeSpan(r.DelayInterval)
		if err != nil {
			return fail("retry.delayInterval: %w", err)
		}
		f.retry = &retryPolicy{*r.MaxRetryCount, delay}
	}
	return f, nil
}

// binding is one element of bindings in function.json.
type binding struct {
	Name, Type, Direction, Schedule string
	UseMonitor                      *bool
	RunOnStartup                    bool
	Route, AuthLevel                string
	Methods                         []string
}

// bind takes one binding into the function and reports whether it is a trigger.
func (f *function) bind(b binding, settings map[string]string, now time.Time) (trigger bool, err error) {
	switch kind := strings.ToLower(b.Type); {
	case b.Direction == "out":
		if f.outputs[b.Name] = true; kind == "http" {
			f.response = b.Name
		}
		return false, nil
	case kind == "httptrigger":
		return true, f.bindHTTP(b)
	case kind != "timertrigger" && strings.HasSuffix(kind, "trigger"):
		return false, fmt.Errorf("trigger %q is not supported here, only timerTrigger is", b.Type)
	case kind != "timertrigger":
		return false, nil // an input
	}
	f.timer, f.binding, f.startup = true, b.Name, b.RunOnStartup
	schedule, err := resolve(b.Schedule, settings)
	if err != nil {
		return false, err
	}
	if f.schedule, err = ParseSchedule(schedule); err != nil {
		return false, err
	}
	// The host keeps no status for a schedule that fires more than once within the coming minute.
	second := f.schedule.Next(f.schedule.Next(now))
	f.monitor = (b.UseMonitor == nil || *b.UseMonitor) && second.After(now.Add(time.Minute))
	return true, nil
}

var variable = regexp.MustCompile(`%([^%]*)%`)

// expand replaces %NAME% by the setting, or by nothing.
func expand(s string, settings map[string]string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string { return settings[strings.Trim(m, "%")] })
}

// resolve replaces %NAME% by the setting, which must exist.
func resolve(s string, settings map[string]string) (string, error) {
	for _, m := range variable.FindAllStringSubmatch(s, -1) {
		if settings[m[1]] == "" {
			return "", fmt.Errorf("resolve %s: there is no app setting of that name", m[0])
		}
	}
	return expand(s, settings), nil
}

var timeSpan = regexp.MustCompile(`^(?:(\d{1,5})\.)?(\d{1,2}):(\d{1,2}):(\d{1,2})$`)

// parseTimeSpan reads a .NET TimeSpan, [d.]hh:mm:ss.
func parseTimeSpan(s string) (time.Duration, error) {
	m := timeSpan.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no duration of the form [d.]hh:mm:ss", s)
	}
	var n [4]int
	for i := range n {
		if m[i+1] != "" {
			n[i], _ = strconv.Atoi(m[i+1]) // digits by the pattern
		}
	}
	if n[1] > 23 || n[2] > 59 || n[3] > 59 {
		return 0, fmt.Errorf("%q is no duration of the form [d.]hh:mm:ss: 24 hours are 1.00:00:00", s)
	}
	return time.Duration(n[0]*86400+n[1]*3600+n[2]*60+n[3]) * time.Second, nil
}
