package pipeline

import (
	"context"
	"slices"

	"signup-sync/handler/signup"
)

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
