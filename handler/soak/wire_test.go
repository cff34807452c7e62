package soak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// call is a request on its way.
type call struct {
	system string // audit, directory, profile, patch, members, billing, newsletter, crm, welcome, or other
	method string
	path   string
	query  string
	body   []byte
	users  []signup.UserID // whom it is about, as far as it says so
	makes  bool            // it can have an effect at a destination
}

var guidPattern = regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`)

func (w *world) newCall(r *http.Request) call {
	c := call{method: r.Method, path: r.URL.Path, query: r.URL.RawQuery}
	if r.Body != nil {
		c.body, _ = io.ReadAll(r.Body) // a reader of bytes
		_ = r.Body.Close()
	}
	get := r.Method == http.MethodGet
	first, rest, _ := strings.Cut(strings.TrimPrefix(c.path, "/"), "/")
	switch {
	case first == "v1":
		c.system, c.makes = "billing", !get
	case first == "3.0":
		c.system, c.makes = "newsletter", !get
	case first == "services":
		c.system, c.makes = "crm", !get && !strings.Contains(c.path, "oauth2")
	case first == "webhook":
		c.system, c.makes = "welcome", !get
	case strings.HasPrefix(rest, "auditLogs"):
		c.system = "audit"
	case strings.HasPrefix(rest, "groups"), strings.HasSuffix(rest, "checkMemberGroups"):
		c.system, c.makes = "members", !get && !strings.HasSuffix(rest, "checkMemberGroups")
	case strings.HasPrefix(rest, "users/"):
		if c.system = "profile"; !get {
			c.system, c.makes = "patch", true
		}
	case strings.Contains(c.query, "createdDateTime"):
		c.system = "directory"
	case rest == "users":
		c.system = "profile"
	default:
		c.system = "other"
	}
	c.users = w.usersIn(c)
	return c
}

// usersIn are the people whom a call names by id, or by the address or its hash.
func (w *world) usersIn(c call) (ids []signup.UserID) {
	add := func(id signup.UserID) {
		if w.people[id] != nil && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if c.system == "newsletter" {
		for part := range strings.SplitSeq(c.path, "/") {
			add(w.byHash[part])
		}
		var contact struct {
			Email string `json:"email_address"`
		}
		if json.Unmarshal(c.body, &contact) == nil {
			add(w.byHash[sim.MailchimpMember{Email: contact.Email}.Hash()])
		}
		return ids
	}
	for _, text := range [][]byte{[]byte(c.path), []byte(c.query), c.body} {
		for _, m := range guidPattern.FindAll(text, -1) {
			add(signup.UserID(bytes.ToLower(m)))
		}
	}
	return ids
}

// key describes a call, without what differs between runs of one seed.
func (c call) key(p *process) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.query))
	_, _ = h.Write(c.body)
	return fmt.Sprintf("http %s %s %s %08x %s", p.name, c.method, c.path, h.Sum32(), short(c.users))
}

func short(ids []signup.UserID) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(string(id)[:8])
		b.WriteByte(' ')
	}
	return b.String()
}

// RoundTrip carries a call from the process to the simulated systems, or does not.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	c := p.newCall(r)
	key := c.key(p)
	f := p.sched.park(p, key, func() fate { return p.befalls(p, c) })
	if f.dead {
		return nil, errDead
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.rates.count(p, c)
	if err := p.pass(ctx, f.before, key); err != nil {
		return nil, err
	}
	if f.dies == "before" {
		p.kill()
		return nil, errDead
	}
	var answer *http.Response
	if !f.none {
		if f.serve != nil {
			f.serve()
		}
		answer = p.serve(r, c)
	}
	if f.dies == "after" {
		p.kill()
		return nil, errDead
	}
	if f.hang {
		<-ctx.Done()
		p.sched.park(p, "gave up "+key, nil)
		return nil, ctx.Err()
	}
	if err := p.pass(ctx, f.after, key); err != nil {
		return nil, err
	}
	switch {
	case f.lost && f.none:
		return nil, syscall.ECONNREFUSED
	case f.lost:
		return nil, io.ErrUnexpectedEOF
	case f.status != 0:
		answer = &http.Response{StatusCode: f.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(f.body))}
		for k, v := range f.header {
			answer.Header.Set(k, v)
		}
	}
	if answer == nil {
		return nil, io.ErrUnexpectedEOF
	}
	if f.half {
		whole, _ := io.ReadAll(answer.Body)
		answer.Body = io.NopCloser(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), broken{}))
		answer.ContentLength = -1
		answer.Header.Del("Content-Length")
	}
	answer.Request = r
	answer.Proto, answer.ProtoMajor, answer.ProtoMinor = "HTTP/1.1", 1, 1
	return answer, nil
}

// broken is an answer that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// pass lets time go by on the way.
func (p *process) pass(ctx context.Context, d time.Duration, key string) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	if p.sched.park(p, "on the way "+key, nil).dead {
		return errDead
	}
	return ctx.Err()
}

// serve lets the simulated systems answer, after a look at what the call may not do.
func (p *process) serve(r *http.Request, c call) (answer *http.Response) {
	if c.makes {
		p.checkIntent(c)
	}
	in := r.Clone(context.Background())
	in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(c.body)), int64(len(c.body))
	in.RequestURI, in.Host = r.URL.RequestURI(), r.URL.Host
	rec := httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			answer = nil
		}
	}()
	p.sim.ServeHTTP(rec, in)
	return rec.Result()
}
