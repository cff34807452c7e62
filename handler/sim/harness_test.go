package sim_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	client  = "11111111-2222-4333-8444-555555555555"
	profile = "id,displayName,givenName,surname,userPrincipalName,mail,otherMails,identities,creationType,userType,externalUserState,createdDateTime,accountEnabled"
)

// rig is a served tenant with somebody who calls it.
type rig struct {
	*testing.T
	clock  *sim.Clock
	tenant *sim.Tenant
	world  *sim.World
	server *sim.Server
	http   *http.Client
	token  string
}

// calm is a tenant in which nothing is late or doubled; a test turns on what it is about.
func calm() sim.TenantOptions {
	return sim.TenantOptions{InstantAudit: true, InstantReplicas: true, Duplicates: -1, Throttle: sim.ThrottleOff, Seed: 1}
}

func serve(t *testing.T, o sim.TenantOptions) *rig {
	t.Helper()
	r := &rig{T: t, clock: sim.NewClock(start)}
	o.Clock = r.clock
	r.tenant = sim.NewTenant(o)
	r.world = &sim.World{Tenant: r.tenant}
	s, err := sim.Serve(t.Context(), "127.0.0.1:0", r.world)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r.server, r.http = s, s.Client()
	r.as("AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "Domain.Read.All", "GroupMember.ReadWrite.All")
	return r
}

// as gives the caller a token with these roles.
func (r *rig) as(roles ...string) {
	r.token = r.tokenFor(func(c *sim.Claims) { c.Roles = roles })
}

func (r *rig) tokenFor(change func(*sim.Claims)) string {
	c := sim.Claims{Audience: "https://graph.microsoft.com", Tenant: r.tenant.ID(), App: client,
		Expires: r.clock.Now().Add(1000 * time.Hour).Unix()}
	change(&c)
	return sim.Token(c)
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (r *rig) do(req *http.Request) answer {
	r.Helper()
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	res, err := r.http.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: raw}
	_ = json.Unmarshal(raw, &a.body)
	return a
}

// get calls a path; its query comes as pairs.
func (r *rig) get(path string, query ...string) answer {
	r.Helper()
	q := url.Values{}
	for i := 0; i < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return r.do(r.request("GET", path))
}

// request makes one for a path, or for an address.
func (r *rig) request(method, path string) *http.Request {
	r.Helper()
	if !strings.HasPrefix(path, "https://") {
		path = r.server.URL + path
	}
	req, err := http.NewRequestWithContext(r.Context(), method, path, nil)
	if err != nil {
		r.Fatal(err)
	}
	return req
}

func (r *rig) patch(id signup.UserID, body string) answer {
	r.Helper()
	return r.send("PATCH", "/v1.0/users/"+string(id), body)
}

func (r *rig) send(method, path, body string) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.server.URL+path, bytes.NewBufferString(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return r.do(req)
}

// pages follows the next links, at most limit of them, and returns all rows.
func (r *rig) pages(limit int, path string, query ...string) (rows []map[string]any, pages int) {
	r.Helper()
	a := r.get(path, query...)
	for {
		pages++
		if a.status != 200 || pages > limit {
			r.Fatalf("page %d of %s: %d %s", pages, path, a.status, a.raw)
		}
		rows = append(rows, a.rows()...)
		next, more := a.body["@odata.nextLink"].(string)
		if !more {
			return rows, pages
		}
		a = r.get(next)
	}
}

func (a answer) rows() []map[string]any {
	var out []map[string]any
	list, _ := a.body["value"].([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		out = append(out, m)
	}
	return out
}

// code is the error's code.
func (a answer) code() string {
	e, _ := a.body["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

func (a answer) message() string {
	e, _ := a.body["error"].(map[string]any)
	text, _ := e["message"].(string)
	return text
}

// want fails unless the answer has the status and the error code.
func (r *rig) want(a answer, status int, code string) {
	r.Helper()
	if a.status != status || a.code() != code {
		r.Errorf("got %d %q (%s), want %d %q", a.status, a.code(), a.message(), status, code)
	}
}

func column(rows []map[string]any, name string) []string {
	var out []string
	for _, r := range rows {
		s, _ := r[name].(string)
		out = append(out, s)
	}
	return out
}

// target is the id of the first target resource.
func target(row map[string]any) string {
	list, _ := row["targetResources"].([]any)
	first, _ := list[0].(map[string]any)
	id, _ := first["id"].(string)
	return id
}
