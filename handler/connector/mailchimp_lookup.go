package connector

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// contact is a contact as Mailchimp shows it. Its hash is made of its address; its id is not.
type contact struct {
	Hash    string         `json:"id"`
	ID      string         `json:"contact_id"`
	Status  string         `json:"status"`
	Changed string         `json:"last_changed"`
	Merge   map[string]any `json:"merge_fields"`
}

// valid reports that an answer is a contact, with an id that may be kept.
func (x *contact) valid() bool {
	return x.Hash != "" && x.Status != "" && contactID.MatchString(x.ID) && !strings.EqualFold(x.ID, x.Hash)
}

// user is the object id that the contact carries, "" if none.
func (x *contact) user(idField string) string {
	s, _ := x.Merge[idField].(string)
	return strings.TrimSpace(s)
}

func (x *contact) belongsTo(user signup.UserID, idField string) bool {
	return strings.EqualFold(x.user(idField), string(user))
}

// hadLeft reports that the contact got no mail before then, and that nobody has changed it since: whoever leaves after
// the sign-up is not asked again, however often we are called.
func (x *contact) hadLeft(before time.Time) bool {
	changed, err := time.Parse(time.RFC3339, x.Changed)
	return err == nil && changed.Before(before) && slices.Contains([]string{"unsubscribed", "archived", "transactional"}, x.Status)
}

// lookUp finds the user's contact; nil and no error means that there is none. The contact at the user's address is the
// user's, unless idField says that it is somebody else's; by idField an unsure call finds the user's contact wherever
// its address has gone.
func (c *mailchimpConnector) lookUp(ctx context.Context, req signup.Request, w wish) (*contact, error) {
	if contactID.MatchString(req.Known) {
		known, err := c.read(ctx, req.Known)
		if err != nil {
			return nil, err
		}
		if known != nil && (c.idField != "" && known.belongsTo(req.User, c.idField) || c.idField == "" && known.Hash == w.hash) {
			return known, nil
		}
	}
	found, err := c.read(ctx, w.hash)
	if err != nil || c.idField == "" || found != nil && found.belongsTo(req.User, c.idField) {
		return found, err
	}
	if req.Unsure {
		own, err := c.search(ctx, req)
		if err != nil || own != nil {
			return own, err
		}
	}
	if found != nil && found.user(c.idField) != "" {
		return nil, &signup.Error{
			Class: signup.Permanent, Code: "taken",
			Detail: "the contact with this address carries another user; emptying its " + c.idField + " sets it free",
		}
	}
	return found, nil
}

// read gets a contact by its id or its address's hash; nil if Mailchimp says that there is none.
func (c *mailchimpConnector) read(ctx context.Context, key string) (*contact, error) {
	var got contact
	err := c.call(ctx, http.MethodGet, c.list+"/members/"+key, nil, nil, &got)
	switch {
	case code(err) == codeMissing:
		return nil, nil
	case err != nil:
		return nil, err
	case !got.valid() || got.Hash != key && got.ID != key:
		return nil, errMailchimpAnswer
	}
	return &got, nil
}

const (
	searchPage  = 500 // contacts
	searchPages = 20
	// mostContacts is the limit of a page in bytes: an audience can have dozens of merge fields of 255 characters.
	mostContacts = 16 << 20
	// searchBack covers the clocks of the tenant and of Mailchimp.
	searchBack = time.Hour
)

// search reads the contacts that have changed since the sign-up, since Mailchimp cannot be asked for the value of a
// merge field. The archived ones are a list of their own.
func (c *mailchimpConnector) search(ctx context.Context, req signup.Request) (*contact, error) {
	query := url.Values{
		"since_last_changed": {req.Created.Add(-searchBack).UTC().Format(mailchimpTime)},
		"fields":             {"members.id,members.contact_id,members.status,members.last_changed,members.merge_fields,total_items"},
		"count":              {strconv.Itoa(searchPage)},
		"sort_field":         {"timestamp_signup"}, // which does not change while we read
		"sort_dir":           {"ASC"},
	}
	for _, status := range []string{"", "archived"} {
		if status != "" {
			query.Set("status", status)
		}
		if own, err := c.searchList(ctx, req.User, query); err != nil || own != nil {
			return own, err
		}
	}
	return nil, nil
}

// searchList reads a list to its end, and is not content with less of it than there is.
func (c *mailchimpConnector) searchList(ctx context.Context, user signup.UserID, query url.Values) (*contact, error) {
	for seen, total := 0, -1; seen < total || total < 0; {
		var page struct {
			Members *[]contact `json:"members"`
			Total   *int       `json:"total_items"`
		}
		query.Set("offset", strconv.Itoa(seen))
		err := c.call(ctx, http.MethodGet, c.list+"/members", query, nil, &page)
		switch {
		case code(err) == codeMissing:
			return nil, errNoAudience
		case err != nil:
			return nil, err
		case page.Members == nil || page.Total == nil || len(*page.Members) < min(searchPage, *page.Total-seen):
			return nil, errMailchimpAnswer
		case *page.Total > searchPage*searchPages:
			return nil, &signup.Error{
				Class: signup.Permanent, Code: "not-searchable",
				Detail: fmt.Sprintf("more than %d contacts have changed since the sign-up; nobody can say whether one of them is the user's", searchPage*searchPages),
			}
		case *page.Total < total:
			return nil, &signup.Error{Class: signup.Transient, Code: "conflict", Detail: "contacts went away while they were read"}
		}
		for _, x := range *page.Members {
			switch {
			case !x.valid():
				return nil, errMailchimpAnswer
			case x.belongsTo(user, c.idField):
				return &x, nil
			}
		}
		seen, total = seen+len(*page.Members), *page.Total
	}
	return nil, nil
}

// Check reads the audience and its merge fields, and demands those that are mapped: Mailchimp drops any others without
// a word.
func (c *mailchimpConnector) Check(ctx context.Context) error {
	var ping struct {
		Health string `json:"health_status"`
	}
	if err := c.call(ctx, http.MethodGet, "/ping", nil, nil, &ping); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if ping.Health == "" {
		return fmt.Errorf("ping: %w", errMailchimpAnswer)
	}
	var list struct{ ID string }
	err := c.call(ctx, http.MethodGet, c.list, url.Values{"fields": {"id"}}, nil, &list)
	switch {
	case code(err) == codeMissing:
		return fmt.Errorf("read the audience: %w", errNoAudience)
	case err != nil:
		return fmt.Errorf("read the audience: %w", err)
	case list.ID != c.audience:
		return fmt.Errorf("read the audience: %w", errMailchimpAnswer)
	}
	if err := c.checkFields(ctx); err != nil {
		return fmt.Errorf("read the merge fields: %w", err)
	}
	return nil
}

func (c *mailchimpConnector) checkFields(ctx context.Context) error {
	wanted := sortedKeys(c.fields)
	if c.idField != "" {
		wanted = append(wanted, c.idField)
	}
	if len(wanted) == 0 {
		return nil
	}
	var got struct {
		Fields *[]struct{ Tag, Type string } `json:"merge_fields"`
	}
	query := url.Values{"count": {"1000"}, "fields": {"merge_fields.tag,merge_fields.type"}}
	if err := c.call(ctx, http.MethodGet, c.list+"/merge-fields", query, nil, &got); err != nil {
		return err
	}
	if got.Fields == nil {
		return errMailchimpAnswer
	}
	types := map[string]string{}
	for _, f := range *got.Fields {
		types[f.Tag] = f.Type
	}
	missing := slices.DeleteFunc(wanted, func(tag string) bool { return types[tag] != "" })
	switch {
	case len(missing) > 0:
		return &signup.Error{Class: signup.Systemic, Code: "not-found", Detail: "the audience has no merge field " + strings.Join(missing, ", ")}
	case c.idField != "" && types[c.idField] != "text":
		return &signup.Error{Class: signup.Systemic, Code: "wrong-type", Detail: "the merge field " + c.idField + " is not one for text"}
	}
	return nil
}

var (
	// errMailchimpAnswer is the outcome of a 2xx answer that is not what Mailchimp answers.
	errMailchimpAnswer = &signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Mailchimp's"}
	errNoAudience      = &signup.Error{Class: signup.Systemic, Code: "not-found", Status: http.StatusNotFound, Detail: "there is no such audience"}
)

const (
	// codeCompliance: the address has left, bounced or is under review, and may not be subscribed.
	codeCompliance = "compliance"
	// codeExists: there is a contact with the address, which may be an archived one.
	codeExists = "conflict"
)

// mailchimpTitles are the titles of problem documents that say something to the person who looks. Source:
// mailchimp.com/developer/marketing/docs/errors, and what users have reported.
var mailchimpTitles = []string{
	"API Key Invalid", "API Key Missing", "Account Disabled", "Compliance Related", "Forbidden", "Forgotten Email Not Subscribed", "Internal Server Error",
	"Invalid Resource", "JSON Parse Error", "Member Exists", "Member In Compliance State", "Resource Not Found", "Too Many Requests", "User Disabled", "WrongDatacenter",
}

// problem is Mailchimp's problem document (application/problem+json).
type problem struct {
	Title  string
	Status int
	Detail string // holds the address: it is looked at and never kept
	Errors []struct{ Field string }
}

// judgeMailchimp reads Mailchimp's problem documents, by title and status.
func judgeMailchimp(a answer, e *signup.Error) {
	var p problem
	if json.Unmarshal(a.body, &p) != nil || p.Status != a.status {
		p = problem{} // not Mailchimp's
	}
	if slices.Contains(mailchimpTitles, p.Title) {
		e.Detail = "mailchimp: " + p.Title
	}
	switch {
	case a.status == http.StatusNotFound && p.Title == "Resource Not Found":
		e.Class, e.Code = signup.Transient, codeMissing
	case a.status == http.StatusNotFound:
		// There is no such path: the URL is not Mailchimp's.
		e.Class, e.Code = signup.Systemic, "not-found"
	case a.status == http.StatusForbidden && !json.Valid(a.body):
		// "403 without a body" is what Mailchimp answers to far too many calls.
		e.Class, e.Code = signup.Throttled, "throttled"
	case a.status == http.StatusBadRequest:
		judgeMailchimpRequest(p, e)
	}
}

// judgeMailchimpRequest says what a 400 means. What passes by itself, and is the one user's trouble, gets the status of
// a conflict, so that nobody takes it for the service's.
func judgeMailchimpRequest(p problem, e *signup.Error) {
	switch {
	case p.Title == "Member In Compliance State":
		e.Code, e.Detail = codeCompliance, "the address has left, bounced or is under review, and may not be subscribed"
	case p.Title == "Forgotten Email Not Subscribed":
		e.Code, e.Detail = "forgotten", "the contact was deleted for good, and only a form of Mailchimp's takes the address again"
	case p.Title == "Member Exists":
		e.Class, e.Code, e.Status = signup.Transient, codeExists, http.StatusConflict
	case p.Title != "Invalid Resource":
	case strings.Contains(p.Detail, "looks fake or invalid"):
		e.Code, e.Detail = "invalid-address", "Mailchimp takes the address for a fake or invalid one"
	case strings.Contains(p.Detail, "has signed up to a lot of lists very recently"):
		e.Class, e.Code, e.Status, e.RetryAfter = signup.Transient, "too-many-lists", http.StatusConflict, 24*time.Hour
		e.Detail = "the address has joined many lists of late, and Mailchimp wants it to wait"
	case len(p.Errors) > 0:
		e.Code = "data"
		for _, x := range p.Errors {
			if tag := strings.TrimPrefix(x.Field, "merge_fields."); mergeTag.MatchString(tag) {
				e.Detail = "Mailchimp refuses the value of the merge field " + tag
				break
			}
		}
	}
}
