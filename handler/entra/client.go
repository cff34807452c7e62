package entra

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	kauth "github.com/microsoft/kiota-authentication-azure-go"
	khttp "github.com/microsoft/kiota-http-go"
	kjson "github.com/microsoft/kiota-serialization-json-go"
	"github.com/microsoftgraph/msgraph-sdk-go/applications"
	"github.com/microsoftgraph/msgraph-sdk-go/auditlogs"
	"github.com/microsoftgraph/msgraph-sdk-go/users"

	"signup-sync/handler/signup"
)

const (
	maxTries = 3
	// longestWait is how long a call waits for its next try; what takes longer is for the caller to come back to.
	longestWait = 10 * time.Second
	// room is what must be left before ctx's deadline after a wait.
	room = 5 * time.Second
	// maxBody is the largest answer that is read, in bytes; a page of 1,000 audit records has about 2.5 MB.
	maxBody   = 64 << 20
	userAgent = "signup-sync"
)

// kind is what a call is for: by it calls are paced and counted, and a 403 is explained.
type kind int

const (
	auditCall kind = iota
	signUpCall
	directoryCall
	profileCall
	updateCall
	applicationCall
	memberCall
	packageCall
	requestCall
	organizationCall
	policyCall
	flowCall
	policyChangeCall
	flowChangeCall
	inviteCall
	kinds
)

func (k kind) String() string {
	return [...]string{"audit", "signUps", "directory", "profile", "update", "application", "member", "package", "request", "organization", "policy", "flow", "policy change", "flow change", "invitation"}[k]
}

// request is one call of Graph, all its tries.
type request struct {
	kind   kind
	info   func(ctx context.Context) (*abstractions.RequestInformation, error)
	decode func(body *decoder) error           // of a 2xx answer, from its start for each try; nil drops the body
	refine func(e *signup.Error, g graphError) // knows more of a refusal; may be nil
	served func(date time.Time)                // gets the answer's Date; may be nil
	once   bool                                // it asks for something to be made: tried again only if surely nothing was
}

// client sends requests that the SDK's builders make.
type client struct {
	root       *url.URL
	adapter    *khttp.NetHttpRequestAdapter
	credential azcore.TokenCredential
	scope      string
	http       *http.Client
	clock      signup.Clock
	log        *slog.Logger
	jitter     func(time.Duration) time.Duration
	timeout    time.Duration
	paces      [kinds]*pace
	calls      [kinds]atomic.Int64
	throttled  atomic.Int64
}

func newClient(o Options, root *url.URL) (*client, error) {
	c := &client{
		root: root, credential: o.Credential, scope: root.String() + "/.default",
		http: &http.Client{}, clock: o.Clock, log: o.Log, jitter: o.Jitter, timeout: o.Timeout,
	}
	if loopback(root) {
		c.scope = "https://graph.microsoft.com/.default"
	}
	if o.HTTP != nil {
		c.http.Transport = o.HTTP.Transport
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	// Graph's limit is one for all reports.
	c.paces[auditCall] = newPace(4, 10*time.Second)
	c.paces[signUpCall] = c.paces[auditCall]
	// Graph takes 3,000 writes in 150 s from an app in a tenant, whatever they write to. That is 20 a second; a sixtieth is left for
	// calls that are longer on their way than those after them.
	c.paces[updateCall] = newPace(20, 1017*time.Millisecond)
	c.paces[memberCall] = c.paces[updateCall]
	c.paces[inviteCall] = c.paces[updateCall]
	// Without continuous access evaluation: its tokens live for a day, without a permission that was granted meanwhile.
	auth, err := kauth.NewAzureIdentityAuthenticationProviderWithScopesAndValidHostsAndObservabilityOptionsAndIsCaeEnabled(
		o.Credential, []string{c.scope}, []string{root.Hostname()}, kauth.ObservabilityOptions{}, false)
	if err != nil {
		return nil, fmt.Errorf("make the authentication provider: %w", err)
	}
	// The adapter only converts: its HTTP client is never used.
	c.adapter, err = khttp.NewNetHttpRequestAdapterWithParseNodeFactoryAndSerializationWriterFactoryAndHttpClient(
		auth, kjson.NewJsonParseNodeFactory(), kjson.NewJsonSerializationWriterFactory(), c.http)
	if err != nil {
		return nil, fmt.Errorf("make the request adapter: %w", err)
	}
	c.adapter.SetBaseUrl(root.String() + "/v1.0")
	return c, nil
}

func (c *client) path() map[string]string {
	return map[string]string{"baseurl": c.adapter.GetBaseUrl()}
}

func (c *client) users() *users.UsersRequestBuilder {
	return users.NewUsersRequestBuilderInternal(c.path(), c.adapter)
}

func (c *client) audits() *auditlogs.DirectoryAuditsRequestBuilder {
	return auditlogs.NewDirectoryAuditsRequestBuilderInternal(c.path(), c.adapter)
}

func (c *client) applications() *applications.ApplicationsRequestBuilder {
	return applications.NewApplicationsRequestBuilderInternal(c.path(), c.adapter)
}

// failure is a try that did not succeed.
type failure struct {
	err    error
	again  bool   // another try may do better
	claims string // asked for by a challenge for continuous access evaluation
}

// do sends r, at most three times while the waits in between are short and fit well before ctx's deadline. Every
// request but one that says so may be repeated: reads, and writes of the same values. The error is an *signup.Error, or
// ctx's.
func (c *client) do(ctx context.Context, r request) error {
	claims := ""
	for try := 1; ; try++ {
		f := c.try(ctx, r, claims)
		if f == nil {
			return nil
		}
		e, ok := errors.AsType[*signup.Error](f.err)
		if !ok || e.Status == 0 && ctx.Err() != nil {
			return cmp.Or(ctx.Err(), f.err)
		}
		if f.claims != "" && claims == "" {
			claims = f.claims
			continue
		}
		wait := e.RetryAfter
		if wait == 0 {
			wait = c.jitter(time.Second << (try - 1))
		}
		if !f.again || r.once && e.Class != signup.Throttled || try == maxTries || wait > min(longestWait, left(ctx)) {
			return f.err
		}
		c.log.InfoContext(ctx, "graph call is tried again",
			"call", r.kind.String(), "attempt", try, "wait", wait.String(), "err", e)
		if err := c.clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// left is the longest wait that leaves room for a call before ctx's deadline.
func left(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline) - room
	}
	return math.MaxInt64
}

func (c *client) try(ctx context.Context, r request, claims string) *failure {
	if err := c.wait(ctx, r.kind); err != nil {
		return &failure{err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.native(ctx, r, claims)
	if err != nil {
		return &failure{err: err}
	}
	c.calls[r.kind].Add(1)
	resp, err := c.http.Do(req)
	if err != nil {
		return &failure{err: transportError(err), again: true}
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
		_ = resp.Body.Close()
	}()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil && r.served != nil {
		r.served(date.UTC())
	}
	if _, _, refused := signup.StatusClass(resp.StatusCode); refused {
		return c.refusal(resp, r)
	}
	if r.decode == nil {
		return nil
	}
	if err := r.decode(newDecoder(resp.Body)); err != nil {
		return answerError(err, resp)
	}
	return nil
}

// wait holds the call back until its kind's pace allows it.
func (c *client) wait(ctx context.Context, k kind) error {
	p := c.paces[k]
	if p == nil {
		return nil
	}
	wait, ok := p.reserve(c.clock.Now(), left(ctx))
	if !ok {
		if err := ctx.Err(); err != nil {
			return err
		}
		return &signup.Error{
			Class: signup.Throttled, Code: "throttled", RetryAfter: wait,
			Detail: "our own pace for " + k.String() + " calls does not allow one before the deadline",
		}
	}
	if wait == 0 {
		return nil
	}
	return c.clock.Sleep(ctx, wait)
}

// native makes the HTTP request, with a token, and repeatable.
func (c *client) native(ctx context.Context, r request, claims string) (*http.Request, error) {
	info, err := r.info(ctx)
	if err != nil {
		return nil, err
	}
	native, err := c.adapter.ConvertToNativeRequest(ctx, info)
	if err != nil {
		return nil, noToken(err)
	}
	req, ok := native.(*http.Request)
	if !ok {
		return nil, fmt.Errorf("convert the request: got %T, want *http.Request", native)
	}
	req.URL.RawQuery = plainNames(req.URL.RawQuery)
	if body := info.Content; len(body) > 0 {
		// The adapter leaves the length at 0, which would send the body chunked.
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	}
	if claims != "" {
		token, err := c.credential.GetToken(ctx, policy.TokenRequestOptions{
			Scopes: []string{c.scope}, Claims: claims,
		})
		if err != nil {
			return nil, noToken(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.Token)
	}
	if req.Header.Get("Authorization") == "" {
		// The authentication provider is silent about a host that it does not trust, and about an empty token.
		return nil, &signup.Error{Class: signup.Systemic, Code: "no-token", Detail: "there is no token for the request's host"}
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("client-request-id", requestID())
	return req, nil
}

// noToken is the outcome of a call for which there is no token. That is everybody's trouble and no answer of Graph's, so
// it does not have the status, by which a 403 or 404 would be taken for one about the user. The credential says what is
// wrong; of one that does not, the text is not kept, since it may quote the request.
func noToken(err error) error {
	known, ok := errors.AsType[*signup.Error](err)
	if !ok {
		known = &signup.Error{Class: signup.Transient, Code: "no-token", Detail: "the credential gives no token"}
	}
	e := *known
	e.Status = 0
	return &e
}

// plainNames writes the $ in the names of a query's parameters as itself, as the SDK's own pipeline does: the builders'
// templates have it escaped.
func plainNames(query string) string {
	parameters := strings.Split(query, "&")
	for i, p := range parameters {
		if rest, ok := strings.CutPrefix(p, "%24"); ok {
			parameters[i] = "$" + rest
		}
	}
	return strings.Join(parameters, "&")
}

// requestID is a random GUID, by which Microsoft's support can find a request.
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
