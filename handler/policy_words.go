package main

import (
	"fmt"
	"slices"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

// The switches of the authorization policy, by Graph's names.
const (
	emailSubscriptions = "allowedToSignUpEmailBasedSubscriptions"
	emailVerifiedJoin  = "allowEmailVerifiedUsersToJoinOrganization"
)

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// switchesOf are the two switches as they stand.
func switchesOf(p entra.SignUpPolicy) []policyChange {
	return []policyChange{{What: emailSubscriptions, Before: onOff(p.EmailSubscriptions)}, {What: emailVerifiedJoin, Before: onOff(p.EmailVerifiedJoin)}}
}

// meaningOf says what the switches mean for people, after What is self-service sign-up for Microsoft Entra ID. That page
// has all four combinations, and the guest elsewhere who becomes a member at home; it names the first switch alone for that.
func meaningOf(p entra.SignUpPolicy) []string {
	const (
		elsewhere = "Somebody with an address in a verified domain of this tenant, and without an account here, whom another tenant invites becomes a member here by that, and a guest there: nobody here has invited them, and they are found as emailVerified."
		schools   = "Microsoft's page adds that at present only users of Office 365 for Education are added to a tenant that is managed."
		guests    = "Whom this tenant invites is a guest here in any case, wherever the account at home comes from, an unmanaged tenant or one made for the invitation included."
	)
	switch {
	case p.EmailSubscriptions && p.EmailVerifiedJoin:
		return []string{"Anyone with a mailbox in a verified domain of this tenant can sign up alone, and becomes a member here.", elsewhere, schools, guests}
	case p.EmailSubscriptions:
		return []string{"Only people who have an account here can sign up alone, for further services; nobody becomes a member by it.",
			"Whether somebody with an address in a verified domain whom another tenant invites still becomes a member here is not published for this combination: look for emailVerified users.", guests}
	case p.EmailVerifiedJoin:
		return []string{"Nobody can sign up alone: that people with a verified address may join changes nothing while the other switch is off.",
			"Who is invited by another tenant gets no account here by it.", guests}
	}
	return []string{"Nobody can sign up alone, and nobody becomes a member by a verified address.", "Who is invited by another tenant gets no account here by it.", guests}
}

// flowMeaning says what the user flows' switches mean for people.
func flowMeaning(flows []entra.UserFlow) string {
	open := 0
	for _, f := range flows {
		if f.SignUpAllowed {
			open++
		}
	}
	switch {
	case len(flows) == 0:
		return "There is no user flow, so nobody signs up as a customer."
	case open == 0:
		return "Who has an account can sign in by them; nobody can sign up as a customer."
	case open == len(flows):
		return "Anyone can sign up by them, and is found as selfService."
	}
	return fmt.Sprintf("Anyone can sign up by %d of %d of them, and is found as selfService; by the others one can only sign in.", open, len(flows))
}

// selfServiceWords are who can sign up alone with a work or school address.
var selfServiceWords = map[string]string{"anyone": "anyone with a mailbox in a verified domain", "existing": "nobody without an account", "nobody": "nobody"}

// contradiction is where the switches do not fit the origins that are brought to destinations; "" if they do. In an external
// tenant, or one of a kind that is not known, people who cannot come by e-mail are no contradiction while customers can. In
// an external tenant those who could are none either: nobody comes so.
func contradiction(origins []signup.Origin, p entra.SignUpPolicy, kind entra.TenantKind) string {
	verified, customers := slices.Contains(origins, signup.EmailVerified), slices.Contains(origins, signup.SelfService)
	who := p.SelfService()
	switch {
	case verified && who != "anyone" && kind == entra.WorkforceTenant:
		return selfServiceWords[who] + " can sign up with a work or school address, and signups.origins has emailVerified"
	case verified && who != "anyone" && !customers:
		return selfServiceWords[who] + " can sign up with a work or school address, and signups.origins has emailVerified alone"
	case !verified && who == "anyone" && (kind == "" || occurs(signup.EmailVerified, kind)):
		text := selfServiceWords[who] + " can sign up, and signups.origins leaves them out"
		if kind == "" {
			text += " (in an external tenant nobody comes so)"
		}
		return text
	}
	return ""
}

// inviteContradiction is where the guests whom signups.origins has cannot be invited; "" if they can.
func inviteContradiction(origins []signup.Origin, p entra.SignUpPolicy) string {
	if p.InvitesFrom == "none" && slices.Contains(origins, signup.Invitation) {
		return "nobody can invite guests (allowInvitesFrom is none), and signups.origins has invitation"
	}
	return ""
}

// flowContradiction is where the user flows do not fit; "" if they do. In a workforce tenant it is none that nobody comes by
// them while people can come by a verified address: what signups.origins is by default.
func flowContradiction(origins []signup.Origin, flows []entra.UserFlow, kind entra.TenantKind) string {
	open := slices.ContainsFunc(flows, func(f entra.UserFlow) bool { return f.SignUpAllowed })
	switch customers := slices.Contains(origins, signup.SelfService); {
	case customers && !open && kind == entra.WorkforceTenant && slices.Contains(origins, signup.EmailVerified):
	case customers && !open:
		text := fmt.Sprintf("no user flow of %d lets people sign up, and signups.origins has selfService", len(flows))
		if kind == "" && slices.Contains(origins, signup.EmailVerified) {
			text += " (in a workforce tenant that may be as it should)"
		}
		return text
	case !customers && open:
		return "people can sign up by a user flow, and signups.origins leaves them out"
	}
	return ""
}
