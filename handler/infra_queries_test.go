package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/functions"
)

const alertsFile, workbookFile = "infra/modules/alerts.bicep", "infra/workbook.json"

// alertNames are the alerts that there must be, and whether what they watch for is that something does not come.
var alertNames = map[string]bool{"runs fail": false, "no successful run": true, "watermark too old": false, "associations failed": false, "destination left alone": false,
	"throttled for long":  false,
	"certificate expires": false, "census found a gap": false, "no census": true}

// alertsPolicy: the alerts are those, each asks for what the program writes, and docs/operations.md says what to do.
func alertsPolicy(p project, f *findings) {
	text := p.bicep(alertsFile)
	sources := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^var (\w+) = '(.+)'$`).FindAllStringSubmatch(text, -1) {
		sources[m[1]] = strings.ReplaceAll(m[2], `\n`, "\n")
	}
	var names, wanted []string
	for _, m := range regexp.MustCompile(`(?s)\n  \{\n    name: '([^']+)'\n(.+?)\n    of: ('?)([^\n]+?)'?\n    query: '''\n(.+?)'''\n  \}`).FindAllStringSubmatch(text, -1) {
		name, settings, query := m[1], m[2], m[5]
		names = append(names, name)
		of := sources[m[4]]
		if m[3] != "" {
			of = strings.ReplaceAll(m[4], `\n`, "\n")
		}
		queryProblems(p, alertsFile+": "+name, of+query, f)
		if !strings.Contains(p["docs/operations.md"], "\n### "+name+"\n") {
			f.add("docs/operations.md does not explain the alert %q", name)
		}
		windowProblems(p, name, settings, f)
		if missing := strings.Contains(settings, "missing: true"); missing != alertNames[name] {
			f.add("%s: %s is raised by nothing found: %v", alertsFile, name, missing)
		}
	}
	for name := range alertNames {
		wanted = append(wanted, name)
	}
	f.same("alerts", names, wanted)
	for _, words := range []string{"operator: alert.missing ? 'LessThan' : 'GreaterThan'", "threshold: alert.missing ? 1 : 0", "timeAggregation: 'Count'", "query: '${alert.of}${alert.query}'",
		"enabled: true\n    autoMitigate: true", "skipQueryValidation: true", "windowSize: alert.window", "scopes: [insightsId]", "actionGroups: empty(emails) ? [] : [people.id]", "window: 'PT${quietMinutes}M'"} {
		if !strings.Contains(text, words) {
			f.add("%s does not say %q", alertsFile, words)
		}
	}
}

// windowProblems finds an alert that Azure refuses, or that does not look further back than it was asked last: a line that
// arrives late would fall between two windows.
func windowProblems(p project, name, settings string, f *findings) {
	var every, window int
	for _, m := range regexp.MustCompile(`(every|window): '(.+)'`).FindAllStringSubmatch(settings, -1) {
		text := m[2]
		if allowed := regexp.MustCompile(`@allowed\(\[(\d+),.*\]\)\nparam quietMinutes`).FindStringSubmatch(p.bicep(mainFile)); allowed != nil {
			text = strings.ReplaceAll(text, "${quietMinutes}", allowed[1]) // the shortest
		}
		d := regexp.MustCompile(`^P(?:(\d+)D|T(\d+)([HM]))$`).FindStringSubmatch(text)
		if d == nil {
			f.add("%s: %s: %s is not understood", alertsFile, name, m[0])
			return
		}
		n, _ := strconv.Atoi(d[1] + d[2])
		minutes := n * map[string]int{"": 24 * 60, "H": 60, "M": 1}[d[3]]
		if m[1] == "every" {
			every = minutes
		} else {
			window = minutes
		}
		if !slices.Contains([]int{5, 10, 15, 30, 45, 60, 120, 180, 240, 300, 360, 1440, 2880}, minutes) {
			f.add("%s: %s: Azure does not take %s", alertsFile, name, m[0])
		}
	}
	if every == 0 || window <= every || every > 1440 {
		f.add("%s: %s: a window of %d minutes is looked at every %d", alertsFile, name, window, every)
	}
}

// workbookPolicy: the page asks for what the program writes.
func workbookPolicy(p project, f *findings) {
	var page struct {
		Items []struct {
			Type    int
			Content struct{ Title, Query, ResourceType string }
		}
		FallbackResourceIDs []string
	}
	if err := json.Unmarshal([]byte(p[workbookFile]), &page); err != nil {
		f.add("%s: %v", workbookFile, err)
	}
	queries := 0
	for _, item := range page.Items {
		if item.Type != 3 {
			continue
		}
		queries++
		if item.Content.ResourceType != "microsoft.insights/components" {
			f.add("%s: %s asks %s", workbookFile, item.Content.Title, item.Content.ResourceType)
		}
		queryProblems(p, workbookFile+": "+item.Content.Title, item.Content.Query, f)
	}
	if queries < 10 || !slices.Equal(page.FallbackResourceIDs, []string{"<insights>"}) ||
		!strings.Contains(p.bicep("infra/modules/workbook.bicep"), "replace(loadTextContent('../workbook.json'), '<insights>', insightsId)") {
		f.add("%s has %d queries, asked of %q", workbookFile, queries, page.FallbackResourceIDs)
	}
}

// queryProblems finds what a query asks for and the program, or the host for it, does not write.
func queryProblems(p project, place, query string, f *findings) {
	summary := regexp.MustCompile(`"Function\.(\w+)\.User"\s*\| extend s = parse_json\(message\)`).FindStringSubmatch(query)
	if m := regexp.MustCompile(`todatetime\([std]\.\w+`).FindString(query); m != "" {
		f.add("%s: %s): times have nine digits after the second, and Kusto's have seven: cut them off", place, m)
	}
	switch {
	case summary != nil:
		fieldProblems(place, summary[1], query, f)
	case strings.Contains(query, `customDimensions.Category) == "Host.Function.Console"`):
		lineProblems(p, place, query, f)
	case strings.HasPrefix(query, "requests\n"):
		m := regexp.MustCompile(`where name in \((.+?)\) and success == false`).FindStringSubmatch(query)
		if m == nil {
			f.add("%s: which functions does it ask for?", place)
			return
		}
		f.same(place+": functions", strings.Split(strings.ReplaceAll(m[1], `"`, ""), ", "), slices.DeleteFunc(functionNames(), func(name string) bool { return summaries[name] == nil })) // whoever asks a page sees it fail
	default:
		f.add("%s: it asks for nothing that this test knows", place)
	}
}

// summaries are what functions return, which the host logs as one JSON object.
var summaries = map[string]reflect.Type{"SyncNewUsers": reflect.TypeFor[report](), "TakeCensus": reflect.TypeFor[censusReport]()}

var (
	memberOf = regexp.MustCompile(`\b([sdt])(?:\.(\w+)|\['(\w+)'\])`)
	expanded = regexp.MustCompile(`mv-expand (\w) = (?:s\.(\w+)|(\w+))`)
)

// fieldProblems finds members of s, the summary, and of d and t, an element of one of its lists, that it does not have.
func fieldProblems(place, function, query string, f *findings) {
	types := map[string]reflect.Type{"s": summaries[function]}
	if types["s"] == nil {
		f.add("%s: there is no function %q", place, function)
		return
	}
	for _, m := range expanded.FindAllStringSubmatch(query, -1) {
		list := m[2]
		if list == "" { // a list that was put together: of its first part
			if part := regexp.MustCompile(m[3] + ` = array_concat\(coalesce\(s\.(\w+)`).FindStringSubmatch(query); part != nil {
				list = part[1]
			}
		}
		if field := jsonField(types["s"], list); field != nil && field.Kind() == reflect.Slice {
			types[m[1]] = field.Elem()
		}
	}
	found := 0
	for _, m := range memberOf.FindAllStringSubmatch(query, -1) {
		found++
		if name := m[2] + m[3]; types[m[1]] == nil || jsonField(types[m[1]], name) == nil {
			f.add("%s: the summary of %s has no %s.%s", place, function, m[1], name)
		}
	}
	if found == 0 {
		f.add("%s: it asks for no member of the summary", place)
	}
}

// jsonField is the type of a struct's member by its name in JSON; nil if there is none.
func jsonField(t reflect.Type, name string) reflect.Type {
	for field := range t.Fields() {
		if field.Anonymous {
			if found := jsonField(field.Type, name); found != nil {
				return found
			}
		}
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag == name && field.IsExported() {
			return field.Type
		}
	}
	return nil
}

// lineProblems finds messages and attributes that no line of the program's log has.
func lineProblems(p project, place, query string, f *findings) {
	const anyMessage = `msg="([^"]+)"` // which takes a message out of a line
	query = strings.ReplaceAll(query, "extract('"+anyMessage+"'", "")
	messages := regexp.MustCompile(`contains_cs 'msg="([^"]+)"'`).FindAllStringSubmatch(query, -1)
	if strings.Count(query, "msg=") != len(messages) || len(messages) == 0 && !strings.Contains(query, "where severityLevel >= 2") {
		f.add("%s: its messages are not understood", place)
	}
	for _, m := range messages {
		said := statement(p, m[1])
		if said == "" {
			f.add("%s: the program never says %q", place, m[1])
			continue
		}
		var line bytes.Buffer
		functions.NewLogger(&line, io.Discard).Log(context.Background(), slog.LevelInfo, m[1])
		if !strings.Contains(line.String(), ` msg="`+m[1]+`"`) || strings.Contains(strings.ToLower(m[1]), "warn") {
			f.add("%s: a line with that message is %s", place, line.String())
		}
		extractProblems(place, m[1], said, query, f)
	}
}

// extractProblems takes attributes out of a line as a query does, by the same kind of expressions, and finds those that do not
// come out whole. The line is made by the program's logger of the attributes that the statement has, in its order.
func extractProblems(place, message, said, query string, f *findings) {
	values := map[string]any{"user": testTenant, "users": 7, "until": time.Date(2026, 8, 20, 14, 30, 0, 0, time.UTC), "detail": "user=a users=b until=c destination=d reason=e"}
	want := map[string]string{"user": testTenant, "users": "7", "until": "2026-08-20T14:30:00.000Z"}
	var args []any
	for _, m := range regexp.MustCompile(`"(\w+)", `).FindAllStringSubmatch(said, -1) {
		if values[m[1]] == nil {
			values[m[1]], want[m[1]] = "two words, user=1", `"two words, user=1"`
		}
		args = append(args, m[1], values[m[1]])
	}
	var line bytes.Buffer
	functions.NewLogger(&line, &line).With("run", "r1", "invocation", "i1").Error(message, args...)
	for _, m := range regexp.MustCompile(`extract\('((\w+)=[^']+)', 1, message\)`).FindAllStringSubmatch(query, -1) {
		if !strings.Contains(said, `"`+m[2]+`", `) {
			f.add("%s: lines that say %q have no %s", place, message, m[2])
			continue
		}
		got := regexp.MustCompile(m[1]).FindStringSubmatch(line.String())
		if got == nil || got[1] != want[m[2]] {
			f.add("%s: %s is taken as %q, want %s, out of %s", place, m[2], got, want[m[2]], line.String())
		}
	}
}

// statement is the call that logs a message, from the program's source; "" if there is none.
func statement(p project, message string) string {
	call := regexp.MustCompile(`\.(?:Info|Warn|Error)(?:Context)?\((?:ctx, )?` + regexp.QuoteMeta(`"`+message+`"`) + `(?s:.*?)\)\n`)
	for _, name := range p.files("handler/", ".go") {
		if at := strings.Index(p[name], `"`+message+`"`); at >= 0 {
			if found := call.FindString(p[name][max(0, at-40):]); found != "" {
				return found
			}
		}
	}
	return ""
}
