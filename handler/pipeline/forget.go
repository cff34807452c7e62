package pipeline

import (
	"context"
	"fmt"
	"slices"

	"signup-sync/handler/signup"
)

// ForgetOptions say who is forgotten.
type ForgetOptions struct {
	Users []signup.UserID
	Act   bool                                     // false = only say what would be done
	Show  func(done, total int, one ForgottenUser) // gets every user, one after the other
}

// ForgottenUser is what became of one user.
type ForgottenUser struct {
	User  signup.UserID `json:"user"`
	State Fate          `json:"state"` // "nothing": forgotten before
	Known bool          `json:"known"` // the ledger had more of the user than the id
	Err   error         `json:"-"`     // why it failed
}

// Forget makes tombstones of the users' rows, and gives one to whom the ledger does not know, so that none of them is
// ever touched again. It holds the run lease while it acts. A Forget that was interrupted is finished by another.
//
// An error means that it did not come to the end; one user's failure is that user's.
func (e *Engine) Forget(ctx context.Context, o ForgetOptions) error {
	f := &forgetting{run: e.newRun(Trigger{Invocation: "forget"}), ForgetOptions: o}
	if !o.Act {
		return f.all(ctx)
	}
	return f.hold(ctx, f.all)
}

// forgetting is one Forget on its way.
type forgetting struct {
	*run
	ForgetOptions
}

func (f *forgetting) all(ctx context.Context) error {
	ids := distinct(f.Users)
	done := 0
	for chunk := range slices.Chunk(ids, operateRows) {
		results, err := f.some(ctx, chunk)
		for _, one := range results {
			if done++; f.Show != nil {
				f.Show(done, len(ids), one)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// some forgets some users. With an error it returns those who are known to be forgotten.
func (f *forgetting) some(ctx context.Context, ids []signup.UserID) ([]ForgottenUser, error) {
	rows, err := f.Ledger.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	results := make([]ForgottenUser, len(ids))
	var strangers []signup.Row
	for i, id := range ids {
		at := slices.IndexFunc(rows, func(row signup.Row) bool { return row.User == id })
		results[i] = ForgottenUser{User: id, State: FatePlanned, Known: at >= 0 && rows[at].Forgotten.IsZero()}
		if at < 0 {
			strangers = append(strangers, signup.Row{User: id, Owner: f.id}.Forget(f.start))
		} else if !results[i].Known {
			results[i].State = FateNothing
		}
	}
	if !f.Act {
		return results, nil
	}
	written, err := f.write(ctx, rows, strangers)
	for i, one := range results {
		switch {
		case one.State == FatePlanned && slices.Contains(written, one.User):
			results[i].State = FateForgotten
		case one.State == FatePlanned:
			results[i].State, results[i].Err = FateFailed, fmt.Errorf("write it into the ledger: %w", signup.ErrConflict)
		}
	}
	if err != nil {
		results = slices.DeleteFunc(results, func(one ForgottenUser) bool { return one.State == FateFailed })
		return results, fmt.Errorf("forget %d users: %w", len(ids)-len(results), err)
	}
	return results, nil
}

// write makes tombstones: of the rows there are, of strangers, and of those strangers whom somebody has brought into
// the ledger meanwhile.
func (f *forgetting) write(ctx context.Context, rows, strangers []signup.Row) (written []signup.UserID, err error) {
	var raced []signup.UserID
	if len(strangers) > 0 {
		inserted, err := f.Ledger.Insert(ctx, strangers)
		for _, row := range inserted {
			written = append(written, row.User)
		}
		if err != nil {
			return written, err
		}
		for _, row := range strangers {
			if !slices.Contains(written, row.User) {
				raced = append(raced, row.User)
			}
		}
	}
	if len(raced) > 0 {
		more, err := f.Ledger.Get(ctx, raced)
		if err != nil {
			return written, err
		}
		rows = append(rows, more...)
	}
	replaced, err := f.rewrite(ctx, rows, func(row signup.Row) (signup.Row, bool) {
		return row.Forget(f.start), row.Forgotten.IsZero()
	})
	return append(written, replaced...), err
}
