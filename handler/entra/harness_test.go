package entra_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

const (
	jane = signup.UserID("75b523ca-d064-4ddf-80af-87738f504026")
	joan = signup.UserID("243b1de4-ad9f-421c-a933-d55305fb165d")
	app  = "6ea3bc85-aec2-4b1c-92ff-4a117afb6621"
)

var (
	start  = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	window = signup.Window{From: start, To: start.Add(time.Hour)}
)

// clock moves only when somebody sleeps, and remembers for how long.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept = append(c.slept, d)
	c.now = c.now.Add(d)
	return ctx.Err()
}

// credential gives a token without asking anybody, and remembers what it was asked for.
type credential struct {
	mu    sync.Mutex
	asked []policy.TokenRequestOptions
	token string // "" = one that is opaque
	err   error
	empty bool
}

func (c *credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, o)
	token := cmp.Or(c.token, "secret-token")
	if o.Claims != "" {
		token = "token-with-claims"
	}
	if c.empty {
		token = ""
	}
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, c.err
}

// graph is a scripted Microsoft Graph over TLS: each call gets the next answer, and the last one again and again.
type graph struct {
	*httptest.Server
	t          *testing.T
	clock      *clock
	credential *credential
	log        bytes.Buffer

	mu       sync.Mutex
	answers  []http.HandlerFunc
	requests []recorded
}

type recorded struct {
	Method, Path  string
	Query         url.Values
	RawQuery      string
	Header        http.Header
	Body          string
	ContentLength int64
	Chunked       bool
}

func newGraph(t *testing.T, answers ...http.HandlerFunc) *graph {
	g := &graph{t: t, clock: &clock{now: start}, credential: &credential{}, answers: answers}
	g.Server = httptest.NewTLSServer(g)
	g.Server.Config.ErrorLog = nil
	t.Cleanup(g.Close)
	return g
}

func (g *graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	g.requests = append(g.requests, recorded{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), RawQuery: r.URL.RawQuery, Header: r.Header,
		Body: string(body), ContentLength: r.ContentLength, Chunked: len(r.TransferEncoding) > 0,
	})
	next := g.answers[0]
	if len(g.answers) > 1 {
		g.answers = g.answers[1:]
	}
	g.mu.Unlock()
	next(w, r)
}

func (g *graph) asked() []recorded {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests
}

func (g *graph) open(change ...func(*entra.Options)) *entra.Tenant {
	g.t.Helper()
	o := entra.Options{
		GraphURL: g.URL, Credential: g.credential, HTTP: g.Client(), Clock: g.clock,
		Log:    slog.New(slog.NewTextHandler(&g.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Jitter: func(d time.Duration) time.Duration { return d },
	}
	for _, c := range change {
		c(&o)
	}
	tenant, err := entra.Open(o)
	if err != nil {
		g.t.Fatal(err)
	}
	return tenant
}

func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header()[http.CanonicalHeaderKey(header[i])] = []string{header[i+1]}
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// page is a collection's page; next is a path and query, or a whole URL.
func page(next string, records ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		link := ""
		if strings.HasPrefix(next, "/") {
			next := "https://" + r.Host + next
			link = fmt.Sprintf(`,"@odata.nextLink":%q`, next)
		} else if next != "" {
			link = fmt.Sprintf(`,"@odata.nextLink":%q`, next)
		}
		answer(200, `{"@odata.context":"x","value":[`+strings.Join(records, ",")+`]`+link+`}`)(w, r)
	}
}

// cut sends half an answer and breaks the connection.
func cut(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func refusal(status int, code, message string, header ...string) http.HandlerFunc {
	body, _ := json.Marshal(map[string]any{"error": map[string]any{
		"code": code, "message": message,
		"innerError": map[string]any{"request-id": "94fb3b52-452a-4535-a601-69e0a90e3aa2"},
	}})
	return answer(status, string(body), header...)
}

func addUser(id string, at time.Time, user signup.UserID) string {
	return fmt.Sprintf(`{"id":%q,"activityDisplayName":"Add user","activityDateTime":%q,"result":"success",`+
		`"targetResources":[{"id":%q,"displayName":"Jane Doe","type":"User","userPrincipalName":"jane@fabrikam.com"}]}`,
		id, at.Format(time.RFC3339Nano), user)
}

// events drains a detector.
func events(t *testing.T, d signup.Detector, w signup.Window) ([]signup.Event, error) {
	t.Helper()
	var all []signup.Event
	for e, err := range d.Events(t.Context(), w) {
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, nil
}
