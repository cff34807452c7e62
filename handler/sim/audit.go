package sim

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// auditRow is a directoryAudit (docs: directoryAudit resource, v1.0).
type auditRow struct {
	ID                  string        `json:"id"`
	Category            string        `json:"category"`
	CorrelationID       string        `json:"correlationId"`
	Result              string        `json:"result"`
	ResultReason        string        `json:"resultReason"`
	ActivityDisplayName string        `json:"activityDisplayName"`
	ActivityDateTime    string        `json:"activityDateTime"`
	LoggedByService     string        `json:"loggedByService"`
	OperationType       string        `json:"operationType"`
	InitiatedBy         auditActor    `json:"initiatedBy"`
	TargetResources     []auditTarget `json:"targetResources"`
	AdditionalDetails   []auditDetail `json:"additionalDetails"`
}

type auditActor struct {
	User map[string]any `json:"user"`
	App  map[string]any `json:"app"`
}

type auditTarget struct {
	ID                 string        `json:"id"`
	DisplayName        *string       `json:"displayName"`
	Type               string        `json:"type"`
	UserPrincipalName  *string       `json:"userPrincipalName"`
	GroupType          *string       `json:"groupType"`
	ModifiedProperties []auditChange `json:"modifiedProperties"`
}

// auditChange has JSON inside of strings.
type auditChange struct {
	DisplayName string  `json:"displayName"`
	OldValue    *string `json:"oldValue"`
	NewValue    *string `json:"newValue"`
}

type auditDetail struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// The app that External ID itself works as, in Azure AD B2C at least, and one that imports customers.
var (
	cpimService  = map[string]any{"appId": nil, "displayName": "CPIM Service", "servicePrincipalId": "5f7f1f6a-0000-4000-8000-000000000001", "servicePrincipalName": nil}
	elmService   = map[string]any{"appId": nil, "displayName": "Azure AD Identity Governance - Entitlement Management", "servicePrincipalId": "5f7f1f6a-0000-4000-8000-000000000004", "servicePrincipalName": nil}
	migrationApp = map[string]any{"appId": "0f3ad2a5-52f5-4c8e-9a55-0d7d2a9d6c11", "displayName": "Customer import", "servicePrincipalId": "5f7f1f6a-0000-4000-8000-000000000002", "servicePrincipalName": nil}
)

// auditTime is how the audit log writes a time: 100 nanoseconds.
func auditTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// newRow is a successful user management row of the core directory about one user.
func newRow(activity, operation string, id signup.UserID, upn string, at time.Time, chance *rand.Rand) auditRow {
	correlation := guid(chance)
	return auditRow{ID: auditID("Directory", correlation, chance), Category: "UserManagement", CorrelationID: correlation,
		Result: "success", ActivityDisplayName: activity, ActivityDateTime: auditTime(at), LoggedByService: "Core Directory",
		OperationType: operation, AdditionalDetails: []auditDetail{},
		TargetResources: []auditTarget{{ID: string(id), Type: "User", UserPrincipalName: &upn, ModifiedProperties: []auditChange{}}}}
}

// auditID has the form seen in published rows: service, correlation id, five characters, a number.
func auditID(service, correlation string, chance *rand.Rand) string {
	const letters = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
	b := make([]byte, 5)
	for i := range b {
		b[i] = letters[chance.IntN(len(letters))]
	}
	return service + "_" + correlation + "_" + string(b) + "_" + digits(chance, 8)
}

func changed(name string, from, to any) auditChange {
	list := func(v any) *string {
		if v == nil {
			return new("[]")
		}
		return new(string(mustJSON([]any{v})))
	}
	return auditChange{name, list(from), list(to)}
}

// changes lists what was changed, and at last the names of it.
func changes(names []string, before, after map[string]any) []auditChange {
	out := []auditChange{}
	upper := make([]string, len(names))
	for i, n := range names {
		upper[i] = strings.ToUpper(n[:1]) + n[1:]
		out = append(out, changed(upper[i], before[n], after[n]))
	}
	return append(out, auditChange{"Included Updated Properties", nil, new(quote(strings.Join(upper, ", ")))})
}

// arrivalRows are the audit rows of a new user.
func (t *Tenant) arrivalRows(p Person, id signup.UserID, props map[string]any, now time.Time, chance *rand.Rand) []auditRow {
	upn, _ := props["userPrincipalName"].(string)
	add := newRow("Add user", "Add", id, upn, now, chance)
	names := []string{"accountEnabled", "creationType", "displayName", "userPrincipalName", "userType"}
	if p.How == Guest || p.How == Requested {
		names = []string{"accountEnabled", "creationType", "externalUserState", "userType"}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return props[n] == nil })
	add.TargetResources[0].ModifiedProperties = changes(names, nil, props)
	for i, m := range add.TargetResources[0].ModifiedProperties {
		if m.DisplayName == "ExternalUserState" {
			add.TargetResources[0].ModifiedProperties[i].DisplayName = "UserState"
		}
	}
	switch p.How {
	case Admin:
		add.InitiatedBy.User = t.admin()
	case Migration:
		add.InitiatedBy.App = migrationApp
	case Requested:
		add.InitiatedBy.App = elmService
		return append([]auditRow{add}, t.inviteRows(p, add, now, chance)...)
	case Guest:
		add.InitiatedBy.User = t.admin()
		return append([]auditRow{add}, t.inviteRows(p, add, now, chance)...)
	default:
		switch chance.IntN(3) { // nobody knows
		case 0:
			add.InitiatedBy.App = cpimService
		case 1:
			add.InitiatedBy.User = actor(string(id), upn)
		}
	}
	return []auditRow{add}
}

// inviteRows are the further rows of an invitation (shape: published lab extracts).
func (t *Tenant) inviteRows(p Person, add auditRow, now time.Time, chance *rand.Rand) []auditRow {
	target := add.TargetResources[0]
	target.ModifiedProperties = []auditChange{}
	invite := add
	invite.ID, invite.LoggedByService = auditID("Invited Users", guid(chance), chance), "Invited Users"
	invite.ActivityDisplayName, invite.ActivityDateTime = "Invite external user", auditTime(now.Add(200*time.Millisecond))
	invite.TargetResources = []auditTarget{target}
	invite.TargetResources[0].DisplayName = new(p.DisplayName)
	invite.AdditionalDetails = []auditDetail{{"invitedUserEmailAddress", p.Email}}
	sponsor := add
	sponsor.ID = auditID("Directory", guid(chance), chance)
	sponsor.ActivityDisplayName, sponsor.ActivityDateTime = "Add user sponsor", auditTime(now.Add(time.Second))
	sponsor.TargetResources = []auditTarget{target}
	return []auditRow{invite, sponsor}
}

// redeemRows are the rows of an accepted invitation (shape: published lab extracts).
func (t *Tenant) redeemRows(u *resident, now time.Time, chance *rand.Rand) []auditRow {
	upn, _ := u.truth()["userPrincipalName"].(string)
	mail, _ := u.truth()["mail"].(string)
	update := newRow("Update user", "Update", u.id, upn, now, chance)
	update.InitiatedBy.User = actor(string(u.id), upn)
	update.TargetResources[0].ModifiedProperties = []auditChange{changed("UserState", "PendingAcceptance", "Accepted")}
	redeem := newRow("Redeem external user invite", "Update", u.id, upn, now, chance)
	redeem.ID, redeem.LoggedByService = auditID(t.o.RedeemedBy, redeem.CorrelationID, chance), t.o.RedeemedBy
	redeem.InitiatedBy.User = actor(string(u.id), upn)
	redeem.TargetResources[0].UserPrincipalName = nil
	redeem.TargetResources[0].DisplayName = new("UPN: " + upn + ", Email: " + mail + ", InvitationId: " + guid(chance) + ", Source: One Time Passcode")
	return []auditRow{update, redeem}
}

func (t *Tenant) adminRow(activity, operation string, u *resident, now time.Time, chance *rand.Rand) auditRow {
	upn, _ := u.last()["userPrincipalName"].(string)
	row := newRow(activity, operation, u.id, upn, now, chance)
	row.InitiatedBy.User = t.admin()
	return row
}

// failedRow is the row of a user who was not made.
func (t *Tenant) failedRow(id signup.UserID, now time.Time, chance *rand.Rand) auditRow {
	row := newRow("Add user", "Add", id, string(id)+"@"+t.o.Domain, now, chance)
	row.Result, row.ResultReason = "failure", "Microsoft.Online.DirectoryServices.DirectoryValueExistsException"
	row.InitiatedBy.App = cpimService
	return row
}

// auditPatch is the row of a change made through Graph: everybody's changes are in the log, the reader's own too.
func (t *Tenant) auditPatch(c *graphCall, u *resident, names []string, before, after map[string]any) {
	chance := t.draw()
	upn, _ := after["userPrincipalName"].(string)
	row := newRow("Update user", "Update", u.id, upn, c.now, chance)
	row.InitiatedBy.App = map[string]any{"appId": c.app, "displayName": "signup-sync", "servicePrincipalId": "5f7f1f6a-0000-4000-8000-000000000003", "servicePrincipalName": nil}
	row.TargetResources[0].ModifiedProperties = changes(names, before, after)
	t.publish(row, Person{}, chance)
}

func (t *Tenant) admin() map[string]any { return actor(adminID, adminName+t.o.Domain) }

func actor(id, upn string) map[string]any {
	return map[string]any{"id": id, "displayName": nil, "userPrincipalName": upn, "ipAddress": "203.0.113.7",
		"userType": nil, "homeTenantId": nil, "homeTenantName": nil}
}

// publish puts a row into the log, to be shown after its lag, and sometimes a second time, under the same id or another
// (docs: sign-in logs FAQ, why there are duplicates).
func (t *Tenant) publish(row auditRow, p Person, chance *rand.Rand) {
	rec := newRecord(mustJSON(row), "activityDateTime", t.now())
	rec.shown = rec.at.Add(t.lag(chance, p))
	t.audits.add(rec)
	if chance.Float64() < t.o.Duplicates {
		t.republish(row, chance.IntN(2) == 0, t.lag(chance, p), chance)
	}
}

func (t *Tenant) republish(row auditRow, newID bool, lag time.Duration, chance *rand.Rand) {
	if newID {
		service, _, _ := strings.Cut(row.ID, "_")
		row.ID = auditID(service, row.CorrelationID, chance)
	}
	rec := newRecord(mustJSON(row), "activityDateTime", t.now())
	rec.shown = rec.at.Add(lag)
	t.audits.add(rec)
}

// lag is how long a row takes to show in a log. The only published numbers: 95 % within 2 minutes, 99 % within 5
// (docs: Azure AD reporting latencies, 2017); staff speak of up to 15.
func (t *Tenant) lag(chance *rand.Rand, p Person) time.Duration {
	x, y := chance.Float64(), chance.IntN(1000)
	d := upTo(chance, 0, time.Minute)
	switch {
	case t.o.AuditTail && y == 0:
		d = upTo(chance, 15*time.Minute, 45*time.Minute)
	case x >= 0.99:
		d = upTo(chance, 5*time.Minute, 15*time.Minute)
	case x >= 0.95:
		d = upTo(chance, 2*time.Minute, 5*time.Minute)
	case x >= 0.5:
		d = upTo(chance, time.Minute, 2*time.Minute)
	}
	if p.AuditLag != nil {
		return *p.AuditLag
	}
	if t.o.InstantAudit {
		return 0
	}
	return d
}

// AddAudit publishes a row at once and exactly as it is, published samples and broken ones alike. A row whose
// activityDateTime cannot be read counts as happening now and passes every filter; one that is not JSON breaks the page.
func (t *Tenant) AddAudit(raw json.RawMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.audits.add(newRecord(raw, "activityDateTime", t.now()))
}

// Republish publishes the rows that were logged about a user once more, at once, with the same ids or new ones.
func (t *Tenant) Republish(id signup.UserID, newIDs bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	chance := t.draw()
	for _, rec := range slices.Clone(t.audits.rows) {
		var row auditRow
		if json.Unmarshal(rec.raw, &row) != nil || len(row.TargetResources) == 0 || row.TargetResources[0].ID != string(id) {
			continue
		}
		t.republish(row, newIDs, t.now().Sub(rec.at), chance)
	}
}
