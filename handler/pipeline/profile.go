package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// patch writes the name and the link-backs to the user's own record, in one call, and says what became of the profile's
// association. It stays pending while a destination whose account it shows is.
func (r *run) patch(ctx context.Context, j *job) {
	a, ok := j.row.Association(signup.Profile)
	if !ok || a.State != signup.Pending {
		return
	}
	needs := r.Mapping.ProfileNeeds()
	if _, due := j.due(signup.Profile); !due && !j.learned(needs) {
		return
	}
	desired, err := r.Mapping.Profile(j.input(needs)) // with an error, the rest of the patch is still good
	if p := Change(j.user, desired); !p.Empty() {
		o := r.through(ctx, signup.Profile, []time.Time{j.since(a)}, func() []signup.Result {
			return []signup.Result{{Err: r.update(ctx, j.row.User, p)}}
		})(0)
		switch {
		case o != nil && refusedFor(o.Err, "upn-invalid"): // likewise
			err = o.Err
		case o == nil || o.Err != nil || o.NotStarted:
			j.set(o)
			return
		}
	}
	if pending, _ := j.waits(needs); len(pending) > 0 {
		j.set(&signup.Outcome{Destination: signup.Profile, NotStarted: true, For: pending})
		return
	}
	j.set(&signup.Outcome{Destination: signup.Profile, Err: err})
}

// learned reports that this intent has brought an account that the profile shows.
func (j *job) learned(needs []string) bool {
	return slices.ContainsFunc(needs, func(n string) bool {
		o := j.outcome(n)
		return o != nil && !o.NotStarted && o.Err == nil
	})
}

// update patches a user. While somebody else has the user principal name the next candidate is tried; when all are
// taken, or the directory does not take the name, it is left out: a name is no reason to withhold the link-backs. An
// error "upn-invalid" says that all but the name was written.
func (r *run) update(ctx context.Context, id signup.UserID, p signup.Patch) error {
	if p.UserPrincipalName == "" {
		return r.Directory.Update(ctx, id, p)
	}
	var err error
	for _, p.UserPrincipalName = range candidates(p.UserPrincipalName, id) {
		if err = r.Directory.Update(ctx, id, p); !refusedFor(err, "upn-taken") {
			break
		}
	}
	switch {
	case refusedFor(err, "upn-taken"):
		r.log.Error("the user principal name is taken by someone else; the user keeps the generated one", "user", id)
		err = nil
	case refusedFor(err, "upn-invalid"):
	default:
		return err
	}
	if p.UserPrincipalName = ""; p.Empty() {
		return err
	}
	return cmp.Or(r.Directory.Update(ctx, id, p), err)
}

// refusedFor reports that the directory has refused a patch for this reason.
func refusedFor(err error, code string) bool {
	e, ok := errors.AsType[*signup.Error](err)
	return ok && e.Code == code
}
