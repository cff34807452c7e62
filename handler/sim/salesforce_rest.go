package sim

import (
	"strings"
)

// upsertAll is the collection's upsert: at most 200 records of one type, each with its external id among its fields.
// What is wrong with a field's name or type in one of them has all of them refused.
func (s *Salesforce) upsertAll(c *salesforceCall) salesforceReply {
	var body struct {
		AllOrNone bool             `json:"allOrNone"`
		Records   []map[string]any `json:"records"`
	}
	if bad := decodeObject(c.body, &body); bad != nil {
		return *bad
	}
	if len(body.Records) == 0 || len(body.Records) > 200 {
		return salesforceRefusal(400, "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records into this call")
	}
	if body.AllOrNone {
		return salesforceRefusal(501, "NOT_IMPLEMENTED", "the simulated org rolls nothing back")
	}
	values := make([]string, len(body.Records))
	seen := map[string]int{}
	for i, raw := range body.Records {
		attributes, _ := raw["attributes"].(map[string]any)
		kind, _ := attributes["type"].(string)
		delete(raw, "attributes")
		if !strings.EqualFold(kind, c.object.Name) {
			return salesforceRefusal(400, "INVALID_TYPE", "The attributes of each record must name the type in the URI")
		}
		if bad := refuseID(raw); bad != nil {
			return *bad
		}
		fields, bad := c.object.read(raw)
		if bad != nil {
			return *bad
		}
		body.Records[i] = fields
		values[i], _ = fields[c.field.Name].(string)
		seen[strings.ToLower(values[i])]++
	}
	answers := make([]any, 0, len(body.Records))
	for i, fields := range body.Records {
		var o salesforceOutcome
		switch {
		case values[i] == "":
			o.fault = &salesforceFault{code: "MISSING_ARGUMENT", message: c.field.Name + " not specified"}
		case seen[strings.ToLower(values[i])] > 1:
			o.fault = &salesforceFault{code: "DUPLICATE_VALUE", message: "Duplicate external id specified: " + values[i]}
		default:
			delete(fields, c.field.Name)
			o = s.upsert(c, values[i], fields)
		}
		answers = append(answers, o.object())
	}
	return salesforceReply{200, answers}
}

// createOne makes a record, whatever there is already.
func (s *Salesforce) createOne(c *salesforceCall) salesforceReply {
	fields, bad := c.single()
	if bad != nil {
		return *bad
	}
	o := s.write(c, nil, fields)
	if o.fault != nil {
		return c.refused(o)
	}
	return salesforceReply{201, map[string]any{"id": o.id, "success": true, "errors": []any{}}}
}

// upsertOne is the upsert of a record whose external id is in the path, and must not be in the body.
func (s *Salesforce) upsertOne(c *salesforceCall) salesforceReply {
	fields, bad := c.single()
	if bad != nil {
		return *bad
	}
	if _, ok := fields[c.field.Name]; ok {
		return salesforceRefusal(400, "INVALID_FIELD", "The "+c.field.Name+" field should not be specified in the sobject data.")
	}
	o := s.upsert(c, c.PathValue("value"), fields)
	switch {
	case o.several != nil:
		return c.several(o.several)
	case o.fault != nil:
		return c.refused(o)
	case o.created:
		return salesforceReply{201, o.object()}
	}
	return salesforceReply{200, o.object()}
}

// updateOne changes a record by its id.
func (s *Salesforce) updateOne(c *salesforceCall) salesforceReply {
	fields, bad := c.single()
	if bad != nil {
		return *bad
	}
	s.mu.Lock()
	r := s.find(c.PathValue("id"))
	s.mu.Unlock()
	switch {
	case r == nil || r.Object != c.object.Name:
		return noResource()
	case r.Deleted:
		return salesforceRefusal(404, "ENTITY_IS_DELETED", "entity is deleted")
	}
	if o := s.write(c, r, fields); o.fault != nil {
		return c.refused(o)
	}
	return salesforceReply{status: 204}
}

// retrieve shows a record, or those of its fields that are asked for.
func (s *Salesforce) retrieve(c *salesforceCall) salesforceReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.find(c.PathValue("id"))
	switch {
	case r == nil || r.Object != c.object.Name:
		return noResource()
	case r.Deleted:
		return salesforceRefusal(404, "ENTITY_IS_DELETED", "entity is deleted")
	}
	return c.show(r)
}

// retrieveOne shows the record with an external id.
func (s *Salesforce) retrieveOne(c *salesforceCall) salesforceReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.holding(c.object, c.field.Name, c.PathValue("value"))
	switch len(found) {
	case 0:
		return noResource()
	case 1:
		return c.show(found[0])
	}
	return c.several(found)
}

func (c *salesforceCall) show(r *SalesforceRecord) salesforceReply {
	shown := r.reference(c)
	names := strings.Split(c.URL.Query().Get("fields"), ",")
	for _, f := range c.object.Fields {
		if c.URL.Query().Get("fields") == "" {
			names = append(names, f.Name)
		}
	}
	for _, name := range names {
		if name == "" || strings.EqualFold(name, "Id") {
			continue
		}
		f := c.object.field(name)
		if f == nil {
			return salesforceRefusal(400, "INVALID_FIELD", "No such column '"+name+"' on sobject of type "+c.object.Name)
		}
		shown[f.Name] = r.Fields[f.Name]
	}
	return salesforceReply{200, shown}
}

// several is the answer when more than one record has an external id.
func (c *salesforceCall) several(found []*SalesforceRecord) salesforceReply {
	var urls []string
	for _, r := range found {
		urls = append(urls, "/services/data/"+c.PathValue("version")+"/sobjects/"+r.Object+"/"+r.ID)
	}
	return salesforceReply{300, urls}
}

func (s *Salesforce) describe(c *salesforceCall) salesforceReply {
	fields := []any{map[string]any{
		"name": "Id", "type": "id", "length": 18, "createable": false, "updateable": false, "nillable": false,
		"defaultedOnCreate": true, "externalId": false, "unique": false,
	}}
	for _, f := range c.object.Fields {
		length := f.Length
		if f.Type == "string" || f.Type == "email" {
			setDefault(&length, 255)
		}
		fields = append(fields, map[string]any{
			"name": f.Name, "type": f.Type, "length": length, "createable": !f.ReadOnly, "updateable": !f.ReadOnly,
			"nillable": !f.Required, "defaultedOnCreate": f.Defaulted, "externalId": f.ExternalID, "unique": f.Unique,
			"caseSensitive": false,
		})
	}
	return salesforceReply{200, map[string]any{
		"name": c.object.Name, "keyPrefix": c.object.Prefix, "createable": true, "updateable": true, "fields": fields,
	}}
}

// single reads the body of a call for one record.
func (c *salesforceCall) single() (map[string]any, *salesforceReply) {
	raw := map[string]any{}
	if bad := decodeObject(c.body, &raw); bad != nil {
		return nil, bad
	}
	delete(raw, "attributes")
	if bad := refuseID(raw); bad != nil {
		return nil, bad
	}
	return c.object.read(raw)
}

func refuseID(raw map[string]any) *salesforceReply {
	for name := range raw {
		if strings.EqualFold(name, "Id") {
			reply := salesforceRefusal(400, "INVALID_FIELD", "The Id field should not be specified in the sobject data.")
			return &reply
		}
	}
	return nil
}

// refused is the answer to a call for one record. Only here is what the duplicate rule has matched; the name of the
// member is spelled so by the REST API. By default it holds ids alone.
func (c *salesforceCall) refused(o salesforceOutcome) salesforceReply {
	problem := o.fault.object("errorCode")
	if o.matched != nil {
		details := salesforceHeader(c.Header.Get("Sforce-Duplicate-Rule-Header"))["includerecorddetails"] == "true"
		var matches []any
		for _, r := range o.matched {
			shown := r.reference(c)
			if details {
				for name, v := range r.Fields {
					shown[name] = v
				}
			}
			matches = append(matches, map[string]any{"additionalInformation": []any{}, "fieldDiffs": []any{}, "matchConfidence": 100.0, "record": shown})
		}
		delete(problem, "fields")
		problem["duplicateResut"] = map[string]any{
			"allowSave": false, "duplicateRule": "Standard_Rule", "duplicateRuleEntityType": c.object.Name, "errorMessage": o.fault.message,
			"matchResults": []any{map[string]any{
				"entityType": c.object.Name, "errors": []any{}, "matchEngine": "ExactMatchEngine", "matchRecords": matches,
				"rule": "Standard_Match_Rule", "size": len(matches), "success": true,
			}},
		}
	}
	status := 400
	if strings.HasPrefix(o.fault.code, "INSUFFICIENT_ACCESS") {
		status = 403
	}
	return salesforceReply{status, []any{problem}}
}

// reference is how a record is named in an answer.
func (r *SalesforceRecord) reference(c *salesforceCall) map[string]any {
	url := "/services/data/" + c.PathValue("version") + "/sobjects/" + r.Object + "/" + r.ID
	return map[string]any{"attributes": map[string]any{"type": r.Object, "url": url}, "Id": r.ID}
}
