package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

var detectorExaminations = []examination{needsLedger("detectors", examineDetectors)}

// nothingYet is said of an installation in which no run has been.
const nothingYet = "nothing has run yet for this tenant"

// firstRun is what to do then.
const firstRun = "Wait for the timer of SyncNewUsers, a minute by its usual schedule; if nothing has run after five, look at the Function App's log stream."

// A watermark may be so old, or as old as some turns of the timer if those are rare.
const (
	oldWatermark = 15 * time.Minute
	lostSight    = time.Hour // of sign-ups: docs/operations.md wants an alert
)

// examineDetectors says how far each detector is, and how late it shows people.
func examineDetectors(p *patient, s pipeline.Status) []finding {
	var all []finding
	for _, d := range s.Detectors {
		all = append(all, p.examineWatermark(s, d))
		if n := len(d.Gaps); n > 0 {
			all = append(all, warn("gaps of "+d.Name, "Nothing: the runs close them from the directory. If it stays for an hour: bin/handler census", "%d stretches of time could not be read from the log, the first from %s", n, d.Gaps[0].From.Format(time.RFC3339)))
		}
		if overlap := p.app.config.Sync.Overlap; d.Late(overlap) {
			p99 := d.Recent.Quantile(0.99)
			all = append(all, warn("lateness of "+d.Name, "In signup-sync.yaml: sync: { overlap: "+inWords(2*p99)+" }", "of 100 sign-ups 99 are shown within %v, which is more than half of sync.overlap (%v)", p99, overlap))
		}
	}
	return all
}

func (p *patient) examineWatermark(s pipeline.Status, d pipeline.DetectorStatus) finding {
	turns := 2 * p.syncPause()
	old := s.Now.Sub(d.Watermark)
	switch {
	case s.Since.IsZero():
		return warn(d.Name, firstRun, nothingYet)
	case d.Watermark.IsZero():
		return warn(d.Name, "Nothing, if it was added just now; else look for `detector not read to the end` on stderr.", "it has not been read yet")
	case old > max(lostSight, turns):
		return fail(d.Name, "Look at the runs: Function App > SyncNewUsers > Invocations, and stderr.", "it was read up to %v ago: who has signed up since then is not seen", age(s.Now, d.Watermark))
	case old > max(oldWatermark, turns):
		return warn(d.Name, "Look at the runs: Function App > SyncNewUsers > Invocations, and stderr.", "it was read up to %v ago", age(s.Now, d.Watermark))
	}
	return good(d.Name, "read up to %v ago; %s", age(s.Now, d.Watermark), sightings(d))
}

// sightings says whom a detector has shown: the first of all, or after which other, and how late lately.
func sightings(d pipeline.DetectorStatus) string {
	said := fmt.Sprintf("it was the first to show %d users", d.Seen.First)
	for _, also := range d.Seen.Also {
		said += fmt.Sprintf(", and showed %d after %s", also.Users, also.Detector)
	}
	if d.Recent.N() > 0 {
		said += fmt.Sprintf("; lately 99 of 100 within %s", inWords(d.Recent.Quantile(0.99)))
	}
	return said
}

// syncPause is the longest pause of SyncNewUsers; 0 if its schedule is not known.
func (p *patient) syncPause() time.Duration {
	schedule, err := devhost.ParseSchedule(p.getenv("SYNC_SCHEDULE"))
	if err != nil {
		return 0
	}
	return longestPause(schedule, p.app.env.Clock.Now())
}

var ledgerExaminations = []examination{{"ledger", examineLedger}}

// examineLedger reads from the store, and tries whether it could be written to.
func examineLedger(ctx context.Context, p *patient) []finding {
	if p.usesIdentity() {
		if err := p.proven(ctx); err != nil {
			return nobody("ledger", err)
		}
	}
	access, err := p.access.get(ctx, p.app.ledger.Access)
	switch {
	case err != nil:
		return []finding{broken("ledger", p.ledgerFix(err), err)}
	case slices.Contains(access.Absent, stateTable):
		return []finding{notAsked("ledger", firstRun, "it is not there yet, and the first run makes it; whether it may cannot be tried before")}
	case len(access.Absent) > 0:
		return []finding{good("ledger", "it can be read and written; the first sign-up makes the rest of it")}
	}
	return []finding{good("ledger", "it can be read and written")}
}

// ledgerFix says what to do about a ledger that cannot be read or written.
func (p *patient) ledgerFix(err error) string {
	switch ledger := p.getenv("LEDGER"); {
	case ledger != "" && ledger != "tables":
		return "Look at the file that LEDGER names, and at its folder's permissions."
	case passing(err):
		return "Look at the account's name in AzureWebJobsStorage, and whether the account is there: az storage account show --name ACCOUNT\nand at its Networking; then run the doctor again."
	case p.usesIdentity():
		return p.storageRole() + "\nand look at the account's Networking"
	}
	return "The key in AzureWebJobsStorage is wrong or was changed, its signature does not allow to read, add, update and delete, or the account's Networking keeps you out. By identity it needs neither:\n" + byIdentity + "\n" + p.storageRole()
}

// destinationExaminations are one question to each, in the order of the file.
func (p *patient) destinationExaminations() []examination {
	if p.app == nil {
		return nil
	}
	var all []examination
	for i, d := range p.app.config.Destinations {
		connector := p.app.engine.Destinations[i].Connector
		ask := func(ctx context.Context, p *patient) []finding {
			begun := time.Now()
			err := connector.Check(ctx)
			switch permission := inTheTenant[d.Connector]; {
			case err != nil && permission != "" && errorCode(err) == "forbidden":
				return p.unanswered(ctx, d.Name, permission, err)
			case err != nil:
				return []finding{broken(d.Name, p.destinationFix(d, errorCode(err)), err)}
			}
			return []finding{good(d.Name, "%s works; it answered in %v", d.Connector, time.Since(begun).Round(time.Millisecond))}
		}
		if inTheTenant[d.Connector] == "" {
			all = append(all, examination{d.Name, ask})
		} else {
			all = append(all, needsGraph(d.Name, ask))
		}
	}
	return all
}

// inTheTenant are the kinds that are Graph's, and what begins the name of the permission that they take.
var inTheTenant = map[string]string{"group": "GroupMember.", "accessPackage": "EntitlementManagement."}

// senders are the roles by which the identity may send to Azure's services.
var senders = map[string]string{"storageQueue": "Storage Queue Data Message Sender", "serviceBus": "Azure Service Bus Data Sender", "eventGrid": "EventGrid Data Sender"}

// destinationFix says what to do about a destination that does not work; the error has said what is wrong.
func (p *patient) destinationFix(d DestinationConfig, code string) string {
	look := fmt.Sprintf("Look up %s in docs/operations.md, What the codes mean; how the kind is set up stands in docs/destinations.md, %s.", cmp.Or(code, "the error"), d.Connector)
	role, refused := senders[d.Connector], code == "unauthorized" || code == "forbidden" || code == "no-token"
	switch {
	case refused && role != "":
		return p.assignRole(role, "RESOURCE_ID") + "\n" + look
	case refused:
		return fmt.Sprintf("Set the app setting that %s names at destinations > %s > settings to a new key:\n", filepath.Base(p.app.env.Config), d.Name) + storeSecret("VAULT", "NAME") + restartApp + "\n" + look
	}
	return look
}

var stateExaminations = []examination{
	needsLedger("runs", examineRuns),
	needsLedger("backlog", examineBacklog),
	needsLedger("breakers", examineBreakers),
	{"observed", examineObserved},
	needsLedger("removed", examineRemoved),
	needsLedger("census", examineCensus),
}

func examineRuns(_ *patient, s pipeline.Status) []finding {
	switch {
	case s.Since.IsZero():
		return []finding{warn("runs", firstRun, nothingYet+"; the first run begins the ledger, and looks back by sync.firstLookBack")}
	case s.Run != nil && s.Run.Died:
		return []finding{warn("runs", "Nothing, if it happens once: the next run goes on. Else look in the host's log for a panic or an out-of-memory kill.", "the run %s died at work", s.Run.Owner)}
	case s.Run != nil:
		return []finding{good("runs", "%s is at work", s.Run.Owner)}
	case s.Last == nil:
		return []finding{warn("runs", "Look at the runs: Function App > SyncNewUsers > Invocations, and stderr.", "no run has come to its end yet")}
	}
	return []finding{good("runs", "the last one, %s, has ended; users are looked for who signed up since %s", s.Last.Run, s.Since.Format(time.RFC3339))}
}

// longBacklog is how long a row that is due may wait before a person should look.
const longBacklog = 15 * time.Minute

func examineBacklog(p *patient, s pipeline.Status) []finding {
	b := s.Backlog
	more := ""
	if b.More {
		more = " and more"
	}
	const fix = "Nothing, while it gets shorter. Else look at the breakers below, and raise the destinations' rate where the vendor allows it."
	switch waits := s.Now.Sub(b.Oldest); {
	case b.Due > 0 && waits > max(longBacklog, 2*p.syncPause()):
		return []finding{warn("backlog", fix, "%d users%s could be worked, the first since %v", b.Due, more, age(s.Now, b.Oldest))}
	case b.More:
		return []finding{warn("backlog", fix, "%d users and more could be worked, %d wait for a later time", b.Due, b.Waiting)}
	}
	return []finding{good("backlog", "%d users could be worked now, %d wait for a later time", b.Due, b.Waiting)}
}

func examineBreakers(_ *patient, s pipeline.Status) []finding {
	var all []finding
	for _, d := range s.Destinations {
		if d.Breaker == nil || d.Removed {
			continue
		}
		since := ""
		if !d.Breaker.Since.IsZero() {
			since = " since " + d.Breaker.Since.Format(time.RFC3339)
		}
		all = append(all, warn("breaker of "+d.Name, "Mend the cause (docs/operations.md, What the codes mean, "+d.Breaker.Code+"); then nothing: one call tries by itself.",
			"it is left alone%s, the next try is at %s: %s", since, d.Breaker.Until.Format(time.RFC3339), d.Breaker.Code))
	}
	if len(all) == 0 {
		return []finding{good("breakers", "no destination is left alone")}
	}
	return all
}

func examineObserved(_ context.Context, p *patient) []finding {
	var all []finding
	for _, d := range p.app.config.Destinations {
		if d.Mode == "observe" {
			all = append(all, warn("observed "+d.Name, fmt.Sprintf("In signup-sync.yaml, destination %s: mode: live, when the log shows what you want.", d.Name), "it records what would be sent, and sends nothing"))
		}
	}
	if len(all) == 0 {
		return []finding{good("observed", "no destination is only observed")}
	}
	return all
}

func examineRemoved(_ *patient, s pipeline.Status) []finding {
	var all []finding
	for _, d := range s.Destinations {
		if d.Removed && d.Name != signup.Profile {
			all = append(all, warn("removed "+d.Name, "Nothing, if that is meant. If it was renamed, give it its old name back: the name is in the ledger.", "it was configured since %s, and is no longer", d.Since.Format(time.RFC3339)))
		}
	}
	if len(all) == 0 {
		return []finding{good("removed", "every destination that the ledger knows is configured")}
	}
	return all
}

// oldCensus is when a census should be long over: one begins a day after the last.
const oldCensus = 48 * time.Hour

func examineCensus(_ *patient, s pipeline.Status) []finding {
	const look = "Look at TakeCensus: Function App > TakeCensus > Invocations; or now: bin/handler census --yes"
	c := s.Census
	switch {
	case s.Since.IsZero():
		return []finding{warn("census", firstRun, nothingYet)}
	case c == nil:
		return []finding{warn("census", look, "none has come to its end yet: nobody has counted whether everyone is there")}
	case s.Now.Sub(c.Ended) > oldCensus:
		return []finding{fail("census", look, "the last one ended %v ago, and one should end each day", age(s.Now, c.Ended))}
	}
	all := []finding{good("census", "the last one ended %v ago and counted %d users", age(s.Now, c.Ended), c.Users)}
	if c.Missing > 0 {
		all = append(all, warn("missing users", "bin/handler census --last", "%d were in no detector's sight, and are taken in", c.Missing))
	}
	if c.Failed > 0 {
		all = append(all, warn("failed users", "bin/handler census --last\nbin/handler explain ID\nbin/handler replay --reason CODE", "%d could not be brought everywhere, for good", c.Failed))
	}
	if c.PassedOver > 0 {
		all = append(all, warn("passed over", "Look for `record cannot be decoded and is passed over` on stderr.", "%d records of the directory could not be decoded", c.PassedOver))
	}
	return all
}
