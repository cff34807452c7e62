package entra

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	abstractions "github.com/microsoft/kiota-abstractions-go"

	"signup-sync/handler/signup"
)

const (
	// deliveryPause is how long an assignment that is being delivered is left alone at first; it takes minutes.
	deliveryPause = time.Minute
	// settling is how long entitlement management may refuse a new user whom it does not know yet, or because of a request
	// that it does not show yet.
	settling = time.Hour
	// recent is for how long a request that has come to its end is an answer to ours. An older one is history: a person may
	// have mended the cause and replayed the user. Tries of one user are at most an hour apart.
	recent = 2 * time.Hour

	entitlements = "/identityGovernance/entitlementManagement"
)

// AccessPackage assigns users to an access package, by a policy of it. An assignment is requested, and delivered some
// minutes later: until then a user is "in-progress". The account is the assignment.
type AccessPackage struct {
	tenant *Tenant
	id     string
	policy string
}

var _ signup.Connector = (*AccessPackage)(nil)

// NewAccessPackage makes the connector. The errors are all that is wrong with the ids; the tenant is not asked, and may be
// nil as long as nobody is associated.
func NewAccessPackage(t *Tenant, accessPackage, policy string) (*AccessPackage, []error) {
	p := &AccessPackage{tenant: t, id: strings.ToLower(accessPackage), policy: strings.ToLower(policy)}
	var errs []error
	for _, id := range []struct{ name, value string }{{"accessPackage", p.id}, {"policy", p.policy}} {
		if _, err := signup.ParseUserID(id.value); err != nil && id.value != "" {
			errs = append(errs, fmt.Errorf("settings.%s: is not an id, which is a GUID", id.name))
		}
	}
	return p, errs
}

// Associate looks first, always: nothing that Graph takes here makes a second request harmless but its refusal. Beside
// what the interface promises, the error's code is "in-progress" (transient) until the assignment is delivered,
// "denied", "canceled", "not-delivered" or "expired" (permanent) when it will not be, "not-found" (transient) while a new user is not known to entitlement
// management, "package-missing" and "no-entitlement-management" (systemic).
func (p *AccessPackage) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	account, err := p.assign(ctx, req)
	return account, everybodys(err)
}

func (p *AccessPackage) assign(ctx context.Context, req signup.Request) (signup.Account, error) {
	account, err := p.look(ctx, req)
	if account.ID != "" || err != nil {
		return account, p.explain(ctx, err)
	}
	refused := p.request(ctx, req.User)
	if refused == nil {
		return signup.Account{}, inProgress("submitted")
	}
	e, ok := errors.AsType[*signup.Error](refused)
	if !ok || e.Status != 400 && e.Status != 404 && e.Status != 409 {
		if ok && e.Class == signup.Transient { // it may have been taken; the lists show that in a while
			e.RetryAfter = max(e.RetryAfter, deliveryPause)
		}
		return signup.Account{}, p.explain(ctx, refused)
	}
	// Refused, as a second request is, and by no code of its own: whoever asked in between, or this program by a call whose
	// answer was lost, has left something to be found.
	account, err = p.look(ctx, req)
	if account.ID != "" || err != nil {
		return account, p.explain(ctx, err)
	}
	if err := p.examine(ctx); err != nil {
		return signup.Account{}, err
	}
	if p.tenant.client.clock.Now().Sub(req.Created) < settling {
		e.Class, e.Code = signup.Transient, "in-progress"
		if e.Status == 404 {
			e.Code = "not-found"
		}
		e.RetryAfter = max(e.RetryAfter, deliveryPause)
	}
	return signup.Account{}, refused
}

// inProgress is the outcome for a request that entitlement management works on.
func inProgress(state string) error {
	return &signup.Error{Class: signup.Transient, Code: "in-progress", RetryAfter: deliveryPause, Detail: "the request is " + word(state)}
}

// assignment is an accessPackageAssignment; those that have expired are listed as well.
type assignment struct {
	ID      string    `json:"id"`
	State   string    `json:"state"`
	Expired time.Time `json:"expiredDateTime"`
	Target  struct {
		ObjectID string `json:"objectId"`
	} `json:"target"`
	AccessPackage struct {
		ID string `json:"id"`
	} `json:"accessPackage"`
}

// assignmentRequest is an accessPackageAssignmentRequest; all there ever were are listed.
type assignmentRequest struct {
	Type       string    `json:"requestType"`
	State      string    `json:"state"`
	Status     string    `json:"status"` // more about the state
	Created    time.Time `json:"createdDateTime"`
	Completed  time.Time `json:"completedDateTime"`
	Assignment struct {
		Target struct {
			ObjectID string `json:"objectId"`
		} `json:"target"`
	} `json:"assignment"`
	AccessPackage struct {
		ID string `json:"id"`
	} `json:"accessPackage"`
}

// look finds out how far the user's assignment is: the account once it is delivered, an error while it is under way or
// when it has failed, and neither if nothing has been asked for.
func (p *AccessPackage) look(ctx context.Context, req signup.Request) (signup.Account, error) {
	c := p.tenant.client
	about := "accessPackage/id eq '" + p.id + "'"
	assignments, err := readAll[assignment](ctx, c, packageCall, c.link(entitlements+"/assignments",
		"$expand", "target,accessPackage", "$filter", about+" and target/objectId eq '"+string(req.User)+"'"))
	if err != nil {
		return signup.Account{}, lookError("assignments", err)
	}
	delivering, expired := "", time.Time{}
	for _, a := range assignments {
		if !strings.EqualFold(a.Target.ObjectID, string(req.User)) || !strings.EqualFold(a.AccessPackage.ID, p.id) {
			return signup.Account{}, notOurs("assignment")
		}
		switch strings.ToLower(a.State) {
		case "delivered":
			if _, err := signup.ParseUserID(a.ID); err != nil {
				return signup.Account{}, notOurs("assignment's id")
			}
			return signup.Account{ID: a.ID}, nil
		case "expired":
			if a.Expired.After(expired) {
				expired = a.Expired
			}
		case "deliveryfailed", "partiallydelivered": // the request tells when
		default:
			delivering = a.State
		}
	}
	if delivering != "" {
		return signup.Account{}, inProgress(delivering)
	}
	requests, err := readAll[assignmentRequest](ctx, c, packageCall, c.link(entitlements+"/assignmentRequests",
		"$expand", "accessPackage($select=id),assignment($expand=target)",
		"$filter", about+" and assignment/target/objectId eq '"+string(req.User)+"'"))
	if err != nil {
		return signup.Account{}, lookError("requests", err)
	}
	return signup.Account{}, p.standing(requests, expired, req)
}

// standing is what the requests of a user say, the latest of whose assignments has expired then: nil if none of them
// matters any more. One that is open decides; else the latest that has ended does, if it ended a short while ago and may
// be ours.
func (p *AccessPackage) standing(requests []assignmentRequest, expired time.Time, req signup.Request) error {
	var last assignmentRequest
	for _, r := range requests {
		user, id := r.Assignment.Target.ObjectID, r.AccessPackage.ID
		if user != "" && !strings.EqualFold(user, string(req.User)) || id != "" && !strings.EqualFold(id, p.id) {
			return notOurs("request")
		}
		if strings.HasSuffix(strings.ToLower(r.Type), "remove") {
			continue
		}
		switch strings.ToLower(r.State) {
		case "delivered", "deliveryfailed", "partiallydelivered", "denied", "canceled":
			if !r.Created.Before(last.Created) {
				last = r
			}
		default: // submitted, pendingApproval, scheduled, delivering, and what is yet to come
			return inProgress(r.State)
		}
	}
	ended := last.Completed
	if ended.IsZero() {
		ended = last.Created
	}
	now := p.tenant.client.clock.Now()
	switch {
	case req.Unsure && !expired.Before(ended) && now.Sub(expired) < recent:
		return over("expired", "the assignment has expired; ")
	case last.State == "" || now.Sub(ended) >= recent:
		return nil
	case strings.EqualFold(last.State, "delivered"): // and its assignment is about to show
		return inProgress(last.State)
	case !req.Unsure: // somebody else's
		return nil
	}
	code, state := "not-delivered", word(last.State)
	if refused := strings.ToLower(state); refused == "denied" || refused == "canceled" {
		code = refused
	}
	if status := word(last.Status); status != "" && !strings.EqualFold(status, state) {
		state += ", " + status
	}
	return over(code, "entitlement management has ended the request as "+state+"; reprocess it there, or ")
}

// over is the end of an assignment that nobody will have.
func over(code, why string) error {
	return &signup.Error{Class: signup.Permanent, Code: code, Detail: why + "replay the user in two hours"}
}

// request asks for an assignment, once: a second request would be refused, and the refusal would hide what became of the
// first.
func (p *AccessPackage) request(ctx context.Context, user signup.UserID) error {
	c := p.tenant.client
	err := c.do(ctx, request{
		kind: packageCall, once: true,
		info: c.direct(abstractions.POST, c.link(entitlements+"/assignmentRequests"), map[string]any{
			"requestType": "adminAdd",
			"assignment":  map[string]string{"targetId": string(user), "assignmentPolicyId": p.policy, "accessPackageId": p.id},
		}),
		decode: func(d *decoder) error {
			var r struct {
				ID string `json:"id"`
			}
			if err := d.whole(&r); err != nil {
				return err
			}
			if r.ID == "" {
				return badPage("the answer has no request in it")
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("request an assignment: %w", err)
	}
	return nil
}

// explain looks for the reason why everybody is refused: only workforce tenants have entitlement management.
func (p *AccessPackage) explain(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Class == signup.Systemic && e.Status != 401 {
		if bad, ok := errors.AsType[*signup.Error](p.supported(ctx)); ok && bad.Code == "no-entitlement-management" {
			return bad
		}
	}
	return err
}

// lookError is a look-up that failed. A refusal of the question itself is about everybody, not about this user.
func lookError(what string, err error) error {
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Class == signup.Permanent {
		e.Class = signup.Systemic
	}
	return fmt.Errorf("look for the user's %s: %w", what, err)
}

func notOurs(what string) error {
	return &signup.Error{Class: signup.Transient, Code: "bad-answer", Detail: "the " + what + " in the answer is not the one that was asked for"}
}

// Check asks what the tenant is for, before anything that only some have, and reads the access package and the policy.
func (p *AccessPackage) Check(ctx context.Context) error {
	if err := p.supported(ctx); err != nil {
		return err
	}
	return p.examine(ctx)
}

// supported is an error in a tenant for customers. An app without Organization.Read.All does not see what the tenant is
// for, and goes on.
func (p *AccessPackage) supported(ctx context.Context) error {
	o, err := p.tenant.organization(ctx, organizationCall, "id", "tenantType")
	if err != nil {
		return fmt.Errorf("read the tenant's type: %w", err)
	}
	if o.Kind == ExternalTenant || o.Kind == B2CTenant {
		return &signup.Error{Class: signup.Systemic, Code: "no-entitlement-management",
			Detail: "access packages are for workforce tenants, and this one is of type " + o.Type + "; use the connector group here"}
	}
	return nil
}

// examine reads the access package and the policy.
func (p *AccessPackage) examine(ctx context.Context) error {
	if _, err := p.read(ctx, "settings.accessPackage", "/accessPackages/"+p.id, "$select", "id"); err != nil {
		return err
	}
	owner, err := p.read(ctx, "settings.policy", "/assignmentPolicies/"+p.policy, "$expand", "accessPackage")
	if err == nil && !strings.EqualFold(owner, p.id) {
		return &signup.Error{Class: signup.Systemic, Code: "package-missing", Detail: "settings.policy: is a policy of another access package"}
	}
	return err
}

// read reads what one of the settings names, and the access package that it belongs to.
func (p *AccessPackage) read(ctx context.Context, setting, path string, query ...string) (owner string, err error) {
	c := p.tenant.client
	var x struct {
		ID            string `json:"id"`
		AccessPackage struct {
			ID string `json:"id"`
		} `json:"accessPackage"`
	}
	err = c.do(ctx, request{
		kind: packageCall,
		info: c.direct(abstractions.GET, c.link(entitlements+path, query...), nil),
		decode: func(d *decoder) error {
			if err := d.whole(&x); err != nil {
				return err
			}
			if !strings.HasSuffix(path, "/"+strings.ToLower(x.ID)) {
				return badPage("the answer is about something else")
			}
			return nil
		},
		refine: refineAbsent,
	})
	if isAbsent(err) {
		return "", &signup.Error{Class: signup.Systemic, Code: "package-missing", Detail: setting + ": the tenant has none of that id"}
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", setting, err)
	}
	return x.AccessPackage.ID, nil
}
