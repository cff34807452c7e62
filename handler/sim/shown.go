package sim

import (
	"time"

	"signup-sync/handler/signup"
)

// AuditShown is what the audit log shows of sign-ups and redemptions at a time, as far as its rows can be decoded: what a
// whole read of it begun then cannot miss.
func (t *Tenant) AuditShown(at time.Time) []signup.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []signup.Event
	for _, rec := range t.audits.visible(at, t.o.Retention, auditSchema, nil) {
		targets, _ := rec.fields["targetResources"].([]any)
		if rec.fields["result"] != "success" || len(targets) == 0 {
			continue
		}
		target, _ := targets[0].(map[string]any)
		id, _ := target["id"].(string)
		e := signup.Event{User: signup.UserID(id), At: rec.at}
		switch rec.fields["activityDisplayName"] {
		case "Add user":
			e.Kind = signup.Created
		case "Redeem external user invite":
			e.Kind = signup.Redeemed
		default:
			continue
		}
		out = append(out, e)
	}
	return out
}

// UsersListed are the users whom every replica's index shows at a time, by their createdDateTime.
func (t *Tenant) UsersListed(at time.Time) []signup.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []signup.Event
	for _, u := range t.order {
		everywhere := true
		for place := t.o.Replicas; place < 2*t.o.Replicas; place++ {
			everywhere = everywhere && u.at(place, at) != nil
		}
		if everywhere {
			out = append(out, signup.Event{User: u.id, Kind: signup.Created, At: u.created.Truncate(time.Second)})
		}
	}
	return out
}

// SignUpsShown is what the sign-up log shows of users who were created, at a time.
func (t *Tenant) SignUpsShown(at time.Time) []signup.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []signup.Event
	for _, rec := range t.signUps.visible(at, t.o.Retention, signUpSchema, nil) {
		status, _ := rec.fields["status"].(map[string]any)
		id, _ := rec.fields["userId"].(string)
		if rec.fields["signUpStage"] == "userCreation" && status["errorCode"] == 0.0 && id != "" {
			out = append(out, signup.Event{User: signup.UserID(id), Kind: signup.Created, At: rec.at})
		}
	}
	return out
}
