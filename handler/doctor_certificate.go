package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
)

// examineCertificate looks at the versions of the app's certificate, if that is what it proves itself with.
func examineCertificate(ctx context.Context, p *patient) []finding {
	switch p.app.env.Credential {
	case identity.Federated:
		return []finding{good("certificate", "none: the managed identity stands for the app, and there is nothing to rotate")}
	case identity.Secret:
		return []finding{good("certificate", "none: the app has a client secret, whose end is shown by Entra admin center > App registrations > Certificates & secrets alone")}
	}
	_, refused := p.grant(ctx) // only then is known which version Entra takes; its own line says what came of it
	if errorCode(refused) == tokenUnreadable {
		refused = nil
	}
	if err := p.proven(ctx); err != nil {
		return nobody("certificate", err)
	}
	versions, err := p.app.credential.Certificates(ctx)
	if len(versions) == 0 && err != nil {
		return []finding{broken("certificate", p.vaultFix(err), err)}
	}
	all := p.judgeCertificates(versions, refused, p.app.env.Clock.Now())
	if err != nil {
		all = append(all, warn("certificate versions", p.vaultFix(err), "not all of its versions are known: %s", oneLine(err)))
	}
	return all
}

// vaultFix says what to do about a vault that does not show the certificate.
func (p *patient) vaultFix(err error) string {
	e, ok := errors.AsType[*signup.Error](err)
	switch {
	case ok && e.Status == http.StatusNotFound:
		return fmt.Sprintf("az keyvault certificate list --vault-name %s --query \"[].name\" --output tsv\n", p.vaultName()) + setSetting("ENTRA_CERTIFICATE", "NAME") + "\nor make it:\n" +
			fmt.Sprintf("az keyvault certificate create --vault-name %s --name %s --policy \"$(az keyvault certificate get-default-policy --output json)\"\n", p.vaultName(), p.app.env.Certificate) + p.registerCertificate("")
	case ok && e.Status == http.StatusUnauthorized:
		return "az login --tenant TENANT_OF_THE_VAULT\n" + backToSubscription
	case passing(err):
		return reach(p.app.env.KeyVault + "/healthstatus")
	}
	return p.vaultRoles(false) + "\nor, if the certificate's key cannot be exported:\n" + p.vaultRoles(true)
}

// judgeCertificates speaks of the version that is in use, and of the newest one, which comes first. refused is why there is
// no token; nil = there is one.
func (p *patient) judgeCertificates(versions []identity.CertificateStatus, refused error, now time.Time) []finding {
	if len(versions) == 0 {
		return []finding{fail("certificate", p.makeCertificate(), "there is no version of %s in the vault", p.app.env.Certificate)}
	}
	newest := versions[0]
	used := newest
	i := slices.IndexFunc(versions, func(v identity.CertificateStatus) bool { return v.InUse })
	if i >= 0 {
		used = versions[i]
	}
	all := []finding{p.judgeVersion(used, i >= 0, refused, now)}
	if i > 0 && newest.Refused != "" {
		all = append(all, warn("newest certificate", p.registerCertificate(newest.Version),
			"the newest version %s (%s) is not registered on the app (%s), and the older one is used until it ends", newest.Version, newest.Thumbprint, newest.Refused))
	}
	return all
}

// judgeVersion speaks of one version, by which the app has got a token, or would be expected to.
func (p *patient) judgeVersion(v identity.CertificateStatus, inUse bool, refused error, now time.Time) finding {
	const name = "certificate"
	renew := p.makeCertificate() + "\n" + p.registerCertificate("")
	about := "version " + v.Version
	if v.Thumbprint != "" {
		about += " (" + v.Thumbprint + ")"
	}
	where := "its key is read from the vault"
	if v.InVault {
		where = "its key never leaves the vault"
	}
	left := v.NotAfter.Sub(now)
	days := int(left.Hours() / 24)
	switch {
	case !v.NotAfter.IsZero() && left <= 0:
		return fail(name, renew, "%s has expired on %s", about, v.NotAfter.Format(time.DateOnly))
	case !inUse && errorCode(refused) == "key-vault":
		return fail(name, p.versionFix(v), "the newest is %s: %s", about, detailOf(refused))
	case !inUse && refused != nil:
		return notAsked(name, "Mend identity, token, first.", "there is no token (%s); the newest version is %s", reasonOf(refused), about)
	case !inUse:
		return warn(name, p.registerCertificate(v.Version), "no version is in use; the newest is %s", about)
	case v.NotAfter.IsZero():
		return warn(name, renew, "%s is in use, %s; when it ends is not known", about, where)
	case left < identity.ExpiresSoon:
		return warn(name, renew, "%s is in use, %s, and has %d days left", about, where, days)
	}
	return good(name, "%s is in use, %s, and has %d days left", about, where, days)
}

// versionFix says what to do about a version that the vault lists and does not let us use.
func (p *patient) versionFix(v identity.CertificateStatus) string {
	if v.Thumbprint != "" {
		return p.vaultRoles(v.InVault)
	}
	return "If it is disabled:\n" + fmt.Sprintf("az keyvault certificate set-attributes --vault-name %s --name %s --version %s --enabled true", p.vaultName(), p.app.env.Certificate, v.Version) +
		"\nIf it is forbidden:\n" + p.vaultRoles(false) + "\nor, if the certificate's key cannot be exported:\n" + p.vaultRoles(true)
}

// makeCertificate is the command that makes a new version with the same policy.
func (p *patient) makeCertificate() string {
	return fmt.Sprintf(`az keyvault certificate create --vault-name %[1]s --name %[2]s --policy "$(az keyvault certificate show --vault-name %[1]s --name %[2]s --query policy --output json)"`, p.vaultName(), p.app.env.Certificate)
}

// vaultName is the vault as the Azure CLI names it.
func (p *patient) vaultName() string {
	u, err := url.Parse(p.app.env.KeyVault)
	if err != nil {
		return "VAULT"
	}
	name, _, _ := strings.Cut(u.Hostname(), ".")
	return name
}
