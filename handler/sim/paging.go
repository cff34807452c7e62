package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
)

// pager keeps the skip tokens that were given out. A token is opaque, good for the query that made it only, for a
// while, and any number of times.
type pager struct {
	tokens map[string]page
	given  []string // oldest first
	count  int
}

// page is where a skip token goes on.
type page struct {
	query   string
	made    time.Time
	offset  int    // so many items were shown
	after   string // the id of the last of them
	replica int    // lists of users go on where they began
	number  int    // of the page, from 1
}

// give makes a token. Its form is that of the published samples.
func (p *pager) give(pg page, life time.Duration, r *rand.Rand) string {
	if p.tokens == nil {
		p.tokens = map[string]page{}
	}
	for len(p.given) > 0 && pg.made.Sub(p.tokens[p.given[0]].made) > life {
		delete(p.tokens, p.given[0])
		p.given = p.given[1:]
	}
	p.count++
	token := fmt.Sprintf("%016x%016x__%d", r.Uint64(), r.Uint64(), p.count)
	p.tokens[token] = pg
	p.given = append(p.given, token)
	return token
}

// resume finds the page of a call's skip token; the first page if there is none, false if the token is not good.
func (p *pager) resume(c *graphCall, life time.Duration) (page, bool) {
	token, given := skipToken(c.query)
	query := c.request.URL.Path + "?" + canonical(c.query)
	if !given {
		return page{query: query, replica: c.replica, number: 1}, true
	}
	pg, ok := p.tokens[token]
	return pg, ok && pg.query == query && c.now.Sub(pg.made) <= life
}

// skipToken reads the token; the pages of the audit log spell it without the dollar sign.
func skipToken(q url.Values) (string, bool) {
	for _, name := range []string{"$skiptoken", "skiptoken"} {
		if q.Has(name) {
			return q.Get(name), true
		}
	}
	return "", false
}

func canonical(q url.Values) string {
	out := url.Values{}
	for k, v := range q {
		if k != "$skiptoken" && k != "skiptoken" {
			out[k] = v
		}
	}
	return out.Encode()
}

// nextLink is the address of the page that follows.
func (c *graphCall) nextLink(token string) string {
	q := url.Values{}
	for k, v := range c.query {
		if k != "skiptoken" {
			q[k] = v
		}
	}
	q.Set("$skiptoken", token)
	scheme := "http"
	if c.request.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.request.Host + c.request.URL.Path + "?" + strings.ReplaceAll(q.Encode(), "%24", "$")
}

// cut takes a page out of all items, in order, of which id names one. It goes on behind the last item shown, or where
// as many items as were shown end, whichever comes first: when rows have arrived in front some are shown twice, when
// rows have gone none is passed over.
func cut[T any](items []T, pg page, size int, id func(T) string) (part []T, next page, more bool) {
	start := min(pg.offset, len(items))
	if pg.after != "" {
		for i := range slices.Backward(items) { // the last of that id: a row may have been published twice
			if id(items[i]) == pg.after {
				start = min(start, i+1)
				break
			}
		}
	}
	end := min(start+size, len(items))
	part = items[start:end]
	next = pg
	next.number++
	next.offset = end
	if len(part) > 0 {
		next.after = id(part[len(part)-1])
	}
	return part, next, end < len(items)
}

// hash spreads a string evenly.
func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
