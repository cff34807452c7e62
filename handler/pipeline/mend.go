package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// What stands in rows that no detector has made.
const (
	detectorCensus   = "census"   // the user was missing
	detectorBackfill = "backfill" // the user signed up before the detectors looked
)

// missingNamed is how many missing users one log line names.
const missingNamed = 5

// chunk compares some users with the ledger, mends what differs, and counts them.
func (c *counting) chunk(ctx context.Context, events []signup.Event, w signup.Window, next *Census) error {
	before := !next.Since.Before(w.To)
	var ids []signup.UserID
	for _, e := range events {
		if !before || !e.At.Before(next.Since) { // of the older ones, who has accepted an invitation since
			ids = append(ids, e.User)
		}
	}
	rows, err := c.rows(ctx, ids)
	if err != nil {
		return err
	}
	now := later(c.Clock.Now(), next.Started)
	var insert []signup.Row
	var mended []mending
	for _, e := range events {
		row, ok := rows[e.User]
		// Who accepted an invitation after the range's end is the detectors' business as yet.
		switch {
		case !ok && before && (e.At.Before(next.Since) || !e.At.Before(next.To)):
			next.Users++
			next.Before++
		case !ok:
			insert = append(insert, c.newRow(e, now))
		default:
			if m := c.mend(row, e, now); m.needed() {
				mended = append(mended, m)
			} else {
				next.count(row, now)
			}
		}
	}
	return errors.Join(c.takeIn(ctx, insert, next, now), c.change(ctx, mended, next, now))
}

func (c *counting) rows(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.Row, error) {
	found := make(map[signup.UserID]signup.Row, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	rows, err := c.Ledger.Get(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up %d users in the ledger: %w", len(ids), err)
	}
	for _, row := range rows {
		found[row.User] = row
	}
	return found, nil
}

// newRow is the row of a user whom no detector has brought. Effects may exist: the ledger may have lost the row.
func (c *counting) newRow(e signup.Event, now time.Time) signup.Row {
	detector := detectorCensus
	if e.At.Before(c.watched) {
		detector = detectorBackfill
	}
	row := signup.NewRow(e, detector, c.destinationNames(), now)
	row.Unsure, row.Owner = true, c.census.ID
	return row
}

// takeIn inserts the rows of missing users. Whom a run has inserted in the meantime was not missing.
func (c *counting) takeIn(ctx context.Context, rows []signup.Row, next *Census, now time.Time) error {
	inserted := rows
	if c.Act && len(rows) > 0 {
		var err error
		inserted, err = c.Ledger.Insert(ctx, rows)
		for _, row := range inserted {
			if row.Detector == detectorCensus {
				c.inserted++
				c.some = append(c.some, row.User)[:min(len(c.some)+1, missingNamed)]
			}
		}
		if err != nil {
			return fmt.Errorf("insert rows: %w", err)
		}
	}
	return c.countAll(ctx, rows, inserted, next, now)
}

// mending is a row, and what has to be done to it.
type mending struct {
	row                signup.Row
	redeemed, restored bool
	added              []string // destinations
}

func (m mending) needed() bool { return m.redeemed || m.restored || len(m.added) > 0 }

// mend opens a row again for a guest who has accepted the invitation and for a user who is in the directory after having
// been taken for deleted, and gives it the destinations that its sign-up is young enough for, and those that it was
// waiting for when they were removed, if they are back: as after a run of the program's former version. A row that a run
// is at is left to that run, and to the next census.
func (c *counting) mend(row signup.Row, e signup.Event, now time.Time) (m mending) {
	m.row = row
	if !row.Intent.IsZero() {
		return m
	}
	if again := comeBack(row, e, c.Backstop.Name(), now); !slices.Equal(again.Associations, row.Associations) {
		m.redeemed = e.Kind == signup.Redeemed && !deleted(row)
		m.restored = !m.redeemed
		m.row = again
	}
	if state, reason := m.row.State(); state == signup.Skipped && slices.Contains([]string{reasonOrigin, reasonNotRedeemed, reasonDeleted}, reason) {
		return m // whoever opens it again does so for all, and the next census adds what is still lacking
	}
	for _, d := range c.added {
		a, has := m.row.Association(d.Name)
		back := has && a.State == signup.Skipped && a.Reason == reasonRemoved
		if back || !has && !m.row.At.Before(d.Since) {
			m.row = m.row.Replay([]string{d.Name}, c.Mapping.ProfileNeeds(), now) // the profile, too, is to show the account
			m.added = append(m.added, d.Name)
		}
	}
	return m
}

// change writes the mended rows. One that somebody else has changed in the meantime stays as that one wrote it.
func (c *counting) change(ctx context.Context, mended []mending, next *Census, now time.Time) error {
	rows := make([]signup.Row, len(mended))
	for i, m := range mended {
		rows[i] = m.row
		rows[i].Owner = c.census.ID
	}
	written := rows
	if c.Act && len(rows) > 0 {
		var err error
		if written, err = c.Ledger.Replace(ctx, rows); err != nil && !errors.Is(err, signup.ErrConflict) {
			return fmt.Errorf("reopen %d rows: %w", len(rows), err)
		}
	}
	for _, m := range mended {
		if !slices.ContainsFunc(written, func(row signup.Row) bool { return row.User == m.row.User }) {
			continue
		}
		if m.redeemed {
			next.Redeemed++
		}
		if m.restored {
			next.Restored++
		}
		for _, d := range m.added {
			next.Added = tally(next.Added, Tally{Destination: d})
		}
	}
	return c.countAll(ctx, rows, written, next, now)
}

// countAll counts the rows that were written, and those that were not as they stand in the ledger.
func (c *counting) countAll(ctx context.Context, rows, written []signup.Row, next *Census, now time.Time) error {
	there := make(map[signup.UserID]bool, len(written))
	for _, row := range written {
		there[row.User] = true
		next.count(row, now)
	}
	var others []signup.UserID
	for _, row := range rows {
		if !there[row.User] {
			others = append(others, row.User)
		}
	}
	current, err := c.rows(ctx, others)
	if err != nil {
		return err
	}
	for _, id := range others {
		row, ok := current[id]
		if !ok {
			return fmt.Errorf("read the row of user %s: it was there a moment ago", id)
		}
		next.count(row, now)
	}
	return nil
}
