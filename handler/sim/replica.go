package sim

import (
	"maps"
	"math/rand/v2"
	"time"

	"signup-sync/handler/signup"
)

// resident is one user object with its history, since a replica may still show an old state of it.
type resident struct {
	id       signup.UserID
	how      How
	created  time.Time
	versions []version // oldest first; the last is the truth
	upn      string    // the user principal name of the last state in which the user existed
}

// version is the state after one write. Each replica answers reads by id from one place and lists from another.
type version struct {
	props map[string]any // nil: deleted
	shows []time.Time    // from when on, by place: the replicas, then their indexes
}

func (u *resident) truth() map[string]any { return u.versions[len(u.versions)-1].props }

func (u *resident) deleted() bool { return u.truth() == nil }

// last is the latest state in which the user existed.
func (u *resident) last() map[string]any {
	for i := len(u.versions) - 1; ; i-- {
		if p := u.versions[i].props; p != nil {
			return p
		}
	}
}

// at is what a place shows; nil if there is no such user there.
func (u *resident) at(place int, now time.Time) map[string]any {
	for i := len(u.versions) - 1; i >= 0; i-- {
		if v := u.versions[i]; !v.shows[place].After(now) {
			return v.props
		}
	}
	return nil
}

// write adds a version; lag gives each place's delay. A place never goes back to an older version.
func (u *resident) write(props map[string]any, now time.Time, places int, lag func(place int) time.Duration) {
	v := version{props: props, shows: make([]time.Time, places)}
	for i := range v.shows {
		v.shows[i] = now.Add(lag(i))
		if n := len(u.versions); n > 0 && u.versions[n-1].shows[i].After(v.shows[i]) {
			v.shows[i] = u.versions[n-1].shows[i]
		}
	}
	u.versions = append(u.versions, v)
	if props != nil {
		u.upn, _ = props["userPrincipalName"].(string)
	}
}

// writeUser stores a change of a user, which takes up to 10 s to show at each place.
func (t *Tenant) writeUser(u *resident, props map[string]any, now time.Time) {
	chance := t.draw()
	u.write(maps.Clone(props), now, 2*t.o.Replicas, func(int) time.Duration {
		return t.instantOr(upTo(chance, 0, 10*time.Second))
	})
}

// creationLag is how long a new user takes to show at each place: up to 20 s, one in fifty up to 120 s.
func (t *Tenant) creationLag(chance *rand.Rand, p Person) func(int) time.Duration {
	return func(place int) time.Duration {
		d := upTo(chance, 0, 20*time.Second)
		if chance.IntN(50) == 0 {
			d = upTo(chance, 20*time.Second, 120*time.Second)
		}
		switch {
		case place >= t.o.Replicas && p.IndexLag != nil:
			return *p.IndexLag
		case p.ReplicaLag != nil:
			return *p.ReplicaLag
		}
		return t.instantOr(d)
	}
}

func (t *Tenant) instantOr(d time.Duration) time.Duration {
	if t.o.InstantReplicas {
		return 0
	}
	return d
}

// upTo draws a duration evenly from [from, to).
func upTo(chance *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(chance.Int64N(int64(to-from)))
}
