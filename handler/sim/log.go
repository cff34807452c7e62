package sim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// record is one row of a log.
type record struct {
	id     string
	at     time.Time       // when it happened
	shown  time.Time       // from when on the log shows it
	raw    json.RawMessage // exactly what is sent
	fields map[string]any  // decoded; nil if that cannot be done, and then every filter lets the row pass
}

// recordLog is the audit log or the sign-up log.
type recordLog struct {
	order Order
	rows  []*record // oldest first
}

// newRecord wraps a row; stamp is the name of its time.
func newRecord(raw json.RawMessage, stamp string, now time.Time) *record {
	rec := &record{raw: raw, at: now, shown: now}
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil {
		return rec
	}
	rec.id, _ = fields["id"].(string)
	text, _ := fields[stamp].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return rec
	}
	rec.at, rec.fields = at.UTC(), fields
	return rec
}

func (l *recordLog) add(rec *record) {
	i, _ := slices.BinarySearchFunc(l.rows, rec.at, func(r *record, at time.Time) int {
		if r.at.After(at) {
			return 1
		}
		return -1
	})
	l.rows = slices.Insert(l.rows, i, rec)
}

// visible returns what the log shows to a query, in its order.
func (l *recordLog) visible(now time.Time, retention time.Duration, s schema, clauses []clause) []*record {
	var out []*record
	for _, r := range l.rows {
		if r.shown.After(now) || r.at.Before(now.Add(-retention)) {
			continue
		}
		if r.fields == nil || s.match(clauses, r.fields) {
			out = append(out, r)
		}
	}
	switch l.order {
	case NewestFirst:
		slices.Reverse(out)
	case ShuffledWithinSecond:
		slices.SortStableFunc(out, func(a, b *record) int {
			if c := b.at.Truncate(time.Second).Compare(a.at.Truncate(time.Second)); c != 0 {
				return c
			}
			return cmp.Compare(hash(a.id), hash(b.id))
		})
	}
	return out
}

// auditSchema is what directoryAudits can be filtered by (docs: List directoryAudits, and the resource's properties).
var auditSchema = schema{
	"id":                                    {kind: "text", ops: "eq"},
	"activityDateTime":                      {kind: "time", ops: "eq ge le", more: "gt lt"},
	"activityDisplayName":                   {kind: "text", ops: "eq startswith"},
	"correlationId":                         {kind: "text", ops: "eq"},
	"loggedByService":                       {kind: "text", ops: "eq"},
	"initiatedBy/user/id":                   {kind: "text", ops: "eq"},
	"initiatedBy/user/displayName":          {kind: "text", ops: "eq"},
	"initiatedBy/user/userPrincipalName":    {kind: "text", ops: "eq startswith"},
	"initiatedBy/app/appId":                 {kind: "text", ops: "eq"},
	"initiatedBy/app/displayName":           {kind: "text", ops: "eq"},
	"targetResources/any/id":                {kind: "text", ops: "eq"},
	"targetResources/any/displayName":       {kind: "text", ops: "eq startswith"},
	"category":                              {kind: "text", more: "eq"},
	"result":                                {kind: "text", more: "eq"},
	"operationType":                         {kind: "text", more: "eq"},
	"targetResources/any/userPrincipalName": {kind: "text", more: "eq startswith"},
}

// signUpSchema is what signUps can be filtered by (docs: List signUps, beta).
var signUpSchema = schema{
	"createdDateTime":                 {kind: "time", ops: "ge le"},
	"status/errorCode":                {kind: "number", ops: "eq"},
	"signUpStage":                     {kind: "text", ops: "eq"},
	"appId":                           {kind: "text", ops: "eq"},
	"correlationId":                   {kind: "text", ops: "eq"},
	"signUpIdentityProvider":          {kind: "text", ops: "eq"},
	"signUpIdentity/signUpIdentifier": {kind: "text", ops: "eq"},
}

func (t *Tenant) listAudits(c *graphCall) reply {
	if o := c.query.Get("$orderby"); o != "" {
		l := t.audits
		switch o {
		case "activityDateTime", "activityDateTime asc":
			l.order = OldestFirst
		case "activityDateTime desc":
			l.order = NewestFirst
		default:
			return badRequest("Invalid orderby clause")
		}
		if t.o.StrictAuditFilter {
			return badRequest("Invalid orderby clause")
		}
		return t.listLog(c, l, auditSchema)
	}
	return t.listLog(c, t.audits, auditSchema)
}

func (t *Tenant) listSignUps(c *graphCall) reply {
	switch t.o.NoSignUpLog {
	case 0:
	case http.StatusNotFound:
		return notFound(lastSegment(c.route.template))
	default:
		return forbidden()
	}
	if c.query.Has("$orderby") {
		return badRequest("Invalid orderby clause")
	}
	return t.listLog(c, t.signUps, signUpSchema)
}

func (t *Tenant) getAudit(c *graphCall) reply {
	for _, r := range t.audits.visible(c.now, t.o.Retention, auditSchema, nil) {
		if r.id == c.vars[0] {
			return ok([]byte(r.raw))
		}
	}
	return notFound(c.vars[0])
}

// listLog serves a page of a log.
func (t *Tenant) listLog(c *graphCall, l recordLog, s schema) reply {
	for _, name := range []string{"$count", "$search", "$skip", "$expand"} {
		if c.query.Has(name) {
			return badRequest("Query option '" + name + "' is not allowed.")
		}
	}
	var clauses []clause
	if f := c.query.Get("$filter"); f != "" {
		var err error
		if clauses, err = parseFilter(f); err == nil {
			err = s.check(clauses, t.o.StrictAuditFilter)
		}
		if err != nil {
			return badFilter()
		}
	}
	size, good := c.top()
	if !good || size > t.o.AuditMaxTop && t.o.RefuseLargeTop {
		return badRequest("Invalid page size specified.")
	}
	if size == 0 || size > t.o.AuditMaxTop {
		size = t.o.AuditMaxTop
	}
	pg, good := t.pages.resume(c, t.o.PagingLife)
	if !good {
		return badRequest("Invalid Skip Token, skip token is null")
	}
	chance := rand.New(rand.NewPCG(t.o.Seed, hash(pg.query)+uint64(pg.number)))
	if t.o.ShortPages && size > 1 {
		size = 1 + chance.IntN(size)
	}
	if t.o.EmptyPages > 1 && pg.number%t.o.EmptyPages == 0 {
		size = 0
	}
	part, next, more := cut(l.visible(c.now, t.o.Retention, s, clauses), pg, size, func(r *record) string { return r.id })
	link := ""
	if more || size == 0 {
		next.made = c.now
		link = c.nextLink(t.pages.give(next, t.o.PagingLife, t.ids))
	}
	return ok(logPage(c, part, link))
}

// logPage writes a page with each row as it is, whether or not it can be decoded.
func logPage(c *graphCall, rows []*record, link string) []byte {
	var b bytes.Buffer
	name := lastSegment(c.route.template)
	b.WriteString(`{"@odata.context":` + quote(c.base()+"/$metadata#auditLogs/"+name))
	if len(c.selected()) == 0 {
		few := "activityDateTime,activityDisplayName"
		if name == "signUps" {
			few = "appDisplayName,appId"
		}
		b.WriteString(`,"@microsoft.graph.tips":` + quote("Use $select to choose only the properties your app needs, as this can lead to performance improvements. For example: GET auditLogs/"+name+"?$select="+few))
	}
	b.WriteString(`,"value":[`)
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(trim(r, c.selected()))
	}
	b.WriteByte(']')
	if link != "" {
		b.WriteString(`,"@odata.nextLink":` + quote(link))
	}
	b.WriteByte('}')
	return b.Bytes()
}

// trim leaves the selected properties of a row.
func trim(r *record, names []string) json.RawMessage {
	if len(names) == 0 || r.fields == nil {
		return r.raw
	}
	kept := map[string]any{}
	for _, n := range names {
		if v, ok := r.fields[n]; ok {
			kept[n] = v
		}
	}
	return mustJSON(kept)
}

func quote(s string) string { return string(mustJSON(s)) }

// mustJSON marshals what is known to be made of maps, strings and numbers.
func mustJSON(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
