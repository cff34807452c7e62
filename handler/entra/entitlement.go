package entra

import (
	"context"
	"fmt"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

var _ signup.Entitlements = (*Tenant)(nil)

// Requested implements signup.Entitlements. A request whose target is the user, which is older than the account and was
// not at its end when that came into being, has brought the account: before, there was nobody whom it could have been
// for. "The guest will be invited, but will not receive an invite email" is what is published of it; the guest has all
// that other guests have, and who is shown as the record's actor is nowhere said.
//
// One call; an *signup.Error is systemic where the tenant or the app cannot be asked.
func (t *Tenant) Requested(ctx context.Context, u signup.User) (bool, error) {
	c := t.client
	requests, err := readAll[assignmentRequest](ctx, c, requestCall, c.link(entitlements+"/assignmentRequests",
		"$expand", "assignment($expand=target)", "$filter", "assignment/target/objectId eq '"+string(u.ID)+"'"))
	if err != nil {
		return false, lookError("requests", err)
	}
	for _, r := range requests {
		if target := r.Assignment.Target.ObjectID; !strings.EqualFold(target, string(u.ID)) {
			return false, fmt.Errorf("look for the user's requests: %w", notOurs("request"))
		}
		if r.brought(u.Created) {
			return true, nil
		}
	}
	return false, nil
}

// brought reports that the request led to an account that came into being then, by a clock with whole seconds.
func (r assignmentRequest) brought(created time.Time) bool {
	switch strings.ToLower(r.State) {
	case "delivering", "delivered", "deliveryfailed", "partiallydelivered":
	default: // not approved, or not yet
		return false
	}
	adds := strings.HasSuffix(strings.ToLower(r.Type), "add")
	ended := !r.Completed.IsZero() && r.Completed.Before(created)
	return adds && !r.Created.Truncate(time.Second).After(created) && !ended
}
