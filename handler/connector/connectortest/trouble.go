package connectortest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

func throttled(ctx context.Context, s *System) error {
	s.Throttle(90 * time.Second)
	_, err := s.Connector.Associate(ctx, s.request(1))
	e, err := outcome(err, signup.Throttled)
	if err != nil {
		return err
	}
	if e.RetryAfter != 90*time.Second {
		return fmt.Errorf("retry after %s, want the 1m30s that were asked for", e.RetryAfter)
	}
	s.Heal()
	if _, err := s.insist(ctx, 1, s.request(1)); err != nil {
		return err
	}
	return s.one(1)
}

func unavailable(ctx context.Context, s *System) error {
	s.Unavailable()
	_, err := s.Connector.Associate(ctx, s.request(1))
	if _, err := outcome(err, signup.Transient); err != nil {
		return err
	}
	if _, err := outcome(s.Connector.Check(ctx), signup.Transient); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	s.Heal()
	if _, err := s.insist(ctx, 1, s.request(1)); err != nil {
		return err
	}
	return s.one(1)
}

func badCredential(ctx context.Context, s *System) error {
	s.BreakCredential()
	for _, unsure := range []bool{false, true} {
		req := s.request(1)
		req.Unsure = unsure
		_, err := s.Connector.Associate(ctx, req)
		if _, err := outcome(err, signup.Systemic); err != nil {
			return err
		}
	}
	s.Heal()
	if got := s.Accounts(user(1)); got != 0 {
		return fmt.Errorf("%d accounts were made with a bad credential", got)
	}
	return nil
}

func rejectedRecord(ctx context.Context, s *System) error {
	req := s.request(1)
	req.Record = s.Rejected(req.User)
	_, err := s.Connector.Associate(ctx, req)
	if _, err := outcome(err, signup.Permanent); err != nil {
		return err
	}
	if got := s.Accounts(user(1)); got != 0 {
		return fmt.Errorf("%d accounts were made of a rejected record", got)
	}
	return nil
}

func cancelledCall(ctx context.Context, s *System) error {
	before, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Connector.Associate(before, s.request(1))
	if err := wantCancelled(err); err != nil {
		return fmt.Errorf("cancelled before: %w", err)
	}
	if s.Stall == nil {
		return nil
	}
	during, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := s.Stall()
	go func() {
		<-stalled
		cancel()
	}()
	_, err = s.Connector.Associate(during, s.request(1))
	s.Heal()
	if err := wantCancelled(err); err != nil {
		return fmt.Errorf("cancelled during: %w", err)
	}
	return nil
}

func wantCancelled(err error) error {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return fmt.Errorf("an outcome (%s) was made of it", e.Class)
	}
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("got %w, want the context's error", err)
	}
	return nil
}

func noAddress(ctx context.Context, s *System) error {
	s.LoseAnswer()
	req := s.request(1)
	req.Email, req.EmailVerified, req.Record = "", false, s.Record("", name)
	if s.NeedsAddress {
		return s.skipped(ctx, req)
	}
	if _, err := s.insist(ctx, 1, req); err != nil {
		return err
	}
	return s.one(1)
}

func (s *System) skipped(ctx context.Context, req signup.Request) error {
	_, err := s.Connector.Associate(ctx, req)
	if _, err := outcome(err, signup.Skip); err != nil {
		return err
	}
	if got := s.Accounts(req.User); got != 0 {
		return fmt.Errorf("%d accounts were made without an address", got)
	}
	return nil
}

func checkIsReadOnly(ctx context.Context, s *System) error {
	if _, err := s.insist(ctx, 1, s.request(1)); err != nil {
		return err
	}
	before := s.State()
	if err := s.Connector.Check(ctx); err != nil {
		return err
	}
	if after := s.State(); after != before {
		return fmt.Errorf("the system holds\n%s\nand before the check\n%s", after, before)
	}
	return nil
}

func checkCredential(ctx context.Context, s *System) error {
	s.BreakCredential()
	_, err := outcome(s.Connector.Check(ctx), signup.Systemic)
	return err
}

func failedLookup(ctx context.Context, s *System) error {
	s.FailLookups()
	req := s.request(1)
	req.Unsure = true
	_, err := s.Connector.Associate(ctx, req)
	if _, err := outcome(err, signup.Transient); err != nil {
		return err
	}
	if got := s.Accounts(user(1)); got != 0 {
		return fmt.Errorf("%d accounts were made although nobody could look", got)
	}
	s.Heal()
	if _, err := s.insist(ctx, 1, req); err != nil {
		return err
	}
	return s.one(1)
}

// secrecy collects what the connector says when things go wrong, and looks for what must not be in it.
func secrecy(ctx context.Context, s *System) error {
	var said strings.Builder
	try := func(wrong func(), change func(*signup.Request)) {
		if wrong != nil {
			wrong()
		}
		for _, unsure := range []bool{false, true} {
			req := s.request(1)
			req.Unsure = unsure
			if change != nil {
				change(&req)
			}
			_, err := s.Connector.Associate(ctx, req)
			for e := err; e != nil; e = errors.Unwrap(e) {
				fmt.Fprintf(&said, "%v %+v\n", e, e)
			}
		}
		if err := s.Connector.Check(ctx); err != nil {
			fmt.Fprintf(&said, "%v %+v\n", err, err)
		}
		s.Heal()
		s.Clock.Advance(time.Minute)
	}
	wrongs := []func(){s.LoseAnswer, s.FailAfterEffect, s.SpoilKey, s.Unavailable, s.FailLookups, s.BreakCredential}
	if s.Throttle != nil {
		wrongs = append(wrongs, func() { s.Throttle(time.Minute) })
	}
	if s.Rejected != nil {
		try(nil, func(r *signup.Request) { r.Record = s.Rejected(r.User) })
	}
	for _, wrong := range wrongs {
		if wrong != nil {
			try(wrong, nil)
		}
	}
	said.WriteString(s.Log())
	text := strings.ToLower(said.String())
	for _, secret := range append([]string{address, url.QueryEscape(address), "lovelace"}, s.Secrets...) {
		if i := strings.Index(text, strings.ToLower(secret)); i >= 0 {
			line := text[strings.LastIndexByte(text[:i], '\n')+1:]
			line, _, _ = strings.Cut(line, "\n")
			return fmt.Errorf("an error or a log line holds something secret: %s", line)
		}
	}
	return nil
}
