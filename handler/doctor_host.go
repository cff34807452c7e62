package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/functions/devhost"
)

// longestPause is the longest time between two turns of a schedule, within some months.
func longestPause(s devhost.Schedule, from time.Time) (longest time.Duration) {
	last := s.Next(from)
	for range 5000 {
		next := s.Next(last)
		if next.IsZero() || next.Sub(from) > 120*24*time.Hour && longest > 0 {
			break
		}
		longest, last = max(longest, next.Sub(last)), next
	}
	return longest
}

// examineSchedule reads a timer's schedule. most is the longest pause that is harmless, and why.
func examineSchedule(name, usual string, most func(*Config) (time.Duration, string)) func(context.Context, *patient) []finding {
	return func(_ context.Context, p *patient) []finding {
		fix := setSetting(name, usual)
		text := p.getenv(name)
		if text == "" && p.settings == nil {
			return []finding{notAsked(name, printSettings, "it is not in this environment; the host reads it from the app's settings")}
		}
		if text == "" {
			return []finding{fail(name, fix, "it is not set, and without it the host does not start the timer")}
		}
		schedule, err := devhost.ParseSchedule(text)
		switch {
		case err != nil:
			return []finding{fail(name, fix, "it is not a schedule: %s", oneLine(err))}
		case len(strings.Fields(text)) != 6:
			return []finding{warn(name, fix, "it has %d fields; some hosts want the seconds in front of them", len(strings.Fields(text)))}
		case p.app == nil:
			return []finding{good(name, "%s", text)}
		}
		pause := longestPause(schedule, p.app.env.Clock.Now())
		if limit, what := most(p.app.config); pause > limit && limit > 0 {
			if usually, err := devhost.ParseSchedule(usual); err == nil && longestPause(usually, p.app.env.Clock.Now()) > limit {
				fix = "In signup-sync.yaml: sync: { overlap: 60m }"
			}
			return []finding{warn(name, fix, "%q pauses for %v, which is longer than %s", text, pause, what)}
		}
		return []finding{good(name, "%q, at most %v apart", text, pause)}
	}
}

// byIdentity are the commands that make the ledger's account, which is the host's too, reached by identity.
var byIdentity = onAccount("CLIENT_ID_OF_THE_IDENTITY", "Storage Blob Data Owner", "ACCOUNT") + "\n" + onAccount("CLIENT_ID_OF_THE_IDENTITY", "Storage Table Data Contributor", "ACCOUNT") + "\n" +
	setSetting("AzureWebJobsStorage__accountName", "ACCOUNT") + "\n" + setSetting("AzureWebJobsStorage__credential", "managedidentity") + "\n" +
	setSetting("AzureWebJobsStorage__clientId", "CLIENT_ID_OF_THE_IDENTITY") + "\naz functionapp config appsettings delete --name APP --resource-group GROUP --setting-names AzureWebJobsStorage"

// examineStorage looks at how the host and the ledger reach the storage account.
func examineStorage(_ context.Context, p *patient) []finding {
	const name = "AzureWebJobsStorage"
	simulated := isLoopback(p.getenv("GRAPH_URL"))
	connection := p.getenv(name)
	switch ledger := p.getenv("LEDGER"); {
	case ledger != "" && ledger != "tables" && simulated:
		return []finding{good(name, "the ledger is not in a storage account; this is a simulation")}
	case ledger != "" && ledger != "tables":
		return []finding{warn("LEDGER", setSetting("LEDGER", "tables"), "%s is for tries on one machine: what it remembers is lost with that", strings.SplitN(ledger, ":", 2)[0])}
	case strings.HasPrefix(connection, "UseDevelopmentStorage") && simulated:
		return []finding{good(name, "the emulator on this machine, as the tenant is")}
	case connection != "":
		return []finding{warn(name, byIdentity, "a connection string opens the whole account to whoever reads it; the identity needs none")}
	}
	if p.getenv(name+"__accountName") == "" && p.getenv(name+"__tableServiceUri") == "" {
		return nil // refused above
	}
	var all []finding
	if p.getenv(name+"__credential") == "" {
		all = append(all, warn(name+"__credential", setSetting(name+"__credential", "managedidentity"), "it is not set beside the account's name, and the host tries every identity that it can find"))
	}
	if id := p.getenv("AZURE_CLIENT_ID"); p.getenv(name+"__clientId") == "" && id != "" {
		all = append(all, warn(name+"__clientId", setSetting(name+"__clientId", id), "it is not set, so that host and ledger take the system-assigned identity, and AZURE_CLIENT_ID names another"))
	}
	if len(all) == 0 {
		all = append(all, good(name, "the account is reached by identity, and no key of it is kept"))
	}
	return all
}

// clouds are the token endpoint and the Graph of each, by host (Microsoft identity platform, "National clouds").
var clouds = []struct {
	name             string
	authority, graph []string
}{
	{"the global cloud", []string{"login.microsoftonline.com"}, []string{"graph.microsoft.com"}},
	{"the cloud of the US government", []string{"login.microsoftonline.us"}, []string{"graph.microsoft.us", "dod-graph.microsoft.us"}},
	{"the cloud of China", []string{"login.partner.microsoftonline.cn", "login.chinacloudapi.cn"}, []string{"microsoftgraph.chinacloudapi.cn"}},
}

// cloudOf is the cloud that a token endpoint or a Graph is of; -1 for none that is known.
func cloudOf(root string) int {
	u, err := url.Parse(root)
	if err != nil {
		return -1
	}
	for i, c := range clouds {
		if slices.Contains(c.authority, u.Hostname()) || slices.Contains(c.graph, u.Hostname()) {
			return i
		}
	}
	return -1
}

func examineClouds(_ context.Context, p *patient) []finding {
	if p.app == nil {
		return nil // whatever is wrong with the URLs is said above
	}
	env := p.app.env
	signsIn, answers := cloudOf(env.Authority), cloudOf(env.Graph)
	fixAuthority, fixGraph := setSetting("ENTRA_AUTHORITY", "https://"+clouds[max(answers, 0)].authority[0]), setSetting("GRAPH_URL", "https://"+clouds[max(signsIn, 0)].graph[0])
	switch {
	case isLoopback(env.Authority) && isLoopback(env.Graph):
		return []finding{good("clouds", "token endpoint and Graph are simulated on this machine")}
	case signsIn >= 0 && signsIn == answers:
		return []finding{good("clouds", "ENTRA_AUTHORITY and GRAPH_URL are both of %s", clouds[answers].name)}
	case signsIn >= 0 && answers >= 0:
		return []finding{fail("clouds", fixGraph+"\nor\n"+fixAuthority, "ENTRA_AUTHORITY is of %s and GRAPH_URL is of %s, which takes no token from there", clouds[signsIn].name, clouds[answers].name)}
	case signsIn >= 0:
		return []finding{warn("clouds", fixGraph, "ENTRA_AUTHORITY is of %s, and GRAPH_URL of no cloud that is known here", clouds[signsIn].name)}
	case answers >= 0:
		return []finding{warn("clouds", fixAuthority, "GRAPH_URL is of %s, and ENTRA_AUTHORITY of no cloud that is known here", clouds[answers].name)}
	}
	return []finding{warn("clouds", fixAuthority+"\n"+fixGraph, "ENTRA_AUTHORITY and GRAPH_URL are of no cloud that is known here")}
}

func isLoopback(root string) bool {
	u, err := url.Parse(root)
	return err == nil && loopback(u.Hostname())
}

// appFolder is where host.json should be: where the host says, or beside signup-sync.yaml.
func (p *patient) appFolder() string {
	if root := p.getenv("FUNCTIONS_APP_ROOT_PATH"); root != "" {
		return root
	}
	return filepath.Dir(p.getenv("SIGNUP_SYNC_CONFIG"))
}

// inAppFolder is what to do about a file that is not there.
const inAppFolder = "Run the doctor in the app's folder, where host.json and signup-sync.yaml are."

// shortRun is how long a run should have at least: a call to a slow destination may take half of it.
const shortRun = time.Minute

func examineTimeout(_ context.Context, p *patient) []finding {
	const name = "functionTimeout"
	if p.app == nil {
		return nil // refused above
	}
	_, err := os.Stat(filepath.Join(p.appFolder(), "host.json"))
	switch setting := p.getenv("AzureFunctionsJobHost__functionTimeout"); {
	case setting == "" && err != nil:
		return []finding{notAsked(name, inAppFolder, "host.json is not here")}
	case p.app.timeout < shortRun:
		return []finding{warn(name, `Set "functionTimeout": "00:05:00" in host.json.`, "it leaves a run %v, and what does not fit is left to the next one", p.app.timeout)}
	}
	return []finding{good(name, "it leaves a run %v", p.app.timeout)}
}

// ourFunctions are the app's functions and their schedules.
var ourFunctions = []struct{ name, schedule string }{{"SyncNewUsers", "SYNC_SCHEDULE"}, {"TakeCensus", "CENSUS_SCHEDULE"}}

// examineHost compares host.json and the functions' own files with what the program serves.
func examineHost(_ context.Context, p *patient) []finding {
	var host struct {
		CustomHandler struct {
			Description struct{ DefaultExecutablePath string }
		}
	}
	root := p.appFolder()
	switch err := readJSON(filepath.Join(root, "host.json"), &host); {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{notAsked("host.json", inAppFolder, "host.json is not here")}
	case err != nil:
		return []finding{fail("host.json", "Take the project's own.", "it cannot be read: %s", oneLine(err))}
	}
	var all []finding
	if path := host.CustomHandler.Description.DefaultExecutablePath; path != "bin/handler" {
		all = append(all, fail("host.json", `Set "defaultExecutablePath": "bin/handler" in host.json.`, "its custom handler is %q, and the package has bin/handler", path))
	}
	for _, f := range ourFunctions {
		all = append(all, p.examineFunction(root, f.name, f.schedule)...)
	}
	all = append(all, examinePage(root)...)
	if len(all) == 0 {
		all = append(all, good("host.json", "it starts bin/handler, and the functions are SyncNewUsers and TakeCensus, and Status, which wants a key"))
	}
	return all
}

func (p *patient) examineFunction(root, name, schedule string) []finding {
	var function struct {
		Disabled bool
		Bindings []struct{ Name, Type, Schedule string }
	}
	own := "Take the project's own " + name + "/function.json."
	if err := readJSON(filepath.Join(root, name, "function.json"), &function); err != nil {
		return []finding{fail(name, own, "its function.json cannot be read: %s", oneLine(err))}
	}
	disabled := "AzureWebJobs." + name + ".Disabled"
	if off := strings.ToLower(p.getenv(disabled)); function.Disabled || off == "1" || off == "true" {
		return []finding{warn(name, setSetting(disabled, "0"), "the function is switched off")}
	}
	if len(function.Bindings) != 1 || function.Bindings[0].Name != "timer" || function.Bindings[0].Type != "timerTrigger" || function.Bindings[0].Schedule != "%"+schedule+"%" {
		return []finding{fail(name, own, "its one binding is not the timer named timer with the schedule %%%s%%", schedule)}
	}
	return nil
}

// examinePage looks that nobody sees the status page without a key; whether there is one, the configuration says.
func examinePage(root string) []finding {
	const name, own = "Status", "Take the project's own Status/function.json."
	var function struct {
		Bindings []struct{ Name, Type, AuthLevel string }
	}
	if err := readJSON(filepath.Join(root, name, "function.json"), &function); err != nil {
		return []finding{fail(name, own, "its function.json cannot be read: %s", oneLine(err))}
	}
	if b := function.Bindings; len(b) != 2 || b[0].Name != "req" || b[0].Type != "httpTrigger" || b[1].Name != "res" || b[1].Type != "http" {
		return []finding{fail(name, own, "its bindings are not the httpTrigger req and the http output res")}
	}
	if level := function.Bindings[0].AuthLevel; level != "function" && level != "admin" {
		return []finding{fail(name, own, "whoever finds the address sees the page: its authLevel is %q", level)}
	}
	return nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
