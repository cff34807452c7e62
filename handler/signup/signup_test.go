package signup_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/signup"
)

func TestClassify(t *testing.T) {
	id := signup.UserID("75b523ca-d064-4ddf-80af-87738f504026")
	email := signup.Identity{SignInType: "emailAddress", Issuer: "contoso.onmicrosoft.com", IssuerAssignedID: "a@example.com"}
	google := signup.Identity{SignInType: "Federated", Issuer: "google.com"}
	upn := signup.Identity{SignInType: "userPrincipalName", Issuer: "contoso.onmicrosoft.com"}
	generated, readable := string(id)+"@contoso.onmicrosoft.com", "jane@contoso.onmicrosoft.com"
	for name, c := range map[string]struct {
		user signup.User
		want signup.Origin
	}{
		"user flow with e-mail":              {signup.User{CreationType: "LocalAccount", UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{email, upn}}, signup.SelfService},
		"the same after its name was given":  {signup.User{CreationType: "LocalAccount", UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{email, upn}}, signup.SelfService},
		"social, no creation type":           {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{google, upn}}, signup.SelfService},
		"B2B user flow":                      {signup.User{CreationType: "SelfServiceSignUp", UserType: "Guest", UserPrincipalName: "j_x.com#EXT#@contoso.onmicrosoft.com"}, signup.SelfService},
		"e-mail verified":                    {signup.User{CreationType: "EmailVerified", UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{upn}}, signup.EmailVerified},
		"invited":                            {signup.User{CreationType: "Invitation", UserType: "Guest", ExternalUserState: "PendingAcceptance"}, signup.Invitation},
		"guest by name, no creation type":    {signup.User{UserType: "Guest", UserPrincipalName: "j_x.com#EXT#@contoso.onmicrosoft.com"}, signup.Invitation},
		"made by an administrator":           {signup.User{UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{upn}}, signup.Admin},
		"guest without a sign of invitation": {signup.User{UserType: "Guest", UserPrincipalName: readable}, signup.Unknown},
		"no identities":                      {signup.User{UserType: "Member", UserPrincipalName: readable}, signup.Unknown},
		"generated name, nothing else":       {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{upn}}, signup.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			c.user.ID = id
			got, evidence := signup.Classify(c.user)
			if got != c.want || evidence == "" {
				t.Errorf("got %s (%s), want %s", got, evidence, c.want)
			}
		})
	}
}

func TestParseUserID(t *testing.T) {
	if got, err := signup.ParseUserID("75B523CA-D064-4DDF-80AF-87738F504026"); err != nil || got != "75b523ca-d064-4ddf-80af-87738f504026" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "75b523ca", "75b523ca-d064-4ddf-80af-87738f50402g", "75b523ca+d064-4ddf-80af-87738f504026", "75b523ca-d064-4ddf-80af-87738f504026 "} {
		if got, err := signup.ParseUserID(bad); err == nil {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}

func TestStatusClass(t *testing.T) {
	for status, want := range map[int]signup.Class{301: signup.Systemic, 400: signup.Permanent, 401: signup.Systemic, 403: signup.Systemic,
		404: signup.Permanent, 408: signup.Transient, 409: signup.Transient, 410: signup.Permanent, 429: signup.Throttled, 500: signup.Transient, 503: signup.Transient, 507: signup.Transient} {
		if got, _, ok := signup.StatusClass(status); !ok || got != want {
			t.Errorf("%d: got %v, %v; want %v", status, got, ok, want)
		}
	}
	if _, _, ok := signup.StatusClass(204); ok {
		t.Error("204: got an error")
	}
	if got := signup.ClassOf(errors.New("x")); got != signup.Transient {
		t.Errorf("unmarked: got %v, want transient", got)
	}
}

func TestScaledClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := signup.ScaledClock{Start: start, Rate: 60}
		if err := c.Sleep(context.Background(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != time.Minute {
			t.Errorf("an hour at 60 times the speed took %v, want 1m", got)
		}
		if got := c.Now().Sub(start); got != time.Hour {
			t.Errorf("got %v on the clock, want 1h", got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := c.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		if got := (signup.ScaledClock{}).Now(); time.Until(got) != 0 || got.Location() != time.UTC {
			t.Errorf("zero value: got %v, want the wall clock in UTC", got)
		}
	})
}
