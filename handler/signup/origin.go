package signup

import "strings"

// Classify tells how a user got into the tenant, with the evidence for it in words that name no person. The audit
// record's actor is no evidence: nobody documents who it is for a sign-up in an external tenant.
//
// A customer made through Graph with an e-mail identity looks like one who signed up alone; only the sign-up log can
// tell the two apart.
func Classify(u User) (Origin, string) {
	email, federated, other := false, false, 0
	for _, id := range u.Identities {
		switch strings.ToLower(id.SignInType) {
		case "emailaddress", "username":
			email = true
		case "federated":
			federated = true
		case "userprincipalname":
		default:
			other++
		}
	}
	guest := strings.EqualFold(u.UserType, "Guest")
	external := strings.Contains(u.UserPrincipalName, "#EXT#")
	evidence := "creationType=" + orNone(u.CreationType) + " userType=" + orNone(u.UserType)
	if u.ExternalUserState != "" {
		evidence += " externalUserState=" + u.ExternalUserState
	}
	switch {
	case email:
		evidence += " identity=emailAddress"
	case federated:
		evidence += " identity=federated"
	case len(u.Identities) > 0:
		evidence += " identity=userPrincipalName"
	}
	if u.HasGeneratedUPN() {
		evidence += " upn=id"
	} else if external {
		evidence += " upn=#EXT#"
	}
	switch {
	case u.CreationType == "EmailVerified":
		return EmailVerified, evidence
	case u.CreationType == "SelfServiceSignUp":
		return SelfService, evidence
	case u.CreationType == "Invitation", guest && external:
		return Invitation, evidence
	case guest:
		return Unknown, evidence
	case email || federated:
		return SelfService, evidence
	case u.CreationType == "" && len(u.Identities) > 0 && other == 0 && !u.HasGeneratedUPN():
		return Admin, evidence
	}
	return Unknown, evidence
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
