package identity

import (
	"context"
	"errors"
	"time"

	"signup-sync/handler/signup"
)

// CertificateStatus is what is known of one version of the app's certificate. Times may be zero: not known.
type CertificateStatus struct {
	Version    string    // its id in Key Vault
	Thumbprint string    // SHA-1, hexadecimal in capitals, as portals show it; "" if the version was not read
	NotBefore  time.Time //
	NotAfter   time.Time //
	InVault    bool      // the key never leaves Key Vault
	InUse      bool      // Entra has issued the last token for it
	Refused    string    // the code with which Entra has refused it; "" = it has not, or was not asked
	PassedOver string    // "disabled", "expired" or "not yet valid"; "" = it is not
}

// InUse is from when to when the certificate is valid by which the app got its last token. It is zero where that is not known:
// before the first token, and for another kind of credential. It waits for nothing.
func (a *App) InUse() (notBefore, notAfter time.Time) {
	if a.certificate == nil {
		return notBefore, notAfter
	}
	if dates := a.certificate.inUse.Load(); dates != nil {
		return dates[0], dates[1]
	}
	return notBefore, notAfter
}

// Certificates is what is known of the certificate's versions, newest first; nil for another kind of credential. It asks
// the vault unless that was done within a minute, and reads the versions that would be tried, but asks Entra for nothing:
// which one is in use is known after a token was got. Beside the error of what could not be had, among it the list of
// versions, it returns what could.
func (a *App) Certificates(ctx context.Context) ([]CertificateStatus, error) {
	if a.certificate == nil {
		return nil, nil
	}
	return a.certificate.status(ctx)
}

func (c *certificate) status(ctx context.Context) ([]CertificateStatus, error) {
	if err := c.lock(ctx); err != nil {
		return nil, err
	}
	defer c.unlock()
	now := time.Now()
	if len(c.versions) == 0 || now.Sub(c.asked) >= vaultAtOnce {
		c.ask(ctx, now)
	}
	errs := []error{c.vaultErr}
	if c.unlisted != nil && c.vaultErr == nil {
		errs = append(errs, c.vault.failed(signup.Systemic, 0, "the identity may not list its versions, so that the latest alone is known: give it the role "+SecretsUser))
	}
	for _, v := range c.candidates(now) {
		errs = append(errs, c.load(ctx, v))
	}
	var all []CertificateStatus
	for _, v := range c.versions {
		all = append(all, CertificateStatus{Version: v.id, Thumbprint: v.thumbprint, NotBefore: v.notBefore, NotAfter: v.notAfter,
			InVault: v.inVault, InUse: v == c.using, Refused: v.refused(), PassedOver: v.unusable(now)})
	}
	return all, errors.Join(errs...)
}
