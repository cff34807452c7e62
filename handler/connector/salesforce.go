package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

type salesforceSettings struct {
	URL           string        `json:"url" doc:"The org's My Domain, https://NAME.my.salesforce.com; http:// only to this machine." required:"true"`
	Timeout       time.Duration `json:"timeout" doc:"How long one call may take, its answer included." default:"30s"`
	Auth          string        `json:"auth" doc:"jwt: as username, by a token that privateKey signs. clientCredentials: as the user set in the app, by its secret." default:"jwt" enum:"jwt,clientCredentials"`
	ClientID      string        `json:"clientId" doc:"The consumer key of the external client app." required:"true"`
	ClientSecret  string        `json:"clientSecret" doc:"The app's consumer secret, for clientCredentials." secret:"true"`
	PrivateKey    string        `json:"privateKey" doc:"The RSA key, in PEM, whose certificate the app has, for jwt." secret:"true"`
	Username      string        `json:"username" doc:"The integration user's name, for jwt."`
	Audience      string        `json:"audience" doc:"Whom the jwt is for; https://test.salesforce.com for a sandbox." default:"https://login.salesforce.com"`
	Object        string        `json:"object" doc:"The object: Contact, Lead, Account for person accounts, or a custom one such as Member__c." default:"Contact"`
	ExternalID    string        `json:"externalId" doc:"The object's text field of 36 characters for the user's object id: an external id, unique, not case-sensitive." default:"Entra_Object_Id__c"`
	APIVersion    string        `json:"apiVersion" doc:"The version of the REST API." default:"62.0"`
	Duplicates    string        `json:"duplicates" doc:"When the org's duplicate rules match other records: fail; allow, which saves it where the rule only alerts; or link the only record that matches, if it is linked to nobody and has the user's verified e-mail address." default:"fail" enum:"fail,allow,link"`
	APIUsageLimit int           `json:"apiUsageLimit" doc:"Percent of the org's daily API calls; when more are used, by whomever, the rest is left to others." default:"90" min:"1" max:"100"`
}

func salesforceKind() Kind {
	return Kind{
		Name:     "salesforce",
		Doc:      "A Salesforce record, by an external-id field that holds the user's object id; the record's fields are the object's, by API name. A field that is empty for a user is left alone. It signs in as an external client app; the integration user needs to create and edit the object, and to write the external id and the record's fields.",
		Settings: salesforceSettings{}, Rate: 5, Burst: 5, Concurrency: 4,
		Connect: Connector(openSalesforce), Fields: salesforceFieldErrors,
		Limit: "100,000 calls a day and more, by edition and licences, and 25 at the same time that last 20 s, for all that use the org (Salesforce Developer Limits, API Request Limits); up to 15 users are one call",
	}
}

const (
	// salesforceBatch is how many records a collection takes.
	salesforceBatch = 200
	// salesforcePause is how long an org that has used up its calls is left alone: they come back over 24 hours.
	salesforcePause = 15 * time.Minute
	// mostDescribed is the limit of an object's description in bytes: a Contact with country picklists has over a megabyte.
	mostDescribed = 16 << 20
	// oldestSalesforce is the API version since when the duplicate rule header is known.
	oldestSalesforce = 52
)

var (
	salesforceName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,79}$`)
	salesforceVersion = regexp.MustCompile(`^(\d{2,3})\.0$`)
	salesforceID      = regexp.MustCompile(`^[A-Za-z0-9]{15}([A-Za-z0-9]{3})?$`)
)

// salesforceConnector keeps a record a user, by an upsert on the external id: nothing has to be looked up first, and
// the same call again, also at the same time, leaves the same record. An account id on the user's record is therefore
// not needed; a record that was deleted is made anew.
type salesforceConnector struct {
	salesforceSettings
	path    string // of the API's version
	api     *rest
	session *salesforceSession
	clock   signup.Clock
	shape   map[string]any

	linking sync.Mutex // between the look whether a record is free and its link
	mu      sync.Mutex
	held    time.Time // no calls until then
}

var (
	_ signup.Connector = (*salesforceConnector)(nil)
	_ signup.Batcher   = (*salesforceConnector)(nil)
)

func openSalesforce(s salesforceSettings, env Env) (signup.Connector, []error) {
	var errs []error
	refuse := func(bad bool, why string) {
		if bad {
			errs = append(errs, errors.New("settings."+why))
		}
	}
	if err := checkRoot(s.URL); err != nil {
		errs = append(errs, err)
	} else if u, err := url.Parse(s.URL); err == nil {
		host := strings.ToLower(u.Hostname())
		refuse(host == "login.salesforce.com" || host == "test.salesforce.com" || strings.HasSuffix(host, ".lightning.force.com"),
			"url: wants the org's My Domain, https://NAME.my.salesforce.com")
	}
	refuse(s.Object != "" && !salesforceName.MatchString(s.Object), "object: wants an API name of letters, digits and _")
	refuse(s.ExternalID != "" && !salesforceName.MatchString(s.ExternalID), "externalId: wants an API name of letters, digits and _")
	refuse(s.APIUsageLimit < 1 || s.APIUsageLimit > 100, "apiUsageLimit: wants 1 to 100")
	refuse(!slices.Contains([]string{"fail", "allow", "link"}, s.Duplicates), "duplicates: wants fail, allow or link")
	version := salesforceVersion.FindStringSubmatch(s.APIVersion)
	refuse(version == nil, "apiVersion: wants a version such as 62.0")
	if version != nil {
		n, _ := strconv.Atoi(version[1]) // digits
		refuse(n < oldestSalesforce, fmt.Sprintf("apiVersion: wants %d.0 or later", oldestSalesforce))
	}
	for _, name := range sortedKeys(env.Shape) {
		if strings.EqualFold(name, s.ExternalID) {
			errs = append(errs, fmt.Errorf("record.%s: is set by the connector itself", name))
		}
	}
	form, more := salesforceGrant(s)
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, errs
	}
	s.URL = strings.TrimRight(s.URL, "/")
	client := redirectless(env.HTTP.Transport)
	return &salesforceConnector{
		salesforceSettings: s, path: "/services/data/v" + s.APIVersion, clock: env.Clock, shape: env.Shape,
		api: &rest{client: client, clock: env.Clock, timeout: s.Timeout, most: mostDescribed, judge: judgeSalesforce(s.ExternalID)},
		session: &salesforceSession{
			root: s.URL, form: form,
			rest: &rest{client: client, clock: env.Clock, timeout: s.Timeout, judge: judgeSalesforceToken},
		},
	}, nil
}

// salesforceFieldErrors takes a record whose fields are the object's.
func salesforceFieldErrors(fields map[string]any) []error {
	var errs []error
	for _, name := range sortedKeys(fields) {
		_, nested := fields[name].(map[string]any)
		switch {
		case nested:
			errs = append(errs, fmt.Errorf("record.%s: wants a value, not fields below it", name))
		case !salesforceName.MatchString(name):
			errs = append(errs, fmt.Errorf("record.%s: a field is an API name of letters, digits and _", name))
		case strings.EqualFold(name, "Id"), strings.EqualFold(name, "attributes"):
			errs = append(errs, fmt.Errorf("record.%s: is set by the connector itself", name))
		}
	}
	return errs
}

// Associate writes one record.
func (c *salesforceConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	r := c.AssociateAll(ctx, []signup.Request{req})[0]
	return r.Account, r.Err
}

// AssociateAll writes the records in one call, each of which succeeds or fails by itself. A user who comes twice is
// written once, since Salesforce refuses an external id that is twice in a call.
func (c *salesforceConnector) AssociateAll(ctx context.Context, reqs []signup.Request) []signup.Result {
	results := make([]signup.Result, len(reqs))
	first := map[signup.UserID]int{}
	var send []int
	var records []map[string]any
	for i, req := range reqs {
		if _, again := first[req.User]; again {
			continue
		}
		first[req.User] = i
		record, err := c.record(req)
		if err != nil {
			results[i].Err = err
			continue
		}
		send, records = append(send, i), append(records, record)
	}
	for len(send) > 0 {
		n := min(len(send), salesforceBatch)
		for j, r := range c.upsert(ctx, records[:n]) {
			i := send[j]
			if c.Duplicates == "link" && code(r.Err) == codeDuplicate {
				r.Account, r.Err = c.link(ctx, reqs[i], records[j])
			}
			results[i] = r
		}
		send, records = send[n:], records[n:]
	}
	for i, req := range reqs {
		if of := first[req.User]; of != i {
			results[i] = results[of]
			results[i].Account.Created = false
		}
	}
	return results
}

// record is a user's record as it is sent, with its type and external id.
func (c *salesforceConnector) record(req signup.Request) (map[string]any, error) {
	record := map[string]any{}
	for _, name := range sortedKeys(req.Record) {
		v := req.Record[name]
		if v == nil || v == "" {
			continue
		}
		if !salesforceName.MatchString(name) {
			return nil, invalidRecord("a field of the record is no API name")
		}
		for _, own := range []string{c.ExternalID, "Id", "attributes"} {
			if strings.EqualFold(name, own) {
				return nil, invalidRecord("record." + name + " is set by the connector itself")
			}
		}
		switch v.(type) {
		case string, bool, int, float64:
		default:
			return nil, invalidRecord("record." + name + " is neither text, a number, true nor false")
		}
		record[name] = v
	}
	if _, err := json.Marshal(record); err != nil {
		return nil, invalidRecord("the record has a value that JSON cannot hold")
	}
	record["attributes"] = map[string]string{"type": c.Object}
	record[c.ExternalID] = string(req.User)
	return record, nil
}

// upsert sends records as a collection. What is wrong with one record can have the whole call refused (a text where a
// number belongs makes the body unreadable), so that a refusal for its data is laid at the door of nobody until each
// record was sent alone. If something else goes wrong meanwhile, the rest is not sent and shares that one failure.
func (c *salesforceConnector) upsert(ctx context.Context, records []map[string]any) []signup.Result {
	results, err := c.collection(ctx, records)
	if signup.ClassOf(err) != signup.Permanent || len(records) == 1 {
		return results
	}
	for i := range records {
		alone, err := c.collection(ctx, records[i:i+1])
		if err != nil && signup.ClassOf(err) != signup.Permanent {
			return append(results[:i], slices.Repeat(alone, len(records)-i)...)
		}
		results[i] = alone[0]
	}
	return results
}

// collection makes one call. The error is that of the call as a whole, and then each result's.
func (c *salesforceConnector) collection(ctx context.Context, records []map[string]any) ([]signup.Result, error) {
	body := map[string]any{"allOrNone": false, "records": records}
	a, err := c.call(ctx, http.MethodPatch, "/composite/sobjects/"+c.Object+"/"+c.ExternalID, body)
	var items []salesforceItem
	if err == nil && (json.Unmarshal(a.body, &items) != nil || len(items) != len(records)) {
		err = errSalesforce
	}
	if err != nil {
		return slices.Repeat([]signup.Result{{Err: err}}, len(records)), err
	}
	results := make([]signup.Result, len(records))
	for i, item := range items {
		results[i].Account, results[i].Err = item.account(c.ExternalID)
	}
	return results, nil
}

// call sends a request in the session, and once more in a new one if the org does not know it any more. While the org
// is short of calls none is made.
func (c *salesforceConnector) call(ctx context.Context, method, path string, body any) (answer, error) {
	if wait := c.heldFor(); wait > 0 {
		return answer{}, &signup.Error{
			Class: signup.Throttled, Code: "throttled", RetryAfter: wait,
			Detail: fmt.Sprintf("more than %d%% of the org's daily API calls are used", c.APIUsageLimit),
		}
	}
	var raw []byte
	header := http.Header{"Accept": {"application/json"}, "User-Agent": {"signup-sync"}}
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return answer{}, invalidRecord("the record has a value that JSON cannot hold")
		}
		header.Set("Content-Type", "application/json")
		if c.Duplicates == "allow" {
			header.Set("Sforce-Duplicate-Rule-Header", "allowSave=true")
		}
	}
	refused := ""
	for {
		token, err := c.session.get(ctx, refused)
		if err != nil {
			return answer{}, err
		}
		sent := header.Clone()
		sent.Set("Authorization", "Bearer "+token)
		a, err := c.api.call(ctx, request{method: method, url: c.URL + c.path + path, header: sent, body: raw})
		c.watch(a.header.Get("Sforce-Limit-Info"))
		if refused != "" || a.status != http.StatusUnauthorized {
			return a, err
		}
		refused = token
	}
}

// watch reads what every answer says of the org's calls ("api-usage=18/5000; per-app-api-usage=…"), and holds the next
// ones back when there are few left.
func (c *salesforceConnector) watch(info string) {
	short := false
	for part := range strings.SplitSeq(info, ";") {
		usage, ok := strings.CutPrefix(strings.TrimSpace(part), "api-usage=")
		used, total, both := strings.Cut(usage, "/")
		n, err1 := strconv.ParseFloat(used, 64)
		of, err2 := strconv.ParseFloat(total, 64)
		short = short || ok && both && err1 == nil && err2 == nil && n*100 > of*float64(c.APIUsageLimit)
	}
	if short {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.held = c.clock.Now().Add(salesforcePause)
	}
}

func (c *salesforceConnector) heldFor() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held.Sub(c.clock.Now())
}
