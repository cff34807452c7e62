// Package connector brings users into outside systems: a kind is a file or a few that begin with its name, and Kinds is
// the one list of them. A connector is opened from typed settings and knows nothing of the engine; it says what happened
// by the error classes of package signup, and never puts a secret, an address or a vendor's own text into an error or
// the log.
//
// It imports signup, the vendors' clients, azcore and azidentity (for its errors), and the database drivers.
package connector

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"signup-sync/handler/signup"
)

// Kind is one kind of destination.
type Kind struct {
	Name        string  // as in the configuration
	Doc         string  // what it makes and keeps, for the page of destinations
	Settings    any     // the zero value of its settings struct; the tags json, doc, default, enum, required and secret describe it
	Record      []Field // what a record may hold; empty = any names
	Limit       string  // the vendor's published limits, which the defaults keep below
	Rate        float64 // default calls of Associate a second; 0 = no limit
	Burst       int     // default burst, at least 1 where Rate is set
	Concurrency int     // default number of calls at the same time
	Most        int     // calls at the same time that a destination may be given; 0 = any number

	// Connect makes a connector, without I/O. The errors are all that is wrong with the settings, each naming its key
	// ("settings.apiKey: missing"), and hold no value. Connector makes such a function.
	Connect func(settings map[string]any, env Env) (signup.Connector, []error)
	// Fields says more of a record, as a tree of maps whose leaves do not matter, than Record does; nil = nothing.
	Fields func(fields map[string]any) []error
}

// Field is one field of a record.
type Field struct {
	Name string // "metadata.*" allows any name below metadata
	Doc  string
}

// Kinds returns the kinds of this package, sorted by name.
func Kinds() []Kind {
	return []Kind{eventGridKind(), mailchimpKind(), salesforceKind(), serviceBusKind(), sqlKind(), storageQueueKind(), stripeKind(), webhookKind()}
}

// Env is what a connector gets from the program.
type Env struct {
	HTTP  *http.Client           // its transport is used, its timeout is not; nil = http.DefaultTransport
	Token azcore.TokenCredential // the app's own identity at Azure's services; nil = there is none, and nothing is asked of it
	Clock signup.Clock           // for Retry-After dates, signatures and waits
	Log   *slog.Logger           // nil = no log
	Shape map[string]any         // the destination's record with nil leaves, so that Check can compare; nil = not known
}

// Find returns the kind of that name.
func Find(kinds []Kind, name string) (Kind, error) {
	var names []string
	for _, k := range kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, fmt.Errorf("connector %q is not known; there are %s", name, strings.Join(names, ", "))
}

// Open makes a connector of this kind; see Connect.
func (k Kind) Open(settings map[string]any, env Env) (signup.Connector, []error) {
	if env.Clock == nil {
		env.Clock = signup.ScaledClock{}
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if env.HTTP == nil {
		env.HTTP = &http.Client{}
	}
	return k.Connect(settings, env)
}

// CheckRecord compares a destination's record, as a tree of maps whose leaves do not matter, with what the kind takes.
// The errors name all the fields that it does not.
func (k Kind) CheckRecord(fields map[string]any) []error {
	var errs []error
	if len(k.Record) > 0 {
		errs = fieldErrors(k.Record, fields)
	}
	if k.Fields != nil {
		errs = append(errs, k.Fields(fields)...)
	}
	return errs
}

// Connector makes a Kind's Connect: it decodes the settings into S by its tags, and open reports what is wrong with
// those that are set.
func Connector[S any](open func(s S, env Env) (signup.Connector, []error)) func(map[string]any, Env) (signup.Connector, []error) {
	return func(settings map[string]any, env Env) (signup.Connector, []error) {
		var s S
		errs := decode(settings, &s)
		c, more := open(s, env)
		if errs = append(errs, more...); len(errs) > 0 {
			return nil, errs
		}
		return c, nil
	}
}

// fieldErrors compares a record with the fields of a kind.
func fieldErrors(allowed []Field, fields map[string]any) []error {
	var errs []error
	var names []string
	for _, f := range allowed {
		names = append(names, f.Name)
	}
	for _, name := range sortedKeys(fields) {
		below, nested := fields[name].(map[string]any)
		switch {
		case slices.Contains(names, name+".*"):
			if !nested {
				errs = append(errs, fmt.Errorf("record.%s: wants fields below it", name))
			}
			for _, sub := range sortedKeys(below) {
				if _, deeper := below[sub].(map[string]any); deeper {
					errs = append(errs, fmt.Errorf("record.%s.%s: wants a value, not fields below it", name, sub))
				}
			}
		case !slices.Contains(names, name):
			errs = append(errs, fmt.Errorf("record.%s: not known%s", name, meant(names)))
		case nested:
			errs = append(errs, fmt.Errorf("record.%s: wants a value, not fields below it", name))
		}
	}
	return errs
}

// invalidRecord is the outcome for a record that cannot be sent; why names the field and never the value.
func invalidRecord(why string) error {
	return &signup.Error{Class: signup.Permanent, Code: "invalid-record", Detail: why}
}

// cancelled reports the caller's own cancellation, which is no outcome: the row is to be left as it is.
func cancelled(doing string, err error) error { return fmt.Errorf("%s: %w", doing, err) }

// code is the code of an outcome, "" for any other error.
func code(err error) string {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e.Code
	}
	return ""
}
