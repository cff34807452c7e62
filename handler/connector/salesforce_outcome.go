package connector

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"signup-sync/handler/signup"
)

// errSalesforce is the outcome of a 2xx answer that is not what Salesforce answers: a proxy's page, half a list.
var errSalesforce = &signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Salesforce's"}

const (
	codeDuplicate = "duplicate" // the org's duplicate rules have matched other records
	codeSchema    = "schema"    // there is no such object, field or record
)

// salesforceCodes are the error codes (SOAP API Developer Guide, StatusCode) that say more than that a record is
// refused. The status is what the same error has as the answer to a call for one record; it tells the engine whether the
// trouble is the one user's (409, 403) or everybody's.
var salesforceCodes = map[string]struct {
	class  signup.Class
	code   string
	status int
}{
	"UNABLE_TO_LOCK_ROW":                            {signup.Transient, "conflict", 409},
	"ENTITY_IS_DELETED":                             {signup.Transient, "conflict", 409},
	"ALL_OR_NONE_OPERATION_ROLLED_BACK":             {signup.Transient, "conflict", 409},
	"SERVER_UNAVAILABLE":                            {signup.Transient, "unavailable", 0},
	"UNKNOWN_EXCEPTION":                             {signup.Transient, "unavailable", 0},
	"REQUEST_RUNNING_TOO_LONG":                      {signup.Transient, "timeout", 0},
	"REQUEST_LIMIT_EXCEEDED":                        {signup.Throttled, "throttled", 0},
	"INVALID_SESSION_ID":                            {signup.Systemic, "unauthorized", 0},
	"API_CURRENTLY_DISABLED":                        {signup.Systemic, "forbidden", 0},
	"API_DISABLED_FOR_ORG":                          {signup.Systemic, "forbidden", 0},
	"ORG_LOCKED":                                    {signup.Systemic, "forbidden", 0},
	"INSUFFICIENT_ACCESS":                           {signup.Systemic, "forbidden", 403},
	"INSUFFICIENT_ACCESS_OR_READONLY":               {signup.Systemic, "forbidden", 403},
	"STORAGE_LIMIT_EXCEEDED":                        {signup.Systemic, "quota", 0},
	"INVALID_FIELD":                                 {signup.Systemic, codeSchema, 0},
	"INVALID_FIELD_FOR_INSERT_UPDATE":               {signup.Systemic, codeSchema, 0},
	"INVALID_TYPE":                                  {signup.Systemic, codeSchema, 0},
	"NOT_FOUND":                                     {signup.Systemic, codeSchema, 0},
	"UNSUPPORTED_API_VERSION":                       {signup.Systemic, codeSchema, 0},
	"DUPLICATES_DETECTED":                           {signup.Permanent, codeDuplicate, 0},
	"DUPLICATE_EXTERNAL_ID":                         {signup.Permanent, "ambiguous", 0},
	"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": {signup.Systemic, "forbidden", 403},
}

// salesforceProblem is one error, as an answer's (errorCode) or as a record's (statusCode).
type salesforceProblem struct {
	ErrorCode  string   `json:"errorCode"`
	StatusCode string   `json:"statusCode"`
	Message    string   `json:"message"`
	Fields     []string `json:"fields"`
}

var (
	salesforceWord = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,79}$`)
	// clashOn finds the field in the message of DUPLICATE_VALUE, whose fields are as a rule empty.
	clashOn = regexp.MustCompile(`^duplicate value found: ([A-Za-z][A-Za-z0-9_]*) duplicates value on record with id`)
)

// judge sets an outcome by Salesforce's code, and by its status, if it has one, where the code says no more; the message is left alone but for the name of a field, since it may repeat
// what was sent. ok is false if there is no code.
func (p salesforceProblem) judge(externalID string, e *signup.Error) (ok bool) {
	word := cmp.Or(p.ErrorCode, p.StatusCode)
	if !salesforceWord.MatchString(word) {
		return false
	}
	fields := slices.DeleteFunc(slices.Clone(p.Fields), func(f string) bool { return !salesforceName.MatchString(f) })
	if m := clashOn.FindStringSubmatch(p.Message); word == "DUPLICATE_VALUE" && m != nil && !slices.Contains(fields, m[1]) {
		fields = append(fields, m[1])
	}
	known, isKnown := salesforceCodes[word]
	switch {
	case word == "DUPLICATE_VALUE":
		// Two calls have created the record at the same time, and the next one finds it; unless the value that is there
		// already is another field's. Salesforce does not always say which.
		e.Class, e.Code, e.Status = signup.Transient, "conflict", 409
		if len(fields) > 0 && !slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(f, externalID) }) {
			e.Class, e.Code = signup.Permanent, "clash"
		}
	case isKnown:
		e.Class, e.Code = known.class, known.code
		if known.status != 0 || known.code == "forbidden" { // a 403 about the org must not pass for one user's
			e.Status = known.status
		}
	case e.Status == 0:
		e.Class, e.Code = signup.Permanent, "rejected"
	}
	if e.Class == signup.Throttled {
		e.RetryAfter = max(e.RetryAfter, salesforcePause)
	}
	e.Detail = "salesforce: " + word
	if names := strings.Join(fields, ", "); names != "" && len(names) <= 100 {
		e.Detail += " (" + names + ")"
	}
	return true
}

// judgeSalesforce reads the errors of an answer as a whole.
func judgeSalesforce(externalID string) func(a answer, e *signup.Error) {
	return func(a answer, e *signup.Error) {
		var problems []salesforceProblem
		if json.Unmarshal(a.body, &problems) == nil && len(problems) > 0 && problems[0].judge(externalID, e) {
			return
		}
		switch {
		case a.status == http.StatusMultipleChoices:
			e.Class, e.Code, e.Detail = signup.Permanent, "ambiguous", "more than one record has this external id"
		case a.status == http.StatusNotFound:
			e.Class, e.Code, e.Detail = signup.Systemic, "not-found", "settings.url is not an org's"
		case a.status < 400:
			e.Class, e.Detail = signup.Systemic, "the org has moved or is closed; settings.url wants its present My Domain"
		}
	}
}

// salesforceItem is the answer to one record of a collection.
type salesforceItem struct {
	ID      string              `json:"id"`
	Success bool                `json:"success"`
	Created bool                `json:"created"`
	Errors  []salesforceProblem `json:"errors"`
}

func (i salesforceItem) account(externalID string) (signup.Account, error) {
	switch {
	case i.Success && len(i.Errors) == 0 && salesforceID.MatchString(i.ID):
		return signup.Account{ID: i.ID, Created: i.Created}, nil
	case i.Success || len(i.Errors) == 0:
		return signup.Account{}, errSalesforce
	}
	e := &signup.Error{}
	if !i.Errors[0].judge(externalID, e) {
		return signup.Account{}, errSalesforce
	}
	return signup.Account{}, e
}

// link takes the only record that the org's duplicate rules have matched, if it is nobody's and the field that holds
// the user's verified address here holds the same there: rules may match by a similar name alone. A collection's
// answer does not say what has matched, so that the record is sent alone first.
func (c *salesforceConnector) link(ctx context.Context, req signup.Request, record map[string]any) (signup.Account, error) {
	single := map[string]any{}
	field := ""
	for _, name := range sortedKeys(record) {
		if name != c.ExternalID && name != "attributes" {
			single[name] = record[name]
		}
		if s, ok := record[name].(string); ok && field == "" && req.Email != "" && strings.EqualFold(s, req.Email) {
			field = name
		}
	}
	a, err := c.call(ctx, http.MethodPatch, "/sobjects/"+c.Object+"/"+c.ExternalID+"/"+url.PathEscape(string(req.User)), single)
	if err == nil {
		var item salesforceItem
		if json.Unmarshal(a.body, &item) != nil {
			return signup.Account{}, errSalesforce
		}
		return item.account(c.ExternalID)
	}
	if code(err) != codeDuplicate {
		return signup.Account{}, err
	}
	matched := matchedRecords(a.body)
	own, err := c.own(ctx, req)
	if err != nil || own.ID != "" {
		return own, err
	}
	switch {
	case !req.EmailVerified || field == "":
		return signup.Account{}, unlinked("the user has no verified e-mail address in the record")
	case len(matched) != 1:
		return signup.Account{}, unlinked(fmt.Sprintf("%d records match", len(matched)))
	}
	return c.claim(ctx, req, matched[0], field, single)
}

// own is the user's record if there is one, whose change the duplicate rules have refused; another one is not linked then.
func (c *salesforceConnector) own(ctx context.Context, req signup.Request) (signup.Account, error) {
	path := "/sobjects/" + c.Object + "/" + c.ExternalID + "/" + url.PathEscape(string(req.User)) + "?fields=Id"
	a, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		if a.status == http.StatusNotFound && code(err) == codeSchema {
			err = nil
		}
		return signup.Account{}, err
	}
	var answered struct {
		ID string `json:"Id"`
	}
	if json.Unmarshal(a.body, &answered) != nil || !salesforceID.MatchString(answered.ID) {
		return signup.Account{}, errSalesforce
	}
	return signup.Account{ID: answered.ID}, nil
}

// claim links a record if it is free and has the user's address, one user at a time.
func (c *salesforceConnector) claim(ctx context.Context, req signup.Request, id, field string, record map[string]any) (signup.Account, error) {
	c.linking.Lock()
	defer c.linking.Unlock()
	path := "/sobjects/" + c.Object + "/" + id
	a, err := c.call(ctx, http.MethodGet, path+"?fields="+c.ExternalID+","+field, nil)
	if err != nil {
		if a.status == http.StatusNotFound && code(err) == codeSchema {
			err = unlinked("the record that matches is another object's, or the integration user may not see it")
		}
		return signup.Account{}, err
	}
	var answered map[string]any
	if json.Unmarshal(a.body, &answered) != nil || answered["Id"] != id {
		return signup.Account{}, errSalesforce
	}
	there := map[string]any{} // by name in lower case: API names are not case-sensitive
	for name, v := range answered {
		there[strings.ToLower(name)] = v
	}
	linked, known := there[strings.ToLower(c.ExternalID)]
	address, _ := there[strings.ToLower(field)].(string)
	switch {
	case !known:
		return signup.Account{}, errSalesforce
	case linked != nil && linked != "":
		return signup.Account{}, unlinked("the record that matches is linked to another user")
	case !strings.EqualFold(address, req.Email):
		return signup.Account{}, unlinked("the record that matches has another " + field)
	}
	record[c.ExternalID] = string(req.User)
	if _, err := c.call(ctx, http.MethodPatch, path, record); err != nil {
		return signup.Account{}, err
	}
	return signup.Account{ID: id}, nil
}

func unlinked(why string) error {
	return &signup.Error{Class: signup.Permanent, Code: codeDuplicate, Detail: "salesforce: DUPLICATES_DETECTED; " + why}
}

// matchedRecords are the ids of the records that the duplicate rules have matched. The REST API spells the result
// duplicateResut; both spellings are read, since somebody may put that right.
func matchedRecords(body []byte) []string {
	type matches struct {
		MatchResults []struct {
			MatchRecords []struct {
				Record struct {
					ID string `json:"Id"`
				} `json:"record"`
			} `json:"matchRecords"`
		} `json:"matchResults"`
	}
	var problems []struct {
		Resut  matches `json:"duplicateResut"`
		Result matches `json:"duplicateResult"`
	}
	if json.Unmarshal(body, &problems) != nil {
		return nil
	}
	found := map[string]bool{}
	for _, p := range problems {
		for _, r := range slices.Concat(p.Resut.MatchResults, p.Result.MatchResults) {
			for _, m := range r.MatchRecords {
				if salesforceID.MatchString(m.Record.ID) {
					found[m.Record.ID] = true
				}
			}
		}
	}
	return sortedKeys(found)
}
