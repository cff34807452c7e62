package status_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"path/filepath"
	"testing"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/status"
)

const tenant = "04dcc6ab-388a-4559-b527-fbec656300ea"

var now = time.Date(2026, 8, 20, 14, 30, 1, 0, time.UTC)

// still is a clock that does not go.
type still struct{}

func (still) Now() time.Time                             { return now }
func (still) Sleep(context.Context, time.Duration) error { return nil }

// blind is a detector that is never read.
type blind string

func (b blind) Name() string                                                       { return string(b) }
func (blind) Events(context.Context, signup.Window) iter.Seq2[signup.Event, error] { return nil }
func (blind) Served() time.Time                                                    { return time.Time{} }
func (blind) Retention() time.Duration                                             { return 0 }

// world is an installation as its ledger shows it.
type world struct {
	t      testing.TB
	ledger *ledger.Ledger
	file   string // of a ledger on disk
	engine *pipeline.Engine
}

var names = []string{"billing", "newsletter", "crm", "customers"}

// newWorld keeps its ledger in memory.
func newWorld(t testing.TB) *world { t.Helper(); return worldOn(t, ledger.Memory(tenant)) }

// worldOnDisk keeps it where finding something among 100,000 rows costs what it should.
func worldOnDisk(t testing.TB) *world {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.OpenSQLite(file, tenant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the folder goes anyway
	w := worldOn(t, l)
	w.file = file
	return w
}

func worldOn(t testing.TB, l *ledger.Ledger) *world {
	t.Helper()
	spec := pipeline.Spec{}
	w := &world{t: t, ledger: l}
	w.engine = &pipeline.Engine{Tenant: tenant, Ledger: w.ledger, Clock: still{}, Detectors: []signup.Detector{blind("audit"), blind("directory")}}
	for _, name := range names {
		spec.Destinations = append(spec.Destinations, pipeline.DestinationSpec{Name: name, Record: map[string]any{"email": "user.email"}})
		w.engine.Destinations = append(w.engine.Destinations, pipeline.Destination{Name: name, Concurrency: 1})
	}
	spec.Destinations[2].Record["billing"] = "accounts.billing.id"
	var problems []pipeline.Problem
	if w.engine.Mapping, problems = pipeline.Compile(spec); len(problems) > 0 {
		t.Fatal(problems)
	}
	return w
}

func userID(n int) signup.UserID {
	return signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", n))
}

// note writes a note as a run would have.
func (w *world) note(name string, body any) {
	w.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := w.ledger.Note(context.Background(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Name, n.Body = name, text
	if _, err := w.ledger.PutNote(context.Background(), n); err != nil {
		w.t.Fatal(err)
	}
}

// settle inserts users who are brought everywhere.
func (w *world) settle(from, to int) {
	w.t.Helper()
	var rows []signup.Row
	for n := from; n < to; n++ {
		at := now.Add(-time.Duration(n%2_000_000) * 78 * time.Second)
		r := signup.NewRow(signup.Event{User: userID(n), Kind: signup.Created, At: at}, "directory", names, at.Add(time.Minute)).Intend("20260820T143001-12345678", at.Add(time.Minute))
		var all []signup.Outcome
		for _, d := range append(names, signup.Profile) {
			all = append(all, signup.Outcome{Destination: d, Account: signup.Account{ID: fmt.Sprintf("%s_%d", d, n)}})
		}
		r.Origin, r.Evidence = signup.SelfService, "creationType=LocalAccount"
		rows = append(rows, r.Settle(at.Add(2*time.Minute), all, func(d time.Duration) time.Duration { return d }))
		if len(rows) == 200 || n == to-1 {
			if _, err := w.ledger.Insert(context.Background(), rows); err != nil {
				w.t.Fatal(err)
			}
			rows = nil
		}
	}
}

// multiply makes as many users of the one who is settled: to insert each would take minutes under the race detector.
func (w *world) multiply(users int) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(`with recursive other(id) as (select 1 union all select id + 1 from other where id < ?)
		insert into signups select tenant, replace(key, ?, printf('75b523ca-d064-4ddf-80af-%012d', id)), version, mark,
		replace(body, ?, printf('75b523ca-d064-4ddf-80af-%012d', id)) from signups, other`, users-1, string(userID(0)), string(userID(0)))
	if err != nil {
		w.t.Fatal(err)
	}
	if rows, err := w.ledger.Get(context.Background(), []signup.UserID{userID(0), userID(users - 1)}); err != nil || len(rows) != 2 && users > 1 {
		w.t.Fatalf("of %d users there are %d, %v", users, len(rows), err)
	}
}

// wait inserts users of whom crm and the profile wait; the first is the oldest.
func (w *world) wait(from, to int, at time.Time) {
	w.t.Helper()
	for n := from; n < to; n++ {
		r := signup.NewRow(signup.Event{User: userID(n), Kind: signup.Created, At: at.Add(time.Duration(n-from) * time.Minute)}, "audit", names, at).Intend("20260820T143001-12345678", at)
		r.Origin, r.Evidence = signup.SelfService, "creationType=LocalAccount"
		var all []signup.Outcome
		for _, d := range []string{"billing", "newsletter", "customers"} {
			all = append(all, signup.Outcome{Destination: d, Account: signup.Account{ID: d + "_1"}})
		}
		all = append(all, signup.Outcome{Destination: "crm", Err: &signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401}})
		r = r.Settle(at.Add(time.Minute), all, func(d time.Duration) time.Duration { return d })
		if _, err := w.ledger.Insert(context.Background(), []signup.Row{r}); err != nil {
			w.t.Fatal(err)
		}
	}
}

type object = map[string]any

// begun writes the notes of an installation whose last run has just ended.
func (w *world) begun(since time.Time) {
	w.t.Helper()
	known := []object{}
	for _, name := range names {
		known = append(known, object{"name": name, "since": since})
	}
	w.note("state", object{"since": since, "destinations": known})
	for _, d := range []string{"audit", "directory"} {
		w.note("watermark|"+d, object{"watermark": now.Add(-4 * time.Second), "seen": object{"first": 0}})
	}
	last := pipeline.Summary{Run: "20260820T143000-0a1b2c3d", Started: now.Add(-time.Second), Ended: now.Add(-200 * time.Millisecond)}
	for _, d := range []string{"audit", "directory"} {
		last.Detectors = append(last.Detectors, pipeline.DetectorSummary{Name: d, From: now.Add(-time.Hour), To: now})
	}
	w.note("run", object{"last": last})
}

// one is an installation with one user.
func (w *world) one() {
	w.t.Helper()
	w.begun(now.Add(-2 * time.Hour))
	w.settle(0, 1)
	h := pipeline.History{Since: now.Add(-2 * time.Hour), Hours: series(time.Hour, 168), Days: series(24*time.Hour, 90)}
	h.Hours.Counts[167], h.Days.Counts[89] = pipeline.Flow{1, 1, 0, 0}, pipeline.Flow{1, 1, 0, 0}
	var l pipeline.Lags
	l.Add(2 * time.Minute)
	h.Delays = []pipeline.DayDelays{{Day: now.Truncate(24 * time.Hour), Lags: l}}
	for _, name := range append(names, signup.Profile) {
		h.Destinations = append(h.Destinations, pipeline.DestinationDelays{Name: name, Recent: [2]pipeline.Lags{l, {}}})
	}
	h.Runs = []pipeline.RunRecord{{Run: "20260820T142900-0a1b2c3d", Started: now.Add(-61 * time.Second), Ended: now.Add(-60 * time.Second), From: now.Add(-time.Hour), To: now.Add(-61 * time.Second),
		Detectors: []pipeline.DetectorRecord{{Name: "audit", Events: 1}, {Name: "directory", Events: 1, New: 1}}, Users: 1, Associated: 5}}
	h.Certificate = &pipeline.CertificateDates{NotBefore: now.AddDate(0, -2, 0), NotAfter: now.AddDate(0, 10, 0)}
	w.note("history", h)
}

func series(step time.Duration, n int) pipeline.Series {
	return pipeline.Series{Last: now.Truncate(step), Counts: make([]pipeline.Flow, n)}
}

// busy is an installation of so many users, 40 of whom wait, with most of what can be wrong.
func (w *world) busy(users int) {
	w.t.Helper()
	since := now.AddDate(0, -4, 0)
	w.begun(since)
	w.settle(0, users-40)
	w.wait(users-40, users, now.Add(-100*time.Minute))
	known := []object{}
	for _, name := range append(names, "leads") {
		known = append(known, object{"name": name, "since": since})
	}
	w.note("state", object{"since": since, "destinations": known, "breakers": []object{{"name": "crm", "opened": 3, "until": now.Add(9 * time.Minute), "code": "unauthorized",
		"since": now.Add(-95 * time.Minute), "lastSuccess": now.Add(-97 * time.Minute)}}})
	lags := func(n int, middle time.Duration) (l pipeline.Lags) {
		for i := range n {
			l.Add(time.Duration(float64(middle) * math.Exp(1.1*math.Sin(float64(i)*7.3)+0.4*math.Sin(float64(i)*1.7))))
		}
		return l
	}
	w.note("watermark|audit", object{"watermark": now.Add(-4 * time.Second), "seen": object{"first": 1204, "also": []object{{"after": "directory", "users": max(users-1204, 0)}}},
		"recent": []pipeline.Lags{lags(900, 3*time.Minute), {}}, "gaps": []object{{"from": now.Add(-80 * time.Hour), "to": now.Add(-74 * time.Hour)}}})
	w.note("watermark|directory", object{"watermark": now.Add(-4 * time.Second), "seen": object{"first": max(users-1204, 0), "also": []object{{"after": "audit", "users": 1180}}},
		"recent": []pipeline.Lags{lags(900, 40*time.Second), {}}})
	h := pipeline.History{Since: since, Hours: series(time.Hour, 168), Days: series(24*time.Hour, 90), Certificate: &pipeline.CertificateDates{NotBefore: now.AddDate(0, -11, -9), NotAfter: now.AddDate(0, 0, 21)}}
	for i := range h.Hours.Counts {
		at := h.Hours.Last.Add(-time.Duration(167-i) * time.Hour)
		n := people(at, 46)
		h.Hours.Counts[i] = pipeline.Flow{n, n * 9 / 10, n - n*9/10 - n/60, n / 60}
		switch left := 167 - i; {
		case left < 2: // crm refuses everybody
			h.Hours.Counts[i][pipeline.Associated] = 0
		case left > 100 && left < 106: // an outage
			h.Hours.Counts[i] = pipeline.Flow{n, 0, 0, 0}
		case left == 100: // and what it had kept back
			h.Hours.Counts[i] = pipeline.Flow{n, 6*n + 31, n / 2, 1}
		}
	}
	for i := range h.Days.Counts {
		at := h.Days.Last.Add(-time.Duration(89-i) * 24 * time.Hour)
		n := people(at.Add(12*time.Hour), 900) + i*4
		h.Days.Counts[i] = pipeline.Flow{n, n * 9 / 10, n - n*9/10 - n/80, n / 80}
	}
	for i := range 7 {
		h.Delays = append(h.Delays, pipeline.DayDelays{Day: now.Truncate(24*time.Hour).AddDate(0, 0, i-6), Lags: lags(900, 75*time.Second)})
	}
	for i, name := range append(names, signup.Profile) {
		h.Destinations = append(h.Destinations, pipeline.DestinationDelays{Name: name, Recent: [2]pipeline.Lags{lags(1000+i*31, time.Duration(60+i*12)*time.Second), {}}})
	}
	for i := range 12 {
		started := now.Add(-time.Duration(i+1) * time.Minute)
		n := people(started, 5)
		r := pipeline.RunRecord{Run: fmt.Sprintf("%s-%08x", started.Format("20060102T150405"), i), Started: started, Ended: started.Add(time.Duration(900+n*350) * time.Millisecond), From: started.Add(-time.Hour), To: started,
			Detectors: []pipeline.DetectorRecord{{Name: "audit", Events: 40 + n, New: n / 9}, {Name: "directory", Events: 44 + n, New: n - n/9}}, Users: n, Associated: n * 3, Skipped: n / 3}
		switch i {
		case 4:
			r.Detectors[0].Trouble, r.Failed = "unavailable", 1
		case 7:
			r = pipeline.RunRecord{Run: r.Run, Started: r.Started}
		case 9:
			r.Trouble, r.Before = "no-detector", 6
			r.Detectors[0].Trouble, r.Detectors[1].Trouble = "unavailable", "unavailable"
			r.Users, r.Associated, r.Skipped = 0, 0, 0
		}
		h.Runs = append(h.Runs, r)
	}
	w.note("history", h)
	w.note("certificate", pipeline.Census{ID: "20260820T020000-5f6e7d8c", Started: now.Add(-13 * time.Hour), Ended: now.Add(-12*time.Hour - 30*time.Minute), Acted: true,
		Users: users - 300, Associated: users - 342, Pending: 40, Missing: 2})
}

// people is how many sign up around a time of the day and of the week.
func people(at time.Time, usual float64) int {
	hour := float64(at.Hour()) + float64(at.Minute())/60
	n := usual * (0.25 + 0.75*math.Max(0, math.Sin((hour-5)/16*math.Pi)))
	if d := at.Weekday(); d == time.Saturday || d == time.Sunday {
		n *= 0.55
	}
	return int(n * (1 + 0.18*math.Sin(float64(at.Unix()/3600)*2.9)))
}

func (w *world) page() *status.Page { return status.New(w.engine, discard()) }
