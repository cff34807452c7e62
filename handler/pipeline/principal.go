package pipeline

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"signup-sync/handler/signup"
)

const (
	maxLocalPart = 64 // characters of a user principal name before the @
	maxDomain    = 48 // … and after it; so that all of it has at most 113, which is a limit of its own
)

var (
	// localPart is what Entra ID accepts before the @ of a user principal name.
	localPart = regexp.MustCompile(`^[A-Za-z0-9'._!#^~-]+$`)
	// domainName is a host name of at least two labels (RFC 1123).
	domainName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
)

// tidyDots brings dots to single ones inside, as a name without a surname or in another script leaves them over.
func tidyDots(s string) string {
	parts := strings.FieldsFunc(strings.TrimSpace(s), func(r rune) bool { return r == '.' })
	return strings.Join(parts, ".")
}

// principalName puts the local part before the domain, by the rules of user principal names. What Entra ID does not
// accept is spelled as slug does it; "" if nothing is left then.
func principalName(local, domain string) (string, error) {
	if strings.Contains(local, "@") {
		return "", errors.New("the result has an @; write only what stands before it")
	}
	if !localPart.MatchString(local) {
		local = slug(local)
	}
	switch {
	case local == "":
		return "", nil
	case domain == "":
		return "", errors.New("the user's present name has no domain")
	case len(local) > maxLocalPart:
		return "", fmt.Errorf("the result has more than %d characters", maxLocalPart)
	case len(domain) > maxDomain:
		return "", fmt.Errorf("the domain has more than %d characters; name another in profile.userPrincipalNameDomain", maxDomain)
	}
	return local + "@" + domain, nil
}

// candidates are the user principal names that are tried one after the other, while somebody else has the one before:
// the desired one, then with 2, with 3, and with the beginning of the user's id. They follow from the user alone, so that
// undo knows them without having stored any.
func candidates(desired string, id signup.UserID) []string {
	local, domain, _ := strings.Cut(desired, "@")
	names := []string{desired}
	for _, suffix := range []string{"2", "3", "-" + string(id[:8])} {
		if strings.HasSuffix(local, suffix[1:]) && suffix[0] == '-' {
			continue
		}
		stem := strings.TrimRight(local[:min(len(local), maxLocalPart-len(suffix))], ".-")
		names = append(names, stem+suffix+"@"+domain)
	}
	return names
}

// isCandidate reports that a user principal name is one that the desired one may have led to.
func isCandidate(name, desired string, id signup.UserID) bool {
	return slices.ContainsFunc(candidates(desired, id), func(c string) bool { return strings.EqualFold(c, name) })
}
