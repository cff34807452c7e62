// Package connectortest is the conformance suite of signup.Connector. Its checks are values that return an error, so
// that a test can show that each of them fails on a connector with the matching fault. Every kind of connector runs it
// against a simulated system, described by a Harness.
//
// It imports signup only.
package connectortest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/signup"
)

// Harness is how a kind of connector is put to the test.
type Harness struct {
	// New makes a fresh simulated system and a connector that talks to it; it cleans up by t.
	New func(t testing.TB) *System
	// Skip names the checks that do not apply to this kind, and says why.
	Skip map[string]string
}

// System is a simulated outside system and the connector to it. A function that makes something go wrong lasts until
// Heal, unless it says that it is for one call. A nil one is allowed only where the checks that need it are skipped.
type System struct {
	Connector signup.Connector
	Clock     Clock // the one clock of the connector and the system

	Accounts func(user signup.UserID) int            // how many live accounts the user really has
	State    func() string                           // all that the system holds, to be compared
	Record   func(email, name string) map[string]any // a mapped record; email may be ""
	Stranger func() string                           // makes an account that belongs to nobody we know; its id
	Move     func(user signup.UserID, email string)  // changes the e-mail address of the user's account
	Rejected func(user signup.UserID) map[string]any // a record that the system refuses as data

	LoseAnswer      func()                         // the next call that changes something does, and its connection is cut
	FailAfterEffect func()                         // the next call that changes something does, and is answered as unavailable
	SpoilKey        func()                         // the next creation fails without effect, in a way that uses its key up
	Unavailable     func()                         // calls are answered as unavailable and have no effect
	Throttle        func(retryAfter time.Duration) // calls are refused as too many
	FailLookups     func()                         // look-ups fail; what changes something goes well
	BreakCredential func()                         // the connector's credential is not good any more
	Stall           func() <-chan struct{}         // calls hang; the channel is closed when one does
	Heal            func()

	// NeedsAddress says that a user without an e-mail address is skipped, since an account is an address there.
	NeedsAddress bool

	Log     func() string // all that the connector has logged
	Secrets []string      // what no error and no log line may hold, besides what the checks send
}

// Clock is a clock that can be moved.
type Clock interface {
	signup.Clock
	Advance(d time.Duration)
}

// Check is one promise of signup.Connector.
type Check struct {
	Name string
	Run  func(ctx context.Context, s *System) error
}

// Run runs all checks on a kind of connector, each with a fresh system.
func Run(t *testing.T, h Harness) {
	names := map[string]bool{}
	for _, c := range Checks() {
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			if why, ok := h.Skip[c.Name]; ok {
				t.Skip(why)
			}
			if err := c.Run(t.Context(), h.New(t)); err != nil {
				t.Error(err)
			}
		})
	}
	for name, why := range h.Skip {
		if !names[name] || why == "" {
			t.Errorf("skipped %q because %q: there is no such check, or no reason", name, why)
		}
	}
}

const (
	tenant  = "0a1b2c3d-0000-4000-8000-00000000cafe"
	address = "Ada.Lovelace+signup@example.com"
	name    = "Ada Lovelace"
)

// user is the nth user.
func user(n int) signup.UserID {
	return signup.UserID(fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", n))
}

// request is what the engine would ask for user n at the first try.
func (s *System) request(n int) signup.Request {
	return signup.Request{
		Tenant: tenant, User: user(n), Destination: "there", Key: key(n, 0), Created: s.Clock.Now(), Origin: signup.SelfService,
		Email: address, EmailVerified: true, Record: s.Record(address, name),
	}
}

func key(n, generation int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|there|%d", tenant, user(n), generation))
	return hex.EncodeToString(sum[:])
}

// insist calls Associate until it ends, as the engine does: every further try is unsure, after the pause that was asked
// for, and with the key of the next generation when the last one is spent.
func (s *System) insist(ctx context.Context, n int, req signup.Request) (signup.Account, error) {
	generation := 0
	for range 40 {
		a, err := s.Connector.Associate(ctx, req)
		if err == nil {
			return a, checkAccount(a)
		}
		e, ok := errors.AsType[*signup.Error](err)
		if !ok {
			return a, fmt.Errorf("error without a class: %w", err)
		}
		if e.Class != signup.Transient && e.Class != signup.Throttled {
			return a, fmt.Errorf("class %s ends it: %w", e.Class, err)
		}
		switch {
		case e.Code == "key-spent":
			generation++
			req.Key, req.Spent = key(n, generation), time.Time{}
		case e.Code == "key-settling" && req.Spent.IsZero():
			req.Spent = s.Clock.Now()
		}
		req.Unsure = true
		s.Clock.Advance(max(e.RetryAfter, time.Minute))
	}
	return signup.Account{}, errors.New("no end after 40 tries")
}

// follow calls Associate, and again as long as the system is busy with what it has accepted.
func (s *System) follow(ctx context.Context, req signup.Request) (signup.Account, error) {
	for range 40 {
		a, err := s.Connector.Associate(ctx, req)
		e, ok := errors.AsType[*signup.Error](err)
		if !ok || e.Class != signup.Transient || e.Code != "in-progress" {
			return a, err
		}
		s.Clock.Advance(max(e.RetryAfter, time.Minute))
	}
	return signup.Account{}, errors.New("in progress after 40 calls")
}

func checkAccount(a signup.Account) error {
	if a.ID == "" || len(a.ID) > 250 || strings.Contains(a.ID, "@") {
		return fmt.Errorf("account id %q: want 1 to 250 characters that hold no address", a.ID)
	}
	return nil
}

// one demands exactly one live account.
func (s *System) one(n int) error {
	if got := s.Accounts(user(n)); got != 1 {
		return fmt.Errorf("user %d has %d accounts, want 1", n, got)
	}
	return nil
}

// outcome demands an *signup.Error of one of the classes.
func outcome(err error, want ...signup.Class) (*signup.Error, error) {
	if err == nil {
		return nil, fmt.Errorf("no error, want class %s", want[0])
	}
	e, ok := errors.AsType[*signup.Error](err)
	if !ok {
		return nil, fmt.Errorf("error without a class (%w), want %s", err, want[0])
	}
	for _, c := range want {
		if e.Class == c {
			return e, nil
		}
	}
	return nil, fmt.Errorf("class %s (%w), want %s", e.Class, err, want[0])
}
