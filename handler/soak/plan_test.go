package soak_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"signup-sync/handler/sim"
)

// plan is what a seed has in store.
type plan struct {
	people    int
	span      time.Duration // in which they sign up
	burst     bool          // all of them within minutes
	only      int           // so many of the destinations are configured; 0 = all
	steady    bool          // the timer fires each minute, whether or not there is anything to do
	quiet     bool          // nothing goes wrong but at destinations, so that whom these spare has to be served at once
	retention time.Duration // of the audit log
	calls     float64       // the share of calls that something befalls
	writes    float64       // … and of the ledger's operations
	deaths    float64       // … and of both after or before which the process dies
	pauses    float64       // … before which a process stops for minutes
	noFilter  bool          // Graph refuses to filter the audit log by activity
	noList    bool          // … and users by several ids
	pageSize  int           // of the audit log; 0 = 1000
	signUps   bool          // the log of user flows is a detector too
	invited   bool          // guests are associated when they are invited
	loses     time.Duration // when the ledger is lost, since the beginning; 0 = never
	skews     [2]time.Duration
	troubles  []trouble
}

// trouble is something that is wrong with one system for a while.
type trouble struct {
	system   string
	how      string
	from, to time.Duration // since the beginning
}

func (t trouble) String() string { return fmt.Sprintf("%s %s %v-%v", t.system, t.how, t.from, t.to) }

// systems that troubles come to, with what comes to them.
var troubleKinds = []struct {
	system string
	how    []string
	most   time.Duration
}{
	{"billing", []string{"refused", "hang", "503", "429", "429-long", "401", "lost", "500-stored", "slow"}, 50 * time.Hour},
	{"newsletter", []string{"refused", "hang", "503", "429", "429-long", "401", "403", "lost", "slow"}, 50 * time.Hour},
	{"crm", []string{"refused", "hang", "503", "429", "429-long", "401", "lost", "slow"}, 50 * time.Hour},
	{"welcome", []string{"refused", "hang", "503", "429", "429-long", "lost", "slow"}, 50 * time.Hour},
	{"members", []string{"503", "429", "lost", "403"}, 20 * time.Hour},
	{"patch", []string{"503", "429", "lost", "403"}, 20 * time.Hour},
	{"audit", []string{"refused", "hang", "503", "429", "half", "403"}, 40 * time.Hour},
	{"directory", []string{"refused", "503", "429", "half", "403"}, 20 * time.Hour},
	{"profile", []string{"503", "429", "half", "hang"}, 4 * time.Hour},
	{"graph", []string{"refused", "503", "429", "hang"}, 6 * time.Hour},
	{"ledger", []string{"fails", "loses"}, 2 * time.Hour},
	{"host", []string{"down"}, 30 * time.Hour},
	{"second", []string{"timer"}, 6 * time.Hour},
	{"clock", []string{"ahead", "behind", "year-ahead", "year-behind"}, 3 * time.Hour},
}

func newPlan(chance *rand.Rand) plan {
	pl := plan{people: 20 + chance.IntN(61), retention: 168 * time.Hour}
	pl.span = []time.Duration{time.Hour, 3 * time.Hour, 10 * time.Hour, 40 * time.Hour}[chance.IntN(4)]
	pl.burst = chance.IntN(6) == 0
	if chance.IntN(3) == 0 {
		pl.retention = 24 * time.Hour
	}
	share := func(of ...float64) float64 { return of[chance.IntN(len(of))] }
	pl.calls, pl.writes = share(0, .002, .01, .05), share(0, .001, .005, .02)
	pl.deaths, pl.pauses = share(0, .0003, .002, .01), share(0, 0, .0005, .002)
	pl.noFilter, pl.noList = chance.IntN(8) == 0, chance.IntN(8) == 0
	pl.pageSize = []int{0, 0, 2, 7}[chance.IntN(4)]
	pl.signUps = chance.IntN(3) == 0
	if chance.IntN(5) == 0 {
		// As likely when detectors still show everybody as when only the census does.
		pl.loses = time.Duration(chance.Int64N(int64(pl.span + 40*time.Hour)))
	}
	for i := range pl.skews {
		pl.skews[i] = time.Duration(chance.Int64N(int64(4*time.Minute))) - 2*time.Minute
	}
	for range chance.IntN(7) {
		k := troubleKinds[chance.IntN(len(troubleKinds))]
		from := time.Duration(chance.Int64N(int64(pl.span)))
		// As likely minutes as hours as days.
		length := time.Duration(math.Exp(chance.Float64()*math.Log(k.most.Minutes())) * float64(time.Minute))
		pl.troubles = append(pl.troubles, trouble{k.system, k.how[chance.IntN(len(k.how))], from, from + length})
	}
	if pl.quiet = chance.IntN(5) == 0; pl.quiet {
		pl.loses = 0
		pl.calls, pl.writes, pl.deaths, pl.pauses = 0, 0, 0, 0
		pl.skews[0], pl.skews[1] = pl.skews[0]/6, pl.skews[1]/6
		pl.troubles = slices.DeleteFunc(pl.troubles, func(t trouble) bool { return !slices.Contains(destinations, t.system) })
		// Runs that take their time have to renew the lease.
		pl.burst = chance.IntN(2) == 0
		pl.troubles = append(pl.troubles, trouble{[]string{"billing", "newsletter", "crm", "welcome"}[chance.IntN(4)], "slow", 0, pl.span})
	}
	if pl.pauses > 0 || pl.quiet { // for somebody to take the lease, or not to
		pl.troubles = append(pl.troubles, trouble{"second", "timer", 0, pl.span})
	}
	return pl
}

var destinations = []string{"billing", "newsletter", "crm", "welcome", "members"}

// arrival is somebody who comes into the tenant, and what becomes of them there.
type arrival struct {
	sim.Person
	at       time.Duration // since the beginning
	redeems  time.Duration // … 0 = never
	deleted  time.Duration
	restored time.Duration
	broken   bool   // the audit record cannot be decoded
	doubled  bool   // … is published again
	refused  string // the destination that does not take this one user, until somebody has seen to it
}

// newArrivals are the people of a seed.
func newArrivals(pl plan, seed uint64, chance *rand.Rand) []arrival {
	span := pl.span
	if pl.burst {
		span = 3 * time.Minute
	}
	all := make([]arrival, pl.people)
	for i, p := range sim.Crowd(pl.people, seed) {
		a := arrival{Person: p, at: time.Minute + time.Duration(chance.Int64N(int64(span)))}
		switch chance.IntN(20) {
		case 0:
			a.How = sim.Native
		case 1:
			a.How = sim.Migration
		case 2:
			a.How = sim.EmailVerified
		case 3:
			a.How = sim.Failed
		case 4, 5:
			a.How = sim.Guest
		}
		later := func(most time.Duration) time.Duration {
			return a.at + time.Second + time.Duration(math.Exp(chance.Float64()*math.Log(most.Seconds()))*float64(time.Second))
		}
		if a.How == sim.Guest && chance.IntN(3) > 0 {
			a.redeems = later(20 * time.Hour)
		}
		lateAudit, lateIndex := chance.IntN(10) == 0, chance.IntN(10) == 0
		switch {
		case lateAudit && a.How != sim.Failed: // late, beyond the overlap, or never: then the directory shows them
			lag := []time.Duration{10 * time.Minute, 50 * time.Minute, 3 * time.Hour, 10000 * time.Hour}[chance.IntN(4)]
			a.AuditLag = &lag
		case lateIndex: // then the log shows them
			lag := []time.Duration{3 * time.Minute, 20 * time.Minute, 2 * time.Hour}[chance.IntN(3)]
			a.IndexLag = &lag
		default:
			a.broken = a.How != sim.Failed && chance.IntN(20) == 0
		}
		if a.broken {
			never := 10000 * time.Hour
			a.AuditLag = &never
		}
		a.doubled = chance.IntN(10) == 0
		if chance.IntN(25) == 0 {
			a.refused = []string{"billing", "welcome"}[chance.IntN(2)]
		}
		if a.How != sim.Failed && chance.IntN(12) == 0 {
			a.deleted = later(3 * time.Hour)
			a.redeems = 0
			if chance.IntN(2) == 0 {
				a.restored = a.deleted + time.Duration(chance.Int64N(int64(2*time.Hour)))
			}
		}
		all[i] = a
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return int(a.at - b.at) })
	return all
}
