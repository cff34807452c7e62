// Package entra is the tenant, a Microsoft Entra External ID directory behind Microsoft Graph: the detectors that see
// sign-ups, the users' profiles, the patch of a user's own record, the destinations that live in the tenant itself
// (groups, access packages).
//
// It is the only package that imports msgraph-sdk-go. The SDK's request builders make the requests, but for the
// destinations' (direct.go says why), and its writer the bodies; the requests are sent, paced and tried again here, and
// the answers decoded into small structs, because the SDK's own pipeline corrupts retried writes and sleeps through
// deadlines (kiota-http-go#183), and its model parser takes an order of magnitude more time and memory. None of its
// models is linked (update.go says how). Inside the project it imports signup only.
package entra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/users"

	"signup-sync/handler/signup"
)

// Options say which tenant, and by what means. Clock, Credential and GraphURL are required.
type Options struct {
	GraphURL   string                 // root without a path: https://graph.microsoft.com; http only on loopback
	Credential azcore.TokenCredential // for GraphURL's /.default scope; Microsoft Graph's own when GraphURL is on loopback
	HTTP       *http.Client           // nil is http.DefaultClient; redirects are never followed, its Timeout is not used
	Clock      signup.Clock
	Log        *slog.Logger                      // nil logs nothing
	Jitter     func(time.Duration) time.Duration // from a full pause to the one to use; nil takes one half to all of it
	Timeout    time.Duration                     // of one try, token and answer included; 0 is 30 s

	Attributes     []string      // the attributes to read, by their names in the configuration; see signup.AttributeKind
	ExtensionsApp  string        // client id of the app that owns the custom ones; "" looks for the b2c-extensions-app
	Domain         string        // that user principal names are to have; "" = none in particular
	AuditRetention time.Duration // how far back the audit and sign-up logs go; 0 is 7 days, what an external tenant keeps
}

// Tenant is one tenant's directory and audit log. It is safe for concurrent use; make one at start.
type Tenant struct {
	client      *client
	attributes  []string
	extensions  extensions
	domain      upnDomain
	audit       *audit
	signUps     *signUps
	directory   *directory
	undecodable atomic.Int64
}

var _ signup.Directory = (*Tenant)(nil)

// Open makes the tenant and does no I/O. All errors in o are reported at once.
func Open(o Options) (*Tenant, error) {
	var errs []error
	root, err := parseRoot(o.GraphURL)
	if err != nil {
		errs = append(errs, err)
	}
	if o.Credential == nil {
		errs = append(errs, errors.New("the Graph credential is missing"))
	}
	if o.Clock == nil {
		errs = append(errs, errors.New("the clock is missing"))
	}
	app := strings.ToLower(strings.ReplaceAll(o.ExtensionsApp, "-", ""))
	if app != "" {
		if _, err := signup.ParseUserID(o.ExtensionsApp); err != nil {
			errs = append(errs, errors.New("the extensions app is not a client id, which is a GUID"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Jitter == nil {
		o.Jitter = func(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.AuditRetention == 0 {
		o.AuditRetention = 7 * 24 * time.Hour
	}
	c, err := newClient(o, root)
	if err != nil {
		return nil, err
	}
	t := &Tenant{client: c, attributes: o.Attributes, extensions: extensions{given: o.ExtensionsApp, app: app, turn: make(chan struct{}, 1)},
		domain: upnDomain{name: o.Domain, turn: make(chan struct{}, 1)}}
	t.audit = &audit{tenant: t, retention: o.AuditRetention}
	t.signUps = &signUps{tenant: t, retention: o.AuditRetention}
	t.directory = &directory{tenant: t, name: "directory"}
	return t, nil
}

// parseRoot takes a URL of scheme and host only.
func parseRoot(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		return nil, errors.New("the Graph URL is not a URL with a host")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("the Graph URL has more than scheme and host: want https://%s", u.Host)
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u)):
		return nil, errors.New("the Graph URL is not https")
	}
	u.Path = ""
	return u, nil
}

// loopback reports that u leads to this machine, where simulators are.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// Audit detects sign-ups and redeemed invitations in the audit log.
func (t *Tenant) Audit() signup.Detector { return t.audit }

// SignUps detects people who sign up through a user flow in the sign-up log, which is beta and not in every tenant.
func (t *Tenant) SignUps() signup.Detector { return t.signUps }

// Directory detects users by the time at which they were created.
func (t *Tenant) Directory() signup.Detector { return t.directory }

// Counts says what was asked of Graph, each try counted, and how many records were passed over.
type Counts struct {
	Audit, SignUps, Directory, Profiles, Updates, Applications, Members, Packages int64 // calls
	Throttled                                                                     int64 // … that were answered with throttling
	Undecodable                                                                   int64 // records in whole pages that could not be decoded
}

// Counts since Open.
func (t *Tenant) Counts() Counts {
	n := func(k kind) int64 { return t.client.calls[k].Load() }
	return Counts{
		Audit: n(auditCall), SignUps: n(signUpCall), Directory: n(directoryCall), Profiles: n(profileCall),
		Updates: n(updateCall), Applications: n(applicationCall), Members: n(memberCall), Packages: n(packageCall) + n(requestCall),
		Throttled: t.client.throttled.Load(), Undecodable: t.undecodable.Load(),
	}
}

// Calls is how many requests went to Graph since Open, each try counted.
func (t *Tenant) Calls() int64 {
	var sum int64
	for k := range t.client.calls {
		sum += t.client.calls[k].Load()
	}
	return sum
}

// Check gets a token, reads one user's id, looks up the custom attributes if there are any, and compares the configured
// domain, if there is one, with the tenant's. It changes nothing.
func (t *Tenant) Check(ctx context.Context) error {
	err := t.client.do(ctx, t.readOneUser())
	if err != nil {
		return fmt.Errorf("read one user: %w", err)
	}
	_, err = t.propertyNames(ctx, t.attributes)
	return errors.Join(err, t.verifyDomain(ctx))
}

// readOneUser asks for the id of any user: the least that Graph can be asked for with the permission that is always needed.
func (t *Tenant) readOneUser() request {
	return request{
		kind: profileCall,
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			top := int32(1)
			return t.client.users().ToGetRequestInformation(ctx, &users.UsersRequestBuilderGetRequestConfiguration{
				QueryParameters: &users.UsersRequestBuilderGetQueryParameters{Select: []string{"id"}, Top: &top},
			})
		},
		decode: func(body *decoder) error {
			_, err := decodePage(body, func(d *decoder) error { return d.skip() })
			return err
		},
	}
}
