package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

const (
	maxNodes      = 1000   // of one expression's syntax tree
	maxExpression = 4000   // characters
	memoryBudget  = 20_000 // elements that one evaluation may make; expr counts them
)

// wanted is the type an expression must have where it stands.
type wanted int

const (
	wantString wanted = iota
	wantBool
	wantValue // a string, bool, number or time, or a list or map of them
)

// expression is one compiled expression and what its text says about it.
type expression struct {
	path       string
	text       string
	program    *vm.Program
	needs      []string       // destinations whose accounts it mentions, sorted
	must       []string       // those of needs that it uses without "?.", sorted
	attributes []string       // attributes it reads, sorted
	fields     []string       // members of user that it reads beside those, sorted
	taken      []AttributeUse // what it takes them for
	linkBack   string         // the destination, if the expression is its account's id and nothing else
}

// scope is what an expression can see. Members are described in docs/settings.md by these tags.
type scope struct {
	User     *userScope              `expr:"user"`
	Signup   *signupScope            `expr:"signup"`
	Accounts map[string]*AccountView `expr:"accounts"`
}

type userScope struct {
	ID                string         `expr:"id" doc:"The object id."`
	DisplayName       string         `expr:"displayName" doc:"The display name; destinations see the one that the user is about to get."`
	GivenName         string         `expr:"givenName" doc:"The given name."`
	Surname           string         `expr:"surname" doc:"The surname."`
	UserPrincipalName string         `expr:"userPrincipalName" doc:"The user principal name; generated for most, never an e-mail address."`
	Email             string         `expr:"email" doc:"The contact address; empty if there is none."`
	EmailVerified     bool           `expr:"emailVerified" doc:"The tenant has verified that address."`
	Country           string         `expr:"country" doc:"The country."`
	City              string         `expr:"city" doc:"The city."`
	PreferredLanguage string         `expr:"preferredLanguage" doc:"The preferred language, such as de-DE."`
	Created           time.Time      `expr:"created" doc:"When the user was created; a time."`
	Attributes        map[string]any `expr:"attributes" doc:"Custom attributes by short name, user.attributes.marketingOptIn; extensionAttribute1 to extensionAttribute15; directory extensions of other apps by their full name."`
}

type signupScope struct {
	Kind     string    `expr:"kind" doc:"created or redeemed."`
	Origin   string    `expr:"origin" doc:"selfService, emailVerified, invitation or admin."`
	Way      string    `expr:"way" doc:"How exactly: userFlow, federated, emailVerified, invitation, entitlement, admin or migration; [who signed up, and how](origins.md)."`
	Provider string    `expr:"identityProvider" doc:"Where the user proves who they are: email, userName, or the issuer as Graph writes it, such as google.com or ExternalAzureAD; empty for accounts of the tenant itself, and for a guest who has not been here."`
	At       time.Time `expr:"at" doc:"When it happened; a time."`
	Detected time.Time `expr:"detected" doc:"When it was seen; a time."`
	Detector string    `expr:"detector" doc:"audit, directory or signUps: who saw it first."`
}

// AccountView is what expressions see of a user's account at a destination.
type AccountView struct {
	ID string `expr:"id" doc:"The destination's own id of the user's account."`
}

// members lists what expressions can ask of user and signup, in the order of the structs.
var members = map[string][]string{
	"user":   tags(reflect.TypeFor[userScope]()),
	"signup": tags(reflect.TypeFor[signupScope]()),
}

// Member is something that expressions can ask for.
type Member struct{ Name, Doc string }

// Members are all of them, for the documentation: user.X, signup.X, accounts.NAME.id.
func Members() []Member {
	var all []Member
	for _, scope := range []struct {
		prefix string
		t      reflect.Type
	}{{"user.", reflect.TypeFor[userScope]()}, {"signup.", reflect.TypeFor[signupScope]()}, {"accounts.NAME.", reflect.TypeFor[AccountView]()}} {
		for f := range scope.t.Fields() {
			all = append(all, Member{scope.prefix + f.Tag.Get("expr"), f.Tag.Get("doc")})
		}
	}
	return all
}

func tags(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		names = append(names, f.Tag.Get("expr"))
	}
	return names
}

// options are those of every expression. Functions whose result is not a function of their arguments (the time, the
// order of a map) are not there.
func options() []expr.Option {
	opts := []expr.Option{
		expr.Env(scope{}),
		expr.MaxNodes(maxNodes),
		expr.Function("slug", func(p ...any) (any, error) { return slug(p[0].(string)), nil }, slug),
		expr.Function("short", func(p ...any) (any, error) { return short(p[0].(string)) }, new(func(string) string)),
		expr.Function("clip", func(p ...any) (any, error) { return clip(p[0].(string), p[1].(int)), nil }, clip),
	}
	for _, name := range []string{"now", "timezone", "keys", "values", "toPairs"} {
		opts = append(opts, expr.DisableBuiltin(name))
	}
	return opts
}

// optional compiles an expression that may be absent.
func (c *compiler) optional(path, text string, want wanted) *expression {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return c.compile(path, text, want)
}

// compile checks one expression and reports what is wrong with it; the result is used only if nothing is.
func (c *compiler) compile(path, text string, want wanted) *expression {
	e := &expression{path: path, text: text}
	switch {
	case strings.TrimSpace(text) == "":
		c.problem(path, -1, `the expression is empty: write one, such as user.email, or "" in quotes of its own`)
		return e
	case len(text) > maxExpression:
		c.problem(path, -1, "the expression has %d characters, more than %d", len(text), maxExpression)
		return e
	}
	usage := &usage{compiler: c, closed: map[ast.Node]bool{}}
	program, err := expr.Compile(text, append(options(), expr.Patch(usage))...)
	found := usage.finish(path)
	if len(found) > 0 {
		c.problems = append(c.problems, found...)
		return e
	}
	if err != nil {
		c.problems = append(c.problems, compileProblem(path, err))
		return e
	}
	if got, ok := allowed(program.Node().Type(), want); !ok {
		c.problem(path, 0, "the expression yields %s, but %s is wanted here", got, [...]string{"a string", "true or false", "a string, bool or number"}[want])
		return e
	}
	e.program = program
	e.needs, e.must, e.attributes = sortedKeys(usage.needs), sortedKeys(usage.must), sortedKeys(usage.attributes)
	e.fields = sortedKeys(usage.fields)
	usage.takeWhole(program.Node(), want)
	for _, use := range usage.taken {
		e.taken = append(e.taken, AttributeUse{Name: use.Name, Type: use.Type, Path: path})
	}
	e.linkBack = linkBack(text)
	if _, err := e.run(sample(e.needs)); errors.Is(err, errTooLarge) {
		c.problem(path, -1, "the expression makes more than %d elements: make its ranges and lists smaller", memoryBudget)
	}
	return e
}

// unknownName and friends find the parts of expr's messages that are said better here.
var (
	unknownName = regexp.MustCompile(`^unknown name (\S+)$`)
	noBuiltin   = regexp.MustCompile(`^unknown name (now|timezone|keys|values|toPairs)$`)
)

func compileProblem(path string, err error) Problem {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		message, _, _ := strings.Cut(err.Error(), "\n")
		return Problem{Path: path, Column: -1, Message: message}
	}
	message := e.Message
	if noBuiltin.MatchString(message) {
		message = noBuiltin.ReplaceAllString(message, "$1 is not available: the same sign-up must always give the same result")
	} else {
		message = unknownName.ReplaceAllString(message, `unknown name "$1": there are user, signup, accounts and functions; text stands in quotes of its own`)
	}
	return Problem{Path: path, Column: e.From, Message: message}
}

// allowed tells whether a value of type t may stand where one of the wanted type must, and what to call t.
func allowed(t reflect.Type, want wanted) (string, bool) {
	if t == nil || t.Kind() == reflect.Interface {
		return "any value", true // a custom attribute; its value is looked at when it is there
	}
	switch kind := t.Kind(); {
	case t == reflect.TypeFor[time.Time]():
		return "a time", want == wantValue
	case t == reflect.TypeFor[time.Duration]():
		return "a duration", false
	case kind == reflect.String:
		return "a string", want != wantBool
	case kind == reflect.Bool:
		return "a bool", want != wantString
	case kind >= reflect.Int && kind <= reflect.Float64:
		return "a number", want == wantValue
	case kind == reflect.Slice || kind == reflect.Map:
		return "a list or map", want == wantValue
	}
	return t.String(), false
}

var linkBackForm = regexp.MustCompile(`^\s*accounts\s*\??\.?\s*(?:\[\s*["']([a-z0-9-]+)["']\s*\]|([a-z][a-z0-9]*))\s*\??\.\s*id\s*$`)

func linkBack(text string) string {
	m := linkBackForm.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1] + m[2]
}

// errTooLarge says that an evaluation met the memory budget.
var errTooLarge = errors.New("memory budget exceeded")

// run evaluates the expression. An error holds no value, only the place in the expression.
func (e *expression) run(s *scope) (any, error) {
	machine := vm.VM{MemoryBudget: memoryBudget}
	v, err := machine.Run(e.program, s)
	if err == nil {
		return v, nil
	}
	f, ok := errors.AsType[*file.Error](err)
	if ok && strings.Contains(f.Message, errTooLarge.Error()) {
		return nil, fmt.Errorf("%s: %w", e.where(), errTooLarge)
	}
	if ok {
		return nil, fmt.Errorf("%s cannot be evaluated for this user, at character %d", e.where(), f.From+1)
	}
	return nil, fmt.Errorf("%s cannot be evaluated for this user", e.where())
}

// where is the path as a person says it: "destinations[2].record.email".
func (e *expression) where() string { return strings.TrimPrefix(e.path, "$.") }

// sample is a sign-up to try expressions on.
func sample(needs []string) *scope {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &scope{
		User: &userScope{ID: "00000000-0000-4000-8000-000000000000", DisplayName: "Jane Doe", GivenName: "Jane", Surname: "Doe",
			UserPrincipalName: "00000000-0000-4000-8000-000000000000@example.com", Email: "jane@example.com", Created: at},
		Signup:   &signupScope{Kind: "created", Origin: "selfService", Way: "userFlow", Provider: "email", At: at, Detected: at, Detector: "audit"},
		Accounts: map[string]*AccountView{},
	}
	for _, n := range needs {
		s.Accounts[n] = &AccountView{ID: "id"}
	}
	return s
}

func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
