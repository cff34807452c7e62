package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// Config is signup-sync.yaml, checked whole. The tags are the one description of the file: the decoder, its messages
// and the JSON Schema are made from them. A default stands for an absent value; min, max and enum are limits.
type Config struct {
	Sync         SyncConfig          `json:"sync" doc:"How sign-ups are found."`
	Signups      SignupsConfig       `json:"signups" doc:"Which sign-ups are associated."`
	Profile      ProfileConfig       `json:"profile" doc:"What is written to the user's own record."`
	Destinations []DestinationConfig `json:"destinations" doc:"The systems that every new user is brought into."`
	Status       StatusConfig        `json:"status" doc:"The status page, GET /api/status; without this section there is none."`

	Mapping *pipeline.Mapping `json:"-"` // the rules and mappings, compiled
}

// SyncConfig says how sign-ups are found.
type SyncConfig struct {
	Overlap        time.Duration `json:"overlap" default:"60m" min:"0s" max:"24h" doc:"How far each read reaches back before the last one, since records can be late."`
	FirstLookBack  time.Duration `json:"firstLookBack" default:"24h" min:"0s" max:"720h" doc:"How far the very first read reaches back; older users are taken in by backfill only."`
	AuditRetention time.Duration `json:"auditRetention" default:"168h" min:"24h" max:"720h" doc:"How long the tenant keeps its audit log: 168h without a licence, 720h with Microsoft Entra ID P1."`
	Detectors      []string      `json:"detectors" default:"audit,directory" enum:"audit,directory,signUps" doc:"Where sign-ups are looked for; signUps, the beta log of user flows, only beside another."`
}

// SignupsConfig says which sign-ups are associated.
type SignupsConfig struct {
	Origins     []signup.Origin `json:"origins" default:"selfService,emailVerified" enum:"selfService,emailVerified,invitation,admin" doc:"How users must have got into the tenant; everyone else is skipped. [Who signed up, and how](origins.md)."`
	Guests      string          `json:"guests" default:"redeemed" enum:"redeemed,invited" doc:"When guests are associated: when they accept the invitation, or when they are invited; accepting it then changes nothing. It needs invitation among origins."`
	Migrated    Expression      `json:"migrated" doc:"True of users who were imported from another directory, such as user.attributes.requiresMigration != nil; their origin is admin. Nothing else tells them from those who sign up with an e-mail address. A guest is none."`
	Entitlement bool            `json:"entitlement" doc:"Tell guests whom an approved request for an access package let in from others, as signup.way, by asking entitlement management about each guest. For workforce tenants; the app needs EntitlementManagement.Read.All."`
}

// ProfileConfig says what is written to the user's own record.
type ProfileConfig struct {
	DisplayName             Expression            `json:"displayName" doc:"The display name; written only while the present one is empty or unknown."`
	UserPrincipalName       Expression            `json:"userPrincipalName" doc:"The user principal name before the @; written only while the present one is the user's id. If somebody else has it, 2, 3 and the beginning of the user's id are tried behind it."`
	UserPrincipalNameDomain string                `json:"userPrincipalNameDomain" doc:"The domain behind the @, one that the tenant has verified; absent is the user's present one."`
	Attributes              map[string]Expression `json:"attributes" doc:"Attributes by name, such as a destination's account id: custom attributes by short name, extensionAttribute1 to extensionAttribute15 of cloud-only users, and directory extensions of other apps by their full name, extension_APPID_NAME, with the app's id without dashes."`
	ExtensionsApp           string                `json:"extensionsApp" form:"guid" doc:"The application id of b2c-extensions-app, where it cannot be looked up."`
}

// StatusConfig says who may see the status page.
type StatusConfig struct {
	Access string `json:"access" enum:"functionKey" doc:"functionKey: whoever has a key of the function Status, or of the app."`
}

// DestinationConfig is one destination.
type DestinationConfig struct {
	Name        string         `json:"name" required:"true" doc:"The destination's name; it is kept in the ledger and must never change."`
	Connector   string         `json:"connector" required:"true" doc:"The kind of system."`
	Mode        string         `json:"mode" default:"live" enum:"live,observe" doc:"observe records what would be sent, and sends nothing."`
	When        Expression     `json:"when" doc:"Which users are brought there: true or false; absent is all."`
	Settings    map[string]any `json:"settings" doc:"The connector's settings; ${NAME} in a string reads an app setting."`
	Record      map[string]any `json:"record" doc:"What is sent: an expression, true, false or a number at each leaf."`
	Rate        float64        `json:"rate" min:"0.01" max:"1000" doc:"At most so many calls a second; absent is the connector's default."`
	Burst       int            `json:"burst" min:"1" max:"1000" doc:"How many calls may come at once within the rate; absent is the connector's default."`
	Concurrency int            `json:"concurrency" min:"1" max:"64" doc:"How many calls may be under way at the same time; absent is the connector's default."`
	Breaker     BreakerConfig  `json:"breaker" doc:"When the destination is left alone for a while."`
}

// BreakerConfig says when a destination that fails everybody is left alone.
type BreakerConfig struct {
	Failures int           `json:"failures" min:"1" max:"1000" doc:"After so many failures in a row; absent is 5. An answer that refuses everybody, such as a wrong key, opens it at once."`
	Pause    time.Duration `json:"pause" default:"30s" min:"1s" max:"24h" doc:"For so long at first, and twice as long each time, up to 15 minutes or this, whichever is longer; then one call tries."`
}

// Expression is the text of an expr-lang expression.
type Expression string

// connectorChecks is how parseConfig learns what connectors take, without importing them. The errors begin with the
// place, "settings.apiKey: …" or "record.email: …", and hold no values.
type connectorChecks struct {
	Kinds    []string // nil = any
	Settings func(kind string, settings, record map[string]any) []error
	Record   func(kind string, record map[string]any) []error
	Most     func(kind string) int // calls at the same time that are allowed; 0 = any number
}

const (
	maxConfigSize  = 256 << 10
	maxConfigLines = 5000 // also of characters in a line, and of keys
	maxConfigDepth = 40
)

// configError is one thing that is wrong with the file.
type configError struct {
	file         string
	line, column int // from 1
	message      string
	excerpt      string // the expression and a caret below it; "" if it is not about one
	setting      string // the app setting that is missing or has not resolved; "" if it is not about one
}

func (e configError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.file, e.line, e.column, e.message)
	if e.excerpt != "" {
		s += "\n" + e.excerpt
	}
	return s
}

// ConfigErrors is everything that is wrong with the file, in the order of its lines.
type ConfigErrors []configError

func (e ConfigErrors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// parseConfig reads the file. Its error is a ConfigErrors with all that is wrong; no message holds a secret.
func parseConfig(file string, data []byte, getenv func(string) string, checks connectorChecks) (*Config, error) {
	r := &reader{file: file, getenv: getenv, checks: checks, nodes: map[string]*yamlNode{}, keys: map[string]position{}}
	var c Config
	if root := r.parse(data); root != nil {
		r.object("", root, &c)
		r.refuseSecrets(root, false)
		r.check(&c)
	}
	r.refuseSecretLines()
	if len(r.errs) > 0 {
		return nil, r.errors()
	}
	return &c, nil
}

// reader collects what is wrong while the file is read.
type reader struct {
	file   string
	lines  []string
	getenv func(string) string
	checks connectorChecks
	nodes  map[string]*yamlNode // by path
	keys   map[string]position  // of the keys of maps, by the path of their value
	labels []string             // the destinations' names
	hidden []string             // values that no message may show
	errs   ConfigErrors
}

// check does what needs the whole file: the mapping, the environment, and what the connectors have to say.
func (r *reader) check(c *Config) {
	if c.Sync.Overlap > c.Sync.AuditRetention {
		r.problem("$.sync.overlap", "must not be longer than sync.auditRetention")
	}
	if r.nodes["$.status"] != nil && r.nodes["$.status.access"] == nil {
		r.problem("$.status", "says nothing: write access: functionKey, or remove the section")
	}
	if slices.Equal(c.Sync.Detectors, []string{"signUps"}) {
		r.problem("$.sync.detectors", "signUps must not be alone: it is a preview that may change or end, and it sees nobody whom others bring in; add audit or directory")
	}
	if p := c.Profile; len(c.Destinations) == 0 && p.DisplayName == "" && p.UserPrincipalName == "" && len(p.Attributes) == 0 {
		r.problem("$.destinations", "there is nothing to do: name at least one destination, or something to write to the profile")
	}
	spec := pipeline.Spec{Migrated: string(c.Signups.Migrated), DisplayName: string(c.Profile.DisplayName), UserPrincipalName: string(c.Profile.UserPrincipalName),
		Domain: c.Profile.UserPrincipalNameDomain, Attributes: map[string]string{}}
	for name, e := range c.Profile.Attributes {
		spec.Attributes[name] = string(e)
	}
	for i := range c.Destinations {
		d := &c.Destinations[i]
		spec.Destinations = append(spec.Destinations, pipeline.DestinationSpec{Name: d.Name, When: string(d.When), Record: d.Record})
		path := fmt.Sprintf("$.destinations[%d]", i)
		if n := r.nodes[path+".settings"]; n != nil && n.kind == kindMap {
			d.Settings, _ = r.expand(n, d.Name).(map[string]any)
		}
		r.checkConnector(path, *d)
	}
	var problems []pipeline.Problem
	c.Mapping, problems = pipeline.Compile(spec)
	for _, p := range problems {
		if strings.HasSuffix(p.Path, ".name") && (r.nodes[p.Path] == nil || r.at(p.Path, r.errs)) {
			continue // the decoder has said so
		}
		r.expressionProblem(p)
	}
}

// placed finds the place that a connector's error begins with.
var placed = regexp.MustCompile(`^((?:settings|record)(?:\.[^.:\s\[\]]+|\[\d+\])*):? `)

func (r *reader) checkConnector(path string, d DestinationConfig) {
	if d.Connector == "" {
		return
	}
	if r.checks.Kinds != nil && !slices.Contains(r.checks.Kinds, d.Connector) {
		r.problem(path+".connector", "%q is not a connector%s", d.Connector, pipeline.DidYouMean(d.Connector, r.checks.Kinds))
		return
	}
	var errs []error
	if r.checks.Settings != nil {
		errs = append(errs, r.checks.Settings(d.Connector, d.Settings, d.Record)...)
	}
	if r.checks.Record != nil {
		errs = append(errs, r.checks.Record(d.Connector, d.Record)...)
	}
	if r.checks.Most != nil {
		if most := r.checks.Most(d.Connector); most > 0 && d.Concurrency > most {
			r.problem(path+".concurrency", "must be from 1 to %d for %s", most, d.Connector)
		}
	}
	said := r.errs
	for _, err := range errs {
		text, at := err.Error(), path
		if m := placed.FindStringSubmatch(text); m != nil {
			at, text = path+"."+m[1], text[len(m[0]):]
		}
		if !r.at(at, said) { // a value that could not be read is not also missing
			r.problem(at, "%s", text)
		}
	}
}

// at reports that one of these errors is about that very value.
func (r *reader) at(path string, errs ConfigErrors) bool {
	n := r.nodes[path]
	if n == nil {
		return false
	}
	return slices.ContainsFunc(errs, func(e configError) bool { return e.line == n.line && e.column == n.column })
}

// problem notes what is wrong with the value at path; if there is none, it is placed at the nearest key above.
func (r *reader) problem(path, format string, args ...any) {
	at := position{1, 1}
	if n := r.nodes[path]; n != nil {
		at = n.position
	} else {
		for above := path; above != ""; above = parentPath(above) {
			if p, ok := r.keys[above]; ok {
				at = p
				break
			} else if n := r.nodes[above]; n != nil {
				at = n.position
				break
			}
		}
	}
	r.problemAt(at, path, format, args...)
}

func (r *reader) problemAt(at position, path, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if label := r.label(path); label != "" {
		message = label + ": " + message
	}
	r.errs = append(r.errs, configError{file: r.file, line: at.line, column: at.column, message: message})
}

// label is a path as a person says it.
func (r *reader) label(path string) string {
	path = strings.TrimPrefix(strings.TrimPrefix(path, "$"), ".")
	var i int
	if _, err := fmt.Sscanf(path, "destinations[%d]", &i); err != nil || i >= len(r.labels) || r.labels[i] == "" {
		return path
	}
	_, rest, _ := strings.Cut(path, "]")
	return strings.TrimSuffix(fmt.Sprintf("destination %s: %s", r.labels[i], strings.TrimPrefix(rest, ".")), ": ")
}

// parentPath takes the last step off a YAMLPath.
func parentPath(path string) string {
	i := strings.LastIndexAny(path, ".[")
	return path[:max(i, 0)]
}

// expressionProblem places what is wrong with an expression, if possible at the character inside it.
func (r *reader) expressionProblem(p pipeline.Problem) {
	n := r.nodes[p.Path]
	if n == nil || p.Column < 0 || n.kind != kindString {
		r.problem(p.Path, "%s", p.Message)
		return
	}
	r.problemAt(r.inside(n, p.Column), p.Path, "%s", p.Message)
	r.errs[len(r.errs)-1].excerpt = excerpt(n.value.(string), p.Column)
}

// excerpt is the line of an expression that has the character at offset, with a caret below it.
func excerpt(text string, offset int) string {
	runes := []rune(text)
	offset = min(offset, len(runes))
	start := offset
	for start > 0 && runes[start-1] != '\n' && offset-start < 60 {
		start--
	}
	end := offset
	for end < len(runes) && runes[end] != '\n' && end-offset < 60 {
		end++
	}
	line := strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, string(runes[start:end]))
	return "    " + line + "\n    " + strings.Repeat(" ", offset-start) + "^"
}

// errors sorts what was found, drops repetitions, and takes secrets out of every message.
func (r *reader) errors() ConfigErrors {
	for i := range r.errs {
		r.errs[i].message = r.hide(r.errs[i].message)
		if shown := r.hide(r.errs[i].excerpt); shown != r.errs[i].excerpt {
			r.errs[i].excerpt = "" // its caret would point nowhere
		}
	}
	slices.SortStableFunc(r.errs, func(a, b configError) int {
		return cmp.Or(a.line-b.line, a.column-b.column)
	})
	return slices.Compact(r.errs)
}
