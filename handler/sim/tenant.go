// Package sim has simulations of the outside systems, as http.Handlers with fault injection: a Microsoft Entra External
// ID tenant over Microsoft Graph, the Entra token endpoint, a Key Vault, and the systems that users are associated
// with. The same simulations serve the tests and the local run. It imports signup and the standard library only.
//
// Everything that happens by chance comes from the seed, and every time from the clock. A simulation is never bent to
// suit its client: what the vendors document is kept, and where they are silent it does the worse thing. The tenant's
// assumptions, none of which a published page confirms or denies:
//
//   - The actor of a self-service "Add user" record varies: the CPIM service, the user, or nobody. Its correlation id
//     is not that of the sign-up log.
//   - A sign-up that fails may leave an "Add user" record with result failure, for a user who never exists.
//   - A customer imported by an app cannot be told from one who signed up alone; only the sign-up log differs.
//   - Native sign-ups leave no rows in the sign-up log.
//   - Lists are served from an index with its own lag at each replica: a user may be readable by id and absent from a
//     list, or the other way round, and a change may show in one and not in the other.
//   - Lists of users come in the order of their ids, not of their creation.
//   - createdDateTime is cut to the second, audit times have seven digits.
//   - Audit text is compared with regard to letter case. $filter knows no parentheses.
//   - Rows that arrive while a log is paged shift the pages: a row may be shown twice, none is passed over.
//   - A throttled call counts towards the limit that it broke.
//   - A $select or a patch that names an extension property which does not exist is refused as a whole.
//   - An extension property without a value is left out of the answer, even if selected.
//   - Who is synchronised from an on-premises directory keeps the names and extension attributes from there.
//   - A user principal name stays taken while its owner is in the recycle bin.
//   - A patched userPrincipalName also changes the identity of that type.
//   - A Graph token's audience is https://graph.microsoft.com, whatever address Graph is called at.
//   - Who may read users may read the tenant's own object, as far as the delegated permission User.Read shows it.
//   - A dynamic group refuses members as a missing permission is refused, and so does one that can hold directory roles.
//   - A membership that is being added twice is refused by its truth, and shown by a replica some seconds later.
//   - A guest whom an approved request for an access package made has not redeemed anything by that, and the request names
//     the new account once it is delivered.
//   - Without entitlement management its endpoints answer as to an app that lacks the permission. With it they refuse a
//     second request, a policy of another package and a user whom they do not know yet alike, and show a new request some
//     seconds later.
//   - Who may not invite is refused by 401, as by the service behind Graph, and every address that is not taken by 400,
//     with nothing but words to tell the reasons apart. A change of a policy shows at once.
package sim

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// TenantType is the configuration of a tenant.
type TenantType string

const (
	External  TenantType = "external"  // an External ID tenant; also ""
	Workforce TenantType = "workforce" // an ordinary tenant
	B2C       TenantType = "b2c"       // an Azure AD B2C tenant
)

// Order is how the audit log is sorted.
type Order int

const (
	NewestFirst          Order = iota
	OldestFirst                //
	ShuffledWithinSecond       // newest first by the second, in no order within
)

// Throttle says which of the published limits apply.
type Throttle int

const (
	ThrottleDocumented Throttle = iota
	ThrottleOff                 //
	ThrottleTight               // a tenth of the documented limits, at least one call
)

// RetryAfter is the form of that header in a 429 answer.
type RetryAfter int

const (
	RetryInteger    RetryAfter = iota // "3": seconds, rounded up
	RetryFractional                   // "2.128"
	RetryMissing                      // none
	RetryDate                         // an HTTP date, rounded up to the second
	RetryHuge                         // "300"
)

// TenantOptions describe a tenant. The zero value of each switch is what Microsoft documents, or the worse guess.
type TenantOptions struct {
	ID         string       // a GUID; "" = one made from the seed
	Domain     string       // the initial domain; "" = contoso.onmicrosoft.com
	Domains    []string     // further verified domains; the first is the default one
	Clock      signup.Clock // nil = the wall clock
	Seed       uint64       //
	Type       TenantType   //
	Attributes []string     // short names of the custom attributes on the b2c-extensions-app; full names of other apps' extensions
	Flags      []string     // those of Attributes that are true or false; the others are text until somebody gives a value of another type

	StrictAuditFilter bool          // refuse the clauses that no page lists: category, result, operationType, gt, $orderby
	AuditOrder        Order         //
	AuditMaxTop       int           // the page size above which $top is cut; 0 = 1000
	RefuseLargeTop    bool          // refuse a larger $top instead
	ShortPages        bool          // pages may be shorter than $top
	EmptyPages        int           // every so many pages, at least 2, there is an empty one with a next link; 0 = none
	PagingLife        time.Duration // of a skip token; 0 = 10 minutes
	Retention         time.Duration // of both logs; 0 = 7 days
	InstantAudit      bool          // rows show at once
	AuditTail         bool          // one row in a thousand takes 15 to 45 minutes
	Duplicates        float64       // the share of audit rows that are published twice; 0 = 0.005, negative = none
	RedeemedBy        string        // the service that logs a redemption; "" = "B2B Auth", also seen: "Invited Users"
	NoSignUpLog       int           // the sign-up log answers so: 403 or 404; 0 = it is there
	NativeSignUps     bool          // native sign-ups leave rows in the sign-up log
	Replicas          int           // 0 = 3
	InstantReplicas   bool          // every write shows everywhere at once
	Throttle          Throttle      //
	RetryAfter        RetryAfter    //
	DateSkew          time.Duration // added to the Date header

	UserFlows            []UserFlow //
	NoEmailSubscriptions bool       // of the authorization policy: allowedToSignUpEmailBasedSubscriptions is false
	NoVerifiedJoin       bool       // likewise: allowEmailVerifiedUsersToJoinOrganization is false
	InvitesFrom          string     // likewise: allowInvitesFrom; "" = everyone
	BlockedDomains       []string   // to which nobody is invited, in lower case

	Groups                []Group         //
	EntitlementManagement bool            // a licence for that; a tenant without a Type is a workforce tenant then
	AccessPackages        []AccessPackage //
	DeliveryTime          time.Duration   // from an assignment's request to its delivery; 0 = 3 minutes
}

// Tenant is a simulated tenant behind Microsoft Graph; ServeHTTP serves /v1.0 and /beta.
type Tenant struct {
	Faults Faults
	journal

	o       TenantOptions
	mu      sync.Mutex
	users   map[signup.UserID]*resident
	order   []*resident // by creation
	byID    []*resident // by id, as lists show them
	audits  recordLog
	signUps recordLog
	attrs   []attribute
	pages   pager
	limits  limiter
	draws   uint64 // how many sources of chance were made
	turn    int    // calls so far, for the choice of the replica
	ids     *rand.Rand
	auditor window
	empty   int // patches that changed nothing

	flowIDs      []string // of the user flows
	groups       []*group
	entitlements entitlements
	mails        []Mail
}

// NewTenant makes a tenant without users.
func NewTenant(o TenantOptions) *Tenant {
	t := &Tenant{o: o, users: map[signup.UserID]*resident{}, ids: rand.New(rand.NewPCG(o.Seed, 1))}
	if t.o.Clock == nil {
		t.o.Clock = signup.ScaledClock{}
	}
	if t.o.ID == "" {
		t.o.ID = guid(rand.New(rand.NewPCG(o.Seed, 2)))
	}
	setDefault(&t.o.Domain, "contoso.onmicrosoft.com")
	if o.EntitlementManagement {
		setDefault(&t.o.Type, Workforce)
	}
	setDefault(&t.o.Type, External)
	setDefault(&t.o.AuditMaxTop, 1000)
	setDefault(&t.o.PagingLife, 10*time.Minute)
	setDefault(&t.o.Retention, 7*24*time.Hour)
	setDefault(&t.o.Duplicates, 0.005)
	setDefault(&t.o.RedeemedBy, "B2B Auth")
	setDefault(&t.o.Replicas, 3)
	setDefault(&t.o.InvitesFrom, "everyone")
	setDefault(&t.o.DeliveryTime, 3*time.Minute)
	t.Faults.Seed(o.Seed)
	for _, name := range o.Attributes {
		if !strings.HasPrefix(name, "extension_") {
			name = extensionPrefix + name
		}
		t.attrs = append(t.attrs, attribute{name: name, id: guid(t.ids)})
	}
	for _, short := range o.Flags {
		t.collect(short, false)
	}
	t.o.UserFlows = slices.Clone(o.UserFlows) // which can be changed
	t.defineFlows()
	for i := range o.UserFlows { // of a source of their own, so that a flow does not change the users' ids
		t.flowIDs = append(t.flowIDs, guid(rand.New(rand.NewPCG(o.Seed, uint64(i)<<8|4))))
	}
	t.audits.order = o.AuditOrder
	for _, g := range o.Groups {
		t.groups = append(t.groups, &group{Group: g})
	}
	return t
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// ID is the tenant's id.
func (t *Tenant) ID() string { return t.o.ID }

// Domain is the tenant's initial domain.
func (t *Tenant) Domain() string { return t.o.Domain }

// Extension is the full name of a custom attribute (docs: the directory extension of the b2c-extensions-app).
func (t *Tenant) Extension(short string) string { return extensionPrefix + short }

// SuspiciousEmptyPatches is how many PATCH requests of users named no property at all.
func (t *Tenant) SuspiciousEmptyPatches() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.empty
}

// MaxAuditCallsIn10s is the largest number of log requests, throttled ones included, within any 10 seconds.
func (t *Tenant) MaxAuditCallsIn10s() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.auditor.most
}

// draw returns a new source of chance. Each person and each write has its own, so that the order of calls to Graph
// does not change what becomes of people.
func (t *Tenant) draw() *rand.Rand {
	t.draws++
	return rand.New(rand.NewPCG(t.o.Seed, t.draws<<8|3))
}

func (t *Tenant) now() time.Time { return t.o.Clock.Now().UTC() }

// guid makes a version 4 GUID (RFC 9562).
func guid(r *rand.Rand) string {
	a, b := r.Uint64(), r.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, 0x8000|b>>48&0x3fff, b&0xffffffffffff)
}

// ServeHTTP answers a call to Graph.
func (t *Tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, readable := readBody(r)
	c := &graphCall{request: r, body: body, readable: readable, query: r.URL.Query(), now: t.now()}
	c.route, c.vars = findRoute(r.Method, r.URL.Path)
	c.version, _, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	note := &Call{At: c.now, Method: r.Method, Route: "/" + c.version + c.route.template, URL: r.URL.RequestURI(),
		Header: r.Header.Clone(), Body: slices.Clone(body)}
	if c.route.class == logClass {
		t.mu.Lock()
		t.auditor.add(c.now)
		t.mu.Unlock()
	}
	t.record(note, c.now.Add(t.o.DateSkew), t.Faults.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.answer(w, c)
	})), w, r)
}
