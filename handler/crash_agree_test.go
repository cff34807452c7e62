package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"signup-sync/handler/signup"
)

// noWatermarkAhead looks whether everyone who signed up before a watermark is in the ledger. Everyone can be seen at
// once in this world.
func (w *crashWorld) noWatermarkAhead(name string, s side) {
	w.t.Helper()
	rows := w.rows()
	for _, detector := range []string{"audit", "directory"} {
		mark := w.watermark(detector)
		for _, u := range w.Tenant.Users() {
			if _, ok := rows[u.ID]; !ok && u.Created.Before(mark) && !w.unseen[u.ID] {
				w.t.Errorf("%s, %s: the watermark of %s is at %v, and user %s of %v is not in the ledger", name, s, detector, mark, u.ID, u.Created)
			}
		}
	}
}

// watermark is a detector's, zero if it has none yet.
func (w *crashWorld) watermark(detector string) time.Time {
	w.t.Helper()
	n, err := w.ledger.Note(w.t.Context(), "watermark|"+detector)
	if err != nil {
		w.t.Fatal(err)
	}
	var mark struct{ Watermark time.Time }
	if len(n.Body) > 0 {
		if err := json.Unmarshal(n.Body, &mark); err != nil {
			w.t.Fatal(err)
		}
	}
	return mark.Watermark
}

// rows reads the whole ledger.
func (w *crashWorld) rows() map[signup.UserID]signup.Row {
	w.t.Helper()
	rows := map[signup.UserID]signup.Row{}
	for row, err := range w.ledger.All(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		rows[row.User] = row
	}
	return rows
}

// unfinished says what is still to be done, "" for nothing.
func (w *crashWorld) unfinished() string {
	w.t.Helper()
	n, err := w.ledger.Note(w.t.Context(), "run")
	if err != nil {
		w.t.Fatal(err)
	}
	var lease struct{ Owner string }
	if err := json.Unmarshal(n.Body, &lease); err != nil || lease.Owner != "" {
		return fmt.Sprintf("the run lease is held by %s (%v)", lease.Owner, err)
	}
	rows := w.rows()
	for _, u := range w.Tenant.Users() {
		switch row, ok := rows[u.ID]; {
		case !ok && w.unseen[u.ID]:
		case !ok:
			return fmt.Sprintf("user %s is not in the ledger", u.ID)
		case !row.Due.IsZero():
			return fmt.Sprintf("user %s is due at %v", u.ID, row.Due)
		}
	}
	return ""
}

// compareAll holds the tenant, the ledger and all destinations against each other: nobody lost, nothing twice, no
// intent left open.
func (w *crashWorld) compareAll(what string) {
	w.t.Helper()
	held := w.holdings()
	rows := w.rows()
	var r localReport
	for _, u := range w.Tenant.Users() {
		row, ok := rows[u.ID]
		if !ok && w.unseen[u.ID] {
			continue
		}
		if !row.Intent.IsZero() || row.Starts != 0 {
			r.problem("user %s has an intent open since %v", u.ID, row.Intent)
		}
		if !w.apart[u.ID] {
			r.compare(u, row, held)
		}
		for _, p := range places {
			if ids := held[p.name][u.ID]; len(ids) > 1 && w.apart[u.ID] {
				r.problem("user %s has %d accounts at %s", u.ID, len(ids), p.name)
			}
		}
		delete(rows, u.ID)
	}
	for id := range rows {
		r.problem("user %s is in the ledger and not in the tenant", id)
	}
	for _, p := range places {
		for _, id := range slices.Sorted(maps.Keys(held[p.name])) {
			if _, ok := w.Tenant.User(id); !ok {
				r.problem("%s has an account for %q, who is not in the tenant", p.name, id)
			}
		}
	}
	for _, p := range r.Problems {
		w.t.Errorf("%s: %s", what, p)
	}
}

// holdings reads every destination.
func (w *crashWorld) holdings() map[string]holdings {
	w.t.Helper()
	held, err := w.held(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	held["newsletter"] = holdings{}
	for _, m := range w.Mailchimp.Members() {
		owner, _ := m.Merge[contactOwner].(string)
		for range max(m.Welcomes, 1) { // a second welcome is as bad as a second contact
			held["newsletter"].add(owner, m.ID)
		}
	}
	if w.table != nil {
		held["customers"], held[stripeColumn] = holdings{}, holdings{}
		if err := w.customers(w.t.Context(), held); err != nil {
			w.t.Fatal(err)
		}
	}
	return held
}

// customers reads the table in the database.
func (w *crashWorld) customers(ctx context.Context, held map[string]holdings) error {
	rows, err := w.table.QueryContext(ctx, "SELECT entra_id, stripe_id FROM customers")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var user, stripe string
		if err := rows.Scan(&user, &stripe); err != nil {
			return err
		}
		held["customers"].add(user, user)
		held[stripeColumn].add(user, stripe)
	}
	return rows.Err()
}
