package bench_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"signup-sync/handler/signup"
)

// lateUsers is a directory that does not have one in so many users when they are asked for first, as a replica that is behind.
type lateUsers struct {
	signup.Directory
	one int

	mu    sync.Mutex
	asked map[signup.UserID]int // the how manieth user it is
}

func (d *lateUsers) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	users, err := d.Directory.Users(ctx, ids)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(users)) {
		if d.asked[id] == 0 {
			if d.asked[id] = len(d.asked) + 1; d.asked[id]%d.one == 0 {
				delete(users, id)
			}
		}
	}
	return users, err
}

// TestBurstOfUsersWhoAreLate: where one user of nearly every batch is not there at first, the second that the others of it wait
// is none that the burst takes longer.
func TestBurstOfUsersWhoAreLate(t *testing.T) {
	const n = 1000
	var r burstResult
	synctest.Test(t, func(*testing.T) {
		w := newBurstWorld(burstMix{name: "profile, users are late"})
		w.engine.Directory = &lateUsers{Directory: w.engine.Directory, one: 15, asked: map[signup.UserID]int{}}
		w.play(n, false)
		r = w.result(n)
	})
	t.Logf("%.0f s, minimum %.0f s by %s, ratio %.3f", r.took, r.minimum, r.by, r.ratio())
	r.judge(t, burstGoal*r.minimum)
}
