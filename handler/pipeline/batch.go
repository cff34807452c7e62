package pipeline

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"signup-sync/handler/signup"
)

// batch brings up to 15 users, whose intent is durable, to where they belong: one read of their profiles, the
// destinations, each as soon as it can, one patch a user, one settle.
func (r *run) batch(ctx, workCtx context.Context, rows []signup.Row) {
	begun := time.Now()
	defer func() { r.took(time.Since(begun)) }()
	users, err := r.profiles(workCtx, rows)
	bad := err != nil && codeOf(err) == "bad-answer"
	if !bad || len(rows) > 1 { // of one alone it speaks of the user, not of the directory
		r.read(err)
	}
	if err != nil {
		r.log.Warn("profiles not read", "users", len(rows), "err", err)
		if len(rows) > 1 && bad { // one profile that nobody can read is not to hold the others
			for _, row := range rows {
				r.batch(ctx, workCtx, []signup.Row{row})
			}
			return
		}
	}
	heard := r.hear(workCtx, rows, users)
	var changes []change
	var jobs []*job
	for _, row := range rows {
		switch j, after := r.prepare(row, users, heard[row.User], err); {
		case j != nil:
			j.before = row
			jobs = append(jobs, j)
		default:
			changes = append(changes, change{row, after})
		}
	}
	if len(jobs) > 0 && len(r.Destinations) > 0 {
		r.destinations(ctx, workCtx, jobs)
	}
	if len(jobs) > 0 {
		patching, end := r.span(workCtx, "patch", slog.Int("users", len(jobs)))
		r.Each(len(jobs), func(i int) { r.patch(patching, jobs[i]) })
		end(failedAt(signup.Profile, jobs))
	}
	now := r.Clock.Now()
	for _, j := range jobs {
		changes = append(changes, change{j.before, j.saved.Settle(now, j.list(), r.jitter)})
	}
	r.settle(ctx, changes)
}

// hurry is how long a destination that has brought its users in waits for the others of their batch before the ledger
// learns of it.
const hurry = 2 * time.Second

// destinations works each destination as soon as those are done whose accounts it needs. While one takes its time the
// ledger learns what others have brought: a destination that hangs is not to make the others' users late.
func (r *run) destinations(ctx, workCtx context.Context, jobs []*job) {
	n := len(r.Destinations)
	done := make(map[string]chan struct{}, n)
	for _, d := range r.Destinations {
		done[d.Name] = make(chan struct{})
	}
	waiting, over := context.WithCancel(workCtx)
	defer over()
	var left atomic.Int64
	left.Store(int64(n))
	r.Each(n+1, func(i int) {
		if i == n {
			for r.Clock.Sleep(waiting, hurry) == nil {
				r.learn(ctx, jobs, done)
			}
			return
		}
		name := r.Destinations[i].Name
		defer func() {
			close(done[name])
			if left.Add(-1) == 0 {
				over()
			}
		}()
		for _, needed := range r.Mapping.Needs(name) {
			<-done[needed]
		}
		r.associate(workCtx, name, jobs)
	})
}

// learn writes down what destinations that are done have brought. The intent stays open, for the others.
func (r *run) learn(ctx context.Context, jobs []*job, done map[string]chan struct{}) {
	now := r.Clock.Now()
	var rows []signup.Row
	for _, j := range jobs {
		var outcomes []signup.Outcome
		for _, d := range r.Destinations {
			select {
			case <-done[d.Name]:
				a, _ := j.saved.Association(d.Name)
				if o := j.outcome(d.Name); a.State == signup.Pending && o != nil && !o.NotStarted && o.Err == nil {
					outcomes = append(outcomes, *o)
				}
			default:
			}
		}
		if len(outcomes) > 0 {
			row := j.saved.Learn(now, outcomes, r.jitter)
			row.Owner = r.id
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	written, err := r.Ledger.Replace(ctx, rows)
	if err != nil {
		r.log.Info("what is done so far was not written; it is when the others are done", "users", len(rows), "err", err)
		written = r.stillOurs(ctx, rows) // as far as it was, and only the answer is lost, the last write goes over it
	}
	for _, row := range written {
		jobs[slices.IndexFunc(jobs, func(j *job) bool { return j.row.User == row.User })].saved = row
	}
}

// stillOurs reads again the rows in which this run's intent is open.
func (r *run) stillOurs(ctx context.Context, rows []signup.Row) []signup.Row {
	ids := make([]signup.UserID, len(rows))
	for i, row := range rows {
		ids[i] = row.User
	}
	current, err := r.Ledger.Get(ctx, ids)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(current, func(row signup.Row) bool { return row.Owner != r.id || row.Intent.IsZero() })
}

// secondRead is how long after a user was not there another read is made, which another replica may answer.
const secondRead = time.Second

// profiles reads the rows' users; who is not there for the first time is asked for twice, and needs not wait for the next run.
func (r *run) profiles(ctx context.Context, rows []signup.Row) (map[signup.UserID]signup.User, error) {
	ids := make([]signup.UserID, len(rows))
	for i, row := range rows {
		ids[i] = row.User
	}
	users, err := r.users(ctx, ids)
	var late []signup.UserID
	for _, row := range rows {
		if _, ok := users[row.User]; !ok && row.Missing.IsZero() {
			late = append(late, row.User)
		}
	}
	if err != nil || len(late) == 0 || r.Clock.Sleep(ctx, secondRead) != nil {
		return users, err
	}
	more, err := r.users(ctx, late)
	if err != nil { // the others are there
		r.log.Info("profiles not read a second time", "users", len(late), "err", err)
	}
	if users == nil {
		return more, nil
	}
	maps.Copy(users, more)
	return users, nil
}

// users reads profiles; a panic at one of them is an answer that cannot be decoded.
func (r *run) users(ctx context.Context, ids []signup.UserID) (users map[signup.UserID]signup.User, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked("directory", v)
			users, err = nil, &signup.Error{Class: signup.Transient, Code: "bad-answer"}
		}
	}()
	ctx, end := r.span(ctx, "profiles", slog.Int("users", len(ids)))
	defer func() { end(failed(err)) }()
	return r.Directory.Users(ctx, ids)
}

// prepare decides what one read profile means: the row's next state if there is nothing to associate, else a job.
func (r *run) prepare(row signup.Row, users map[signup.UserID]signup.User, heard hearing, readErr error) (*job, signup.Row) {
	now := r.Clock.Now()
	if readErr != nil && codeOf(readErr) == "bad-answer" { // of this user alone: it counts as a try
		var outcomes []signup.Outcome
		for _, a := range row.Associations {
			if a.State == signup.Pending && !a.Next.After(row.Intent) {
				outcomes = append(outcomes, signup.Outcome{Destination: a.Destination, Err: readErr})
			}
		}
		return nil, row.Settle(now, outcomes, r.jitter)
	}
	if readErr != nil {
		return nil, row.Postpone(now, max(retryAfter(readErr), r.jitter(10*time.Second)))
	}
	u, ok := users[row.User]
	if !ok {
		return nil, r.missing(row, now)
	}
	row.Missing = time.Time{}
	row, ended := r.judge(row, u, heard)
	if ended {
		return nil, row
	}
	j := &job{row: row, saved: row, user: u, order: append(r.order(), signup.Profile)}
	j.outcomes = make([]*signup.Outcome, len(j.order))
	for _, a := range row.Associations {
		if !slices.Contains(j.order, a.Destination) {
			j.order = append(j.order, a.Destination)
			j.outcomes = append(j.outcomes, skip(a.Destination, reasonRemoved, ""))
		}
	}
	return j, row
}

// missing is for a user whom the directory does not have: replication at first, then deleted.
func (r *run) missing(row signup.Row, now time.Time) signup.Row {
	if row.Missing.IsZero() {
		row.Missing = now
	}
	gone := now.Sub(row.Missing)
	if gone >= replication {
		return row.SettleAll(signup.Skipped, reasonDeleted, "", now)
	}
	return row.Postpone(now, min(max(gone/2, 5*time.Second), 5*time.Minute))
}
