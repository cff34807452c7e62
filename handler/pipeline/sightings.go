package pipeline

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// knownUsers bounds the memory of who was seen, 20 bytes and the map's own a user: more than Graph lets an app patch within an
// hour's overlap.
const knownUsers = 75_000

// key is a user's id, which is a GUID, in less than half of the memory.
type key [16]byte

func keyOf(id signup.UserID) (k key) {
	_, _ = hex.Decode(k[:], []byte(strings.ReplaceAll(string(id), "-", ""))) // every id was parsed where it came in
	return k
}

// sight is what this process remembers of a user with a row.
type sight struct {
	by    uint8 // which detectors have shown the user, a bit each; the configuration knows three
	maker uint8 // whose sighting made the row, as an index into Engine.makers
	old   bool  // the row was there before this memory: who had shown the user until then is not known
	look  bool  // the row may have to be reopened: the ledger is to be asked again
}

// Sightings count the users that a detector has shown, each once. Reads that break off cost some of them, and so do
// restarts: a user whose row was there before the process, and whose sign-up lies before the detector's watermark, may
// have been counted and is not counted again.
type Sightings struct {
	First  int     `json:"first,omitempty"`  // nobody had shown them before: their row is this detector's
	Also   []After `json:"also,omitempty"`   // somebody had
	Healed int     `json:"healed,omitempty"` // not shown by it: found in the directory while a gap of this detector was closed
	Lags   Lags    `json:"lags,omitzero"`    // from the sign-up until it was shown, as far as that was the detector's doing
}

// After counts the users that a detector has shown after the one named: whose row is that one's.
type After struct {
	Detector string `json:"after"`
	Users    int    `json:"users"`
}

func (s *Sightings) after(detector string, n int) {
	i := slices.IndexFunc(s.Also, func(a After) bool { return a.Detector == detector })
	if i < 0 {
		i, s.Also = len(s.Also), append(s.Also, After{Detector: detector})
	}
	s.Also[i].Users += n
}

// plus is the sum; it shares nothing with either.
func (s Sightings) plus(o Sightings) Sightings {
	sum := Sightings{First: s.First + o.First, Healed: s.Healed + o.Healed, Also: slices.Clone(s.Also)}
	for _, a := range o.Also {
		sum.after(a.Detector, a.Users)
	}
	sum.Lags.Merge(s.Lags)
	sum.Lags.Merge(o.Lags)
	return sum
}

// also is how many users somebody else had shown before.
func (s Sightings) also() int {
	n := 0
	for _, a := range s.Also {
		n += a.Users
	}
	return n
}

// see adds what was shown since the note was written.
func (m mark) see(s Sightings) mark {
	m.Seen = m.Seen.plus(s)
	m.Recent = m.Recent.plus(s.Lags)
	return m
}

// unknown drops repeated users (the earliest event of each stays) and those whose row needs no further look, who are
// counted. A redemption always gets a look.
func (w *watch) unknown(events []signup.Event) []signup.Event {
	e := w.run.Engine
	e.mu.Lock()
	defer e.mu.Unlock()
	at := make(map[signup.UserID]int, len(events))
	var out []signup.Event
	for _, event := range events {
		if s, ok := e.known[keyOf(event.User)]; ok && !s.look && event.Kind != signup.Redeemed {
			w.count(event)
			continue
		}
		i, ok := at[event.User]
		switch {
		case !ok:
			at[event.User] = len(out)
			out = append(out, event)
		case event.Kind == signup.Redeemed && out[i].Kind != signup.Redeemed:
			out[i] = event
		case event.Kind == out[i].Kind && event.At.Before(out[i].At):
			out[i] = event
		}
	}
	return out
}

// remember notes the users whose rows were just made, or were there, and counts the events that showed them.
func (w *watch) remember(events []signup.Event, made, there []signup.Row) {
	e := w.run.Engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil || len(e.known) > knownUsers {
		e.known = make(map[key]sight)
	}
	for _, row := range made {
		e.known[keyOf(row.User)] = sight{maker: e.maker(row.Detector)}
	}
	for _, row := range there {
		s, ok := e.known[keyOf(row.User)]
		if !ok {
			s = sight{maker: e.maker(row.Detector), old: true}
		}
		s.look = deleted(row)
		e.known[keyOf(row.User)] = s
	}
	if w.healing {
		w.fresh.Healed += len(made)
		return
	}
	for _, event := range events {
		if _, ok := e.known[keyOf(event.User)]; ok {
			w.count(event)
		}
	}
}

// count counts an event if it is the first by which this detector shows the user. Engine.mu is held.
func (w *watch) count(event signup.Event) {
	e := w.run.Engine
	s, bit := e.known[keyOf(event.User)], uint8(1)<<w.index
	if w.healing || s.by&bit != 0 {
		return
	}
	s.by |= bit
	e.known[keyOf(event.User)] = s
	switch maker := e.makers[s.maker]; {
	case s.old && event.At.Before(w.before), maker == "": // may have been counted; is forgotten
		return
	case maker == w.d.Name(): // also after a run that died between the row and the count
		w.fresh.First++
	default:
		w.fresh.after(maker, 1)
	}
	shown := w.d.Served()
	if shown.IsZero() {
		shown = w.run.Clock.Now()
	}
	// After a pause of our own, and at first, everything is shown late; that is not the detector's doing.
	if shown.Sub(w.before) <= max(w.run.Settings.Overlap/4, skew) {
		w.fresh.Lags.Add(shown.Sub(event.At))
	}
}

// forgetKnown makes the detectors ask the ledger for everyone again.
func (e *Engine) forgetKnown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = nil
}

// maker is the index of a detector's name.
func (e *Engine) maker(name string) uint8 {
	i := slices.Index(e.makers, name)
	if i < 0 {
		i, e.makers = len(e.makers), append(e.makers, name)
	}
	return uint8(i)
}

// lookAgain makes the detectors ask the ledger for a user again.
func (e *Engine) lookAgain(id signup.UserID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s, ok := e.known[keyOf(id)]; ok {
		s.look = true
		e.known[keyOf(id)] = s
	}
}

func deleted(row signup.Row) bool {
	return slices.ContainsFunc(row.Associations, func(a signup.Association) bool { return a.Reason == reasonDeleted })
}

// seconds are for those who read a summary.
func seconds(d time.Duration) float64 { return d.Round(100 * time.Millisecond).Seconds() }
