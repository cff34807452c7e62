package connector

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"signup-sync/handler/signup"
)

// salesforceObject is what Check needs to know of an object; fields that the integration user may not see are not
// among its fields.
type salesforceObject struct {
	Name       string            `json:"name"`
	Createable bool              `json:"createable"`
	Updateable bool              `json:"updateable"`
	Fields     []salesforceField `json:"fields"`
}

type salesforceField struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Length     int    `json:"length"`
	ExternalID bool   `json:"externalId"`
	Unique     bool   `json:"unique"`
	Createable bool   `json:"createable"`
	Updateable bool   `json:"updateable"`
	Nillable   bool   `json:"nillable"`
	Defaulted  bool   `json:"defaultedOnCreate"`
}

// Check signs in and reads the object's description, as the integration user sees it.
func (c *salesforceConnector) Check(ctx context.Context) error {
	a, err := c.call(ctx, http.MethodGet, "/sobjects/"+c.Object+"/describe", nil)
	if err != nil {
		return err
	}
	var o salesforceObject
	if json.Unmarshal(a.body, &o) != nil || !strings.EqualFold(o.Name, c.Object) || len(o.Fields) == 0 {
		return errSalesforce
	}
	if problems := c.compare(o); len(problems) > 0 {
		return &signup.Error{Class: signup.Permanent, Code: "schema", Detail: strings.Join(problems, "; ")}
	}
	return nil
}

func (c *salesforceConnector) compare(o salesforceObject) (problems []string) {
	problem := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	problem(!o.Createable || !o.Updateable, "the integration user may not create and edit the object %s", c.Object)
	fields := map[string]salesforceField{} // by name in lower case: API names are not case-sensitive
	for _, f := range o.Fields {
		fields[strings.ToLower(f.Name)] = f
	}
	writable := func(name string) (salesforceField, bool) {
		f, ok := fields[strings.ToLower(name)]
		problem(!ok, "there is no field %s that the integration user may see", name)
		problem(ok && (!f.Createable || !f.Updateable), "the integration user may not write the field %s", name)
		return f, ok
	}
	if f, ok := writable(c.ExternalID); ok {
		problem(!f.ExternalID, "the field %s is not an external id", c.ExternalID)
		problem(!f.Unique, "the field %s is not unique", c.ExternalID)
		problem(f.Type != "string" || f.Length < 36, "the field %s is not a text of 36 characters", c.ExternalID)
	}
	mapped := map[string]bool{strings.ToLower(c.ExternalID): true}
	for _, name := range sortedKeys(c.shape) {
		mapped[strings.ToLower(name)] = true
		writable(name)
	}
	// A person account's name is made of its other names, although the description of Account demands one.
	person := strings.EqualFold(c.Object, "Account") && mapped["lastname"]
	problem(person && mapped["name"], "the field Name is made of a person's names and cannot be set beside LastName")
	for _, f := range o.Fields {
		composed := person && strings.EqualFold(f.Name, "Name")
		needed := f.Createable && !f.Nillable && !f.Defaulted && !composed && salesforceName.MatchString(f.Name)
		problem(c.shape != nil && needed && !mapped[strings.ToLower(f.Name)], "the field %s needs a value and the record has none", f.Name)
	}
	return problems
}
