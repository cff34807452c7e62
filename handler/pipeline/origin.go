package pipeline

import (
	"context"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// settles is how young an account may be for entitlement management not to name it yet as the one that a request has
// brought: the request was there before the account, but delivers it some minutes later.
const settles = 10 * time.Minute

// hearing is what entitlement management has said about one guest.
type hearing struct {
	requested bool
	err       error
}

// hear asks entitlement management about those guests of a batch who are about to be associated, and of whom it is not
// decided yet how they came; nobody else. A guest about whom it does not answer waits: rules may go by it.
func (r *run) hear(ctx context.Context, rows []signup.Row, users map[signup.UserID]signup.User) map[signup.UserID]hearing {
	if r.Entitlements == nil || !slices.Contains(r.Settings.Origins, signup.Invitation) {
		return nil
	}
	var guests []signup.User
	for _, row := range rows {
		u, there := users[row.User]
		if !there || row.Way != "" || r.waits(u) {
			continue
		}
		if _, way, _ := signup.Classify(u, signup.Proof{}); way == signup.ByInvitation {
			guests = append(guests, u)
		}
	}
	answers := make([]hearing, len(guests))
	r.Each(len(guests), func(i int) {
		a := &answers[i]
		defer func() {
			if v := recover(); v != nil {
				r.panicked("entitlement management", v)
				a.err = &signup.Error{Class: signup.Transient, Code: "panic"}
			}
		}()
		a.requested, a.err = r.Entitlements.Requested(ctx, guests[i])
		if age := r.Clock.Now().Sub(guests[i].Created); a.err == nil && !a.requested && age < settles {
			a.err = &signup.Error{Class: signup.Transient, Code: "in-progress", RetryAfter: settles - age}
		}
	})
	heard := make(map[signup.UserID]hearing, len(guests))
	for i, u := range guests {
		heard[u.ID] = answers[i]
		if err := answers[i].err; err != nil && codeOf(err) != "in-progress" && ctx.Err() == nil {
			r.log.Warn("guest not looked up in entitlement management, and waits", "user", u.ID, "err", err)
		}
	}
	return heard
}

// waits reports that a guest has to accept the invitation first.
func (r *run) waits(u signup.User) bool { return u.NotRedeemed() && !r.Settings.Invited }

// classify decides how a user got in, once: what the profile says later, we may have written. A row of the program's
// former version keeps its origin, and gets the way that belongs to it.
func (r *run) classify(row signup.Row, u signup.User, heard hearing) (signup.Row, error) {
	if row.Way != "" {
		return row, nil
	}
	migrated, err := r.Mapping.Migrated(u)
	if err != nil {
		return row, err
	}
	origin, way, evidence := signup.Classify(u, signup.Proof{Migrated: migrated, Requested: heard.requested})
	if row.Origin == "" || row.Origin == signup.Unknown || row.Origin == origin {
		row.Origin, row.Way, row.Evidence = origin, way, evidence
	}
	return row, nil
}

// judge is a row's end where its user is not to be associated; ended is false for everybody else.
func (r *run) judge(row signup.Row, u signup.User, heard hearing) (after signup.Row, ended bool) {
	now := r.Clock.Now()
	if heard.err != nil {
		return row.Postpone(now, max(retryAfter(heard.err), r.jitter(10*time.Second))), true
	}
	row, err := r.classify(row, u, heard)
	switch {
	case err != nil:
		return row.SettleAll(signup.Failed, codeOf(err), detailOf(err), now), true
	case row.Origin == signup.Unknown:
		return row.SettleAll(signup.Failed, "origin-unknown", row.Evidence, now), true
	case !slices.Contains(r.Settings.Origins, row.Origin):
		return row.SettleAll(signup.Skipped, reasonOrigin, "", now), true
	case row.Origin == signup.Invitation && r.waits(u):
		row.Way = "" // to be decided when the guest is here
		return row.SettleAll(signup.Skipped, reasonNotRedeemed, "", now), true
	}
	return row, false
}
