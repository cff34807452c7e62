package connectortest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// The names of the checks, for Harness.Skip.
const (
	ManyCalls       = "one account for many calls"
	TwoUsers        = "two users have two accounts"
	LostAnswer      = "lost answer"
	FailedAfter     = "unavailable after the effect"
	SpentKey        = "stored failure under the key"
	ForgottenKey    = "forgotten key"
	ChangedRecord   = "record changed after a lost answer"
	ChangedAddress  = "address changed after a lost answer"
	SameTime        = "calls at the same time"
	KnownConfirmed  = "known account is found again"
	KnownStranger   = "known account of somebody else"
	Throttled       = "throttled"
	Unavailable     = "unavailable"
	BadCredential   = "bad credential"
	RejectedRecord  = "rejected record"
	Cancelled       = "cancelled"
	NoAddress       = "no e-mail address"
	CheckIsReadOnly = "check changes nothing"
	CheckCredential = "check sees a bad credential"
	FailedLookup    = "failed look-up"
	Secrecy         = "secrecy"
)

// Checks returns all checks.
func Checks() []Check {
	return []Check{
		{ManyCalls, manyCalls},
		{TwoUsers, twoUsers},
		{LostAnswer, func(ctx context.Context, s *System) error { return s.afterwards(ctx, 1, s.LoseAnswer, 0, nil) }},
		{FailedAfter, func(ctx context.Context, s *System) error { return s.afterwards(ctx, 1, s.FailAfterEffect, 0, nil) }},
		{SpentKey, func(ctx context.Context, s *System) error { return s.afterwards(ctx, 1, s.SpoilKey, 0, nil) }},
		{ForgottenKey, func(ctx context.Context, s *System) error {
			return s.afterwards(ctx, 1, s.LoseAnswer, 25*time.Hour, nil)
		}},
		{ChangedRecord, changedRecord},
		{ChangedAddress, changedAddress},
		{SameTime, sameTime},
		{KnownConfirmed, knownConfirmed},
		{KnownStranger, knownStranger},
		{Throttled, throttled},
		{Unavailable, unavailable},
		{BadCredential, badCredential},
		{RejectedRecord, rejectedRecord},
		{Cancelled, cancelledCall},
		{NoAddress, noAddress},
		{CheckIsReadOnly, checkIsReadOnly},
		{CheckCredential, checkCredential},
		{FailedLookup, failedLookup},
		{Secrecy, secrecy},
	}
}

func manyCalls(ctx context.Context, s *System) error {
	first := ""
	for i := range 6 {
		req := s.request(1)
		req.Unsure = i%2 == 1
		a, err := s.follow(ctx, req)
		if err != nil {
			return fmt.Errorf("call %d: %w", i+1, err)
		}
		if err := checkAccount(a); err != nil {
			return err
		}
		if first == "" {
			first = a.ID
		}
		if a.ID != first {
			return fmt.Errorf("call %d: account %q, want %q as before", i+1, a.ID, first)
		}
		s.Clock.Advance(time.Minute)
	}
	return s.one(1)
}

func twoUsers(ctx context.Context, s *System) error {
	a, err := s.insist(ctx, 1, s.request(1))
	if err != nil {
		return err
	}
	b, err := s.insist(ctx, 2, s.request(2))
	if err != nil {
		return err
	}
	if a.ID == b.ID {
		return fmt.Errorf("both users have account %q", a.ID)
	}
	return errors.Join(s.one(1), s.one(2))
}

// afterwards lets something go wrong with the first call for user n, waits, changes the request, and insists.
func (s *System) afterwards(ctx context.Context, n int, wrong func(), wait time.Duration, change func(*signup.Request)) error {
	wrong()
	req := s.request(n)
	a, err := s.Connector.Associate(ctx, req)
	if err != nil {
		if _, err := outcome(err, signup.Transient); err != nil {
			return err
		}
	} else if err := checkAccount(a); err != nil {
		return err
	}
	s.Heal()
	s.Clock.Advance(max(wait, time.Minute))
	req.Unsure = true
	if change != nil {
		change(&req)
	}
	if _, err := s.insist(ctx, n, req); err != nil {
		return err
	}
	return s.one(n)
}

func changedRecord(ctx context.Context, s *System) error {
	return s.afterwards(ctx, 1, s.LoseAnswer, 0, func(r *signup.Request) { r.Record = s.Record(address, "Ada King") })
}

// changedAddress is the worst of it: the address is another in the directory and at the destination, and the key is
// forgotten.
func changedAddress(ctx context.Context, s *System) error {
	for n, wait := range []time.Duration{0, 25 * time.Hour} {
		err := s.afterwards(ctx, n, s.LoseAnswer, wait, func(r *signup.Request) {
			s.Move(r.User, "moved@example.com")
			r.Email, r.Record = "countess@example.com", s.Record("countess@example.com", name)
		})
		if err != nil {
			return fmt.Errorf("after %s: %w", wait, err)
		}
	}
	return nil
}

func sameTime(ctx context.Context, s *System) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		bad  error
		seen = map[string]bool{}
	)
	for i := range 8 {
		wg.Go(func() {
			req := s.request(1)
			req.Unsure = i%2 == 1
			a, err := s.Connector.Associate(ctx, req)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				seen[a.ID] = true
			} else if _, err := outcome(err, signup.Transient, signup.Throttled); err != nil {
				bad = err
			}
		})
	}
	wg.Wait()
	if bad != nil {
		return bad
	}
	s.Clock.Advance(time.Minute)
	req := s.request(1)
	req.Unsure = true
	a, err := s.insist(ctx, 1, req)
	if err != nil {
		return err
	}
	if seen[a.ID] = true; len(seen) != 1 {
		return fmt.Errorf("%d different accounts were returned", len(seen))
	}
	return s.one(1)
}

func knownConfirmed(ctx context.Context, s *System) error {
	a, err := s.insist(ctx, 1, s.request(1))
	if err != nil {
		return err
	}
	s.Clock.Advance(25 * time.Hour)
	req := s.request(1)
	req.Known = a.ID
	b, err := s.insist(ctx, 1, req)
	if err != nil {
		return err
	}
	if b.ID != a.ID {
		return fmt.Errorf("account %q, want the known %q", b.ID, a.ID)
	}
	return s.one(1)
}

func knownStranger(ctx context.Context, s *System) error {
	req := s.request(1)
	req.Known = s.Stranger()
	a, err := s.insist(ctx, 1, req)
	if err != nil {
		return err
	}
	if a.ID == req.Known {
		return errors.New("an account that is not the user's was taken for it")
	}
	return s.one(1)
}
