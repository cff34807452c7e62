package functions

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// binding is the name of the timer binding in every function.json of this app.
const binding = "timer"

// Invocation is one call of the host.
type Invocation struct {
	ID          string    // the same for all attempts of one firing
	Function    string    // the name under which it was called
	Attempt     int       // 1 for the first, more under a retry policy
	MaxAttempts int       // 1 without a retry policy, 0 when the policy has no bound
	Timer       Timer     // hints only: see its fields
	Input       string    // the text that a person gave to a manual run; "" if none
	TraceParent string    // the W3C header, if the host sent it
	TraceState  string    // … and what goes with it
	UTCNow      time.Time // when the host made the call; zero if it did not say
}

// Timer is what the host says about the schedule. None of it is a watermark: Last is when the previous invocation
// started, failed or not, and all times are zero where the host has none or a date in year 1.
type Timer struct {
	PastDue     bool      // an occurrence was missed while no host was running
	Last        time.Time // start of the previous invocation
	Next        time.Time // the current occurrence; the missed one if PastDue; a future one in manual runs
	LastUpdated time.Time // when the host last wrote this status
}

// decode reads the body of a timer invocation. The body must be an object with a timer in it; beyond that, a member
// that is missing, unknown or of another type than expected is not there: the fields are hints, and a run is worth
// more than a hint.
func decode(body []byte) (Invocation, error) {
	var call struct{ Data, Metadata map[string]json.RawMessage }
	if err := json.Unmarshal(body, &call); err != nil {
		return Invocation{}, err
	}
	raw, ok := call.Data[binding]
	if !ok {
		return Invocation{}, fmt.Errorf("find Data.%s: it is missing; name the binding %q in function.json", binding, binding)
	}
	in := Invocation{Attempt: 1, MaxAttempts: 1, Input: text(call.Metadata[binding])}
	var err error
	if in.Timer, err = decodeTimer(raw); err != nil {
		return Invocation{}, err
	}

	var sys struct{ UtcNow json.RawMessage }
	hint(call.Metadata["sys"], &sys)
	in.UTCNow = instant(sys.UtcNow)

	var retry struct{ RetryCount, MaxRetryCount json.RawMessage }
	hint(call.Metadata["RetryContext"], &retry)
	if n, ok := count(retry.RetryCount); ok && n >= 0 {
		in.Attempt = n + 1
	}
	if n, ok := count(retry.MaxRetryCount); ok {
		in.MaxAttempts = max(n+1, 0) // the host's -1 means for ever
	}
	return in, nil
}

func decodeTimer(raw json.RawMessage) (Timer, error) {
	var info *struct{ IsPastDue, ScheduleStatus json.RawMessage }
	if err := json.Unmarshal(raw, &info); err != nil || info == nil {
		return Timer{}, errors.New("read Data." + binding + ": it is no object")
	}
	var t Timer
	hint(info.IsPastDue, &t.PastDue)
	var status struct{ Last, Next, LastUpdated json.RawMessage }
	hint(info.ScheduleStatus, &status)
	t.Last, t.Next, t.LastUpdated = instant(status.Last), instant(status.Next), instant(status.LastUpdated)
	return t, nil
}

// hint decodes what may be anything: of another type than v, it leaves v as it is.
func hint[T any](raw json.RawMessage, v *T) {
	var got T
	if json.Unmarshal(raw, &got) == nil {
		*v = got
	}
}

// instant reads a .NET date: RFC 3339 with 0 to 7 digits of a second's fraction, or the same without a zone, which
// is taken for UTC, the zone of every Linux host. Older hosts write "never" as a date in year 1 with any offset.
func instant(raw json.RawMessage) time.Time {
	var s string
	hint(raw, &s)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		t, err := time.Parse(layout, s)
		if err == nil && t.UTC().Year() > 1 {
			return t.UTC()
		}
	}
	return time.Time{}
}

// count reads a whole number, bare as the host sends it or in quotes.
func count(raw json.RawMessage) (int, bool) {
	var n json.Number
	hint(raw, &n)
	i, err := strconv.ParseInt(n.String(), 10, 32)
	return int(i), err == nil
}

// text reads a scalar as the host encodes it: a JSON string that contains JSON text, so a text comes quoted twice.
// What is quoted once, or not at all, is taken as it is.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	var inner string
	if strings.HasPrefix(s, `"`) && json.Unmarshal([]byte(s), &inner) == nil {
		return inner
	}
	return s
}
