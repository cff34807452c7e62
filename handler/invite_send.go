package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

const (
	// inviteSettles is how long after an invitation whose answer was lost its guest may still be missing in look-ups.
	inviteSettles = 3 * time.Minute
	// invitePoll is between two such look-ups.
	invitePoll = 10 * time.Second
	// inviteTries is how often an invitation goes out whose answer is lost each time.
	inviteTries = 3
)

// sender invites people one after the other.
type sender struct {
	app    *app
	tenant *entra.Tenant // as the administrator
	result *inviteResult
	show   *progress
	mail   bool // Microsoft's
	params func(invitee) entra.Invitation
}

// send invites one person, once as far as anybody can know. lost is when an earlier invitation went out whose answer nobody has;
// zero if there is none. The error is one after which nobody else is to be tried.
func (s *sender) send(ctx context.Context, one invitee, lost time.Time) (inviteOutcome, error) {
	for tries := 0; ; {
		if !lost.IsZero() {
			held, found, err := s.await(ctx, one, lost)
			switch {
			case err != nil:
				return inviteOutcome{}, err
			case found && !held.Guest:
				return s.note(one, inviteExists, "", held.User, "")
			case found && s.mail: // the mail goes out with the guest
				return s.note(one, inviteInvited, "found", held.User, "")
			} // otherwise it is sent once more: without a mail that disturbs nobody, and brings the link
		}
		if tries++; tries > inviteTries {
			return inviteOutcome{}, errors.New("invitations get no answer: run the command again later, it looks first whom it has invited")
		}
		if _, err := s.note(one, inviteSending, "", "", ""); err != nil {
			return inviteOutcome{}, err
		}
		got, err := s.tenant.Invite(ctx, s.params(one))
		lost = time.Time{}
		e, _ := errors.AsType[*signup.Error](err)
		switch {
		case err == nil:
			return s.took(one, got)
		case ctx.Err() != nil:
			return inviteOutcome{}, ctx.Err()
		case e != nil && e.Class == signup.Throttled:
			tries-- // nothing was done
			s.show.say("Graph asks to wait %s.", inWords(e.RetryAfter.Round(time.Second)))
			if err := s.app.env.Clock.Sleep(ctx, e.RetryAfter); err != nil {
				return inviteOutcome{}, err
			}
		case e != nil && e.Class == signup.Permanent && e.Code == "exists":
			return s.note(one, inviteExists, "", "", "")
		case e != nil && e.Class == signup.Permanent:
			return s.note(one, inviteFailed, e.Code, "", "")
		case entra.Unsure(err):
			lost = s.app.env.Clock.Now()
		case e != nil && e.Class == signup.Systemic && e.Status != 0: // surely nothing was done, and a second start need not look
			_, noteErr := s.note(one, inviteFailed, e.Code, "", "")
			return inviteOutcome{}, errors.Join(err, noteErr)
		default:
			return inviteOutcome{}, err
		}
	}
}

// took is an invitation that was answered.
func (s *sender) took(one invitee, got entra.Invited) (inviteOutcome, error) {
	if got.Accepted {
		return s.note(one, inviteExists, "", got.User, "")
	}
	if s.mail { // the link is in the mail, and a secret
		got.RedeemURL = ""
	}
	return s.note(one, inviteInvited, "", got.User, got.RedeemURL)
}

// note writes what became of one into the result file.
func (s *sender) note(one invitee, state, reason string, user signup.UserID, redeem string) (inviteOutcome, error) {
	err := s.result.write(inviteLine{Line: one.Line, Email: one.key(), State: state, Reason: reason, User: user, Redeem: redeem, At: s.app.env.Clock.Now().UTC()})
	return inviteOutcome{Line: one.Line, Address: one.Address, State: state, Reason: reason, User: user, Redeem: redeem}, err
}

// await looks up the guest of an invitation that may have gone out, until it would show.
func (s *sender) await(ctx context.Context, one invitee, since time.Time) (entra.Holder, bool, error) {
	for {
		held, err := s.app.tenant.Holders(ctx, []string{one.key()}, func(int) {})
		if err != nil {
			return entra.Holder{}, false, err
		}
		h, found := held[one.key()]
		wait := since.Add(inviteSettles).Sub(s.app.env.Clock.Now())
		if found || wait <= 0 {
			return h, found, nil
		}
		s.show.say("The answer to an invitation was lost%s: looking for its guest.", ofLine(one.Line))
		if err := s.app.env.Clock.Sleep(ctx, min(wait, invitePoll)); err != nil {
			return entra.Holder{}, false, err
		}
	}
}

// ofLine names a line of the file, if there is one.
func ofLine(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf(" (line %d)", line)
}
