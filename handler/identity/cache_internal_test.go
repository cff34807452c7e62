package identity

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// No test from outside can put the clock of a bubble back.
func TestATokenOfAClockThatWasPutBackIsNotGood(t *testing.T) {
	now := time.Now()
	e := entry{}
	e.settle(&renewal{token: azcore.AccessToken{Token: "t", ExpiresOn: now.Add(time.Hour)}}, now)
	if e.since != e.since.Round(0) {
		t.Error("the time is compared by the monotonic clock, which nobody puts back")
	}
	for _, test := range []struct {
		at   time.Duration
		want bool
	}{{-time.Second, false}, {0, true}, {59 * time.Minute, true}, {59*time.Minute + 31*time.Second, false}} {
		if got := e.good(now.Add(test.at)); got != test.want {
			t.Errorf("after %v: got %v, want %v", test.at, got, test.want)
		}
	}
}
