package entra

import (
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// Backstop reads the users by createdDateTime, as Directory does, to heal what a log no longer has and to compare the
// directory with the ledger: the only place that forgets nothing. Of a guest who has accepted the invitation it says so,
// with the time of acceptance, which may lie outside of the window. Served is of its own, so that both can be read at the
// same time.
func (t *Tenant) Backstop() signup.Detector {
	return &directory{tenant: t, name: "backstop", redeemed: true}
}

// accepted is when a guest accepted the invitation, from externalUserState and externalUserStateChangeDateTime. The
// latter is the time of any change, the invitation's too, and text of no set form in beta: what cannot be read, or lies
// before the user's creation, is taken for the creation.
func accepted(state, changed any, created time.Time) (at time.Time, ok bool) {
	if s, _ := state.(string); !strings.EqualFold(s, "Accepted") {
		return created, false
	}
	text, _ := changed.(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Before(created) {
		return created, true
	}
	return at.UTC(), true
}
