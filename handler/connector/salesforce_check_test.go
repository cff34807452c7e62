package connector_test

import (
	"net/http"
	"strings"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// contact is the object Contact, changed.
func contact(change func(f *sim.SalesforceField)) []sim.SalesforceObject {
	all := sim.SalesforceObjects()
	for i := range all[0].Fields {
		change(&all[0].Fields[i])
	}
	return all
}

func TestSalesforceCheckComparesTheObject(t *testing.T) {
	is := func(name string, change func(f *sim.SalesforceField)) []sim.SalesforceObject {
		return contact(func(f *sim.SalesforceField) {
			if f.Name == name {
				change(f)
			}
		})
	}
	const own = "Entra_Object_Id__c"
	tests := []struct {
		name    string
		objects []sim.SalesforceObject
		object  string
		shape   map[string]any
		want    string
	}{
		{"good", nil, "Contact", map[string]any{"lastname": nil, "Email": nil}, ""},
		{"record not known", nil, "Contact", nil, ""},
		{"needed", nil, "Lead", map[string]any{"Email": nil}, "the field LastName needs a value and the record has none; the field Company needs a value and the record has none"},
		{"person account", nil, "Account", map[string]any{"lastName": nil, "PersonEmail": nil}, ""},
		{"business account", nil, "Account", map[string]any{"PersonEmail": nil}, "the field Name needs a value and the record has none"},
		{"the name of a person account", nil, "Account", map[string]any{"LastName": nil, "Name": nil}, "the field Name is made of a person's names and cannot be set beside LastName"},
		{"unknown field", nil, "Contact", map[string]any{"LastName": nil, "Shoe__c": nil}, "there is no field Shoe__c that the integration user may see"},
		{"read-only field", is("Phone", func(f *sim.SalesforceField) { f.ReadOnly = true }), "Contact", map[string]any{"LastName": nil, "Phone": nil}, "the integration user may not write the field Phone"},
		{"no external id", is(own, func(f *sim.SalesforceField) { f.Name = "Other__c" }), "Contact", nil, "there is no field " + own + " that the integration user may see"},
		{"not an external id", is(own, func(f *sim.SalesforceField) { f.ExternalID = false }), "Contact", nil, "the field " + own + " is not an external id"},
		{"not unique", is(own, func(f *sim.SalesforceField) { f.Unique = false }), "Contact", nil, "the field " + own + " is not unique"},
		{"too short", is(own, func(f *sim.SalesforceField) { f.Length = 20 }), "Contact", nil, "the field " + own + " is not a text of 36 characters"},
	}
	for _, tt := range tests {
		o := salesforceOrg(t, sim.SalesforceOptions{Objects: tt.objects}, map[string]any{"object": tt.object}, tt.shape)
		err := o.Check(t.Context())
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if e := wantErr(t, err, signup.Permanent, "schema"); e.Detail != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, e.Detail, tt.want)
		}
	}
}

func TestSalesforceCheckOfAnObjectThatIsNotThere(t *testing.T) {
	o := salesforceOrg(t, sim.SalesforceOptions{}, map[string]any{"object": "Member__c"}, nil)
	wantErr(t, o.Check(t.Context()), signup.Systemic, "schema")
}

func TestSalesforceCheckReadsALargeDescription(t *testing.T) {
	described := `{"name":"Contact","createable":true,"updateable":true,"fields":[{"name":"Entra_Object_Id__c","type":"string","length":36,
		"externalId":true,"unique":true,"createable":true,"updateable":true,"nillable":true,"picklistValues":["` + strings.Repeat("x", 3<<20) + `"]}]}`
	c := salesforceAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(described)) }, nil)
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSalesforceCheckSeesWhatTheIntegrationUserMayNot(t *testing.T) {
	// A field that nobody can set is not missing from the record.
	described := `{"name":"Contact","createable":true,"updateable":false,"fields":[{"name":"Entra_Object_Id__c","type":"string","length":36,
		"externalId":true,"unique":true,"createable":true,"updateable":true,"nillable":true},{"name":"Number__c","type":"string"}]}`
	root, client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = w.Write([]byte(`{"access_token":"00D1!token"}`))
			return
		}
		_, _ = w.Write([]byte(described))
	}))
	_, key := appKey()
	c := open(t, "salesforce", map[string]any{"url": root, "clientId": consumerKey, "privateKey": key, "username": "sync@example.org"},
		connector.Env{HTTP: client, Clock: sim.NewClock(start), Shape: map[string]any{}})
	if e := wantErr(t, c.Check(t.Context()), signup.Permanent, "schema"); e.Detail != "the integration user may not create and edit the object Contact" {
		t.Errorf("got %q", e.Detail)
	}
}

func TestSalesforceCheckTakesNoOtherAnswer(t *testing.T) {
	for _, body := range []string{"", "{}", "[]", "<html>", `{"name":"Contact","fields":[]}`, `{"name":"Lead","fields":[{"name":"Id"}]}`} {
		c := salesforceAt(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }, nil)
		wantErr(t, c.Check(t.Context()), signup.Transient, "not-understood")
	}
}
