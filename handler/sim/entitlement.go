package sim

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// AccessPackage is one of entitlement management, with its assignment policies.
type AccessPackage struct {
	ID       string // a GUID in lower case
	Policies []string
}

// Assignment is what became of one request for an assignment.
type Assignment struct {
	ID            string // "" while there is none
	Request       string
	User          signup.UserID
	AccessPackage string
	Policy        string
	State         string // of the assignment: delivering, delivered, deliveryFailed, expired; "" while there is none
	RequestState  string // submitted, delivering, delivered, deliveryFailed, denied, canceled
	Requested     time.Time
}

// entitlements are the requests there ever were, oldest first.
type entitlements struct {
	requests []*entitlement
	failing  int // so many of the next requests cannot be delivered
}

// entitlement is a request and the assignment that comes of it.
type entitlement struct {
	id, assignment string
	user           signup.UserID
	pkg, policy    string
	asked          time.Time   // by the user, who was nobody here then; zero = an administrator's
	made           time.Time   // from when on it is worked on
	shows          []time.Time // in lists, by replica
	fails          bool
	ended          string // by somebody's hand: denied, canceled, expired
	endedAt        time.Time
}

// states are those of the request and of its assignment at a time: submitted, a third of the way later delivering, and
// then delivered or not (docs: accessPackageAssignmentRequest and accessPackageAssignment resources).
func (e *entitlement) states(now time.Time, delivery time.Duration) (request, assignment string) {
	age := now.Sub(e.made)
	switch {
	case e.ended == "expired":
		return "delivered", "expired"
	case e.ended != "":
		return e.ended, ""
	case age < delivery/3 && e.asked.IsZero():
		return "submitted", ""
	case age < delivery:
		return "delivering", "delivering"
	case e.fails:
		return "deliveryFailed", "deliveryFailed"
	}
	return "delivered", "delivered"
}

func (e *entitlement) completed(delivery time.Duration) time.Time {
	if e.ended != "" {
		return e.endedAt
	}
	return e.made.Add(delivery)
}

// letIn makes the request of somebody who has asked for the tenant's last access package some time ago, and is made a guest
// now, when it is approved.
func (t *Tenant) letIn(id signup.UserID, now time.Time, chance *rand.Rand) {
	if len(t.o.AccessPackages) == 0 {
		panic("sim: nobody can ask for an access package where there is none")
	}
	p := t.o.AccessPackages[len(t.o.AccessPackages)-1]
	e := &entitlement{id: guid(chance), assignment: guid(chance), user: id, pkg: p.ID, policy: p.Policies[0], made: now, asked: now.Add(-upTo(chance, time.Second, 24*time.Hour))}
	e.shows = slices.Repeat([]time.Time{now}, t.o.Replicas)
	t.entitlements.requests = append(t.entitlements.requests, e)
}

// Assignments is the truth about all requests, oldest first.
func (t *Tenant) Assignments() []Assignment {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Assignment
	for _, e := range t.entitlements.requests {
		a := Assignment{Request: e.id, User: e.user, AccessPackage: e.pkg, Policy: e.policy, Requested: e.made}
		if a.RequestState, a.State = e.states(t.now(), t.o.DeliveryTime); a.State != "" {
			a.ID = e.assignment
		}
		out = append(out, a)
	}
	return out
}

// FailDeliveries makes the next n requests fail after they were accepted.
func (t *Tenant) FailDeliveries(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entitlements.failing = n
}

// EndAssignments ends a user's requests and assignments by hand: "denied" and "canceled" those that are not delivered yet,
// "expired" the others.
func (t *Tenant) EndAssignments(user signup.UserID, state string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entitlements.requests {
		_, a := e.states(t.now(), t.o.DeliveryTime)
		if e.user == user && e.ended == "" && (state == "expired") == (a == "delivered") {
			e.ended, e.endedAt = state, t.now()
		}
	}
}

func (t *Tenant) accessPackage(id string) *AccessPackage {
	i := slices.IndexFunc(t.o.AccessPackages, func(p AccessPackage) bool { return strings.EqualFold(p.ID, id) })
	if i < 0 {
		return nil
	}
	return &t.o.AccessPackages[i]
}

func (t *Tenant) getAccessPackage(c *graphCall) reply {
	p := t.accessPackage(c.vars[0])
	if p == nil {
		return notFound(c.vars[0])
	}
	return ok(map[string]any{"@odata.context": c.base() + "/$metadata#" + entitlementPath[1:] + "/accessPackages/$entity", "id": p.ID})
}

func (t *Tenant) getPolicy(c *graphCall) reply {
	for _, p := range t.o.AccessPackages {
		for _, id := range p.Policies {
			if !strings.EqualFold(id, c.vars[0]) {
				continue
			}
			body := map[string]any{"@odata.context": c.base() + "/$metadata#" + entitlementPath[1:] + "/assignmentPolicies/$entity", "id": id}
			if c.expands("accessPackage") {
				body["accessPackage"] = map[string]any{"id": p.ID}
			}
			return ok(body)
		}
	}
	return notFound(c.vars[0])
}

func (c *graphCall) expands(name string) bool { return strings.Contains(c.query.Get("$expand"), name) }

// requestAssignment takes a direct assignment by an administrator (docs: Create accessPackageAssignmentRequest, example 1).
func (t *Tenant) requestAssignment(c *graphCall) reply {
	body, bad := c.object()
	if bad != nil {
		return *bad
	}
	text := func(name string) string {
		s, _ := dig(body, name).(string)
		return s
	}
	user, pkg, policy := text("assignment/targetId"), text("assignment/accessPackageId"), text("assignment/assignmentPolicyId")
	p, u := t.accessPackage(pkg), t.find(user)
	busy := slices.ContainsFunc(t.entitlements.requests, func(e *entitlement) bool {
		request, assignment := e.states(c.now, t.o.DeliveryTime)
		live := request == "submitted" || assignment == "delivering" || assignment == "delivered"
		return live && u != nil && e.user == u.id && strings.EqualFold(e.pkg, pkg)
	})
	if !strings.EqualFold(text("requestType"), "adminAdd") || p == nil || !slices.Contains(p.Policies, policy) ||
		u == nil || u.deleted() || u.at(c.replica, c.now) == nil || busy {
		return refuse(http.StatusBadRequest, "InvalidRequest", "The request is invalid.")
	}
	e := &entitlement{id: guid(t.ids), assignment: guid(t.ids), user: u.id, pkg: p.ID, policy: policy, made: c.now}
	for range t.o.Replicas {
		e.shows = append(e.shows, c.now.Add(t.instantOr(upTo(t.draw(), 0, 10*time.Second))))
	}
	if t.entitlements.failing > 0 {
		t.entitlements.failing--
		e.fails = true
	}
	t.entitlements.requests = append(t.entitlements.requests, e)
	return reply{status: http.StatusCreated, body: map[string]any{
		"@odata.context": c.base() + "/$metadata#" + entitlementPath[1:] + "/assignmentRequests/$entity",
		"id":             e.id, "requestType": "adminAdd", "state": "submitted", "status": "Accepted", "createdDateTime": nil, "completedDateTime": nil,
	}}
}

var (
	assignmentSchema = schema{
		"target/objectId":  {kind: "fold", ops: "eq"},
		"accessPackage/id": {kind: "fold", ops: "eq"},
		"state":            {kind: "fold", ops: "eq"},
	}
	requestSchema = schema{
		"assignment/target/objectId": {kind: "fold", ops: "eq"},
		"accessPackage/id":           {kind: "fold", ops: "eq"},
		"state":                      {kind: "fold", ops: "eq"},
	}
)

// listAssignments shows expired ones as well (docs: List accessPackageAssignments).
func (t *Tenant) listAssignments(c *graphCall) reply {
	return t.listEntitlements(c, "assignments", assignmentSchema, []string{"target", "accessPackage"}, func(e *entitlement) map[string]any {
		_, state := e.states(c.now, t.o.DeliveryTime)
		if state == "" {
			return nil
		}
		row := map[string]any{"id": e.assignment, "state": state, "status": state, "expiredDateTime": nil,
			"target": map[string]any{"objectId": string(e.user)}, "accessPackage": map[string]any{"id": e.pkg}}
		if state == "expired" {
			row["expiredDateTime"] = e.endedAt.Format(time.RFC3339Nano)
		}
		return row
	})
}

// listRequests shows all there ever were (docs: List accessPackageAssignmentRequests).
func (t *Tenant) listRequests(c *graphCall) reply {
	return t.listEntitlements(c, "assignmentRequests", requestSchema, []string{"assignment", "accessPackage"}, func(e *entitlement) map[string]any {
		state, _ := e.states(c.now, t.o.DeliveryTime)
		row := map[string]any{"id": e.id, "requestType": "adminAdd", "state": state, "status": state,
			"createdDateTime": e.made.Format(time.RFC3339Nano), "completedDateTime": nil,
			"assignment":    map[string]any{"target": map[string]any{"objectId": string(e.user)}},
			"accessPackage": map[string]any{"id": e.pkg}}
		if !e.asked.IsZero() {
			row["requestType"], row["createdDateTime"] = "userAdd", e.asked.Format(time.RFC3339Nano)
			if state == "delivering" { // of somebody who was nobody when they asked
				row["assignment"] = map[string]any{"target": map[string]any{"objectId": nil}}
			}
		}
		if state != "submitted" && state != "delivering" {
			row["completedDateTime"] = e.completed(t.o.DeliveryTime).Format(time.RFC3339Nano)
		}
		return row
	})
}

// listEntitlements filters what one replica shows; related objects come only when they are asked for.
func (t *Tenant) listEntitlements(c *graphCall, name string, s schema, related []string, row func(*entitlement) map[string]any) reply {
	var clauses []clause
	if f := c.query.Get("$filter"); f != "" {
		var err error
		if clauses, err = parseFilter(f); err != nil || s.check(clauses, true) != nil {
			return refuse(http.StatusBadRequest, "InvalidFilter", "The filter is not supported.")
		}
	}
	rows := []map[string]any{}
	for _, e := range t.entitlements.requests {
		r := row(e)
		if r == nil || e.shows[c.replica].After(c.now) || !s.match(clauses, r) {
			continue
		}
		for _, name := range related {
			if !c.expands(name) {
				delete(r, name)
			}
		}
		rows = append(rows, r)
	}
	return ok(t.wholeList(c, entitlementPath[1:]+"/"+name, rows))
}
