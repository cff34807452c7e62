package pipeline_test

import (
	"context"
	"testing"
	"time"

	"signup-sync/handler/signup"
)

func TestADestinationThatHangsMakesNobodyLateElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		w.systems["news"].before = func(ctx context.Context, _ signup.Request) error {
			<-time.After(30 * time.Second)
			return errDown
		}
		w.users.put(withAttribute(w.users.all[id], "optIn", true))
		over := make(chan struct{})
		go func() {
			defer close(over)
			w.mustRun(time.Minute)
		}()
		time.Sleep(time.Minute + 5*time.Second)
		w.want(id, "billing: associated", "crm: associated", "news: pending", "profile: pending")
		rows, err := w.ledger.Get(t.Context(), []signup.UserID{id})
		if err != nil || rows[0].Intent.IsZero() || rows[0].Starts != 1 {
			t.Errorf("got %+v, %v, want the intent open while a call is on its way", rows, err)
		}
		<-over
		w.want(id, "billing: associated", "crm: associated", "news: pending transient", "profile: associated")
		if made := w.systems["billing"].made; made != 1 {
			t.Errorf("%d accounts were made, want one", made)
		}
	})
}

func withAttribute(u signup.User, name string, v any) signup.User {
	u.Attributes = map[string]any{name: v}
	return u
}
