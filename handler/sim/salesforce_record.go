package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// SalesforceObject is a kind of record.
type SalesforceObject struct {
	Name   string
	Prefix string // of its ids, three characters
	Fields []SalesforceField
}

// SalesforceField is a field of an object.
type SalesforceField struct {
	Name       string
	Type       string // string, email, double or boolean
	Length     int    // of a text; 0 = 255
	Required   bool   // there is no record without it
	Defaulted  bool   // it is there when nobody sets it
	ReadOnly   bool   // to the integration user
	ExternalID bool
	Unique     bool // not case-sensitive
	Composed   bool // of a person's FirstName and LastName, if the record has the latter; it is described as if it had to be set
}

// SalesforceRecord is a record of the simulated org.
type SalesforceRecord struct {
	ID      string
	Object  string
	Fields  map[string]any
	Created time.Time
	Deleted bool // in the recycle bin
}

// SalesforceObjects are Contact, Lead and Account, as far as they matter here, with an external id for the user's object
// id. An account with a last name is a person's.
func SalesforceObjects() []SalesforceObject {
	own := []SalesforceField{
		{Name: "OwnerId", Type: "string", Length: 18, Required: true, Defaulted: true},
		{Name: "CreatedById", Type: "string", Length: 18, Required: true, Defaulted: true, ReadOnly: true},
		{Name: "FirstName", Type: "string", Length: 40},
		{Name: "LastName", Type: "string", Length: 80, Required: true},
		{Name: "Email", Type: "email", Length: 80},
		{Name: "Phone", Type: "string", Length: 40},
		{Name: "Seats__c", Type: "double"},
		{Name: "VIP__c", Type: "boolean", Required: true, Defaulted: true},
		{Name: "Badge__c", Type: "string", Length: 20, Unique: true},
		{Name: "Entra_Object_Id__c", Type: "string", Length: 36, ExternalID: true, Unique: true},
		{Name: "Legacy_Id__c", Type: "string", Length: 36, ExternalID: true},
	}
	company := SalesforceField{Name: "Company", Type: "string", Required: true}
	return []SalesforceObject{
		{Name: "Contact", Prefix: "003", Fields: slices.Clone(own)},
		{Name: "Lead", Prefix: "00Q", Fields: append(slices.Clone(own), company)},
		{Name: "Account", Prefix: "001", Fields: []SalesforceField{
			{Name: "Name", Type: "string", Required: true, Composed: true},
			{Name: "FirstName", Type: "string", Length: 40},
			{Name: "LastName", Type: "string", Length: 80},
			{Name: "PersonEmail", Type: "email", Length: 80},
			{Name: "RecordTypeId", Type: "string", Length: 18, Defaulted: true},
			{Name: "Entra_Object_Id__c", Type: "string", Length: 36, ExternalID: true, Unique: true},
		}},
	}
}

func (o *SalesforceObject) field(name string) *SalesforceField {
	for i := range o.Fields {
		if strings.EqualFold(o.Fields[i].Name, name) {
			return &o.Fields[i]
		}
	}
	return nil
}

// Records returns the truth, what is in the recycle bin included, in the order of creation.
func (s *Salesforce) Records() []SalesforceRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []SalesforceRecord
	for _, r := range s.records {
		all = append(all, r.clone())
	}
	return all
}

// Add makes a record as somebody else would, whatever the rules say; ID and Created are set if they are not.
func (s *Salesforce) Add(r SalesforceRecord) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(r, s.o.Clock.Now().UTC()).ID
}

// Edit changes a record as somebody else would.
func (s *Salesforce) Edit(id string, change func(*SalesforceRecord)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.find(id); r != nil {
		change(r)
	}
}

func (s *Salesforce) add(r SalesforceRecord, now time.Time) *SalesforceRecord {
	prefix := "003"
	for _, o := range s.o.Objects {
		if o.Name == r.Object {
			prefix = o.Prefix
		}
	}
	setDefault(&r.ID, fmt.Sprintf("%s5f%010dAAA", prefix, len(s.records)+1))
	setDefault(&r.Created, now)
	made := r.clone()
	s.records = append(s.records, &made)
	return &made
}

func (s *Salesforce) find(id string) *SalesforceRecord {
	for _, r := range s.records {
		if r.ID == id {
			return r
		}
	}
	return nil
}

func (r SalesforceRecord) clone() SalesforceRecord {
	if r.Fields = maps.Clone(r.Fields); r.Fields == nil {
		r.Fields = map[string]any{}
	}
	return r
}

// holding are the live records of an object with this text in a field, in any letter case.
func (s *Salesforce) holding(o *SalesforceObject, field string, v any) (all []*SalesforceRecord) {
	text, _ := v.(string)
	for _, r := range s.records {
		if have, _ := r.Fields[field].(string); r.Object == o.Name && !r.Deleted && text != "" && strings.EqualFold(have, text) {
			all = append(all, r)
		}
	}
	return all
}

// salesforceOutcome is what became of one record.
type salesforceOutcome struct {
	id      string
	created bool
	fault   *salesforceFault
	matched []*SalesforceRecord // by the duplicate rule
	several []*SalesforceRecord // with the external id
}

// object is the outcome as a collection or an upsert answers it. What the duplicate rule has matched is not in it.
func (o salesforceOutcome) object() map[string]any {
	if o.fault == nil {
		return map[string]any{"id": o.id, "success": true, "created": o.created, "errors": []any{}}
	}
	return map[string]any{"success": false, "created": false, "errors": []any{o.fault.object("statusCode")}}
}

// upsert writes one record by its external id. Between the look for the record and its creation nothing is locked.
func (s *Salesforce) upsert(c *salesforceCall, value any, fields map[string]any) salesforceOutcome {
	s.mu.Lock()
	found := s.holding(c.object, c.field.Name, value)
	s.mu.Unlock()
	if len(found) > 1 {
		return salesforceOutcome{several: found, fault: &salesforceFault{code: "DUPLICATE_EXTERNAL_ID",
			message: c.field.Name + ": more than one record found for external id field: [" + found[0].ID + ", …]"}}
	}
	if len(found) == 1 {
		return s.write(c, found[0], fields)
	}
	if s.o.During != nil {
		s.o.During()
	}
	runtime.Gosched()
	fields = maps.Clone(fields)
	fields[c.field.Name] = value
	return s.write(c, nil, fields)
}

// write creates a record, or changes one.
func (s *Salesforce) write(c *salesforceCall, r *SalesforceRecord, fields map[string]any) salesforceOutcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refuse) > 0 {
		fault := s.refuse[0]
		s.refuse = s.refuse[1:]
		return salesforceOutcome{fault: &fault}
	}
	if fault := c.object.check(fields, r == nil); fault != nil {
		return salesforceOutcome{fault: fault}
	}
	for name, v := range fields {
		if !c.object.field(name).Unique {
			continue
		}
		for _, other := range s.holding(c.object, name, v) {
			if other != r {
				return salesforceOutcome{fault: &salesforceFault{code: "DUPLICATE_VALUE",
					message: "duplicate value found: " + name + " duplicates value on record with id: " + other.ID}}
			}
		}
	}
	options := salesforceHeader(c.Header.Get("Sforce-Duplicate-Rule-Header"))
	if s.o.Duplicates == "block" || s.o.Duplicates == "alert" && options["allowsave"] != "true" {
		matched := slices.DeleteFunc(s.holding(c.object, s.o.MatchBy, fields[s.o.MatchBy]), func(x *SalesforceRecord) bool { return x == r })
		if len(matched) > 0 {
			return salesforceOutcome{matched: matched, fault: &salesforceFault{code: "DUPLICATES_DETECTED", message: "Use one of these records?"}}
		}
	}
	out := salesforceOutcome{created: r == nil}
	if r == nil {
		r = s.add(SalesforceRecord{Object: c.object.Name}, c.now)
	}
	maps.Copy(r.Fields, fields)
	out.id = r.ID
	return out
}

// check compares fields with the schema; those that are not there have had the whole request refused before.
func (o *SalesforceObject) check(fields map[string]any, create bool) *salesforceFault {
	var missing []string
	_, person := fields["LastName"]
	for _, f := range o.Fields {
		v, set := fields[f.Name]
		text, _ := v.(string)
		length := f.Length
		setDefault(&length, 255)
		local, domain, _ := strings.Cut(text, "@")
		switch {
		case set && (f.ReadOnly || f.Composed && person):
			return &salesforceFault{"INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: " + f.Name, []string{f.Name}}
		case f.Required && !f.Defaulted && !(f.Composed && person) && (create && !set || set && (v == nil || v == "")):
			missing = append(missing, f.Name)
		case utf8.RuneCountInString(text) > length:
			return &salesforceFault{"STRING_TOO_LONG", fmt.Sprintf("%s: data value too large: %s (max length=%d)", f.Name, text, length), []string{f.Name}}
		case f.Type == "email" && text != "" && (local == "" || !strings.Contains(domain, ".") || strings.ContainsAny(text, " \t\n")):
			return &salesforceFault{"INVALID_EMAIL_ADDRESS", f.Name + ": invalid email address: " + text, []string{f.Name}}
		}
	}
	if missing != nil {
		return &salesforceFault{"REQUIRED_FIELD_MISSING", "Required fields are missing: [" + strings.Join(missing, ", ") + "]", missing}
	}
	return nil
}

// read takes the fields of a record from JSON; those that are not the object's, or of another type, have the whole
// request refused. The names come out as the object spells them.
func (o *SalesforceObject) read(raw map[string]any) (map[string]any, *salesforceReply) {
	fields := map[string]any{}
	for name, v := range raw {
		f := o.field(name)
		if f == nil {
			reply := salesforceRefusal(400, "INVALID_FIELD", fmt.Sprintf("No such column '%s' on sobject of type %s", name, o.Name))
			return nil, &reply
		}
		_, text := v.(string)
		_, number := v.(float64)
		_, truth := v.(bool)
		if v != nil && (f.Type == "double" && !number || f.Type == "boolean" && !truth || (f.Type == "string" || f.Type == "email") && !text) {
			reply := salesforceRefusal(400, "JSON_PARSER_ERROR", fmt.Sprintf("Cannot deserialize instance of %s from value %v", f.Type, v))
			return nil, &reply
		}
		fields[f.Name] = v
	}
	return fields, nil
}

// salesforceHeader reads "a=b; c=d", in lower case.
func salesforceHeader(text string) map[string]string {
	options := map[string]string{}
	for part := range strings.SplitSeq(strings.ToLower(text), ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		options[key] = value
	}
	return options
}

func decodeObject(body []byte, into any) *salesforceReply {
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(into); err != nil {
		reply := salesforceRefusal(400, "JSON_PARSER_ERROR", "Unexpected character in the body")
		return &reply
	}
	return nil
}
