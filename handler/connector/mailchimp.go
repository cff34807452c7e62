package connector

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"signup-sync/handler/signup"
)

type mailchimpSettings struct {
	network
	APIKey      string   `json:"apiKey" doc:"An API key; what follows its last hyphen is the data centre, which makes the root unless url is set." required:"true" secret:"true"`
	Audience    string   `json:"audience" doc:"The audience's id." required:"true"`
	Tags        []string `json:"tags" doc:"Tags that the contact gets while it is subscribed or asked to confirm; a customer journey that begins with a tag sends the welcome. Mailchimp does not say whether a tag from before the confirmation begins one: welcome who is asked by a journey that begins with the sign-up."`
	IDField     string   `json:"idField" doc:"The tag of a text merge field that holds the user's object id, such as ENTRAOID. With it a contact belongs to one user, whatever becomes of the address, and a contact of another user is refused; without it a contact is its address. An unsure call that finds no contact of the user at the address reads those that have changed since the sign-up; if they are more than 10,000 the user fails as not-searchable, and can be replayed only without idField."`
	Resubscribe string   `json:"resubscribe" doc:"What becomes of a contact that had left, or was archived, before the sign-up: it stays as it is (never), or is asked by mail to confirm (pending)." enum:"never,pending" default:"never"`
}

func mailchimpKind() Kind {
	return Kind{
		Name:     "mailchimp",
		Doc:      "A contact in a Mailchimp audience. Whoever is in it already keeps the state they are in: somebody who has left is not subscribed again.",
		Settings: mailchimpSettings{}, Rate: 18, Burst: 5, Concurrency: 8, Most: 10,
		Connect: Connector(openMailchimp),
		Limit:   "10 calls at the same time a key, whatever its destinations, and no published rate (mailchimp.com/developer/marketing/docs/fundamentals)",
		Record: []Field{
			{"email", "e-mail address; the user's contact address if absent"},
			{"ipSignup", "the IP address of the sign-up, as a proof of consent"},
			{"language", "a language tag"},
			{"marketingPermissions.*", "true or false, by the permission's id; for new contacts only"},
			{"mergeFields.*", "values by merge tag; of a contact that was there before only if the tenant has verified the address"},
			{"status", "the consent: skip, false or nothing (no contact is made), pending or true (Mailchimp asks by mail to confirm), subscribed (without asking: see to it that user.emailVerified is true); everyone is asked where it is not mapped"},
		},
		Fields: func(record map[string]any) (errs []error) {
			fields, _ := record["mergeFields"].(map[string]any)
			for _, tag := range sortedKeys(fields) {
				switch {
				case tag == "EMAIL":
					errs = append(errs, errors.New("record.mergeFields.EMAIL: is the address; use record.email"))
				case !mergeTag.MatchString(tag):
					errs = append(errs, fmt.Errorf("record.mergeFields.%s: a merge tag has at most 10 capital letters, digits and _", tag))
				}
			}
			return errs
		},
	}
}

var (
	dataCentre = regexp.MustCompile(`^[a-z]{2,3}\d+$`)
	audienceID = regexp.MustCompile(`^[0-9A-Za-z]{1,32}$`)
	mergeTag   = regexp.MustCompile(`^[A-Z0-9_]{1,10}$`)
	contactID  = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)
)

// mailchimpConnector makes contacts. Mailchimp knows no idempotency key, and needs none: an address has one contact. It is
// made by a POST, which is refused where there is one: a sure call begins with that, so that most users take one call. Who
// is refused, and who comes with an unsure call, is looked up before anything is changed by a PUT: the state of a contact
// that is there is never touched (but see Resubscribe), nor is one that carries another user.
type mailchimpConnector struct {
	root     string // with /3.0
	audience string
	list     string // the audience's path
	auth     string
	tags     []string
	idField  string         // "" = a contact is its address
	ask      bool           // ask those who had left
	fields   map[string]any // the merge fields that are mapped
	consents bool           // record.status is mapped
	rest     *rest
}

var _ signup.Connector = (*mailchimpConnector)(nil)

func openMailchimp(s mailchimpSettings, env Env) (signup.Connector, []error) {
	var errs []error
	if err := checkRoot(s.URL); err != nil {
		errs = append(errs, err)
	}
	centre := s.APIKey[strings.LastIndex(s.APIKey, "-")+1:]
	switch {
	case strings.ContainsFunc(s.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }):
		errs = append(errs, errors.New("settings.apiKey: has a blank or a character that no key has"))
	case s.APIKey != "" && s.URL == "" && !dataCentre.MatchString(centre):
		errs = append(errs, errors.New("settings.apiKey: does not end in a data centre such as -us21"))
	}
	if s.Audience != "" && !audienceID.MatchString(s.Audience) {
		errs = append(errs, errors.New("settings.audience: wants the audience's id, which has letters and digits only"))
	}
	if slices.ContainsFunc(s.Tags, func(tag string) bool { return strings.TrimSpace(tag) == "" || len(tag) > 100 }) {
		errs = append(errs, errors.New("settings.tags: wants tags of 1 to 100 characters"))
	}
	fields, _ := env.Shape["mergeFields"].(map[string]any)
	_, mapped := fields[s.IDField]
	_, consents := env.Shape["status"]
	switch {
	case s.IDField != "" && (s.IDField == "EMAIL" || !mergeTag.MatchString(s.IDField)):
		errs = append(errs, errors.New("settings.idField: wants the tag of a merge field: at most 10 capital letters, digits and _"))
	case s.IDField != "" && mapped:
		errs = append(errs, fmt.Errorf("settings.idField: record.mergeFields.%s is set by the connector itself", s.IDField))
	}
	if s.Resubscribe != "" && s.Resubscribe != "never" && s.Resubscribe != "pending" {
		errs = append(errs, errors.New("settings.resubscribe: wants never or pending"))
	}
	if s.URL == "" {
		s.URL = "https://" + centre + ".api.mailchimp.com"
	}
	return &mailchimpConnector{
		root: strings.TrimRight(s.URL, "/") + "/3.0", audience: s.Audience, list: "/lists/" + s.Audience,
		auth: "Basic " + base64.StdEncoding.EncodeToString([]byte("signup-sync:"+s.APIKey)),
		tags: s.Tags, idField: s.IDField, ask: s.Resubscribe == "pending", fields: fields, consents: consents,
		rest: &rest{client: redirectless(env.HTTP.Transport), clock: env.Clock, timeout: s.Timeout, most: mostContacts, judge: judgeMailchimp},
	}, errs
}

// Associate returns the user's contact, which it makes unless there is one. One that is found by the user's id, at another
// address than the user has now, is returned as it is.
func (c *mailchimpConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	w, err := wishOf(req, c.consents)
	if err != nil {
		return signup.Account{}, err
	}
	live, created, err := c.contact(ctx, req, w)
	if err != nil {
		return signup.Account{}, err
	}
	if err := c.tag(ctx, live); err != nil {
		return signup.Account{}, err
	}
	return signup.Account{ID: live.ID, Created: created}, nil
}

// contact finds the user's contact or makes it. Whom no look-up has found can have one by the time of the POST, and so can an
// address that may not be subscribed: who is refused is looked up after that.
func (c *mailchimpConnector) contact(ctx context.Context, req signup.Request, w wish) (live *contact, created bool, err error) {
	var found *contact
	if req.Unsure || req.Known != "" {
		if found, err = c.lookUp(ctx, req, w); err != nil {
			return nil, false, err
		}
	}
	if found == nil {
		live, refused := c.send(ctx, http.MethodPost, "", w, c.newContact(w))
		if code(refused) != codeExists && code(refused) != codeCompliance {
			return live, true, refused
		}
		found, err = c.lookUp(ctx, req, w)
		switch {
		case err != nil:
			return nil, false, err
		case found != nil, c.ask && code(refused) == codeCompliance:
		case code(refused) == codeCompliance, !req.Unsure:
			// A contact that is there and not to be seen may be another user's, made just now. If it is still so in the
			// next call, that does what Mailchimp says then: a PUT.
			return nil, false, refused
		}
	}
	switch {
	case found != nil && strings.EqualFold(found.ID, w.hash):
		return nil, false, errMailchimpAnswer // an id that is made of the address is not kept
	case found != nil && found.Hash != w.hash:
		return found, false, nil
	}
	live, err = c.put(ctx, req, w, found)
	return live, found == nil, err
}

// contactChange is the body of the POST and the PUT. It has no tags: a PUT ignores them, and of those in a POST Mailchimp
// does not say whether they begin a customer journey.
type contactChange struct {
	Email       string                `json:"email_address"`
	StatusIfNew string                `json:"status_if_new,omitempty"` // of a PUT
	Status      string                `json:"status,omitempty"`
	Merge       map[string]any        `json:"merge_fields,omitempty"`
	Language    string                `json:"language,omitempty"`
	SignedUpAt  string                `json:"timestamp_signup,omitempty"`
	SignedUpIP  string                `json:"ip_signup,omitempty"`
	OptedInAt   string                `json:"timestamp_opt,omitempty"`
	OptedInIP   string                `json:"ip_opt,omitempty"`
	Permissions []mailchimpPermission `json:"marketing_permissions,omitempty"`
}

// newContact is a contact with all that proves the consent.
func (c *mailchimpConnector) newContact(w wish) contactChange {
	body := contactChange{Email: w.email, Status: w.status}
	c.fill(&body, w)
	body.prove(w)
	if w.status == "subscribed" {
		body.OptedInAt, body.OptedInIP = w.at, w.ip
	}
	return body
}

// fill sets the merge fields, the user's id among them.
func (c *mailchimpConnector) fill(body *contactChange, w wish) {
	body.Merge = w.merge
	if c.idField != "" {
		body.Merge[c.idField] = string(w.user)
	}
}

// prove sets what shows where the consent is from.
func (b *contactChange) prove(w wish) {
	b.Language, b.Permissions, b.SignedUpAt, b.SignedUpIP = w.language, w.permissions, w.at, w.ip
}

// put changes the contact that was found at the address, or makes the one that a POST could not, since Mailchimp says that
// it is there and does not show it, or wants the person to be asked. What proves the consent goes with a new contact only:
// the proof of an older one is older. One to which nothing is to be changed is left alone.
func (c *mailchimpConnector) put(ctx context.Context, req signup.Request, w wish, found *contact) (*contact, error) {
	var body contactChange
	if found == nil {
		body = c.newContact(w)
		body.Status, body.StatusIfNew = "", w.status
	} else {
		body = contactChange{Email: w.email, StatusIfNew: w.status}
		own := c.idField != "" && found.belongsTo(req.User, c.idField)
		if own || req.EmailVerified && strings.EqualFold(strings.TrimSpace(req.Email), w.email) {
			c.fill(&body, w)
		}
		if c.ask && found.hadLeft(req.Created) {
			body.Status = "pending"
			body.prove(w)
		}
		if len(body.Merge) == 0 && body.Status == "" {
			return found, nil
		}
	}
	live, err := c.send(ctx, http.MethodPut, "/"+w.hash, w, body)
	if code(err) == codeCompliance && c.ask && found == nil {
		body.Status, body.StatusIfNew, body.OptedInAt, body.OptedInIP = "pending", "pending", "", ""
		live, err = c.send(ctx, http.MethodPut, "/"+w.hash, w, body)
	}
	return live, err
}

// send makes or changes a contact. skip_merge_validation, since a merge field that is required is so in forms, and no user
// shall be lost by one that is not mapped.
func (c *mailchimpConnector) send(ctx context.Context, method, path string, w wish, body contactChange) (*contact, error) {
	var live contact
	err := c.call(ctx, method, c.list+"/members"+path, url.Values{"skip_merge_validation": {"true"}}, body, &live)
	switch {
	case code(err) == codeMissing:
		return nil, errNoAudience
	case err != nil:
		return nil, err
	case !live.valid() || live.Hash != w.hash:
		return nil, errMailchimpAnswer
	case body.Merge[c.idField] != nil && !live.belongsTo(w.user, c.idField):
		// Mailchimp takes a merge field that it does not have, and drops it.
		return nil, &signup.Error{Class: signup.Systemic, Code: "not-found", Detail: "the audience has no merge field " + c.idField + ", or not one for text"}
	}
	return &live, nil
}

// tag adds the tags, of which those that the contact has already do nothing. A tag begins the welcome, so whoever has
// left gets none.
func (c *mailchimpConnector) tag(ctx context.Context, live *contact) error {
	if len(c.tags) == 0 || live.Status != "subscribed" && live.Status != "pending" {
		return nil
	}
	type tag struct {
		Name   string `json:"name"`
		Status string `json:"status"`
	}
	body := struct {
		Tags []tag `json:"tags"`
	}{}
	for _, name := range c.tags {
		body.Tags = append(body.Tags, tag{name, "active"})
	}
	err := c.call(ctx, http.MethodPost, c.list+"/members/"+live.Hash+"/tags", nil, body, nil)
	if code(err) == codeMissing {
		return &signup.Error{Class: signup.Transient, Code: "conflict", Status: http.StatusNotFound, Detail: "the contact went away meanwhile"}
	}
	return err
}

// mailchimpTime is ISO 8601 as Mailchimp's reference writes it.
const mailchimpTime = "2006-01-02T15:04:05-07:00"

// call asks for a path. out is where the answer goes; nil wants Mailchimp's answer without a body.
func (c *mailchimpConnector) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	r := request{method: method, url: c.root + path, header: http.Header{"Authorization": {c.auth}, "User-Agent": {"signup-sync"}}}
	if len(query) > 0 {
		r.url += "?" + query.Encode()
	}
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return invalidRecord("the record has a value that JSON cannot hold")
		}
		r.body = body
		r.header.Set("Content-Type", "application/json")
	}
	a, err := c.rest.call(ctx, r)
	switch {
	case err != nil:
		return err
	case out == nil && a.status == http.StatusNoContent:
		return nil
	case out == nil || json.Unmarshal(a.body, out) != nil:
		return errMailchimpAnswer
	}
	return nil
}
