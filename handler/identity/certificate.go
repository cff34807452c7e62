package identity

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"signup-sync/handler/signup"
)

const (
	// vaultEvery is how often the vault is asked for a new version while all goes well.
	vaultEvery = time.Hour
	// vaultAgain follows a time when the vault could not be asked.
	vaultAgain = 5 * time.Minute
	// vaultAtOnce is how often it is asked when Entra refuses the certificate.
	vaultAtOnce = time.Minute
	// vaultTime bounds one look into the vault, so that what is in hand can still be used after it.
	vaultTime = 10 * time.Second
	// versionsTried is how many versions are tried, the newest first.
	versionsTried = 3
	// refusedFor is how long a version that failed is left alone while another works.
	refusedFor = 5 * time.Minute
	// warnAgain is how often the same is said as long as it is so: alerts count lines.
	warnAgain = 24 * time.Hour
	// ExpiresSoon is how long before its end the certificate in use is warned of, once a day.
	ExpiresSoon = 30 * 24 * time.Hour
)

// certificate is the app's credential by a client certificate in Key Vault. It tries the newest version, and takes it only
// once Entra has issued a token for it: Key Vault renews a certificate before the app registration knows the new version.
// Until then the version works on that did, or, in a process that has just begun, an older one.
type certificate struct {
	o     AppOptions
	vault *vault

	turn     chan struct{}                // holds one element; whoever took it may go on, so that waiting ends with the caller's context
	versions []*version                   // newest first, as the vault has shown them last
	using    *version                     // the one for which Entra has issued a token last
	inUse    atomic.Pointer[[2]time.Time] // its dates, for who takes no turn
	asked    time.Time                    // when the vault was asked last
	askAt    time.Time                    // when it is to be asked again
	vaultErr error                        // why it could not be asked the last time
	unlisted error                        // why no more than the latest version is known
	warned   time.Time                    // when it was last said that the certificate expires
}

// version is one version of the certificate: as the vault lists it, and once it was loaded. Times may be zero: not known.
type version struct {
	id                           string
	disabled                     bool
	created, notBefore, notAfter time.Time

	credential azcore.TokenCredential // nil until it was loaded
	thumbprint string
	inVault    bool // the key never leaves the vault

	failed time.Time     // when it was last of no use; zero = it is not known to be
	err    *signup.Error // why
	told   time.Time     // when that was last said of the newest one
}

func newCertificate(o AppOptions) (*certificate, error) {
	v, err := openVault(o.Vault, o.Name, o.Identity, o.HTTP)
	if err != nil {
		return nil, err
	}
	c := &certificate{o: o, vault: v, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c, nil
}

func (c *certificate) lock(ctx context.Context) error {
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return tokenError(ctx.Err())
	}
}

func (c *certificate) unlock() { c.turn <- struct{}{} }

// GetToken implements azcore.TokenCredential; it is called when there is no token at hand, and keeps none.
func (c *certificate) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if err := c.lock(ctx); err != nil {
		return azcore.AccessToken{}, err
	}
	defer c.unlock()
	begun := time.Now()
	if !begun.Before(c.askAt) {
		c.ask(ctx, begun)
	}
	token, err := c.elect(ctx, o, begun)
	if errors.Is(err, errRefused) && begun.Sub(c.asked) >= vaultAtOnce {
		c.ask(ctx, begun)
		if token, again := c.elect(ctx, o, begun); again == nil {
			return token, nil
		}
	}
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Err == errRefused && c.unlisted != nil {
		alone := *e
		alone.Detail += "; others are not known, since the identity may not list them (" + SecretsUser + ")"
		err = &alone
	}
	return token, err
}

// elect asks for a token with one version after the other, but not with those that have failed since begun. The error is
// that of the version in use, or else that of the newest.
func (c *certificate) elect(ctx context.Context, o policy.TokenRequestOptions, begun time.Time) (azcore.AccessToken, error) {
	candidates := c.candidates(begun)
	if len(candidates) == 0 {
		return azcore.AccessToken{}, c.nothing(begun)
	}
	var first error
	silent := false // the vault does not answer
	for _, v := range candidates {
		works := c.using != nil && c.using.failed.IsZero()
		lately := v != c.using && begun.Sub(v.failed) < refusedFor
		if !v.failed.Before(begun) || works && lately || silent && (v.credential == nil || v.inVault) {
			continue
		}
		token, err := c.try(ctx, v, o)
		if err == nil {
			c.take(v)
			return token, nil
		}
		if first == nil || v == c.using {
			first = err
		}
		if !v.ownFault() {
			return azcore.AccessToken{}, err // another version would fare no better
		}
		silent = silent || v.err.Class != signup.Systemic
	}
	if first == nil {
		first = candidates[0].err // none was tried, since all have failed since begun
	}
	return azcore.AccessToken{}, first
}

// candidates are the versions that may be tried, newest first, and the one in use in any case.
func (c *certificate) candidates(now time.Time) []*version {
	var all []*version
	for _, v := range c.versions {
		if v.unusable(now) == "" && len(all) < versionsTried {
			all = append(all, v)
		}
	}
	if c.using != nil && !slices.Contains(all, c.using) {
		all = append(all, c.using)
	}
	return all
}

// unusable says why a version is passed over; "" if it is not.
func (v *version) unusable(now time.Time) string {
	switch {
	case v.disabled:
		return "disabled"
	case !v.notAfter.IsZero() && now.After(v.notAfter):
		return "expired"
	case now.Before(v.notBefore):
		return "not yet valid"
	}
	return ""
}

// nothing is the error when there is no version to try.
func (c *certificate) nothing(now time.Time) error {
	if len(c.versions) == 0 {
		return c.vaultErr
	}
	v := c.versions[0]
	return c.vault.failed(signup.Systemic, 0, fmt.Sprintf("no version can be used; the newest, %s, is %s: enable one, or make and register a new one", v.id, v.unusable(now)))
}

// try asks for a token with one version, which is loaded before if need be.
func (c *certificate) try(ctx context.Context, v *version, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	err := c.load(ctx, v)
	if err == nil {
		var token azcore.AccessToken
		if token, err = v.credential.GetToken(ctx, o); err == nil {
			v.failed, v.err = time.Time{}, nil
			return token, nil
		}
	}
	v.failed, v.err = time.Now(), tokenError(err)
	return azcore.AccessToken{}, v.err
}

// ownFault reports that what failed last is about this version, so that another one may do: Entra has refused it, or Key
// Vault did not give it or sign by it.
func (v *version) ownFault() bool { return v.err.Code == "key-vault" || v.err.Err == errRefused }

// refused is the code with which Entra has refused the version; "" if it has not.
func (v *version) refused() string {
	if v.err == nil || v.err.Err != errRefused {
		return ""
	}
	return v.err.Code
}

// load reads what is in a version, once.
func (c *certificate) load(ctx context.Context, v *version) error {
	if v.credential != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, vaultTime)
	defer cancel()
	m, err := c.vault.load(ctx, v.id)
	if err != nil {
		return err
	}
	return c.fill(v, m)
}

// fill makes the credential of a version.
func (c *certificate) fill(v *version, m *material) (err error) {
	leaf := m.chain[0]
	print := sha1.Sum(leaf.Raw)
	v.thumbprint, v.inVault = strings.ToUpper(hex.EncodeToString(print[:])), m.key == nil
	v.notBefore, v.notAfter = leaf.NotBefore, leaf.NotAfter
	if why := v.unusable(time.Now()); why != "" {
		return c.vault.failed(signup.Systemic, 0, "version "+v.id+" is "+why)
	}
	if v.inVault {
		v.credential, err = newAsserted(c.o, func(ctx context.Context) (string, error) { return signIn(ctx, c.vault, m, c.o) })
	} else {
		v.credential, err = azidentity.NewClientCertificateCredential(c.o.Tenant, c.o.ClientID, m.chain, m.key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: c.o.client(), DisableInstanceDiscovery: true})
	}
	if err != nil {
		v.credential = nil
		return c.vault.failed(signup.Systemic, 0, "no credential can be made of it: check ENTRA_TENANT_ID and ENTRA_CLIENT_ID")
	}
	return nil
}

// take notes that Entra has issued a token for v, and says what a person should know.
func (c *certificate) take(v *version) {
	now := time.Now()
	if c.using != nil && c.using != v {
		c.o.Log.Info("another version of the certificate is used from now on", "certificate", c.o.Name, "version", v.id, "before", c.using.id)
	}
	c.using = v
	c.inUse.Store(&[2]time.Time{v.notBefore, v.notAfter})
	if newest := c.candidates(now)[0]; newest.err != nil && newest.err.Class == signup.Systemic && now.Sub(newest.told) >= warnAgain {
		newest.told = now
		c.o.Log.Warn("the newest version of the certificate cannot be used; an older one is used", "certificate", c.o.Name, "newest", newest.id, "used", v.id, "err", newest.err)
	}
	if left := v.notAfter.Sub(now); left < ExpiresSoon && now.Sub(c.warned) >= warnAgain {
		c.warned = now
		c.o.Log.Warn("the certificate expires soon", "certificate", c.o.Name, "version", v.id, "days", int(left/(24*time.Hour)))
	}
}

// ask looks for versions. What is in hand stays, whatever the vault says.
func (c *certificate) ask(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, vaultTime)
	defer cancel()
	c.asked = now
	listed, err := c.vault.list(ctx)
	if c.unlisted = nil; forbidden(err) {
		c.unlisted = err
		listed, err = c.latest(ctx)
	}
	if c.vaultErr = err; err == nil {
		c.askAt = now.Add(vaultEvery)
		c.merge(listed)
		return
	}
	if len(c.versions) == 0 {
		return
	}
	c.askAt = now.Add(vaultAgain)
	c.o.Log.Warn("Key Vault cannot be asked for a newer version of the certificate; the one in hand is used", "certificate", c.o.Name, "err", err)
}

// latest is the one version that can be had where versions may not be listed, before those that are known already.
func (c *certificate) latest(ctx context.Context) ([]*version, error) {
	m, err := c.vault.load(ctx, "")
	if err != nil {
		return nil, err
	}
	v := &version{id: m.id}
	if slices.ContainsFunc(c.versions, func(known *version) bool { return known.id == m.id }) {
		return c.versions, nil
	}
	if err := c.fill(v, m); err != nil {
		return nil, err
	}
	return append([]*version{v}, c.versions...), nil
}

// merge takes in a list of versions; what is known of those that it holds is kept, but for whether they are disabled.
func (c *certificate) merge(listed []*version) {
	for i, v := range listed {
		for _, known := range c.versions {
			if known.id == v.id {
				known.disabled, listed[i] = v.disabled, known
			}
		}
	}
	c.versions = listed
}
