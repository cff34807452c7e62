package sim

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MailchimpMember is a contact of the simulated audience.
type MailchimpMember struct {
	ID          string // contact_id
	Email       string
	Status      string // "subscribed", "unsubscribed", "cleaned", "pending", "transactional" or "archived"
	Compliance  bool   // it left by itself, bounced or is under review: it cannot be subscribed, only asked
	Merge       map[string]any
	Tags        []string
	Language    string
	SignedUpAt  time.Time
	SignedUpIP  string
	OptedInAt   time.Time
	OptedInIP   string
	Permissions map[string]bool
	LastChanged time.Time
	Asked       int // mails that asked to confirm
	Welcomes    int // customer journeys that a tag has begun
}

// Hash is what Mailchimp calls the contact's id: the MD5 of its address in lower case.
func (m MailchimpMember) Hash() string { return mailchimpHash(m.Email) }

func mailchimpHash(email string) string {
	sum := md5.Sum([]byte(strings.ToLower(email)))
	return hex.EncodeToString(sum[:])
}

func (m MailchimpMember) clone() MailchimpMember {
	m.Merge, m.Permissions, m.Tags = maps.Clone(m.Merge), maps.Clone(m.Permissions), slices.Clone(m.Tags)
	return m
}

// Members returns the truth, the archived ones included, in the order of creation.
func (s *Mailchimp) Members() []MailchimpMember {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []MailchimpMember
	for _, m := range s.members {
		all = append(all, m.clone())
	}
	return all
}

// Add makes a contact as somebody else would; ID and LastChanged are set if they are not, and Status is subscribed. It
// returns the contact's id.
func (s *Mailchimp) Add(m MailchimpMember) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	setDefault(&m.Status, "subscribed")
	setDefault(&m.LastChanged, s.o.Clock.Now().UTC())
	return s.add(m).ID
}

func (s *Mailchimp) add(m MailchimpMember) *MailchimpMember {
	s.made++
	sum := sha256.Sum256([]byte("contact" + strconv.Itoa(s.made)))
	setDefault(&m.ID, hex.EncodeToString(sum[:])[:32])
	m = m.clone()
	s.members = append(s.members, &m)
	return &m
}

// Edit changes a contact, by address, contact id or hash, as somebody else would.
func (s *Mailchimp) Edit(key string, change func(*MailchimpMember)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.find(key); m != nil {
		m.LastChanged = s.o.Clock.Now().UTC()
		change(m)
	}
}

// Unsubscribe lets a contact leave by the link in a mail.
func (s *Mailchimp) Unsubscribe(key string) {
	s.Edit(key, func(m *MailchimpMember) { m.Status, m.Compliance = "unsubscribed", true })
}

// Forget deletes an address for good, whether or not there is a contact: no call takes it again.
func (s *Mailchimp) Forget(email string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten[mailchimpHash(email)] = true
	s.members = slices.DeleteFunc(s.members, func(m *MailchimpMember) bool { return m.Hash() == mailchimpHash(email) })
}

// Suppress lets compliance keep an address off the audience: a call that would make a contact of it is refused, unless
// it asks by the status pending.
func (s *Mailchimp) Suppress(email string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suppressed[mailchimpHash(email)] = true
}

// find takes what the path of a contact takes: the hash of its address, the address, or its contact id.
func (s *Mailchimp) find(key string) *MailchimpMember {
	for _, m := range s.members {
		if m.ID == key || s.hash(m) == key || strings.EqualFold(m.Email, key) {
			return m
		}
	}
	return nil
}

// hash is a contact's hash, which is computed once for each address.
func (s *Mailchimp) hash(m *MailchimpMember) string {
	h := s.hashes[m]
	if h.email != m.Email {
		h = addressHash{m.Email, m.Hash()}
		s.hashes[m] = h
	}
	return h.hash
}

type addressHash struct{ email, hash string }

// object is the contact as Mailchimp's API shows it.
func (s *Mailchimp) object(m *MailchimpMember) map[string]any {
	merge := map[string]any{}
	for _, f := range s.o.Fields {
		merge[f.Tag] = ""
		if v, ok := m.Merge[f.Tag]; ok {
			merge[f.Tag] = v
		}
	}
	tags := []any{}
	for i, name := range m.Tags {
		tags = append(tags, map[string]any{"id": i + 1, "name": name})
	}
	permissions := []any{}
	for _, id := range slices.Sorted(maps.Keys(m.Permissions)) {
		permissions = append(permissions, map[string]any{"marketing_permission_id": id, "text": "", "enabled": m.Permissions[id]})
	}
	return map[string]any{
		"id": m.Hash(), "email_address": m.Email, "unique_email_id": m.Hash()[:10], "contact_id": m.ID, "full_name": "", "web_id": 440689824,
		"email_type": "html", "status": m.Status, "merge_fields": merge, "interests": map[string]any{},
		"stats": map[string]any{"avg_open_rate": 0, "avg_click_rate": 0}, "ip_signup": m.SignedUpIP, "timestamp_signup": mailchimpStamp(m.SignedUpAt),
		"ip_opt": m.OptedInIP, "timestamp_opt": mailchimpStamp(m.OptedInAt), "member_rating": 2, "last_changed": mailchimpStamp(m.LastChanged),
		"language": m.Language, "vip": false, "email_client": "", "marketing_permissions": permissions, "source": "API - Generic",
		"tags_count": len(tags), "tags": tags, "list_id": s.o.Audience,
	}
}

// mailchimpStamp is a time as Mailchimp writes it: without fractions, and "" for none.
func mailchimpStamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05-07:00")
}

func mailchimpSince(text string) (time.Time, *mailchimpReply) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		bad := mailchimpRefusal(400, "Invalid Resource", "since_last_changed is not ISO 8601.")
		return at, &bad
	}
	return at, nil
}

func (s *Mailchimp) get(r *mailchimpCall) mailchimpReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(r.PathValue("member"))
	if m == nil {
		return notFoundAtMailchimp()
	}
	return mailchimpReply{200, s.object(m)}
}

// memberChange is the body of a PUT or a POST; what it holds besides is dropped.
type memberChange struct {
	Email       string         `json:"email_address"`
	StatusIfNew string         `json:"status_if_new"`
	Status      string         `json:"status"`
	Merge       map[string]any `json:"merge_fields"`
	Language    string         `json:"language"`
	SignedUpAt  time.Time      `json:"timestamp_signup"`
	SignedUpIP  string         `json:"ip_signup"`
	OptedInAt   time.Time      `json:"timestamp_opt"`
	OptedInIP   string         `json:"ip_opt"`
	Permissions []struct {
		ID      string `json:"marketing_permission_id"`
		Enabled bool   `json:"enabled"`
	} `json:"marketing_permissions"`
}

func (s *Mailchimp) put(r *mailchimpCall) mailchimpReply {
	var c memberChange
	if json.Unmarshal(r.body, &c) != nil {
		return mailchimpRefusal(400, "JSON Parse Error", "We encountered an unspecified JSON parsing error.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(r.PathValue("member"))
	if bad := s.refuse(c, m, r.query.Get("skip_merge_validation") == "true"); bad != nil {
		return *bad
	}
	if m == nil {
		m = s.add(MailchimpMember{Status: c.StatusIfNew})
		m.Asked = asksFor(c.StatusIfNew)
	} else if c.Status != "" {
		m.Status = c.Status
		m.Asked += asksFor(c.Status)
	}
	s.apply(c, m)
	return mailchimpReply{200, s.object(m)}
}

// post makes a contact; an address that has one is refused, an archived one, too (amro/gibbon#193, VingtCinq/python-mailchimp#26),
// also if the person would be asked (supseven-at/mailchimp#7). The tags that it may name are not taken.
func (s *Mailchimp) post(r *mailchimpCall) mailchimpReply {
	var c memberChange
	if json.Unmarshal(r.body, &c) != nil {
		return mailchimpRefusal(400, "JSON Parse Error", "We encountered an unspecified JSON parsing error.")
	}
	c.StatusIfNew = c.Status
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.refuse(c, nil, r.query.Get("skip_merge_validation") == "true"); bad != nil {
		return *bad
	}
	m := s.add(MailchimpMember{Status: c.Status, Asked: asksFor(c.Status)})
	s.apply(c, m)
	return mailchimpReply{200, s.object(m)}
}

func asksFor(status string) int {
	if status == "pending" {
		return 1
	}
	return 0
}

// refuse says what is wrong with a change; m is the contact that it would change, nil if it would make one.
func (s *Mailchimp) refuse(c memberChange, m *MailchimpMember, skipMerge bool) *mailchimpReply {
	refusal := func(title, detail string, fields ...string) *mailchimpReply {
		r := mailchimpRefusal(400, title, detail)
		var errs []any
		for _, f := range fields {
			errs = append(errs, map[string]any{"field": f, "message": "Please enter a value"})
		}
		if len(errs) > 0 {
			r.body.(map[string]any)["errors"] = errs
		}
		return &r
	}
	const invalid = "Invalid Resource"
	statuses := []string{"subscribed", "unsubscribed", "cleaned", "pending", "transactional"}
	address, err := mail.ParseAddress(c.Email)
	other := s.find(c.Email)
	switch {
	case c.Email == "" && m == nil:
		return refusal(invalid, "The resource submitted could not be validated. For field-specific details, see the 'errors' array.", "email_address")
	case c.Email != "" && (err != nil || address.Address != c.Email):
		return refusal(invalid, "Please provide a valid email address.")
	case m == nil && !slices.Contains(statuses, c.StatusIfNew), c.Status != "" && !slices.Contains(statuses, c.Status):
		return refusal(invalid, "The resource submitted could not be validated. For field-specific details, see the 'errors' array.", "status")
	case strings.HasSuffix(strings.ToLower(c.Email), ".invalid"):
		return refusal(invalid, c.Email+" looks fake or invalid, please enter a real email address.")
	case m == nil && strings.HasPrefix(c.Email, "busy"):
		return refusal(invalid, c.Email+" has signed up to a lot of lists very recently; we're not allowing more signups for now")
	case m == nil && s.forgotten[mailchimpHash(c.Email)]:
		return refusal("Forgotten Email Not Subscribed", c.Email+" was permanently deleted and cannot be re-imported. The contact must re-subscribe to get back on the list.")
	case m == nil && other != nil && other.Compliance && c.StatusIfNew == "subscribed": // which of the two refusals comes first is not published
		return refusal("Member In Compliance State", c.Email+" is in a compliance state due to unsubscribe, bounce, or compliance review and cannot be subscribed.")
	case other != nil && other != m:
		return refusal("Member Exists", c.Email+" is already a list member. Use PUT to insert or update list members.")
	case m != nil && m.Compliance && c.Status == "subscribed", m == nil && s.suppressed[mailchimpHash(c.Email)] && c.Status != "pending":
		return refusal("Member In Compliance State", c.Email+" is in a compliance state due to unsubscribe, bounce, or compliance review and cannot be subscribed.")
	}
	var wrong []string
	for _, f := range s.o.Fields {
		v := c.Merge[f.Tag]
		absent := v == nil || v == ""
		text, _ := v.(string)
		_, err := strconv.ParseFloat(text, 64)
		if absent && f.Required && !skipMerge || !absent && f.Type == "number" && text != "" && err != nil {
			wrong = append(wrong, f.Tag)
		}
	}
	if len(wrong) > 0 {
		return refusal(invalid, "Your merge fields were invalid.", wrong...)
	}
	return nil
}

func (s *Mailchimp) apply(c memberChange, m *MailchimpMember) {
	m.LastChanged = s.o.Clock.Now().UTC()
	for _, f := range s.o.Fields {
		if v, ok := c.Merge[f.Tag]; ok {
			if m.Merge == nil {
				m.Merge = map[string]any{}
			}
			m.Merge[f.Tag] = v
		}
	}
	for _, text := range []struct{ to, from *string }{
		{&m.Email, &c.Email}, {&m.Language, &c.Language}, {&m.SignedUpIP, &c.SignedUpIP}, {&m.OptedInIP, &c.OptedInIP},
	} {
		if *text.from != "" {
			*text.to = *text.from
		}
	}
	if !c.SignedUpAt.IsZero() {
		m.SignedUpAt = c.SignedUpAt
	}
	if !c.OptedInAt.IsZero() {
		m.OptedInAt = c.OptedInAt
	}
	for _, p := range c.Permissions {
		if m.Permissions == nil {
			m.Permissions = map[string]bool{}
		}
		m.Permissions[p.ID] = p.Enabled
	}
}

// tag adds and removes tags. One that is new to a subscribed contact begins a welcome; one that it has does nothing.
func (s *Mailchimp) tag(r *mailchimpCall) mailchimpReply {
	var c struct {
		Tags []struct{ Name, Status string }
		Sync bool `json:"is_syncing"`
	}
	if json.Unmarshal(r.body, &c) != nil || c.Tags == nil {
		return mailchimpRefusal(400, "Invalid Resource", "The resource submitted could not be validated.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(r.PathValue("member"))
	if m == nil {
		return notFoundAtMailchimp()
	}
	for _, t := range c.Tags {
		at := slices.Index(m.Tags, t.Name)
		switch {
		case t.Status == "active" && at < 0:
			m.Tags = append(m.Tags, t.Name)
			if m.Status == "subscribed" && !c.Sync {
				m.Welcomes++
			}
		case t.Status == "inactive" && at >= 0:
			m.Tags = slices.Delete(m.Tags, at, at+1)
		}
	}
	m.LastChanged = s.o.Clock.Now().UTC()
	return mailchimpReply{status: 204}
}
