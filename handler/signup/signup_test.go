package signup_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/signup"
)

func TestClassify(t *testing.T) {
	id := signup.UserID("75b523ca-d064-4ddf-80af-87738f504026")
	email := signup.Identity{SignInType: "emailAddress", Issuer: "contoso.onmicrosoft.com", IssuerAssignedID: "a@example.com"}
	google := signup.Identity{SignInType: "Federated", Issuer: "google.com"}
	passcode := signup.Identity{SignInType: "federated", Issuer: "mail", IssuerAssignedID: "a@example.com"}
	named := signup.Identity{SignInType: "federated", Issuer: "jane@example.com"}
	upn := signup.Identity{SignInType: "userPrincipalName", Issuer: "contoso.onmicrosoft.com"}
	generated, readable, guest := string(id)+"@contoso.onmicrosoft.com", "jane@contoso.onmicrosoft.com", "j_x.com#EXT#@contoso.onmicrosoft.com"
	customer := signup.User{CreationType: "LocalAccount", UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{email, upn}}
	invited := signup.User{CreationType: "Invitation", UserType: "Guest", UserPrincipalName: guest, ExternalUserState: "PendingAcceptance", Identities: []signup.Identity{passcode}}
	reached := map[string]bool{}
	for name, c := range map[string]struct {
		user     signup.User
		proof    signup.Proof
		origin   signup.Origin
		way      signup.Way
		provider string
		evidence string // its end
	}{
		"user flow with e-mail":              {customer, signup.Proof{}, signup.SelfService, signup.ByUserFlow, "email", "creationType=LocalAccount userType=Member identity=emailAddress upn=id"},
		"the same after its name was given":  {signup.User{CreationType: "LocalAccount", UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{email, upn}}, signup.Proof{}, signup.SelfService, signup.ByUserFlow, "email", "identity=emailAddress"},
		"social, no creation type":           {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{google, upn}}, signup.Proof{}, signup.SelfService, signup.ByFederation, "google.com", "identity=federated provider=google.com upn=id"},
		"social, later linked to an address": {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{google, email, upn}}, signup.Proof{}, signup.SelfService, signup.ByUserFlow, "email", "identity=emailAddress upn=id"},
		"a user name":                        {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{{SignInType: "userName"}, upn}}, signup.Proof{}, signup.SelfService, signup.ByUserFlow, "userName", "identity=userName upn=id"},
		"an issuer that is an address":       {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{named, upn}}, signup.Proof{}, signup.SelfService, signup.ByFederation, "jane@example.com", "identity=federated provider=other upn=id"},
		"B2B user flow":                      {signup.User{CreationType: "SelfServiceSignUp", UserType: "Guest", UserPrincipalName: guest}, signup.Proof{}, signup.SelfService, signup.ByUserFlow, "", "upn=#EXT#"},
		"B2B user flow with Google":          {signup.User{CreationType: "SelfServiceSignUp", UserType: "Guest", UserPrincipalName: guest, Identities: []signup.Identity{google}}, signup.Proof{}, signup.SelfService, signup.ByFederation, "google.com", "upn=#EXT#"},
		"e-mail verified":                    {signup.User{CreationType: "EmailVerified", UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{upn}}, signup.Proof{}, signup.EmailVerified, signup.ByEmail, "", "identity=userPrincipalName"},
		"invited":                            {invited, signup.Proof{}, signup.Invitation, signup.ByInvitation, "email", "externalUserState=PendingAcceptance identity=federated provider=email upn=#EXT#"},
		"invited, in a migration":            {invited, signup.Proof{Migrated: true}, signup.Invitation, signup.ByInvitation, "email", "upn=#EXT#"},
		"guest by name, no creation type":    {signup.User{UserType: "Guest", UserPrincipalName: guest}, signup.Proof{}, signup.Invitation, signup.ByInvitation, "", "upn=#EXT#"},
		"by an access package":               {invited, signup.Proof{Requested: true}, signup.Invitation, signup.ByEntitlement, "email", "upn=#EXT# request=approved"},
		"a customer with an access package":  {customer, signup.Proof{Requested: true}, signup.SelfService, signup.ByUserFlow, "email", "upn=id"},
		"imported":                           {customer, signup.Proof{Migrated: true}, signup.Admin, signup.ByMigration, "email", "upn=id rule=signups.migrated"},
		"made by an administrator":           {signup.User{UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{upn}}, signup.Proof{}, signup.Admin, signup.ByAdmin, "", "identity=userPrincipalName"},
		"guest without a sign of invitation": {signup.User{UserType: "Guest", UserPrincipalName: readable}, signup.Proof{Migrated: true, Requested: true}, signup.Unknown, "", "", "userType=Guest"},
		"no identities":                      {signup.User{UserType: "Member", UserPrincipalName: readable}, signup.Proof{}, signup.Unknown, "", "", "userType=Member"},
		"generated name, nothing else":       {signup.User{UserType: "Member", UserPrincipalName: generated, Identities: []signup.Identity{upn}}, signup.Proof{}, signup.Unknown, "", "", "upn=id"},
		"an identity of an unknown kind":     {signup.User{UserType: "Member", UserPrincipalName: readable, Identities: []signup.Identity{{SignInType: "new"}, upn}}, signup.Proof{}, signup.Unknown, "", "", "identity=other"},
	} {
		t.Run(name, func(t *testing.T) {
			c.user.ID = id
			origin, way, evidence := signup.Classify(c.user, c.proof)
			if origin != c.origin || way != c.way || c.user.IdentityProvider() != c.provider || !strings.HasSuffix(evidence, c.evidence) || strings.Contains(evidence, "@") {
				t.Errorf("got %s, %s, %q (%s); want %s, %s, %q (… %s)", origin, way, c.user.IdentityProvider(), evidence, c.origin, c.way, c.provider, c.evidence)
			}
		})
		reached[string(c.origin)+string(c.way)] = true
	}
	for _, c := range signup.Cases {
		if !reached[string(c.Origin)+string(c.Way)] {
			t.Errorf("nobody here came by %s, %s", c.Origin, c.Way)
		}
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
