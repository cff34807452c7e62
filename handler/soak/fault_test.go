package soak_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// befalls decides what happens to a call; the driver asks, in the seed's order.
func (w *world) befalls(p *process, c call) (f fate) {
	chance := w.sched.chance
	// Most answers take some ten milliseconds, some take longer.
	f.before = time.Duration(5+chance.IntN(60))*time.Millisecond + time.Duration(chance.IntN(1e6))
	if chance.IntN(50) == 0 {
		f.before *= 20
	}
	if w.refusesQuery(c) {
		return answerOf(f, 400, nil, `{"error":{"code":"BadRequest","message":"Invalid filter clause"}}`)
	}
	if w.refusesUser(c) {
		return answerOf(f, map[string]int{"billing": 400, "welcome": 422}[c.system], nil, `{"error":{"type":"invalid_request_error","code":"email_invalid"}}`)
	}
	if w.calm() {
		return f
	}
	defer func() {
		if f.what != "" {
			w.hit(c)
		}
	}()
	for _, t := range w.plan.troubles {
		at := time.Since(w.sched.begun)
		graph := strings.HasPrefix(c.path, "/v1.0") || strings.HasPrefix(c.path, "/beta")
		if at >= t.from && at < t.to && (t.system == c.system || t.system == "graph" && graph) {
			how := t.how
			if how == "lost-refused" { // answers get lost for minutes, and then there is nobody
				if how = "lost"; at > t.from+5*time.Minute {
					how = "refused"
				}
			}
			if got, hit := w.troubled(f, how, c); hit {
				return got
			}
		}
	}
	if w.dies(p, &f) || w.stops(p) {
		return f
	}
	if w.plan.calls == 0 || chance.Float64() >= w.plan.calls {
		return f
	}
	return w.mishap(f, c)
}

// hit remembers that somebody was not spared.
func (w *world) hit(c call) {
	for _, id := range c.users {
		w.people[id].hit = true
	}
}

func answerOf(f fate, status int, header map[string]string, body string) fate {
	f.what, f.none, f.status, f.header, f.body = fmt.Sprint("answered ", status), true, status, map[string]string{"Date": time.Now().UTC().Format(http.TimeFormat)}, body
	maps.Copy(f.header, header)
	return f
}

// refusesQuery reports that Graph, in this seed, does not take such a query.
func (w *world) refusesQuery(c call) bool {
	return w.plan.noFilter && c.system == "audit" && strings.Contains(c.query, "activityDisplayName") ||
		w.plan.noList && c.system == "profile" && strings.Contains(c.query, "in%20%28") ||
		w.plan.noList && c.system == "profile" && strings.Contains(c.query, "in+%28")
}

// refusesUser reports that the destination takes everybody but this one, which nobody has seen to yet.
func (w *world) refusesUser(c call) bool {
	return c.makes && !w.replayed && slices.ContainsFunc(c.users, func(id signup.UserID) bool { return w.people[id].refused == c.system })
}

// troubled is a call to a system that has trouble.
func (w *world) troubled(f fate, how string, c call) (fate, bool) {
	chance := w.sched.chance
	switch f.what = how; how {
	case "refused":
		f.none, f.lost = true, true
	case "hang":
		f.none, f.hang = true, true
	case "503":
		return answerOf(f, 503, nil, "the service is unavailable"), true
	case "429":
		return answerOf(f, 429, map[string]string{"Retry-After": []string{"", "1", "30", "2.5"}[chance.IntN(4)]}, "{}"), true
	case "429-long":
		return answerOf(f, 429, map[string]string{"Retry-After": "7200"}, "{}"), true
	case "401":
		return answerOf(f, 401, nil, "{}"), true
	case "403":
		return answerOf(f, 403, nil, `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges to complete the operation."}}`), true
	case "lost":
		f.lost = chance.IntN(3) > 0
		if !f.lost {
			f.what = ""
			return f, false
		}
	case "half":
		f.half = true
	case "slow":
		f.before, f.after = time.Duration(chance.Int64N(int64(15*time.Second))), time.Duration(chance.Int64N(int64(15*time.Second)))
	case "crawl":
		f.before, f.after = time.Duration(chance.Int64N(int64(5*time.Second))), 15*time.Second+time.Duration(chance.Int64N(int64(8*time.Second)))
	case "500-stored":
		if c.method != "POST" {
			f.what = ""
			return f, false
		}
		effect := chance.IntN(2) == 0
		f.serve = func() { w.sim.Stripe.FailCreates(1, effect) }
	}
	return f, true
}

// mishap is what can befall any call.
func (w *world) mishap(f fate, c call) fate {
	chance := w.sched.chance
	switch x := chance.IntN(11); {
	case x < 3:
		f.what, f.lost = "answer lost", true
	case x == 3:
		f.what, f.lost, f.none = "refused", true, true
	case x == 4:
		f.what, f.hang, f.none = "hang", true, chance.IntN(2) == 0
	case x == 5:
		return answerOf(f, []int{500, 502, 503, 504}[chance.IntN(4)], nil, "<html>sorry</html>")
	case x == 6:
		return answerOf(f, 429, map[string]string{"Retry-After": []string{"", "1", "5", "60"}[chance.IntN(4)]}, "{}")
	case x == 7:
		f.what, f.half = "half an answer", true
	case x == 8 && c.system == "billing" && c.makes:
		effect := chance.IntN(2) == 0
		f.what, f.serve = "500 stored", func() { w.sim.Stripe.FailCreates(1, effect) }
	case x == 8 && strings.Contains(c.query, "skiptoken"):
		return answerOf(f, 400, nil, `{"error":{"code":"BadRequest","message":"Invalid Skip Token, skip token is null"}}`)
	case x == 8 && c.system == "crm":
		f.what, f.serve = "sessions end", w.sim.Salesforce.EndSessions
	case x == 9 && (c.system == "audit" || c.system == "directory"):
		// Seen: a 200 that breaks off with an error written into it.
		f = answerOf(f, 200, nil, `{"value":[],"error":{"code":"UnknownError","message":""}}`)
		f.what = "error written into the answer"
	default:
		f.what, f.before, f.after = "slow", time.Duration(chance.Int64N(int64(40*time.Second))), time.Duration(chance.Int64N(int64(10*time.Second)))
	}
	return f
}

// dies ends the process at this step, before or after the effect.
func (w *world) dies(p *process, f *fate) bool {
	if w.plan.deaths == 0 || w.sched.chance.Float64() >= w.plan.deaths {
		return false
	}
	f.dies = []string{"before", "after"}[w.sched.chance.IntN(2)]
	f.what = "dies " + f.dies
	return true
}

// stops lets the process stand still for minutes, as a machine does that is moved; its lease may end meanwhile.
func (w *world) stops(p *process) bool {
	if w.plan.pauses == 0 || w.sched.chance.Float64() >= w.plan.pauses {
		return false
	}
	p.hinder = true
	p.paused = time.Now().Add(time.Duration(w.sched.chance.Int64N(int64(6 * time.Minute))))
	return true
}

// befallsLedger decides what happens to an operation of the ledger.
func (w *world) befallsLedger(p *process, op string) (f fate) {
	chance := w.sched.chance
	f.before = time.Duration(1+chance.IntN(10))*time.Millisecond + time.Duration(chance.IntN(1e6))
	if w.calm() || w.dies(p, &f) || w.stops(p) {
		return f
	}
	if w.in("ledger", "fails") {
		f.what, f.none = "fails", true
		return f
	}
	if !w.in("ledger", "loses") && (w.plan.writes == 0 || chance.Float64() >= w.plan.writes) {
		return f
	}
	switch chance.IntN(4) {
	case 0:
		f.what, f.none = "fails", true
	case 1:
		f.what, f.lost = "answer lost", true
	case 2:
		f.what, f.half = "half", true
	default:
		f.what, f.before = "slow", time.Duration(chance.Int64N(int64(20*time.Second)))
	}
	return f
}
