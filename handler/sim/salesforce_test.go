package sim_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

// org is a simulated Salesforce org behind a real server, and a caller with a session.
type org struct {
	*sim.Salesforce
	clock *sim.Clock
	root  string
	token string
}

const (
	orgData   = "/services/data/v62.0"
	orgUpsert = orgData + "/composite/sobjects/Contact/Entra_Object_Id__c"
	orgKey    = "3MVG9org"
	orgSecret = "0rg-secret"
)

func newOrg(t *testing.T, o sim.SalesforceOptions) *org {
	t.Helper()
	s := &org{clock: sim.NewClock(start)}
	o.Clock, o.ClientID, o.ClientSecret = s.clock, orgKey, orgSecret
	s.Salesforce = sim.NewSalesforce(o)
	server := httptest.NewServer(s.Salesforce)
	t.Cleanup(server.Close)
	s.root = server.URL
	s.login(t)
	return s
}

func (s *org) login(t *testing.T) {
	t.Helper()
	status, body := s.grant(t, url.Values{"grant_type": {"client_credentials"}, "client_id": {orgKey}, "client_secret": {orgSecret}})
	if s.token, _ = body["access_token"].(string); status != 200 || s.token == "" {
		t.Fatalf("%d %v", status, body)
	}
}

func (s *org) grant(t *testing.T, form url.Values) (int, map[string]any) {
	t.Helper()
	resp, err := http.PostForm(s.root+"/services/oauth2/token", form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// do makes a call; header is pairs.
func (s *org) do(t *testing.T, method, path, body string, header ...string) (int, http.Header, any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.root+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	var got any
	if raw.Len() > 0 && json.Unmarshal(raw.Bytes(), &got) != nil {
		t.Fatalf("%d with %q", resp.StatusCode, raw.Bytes())
	}
	return resp.StatusCode, resp.Header, got
}

// records is the body of a collection.
func records(each ...string) string {
	for i, r := range each {
		each[i] = `{"attributes":{"type":"Contact"},` + r + `}`
	}
	return `{"allOrNone":false,"records":[` + strings.Join(each, ",") + `]}`
}

// codes are the words of an answer's errors, in order; "" for a record that was written.
func codes(t *testing.T, body any) (all []string) {
	t.Helper()
	list, ok := body.([]any)
	if !ok {
		t.Fatalf("%v is no list", body)
	}
	for _, x := range list {
		m := x.(map[string]any)
		word, _ := m["errorCode"].(string)
		if problems, _ := m["errors"].([]any); len(problems) > 0 {
			word, _ = problems[0].(map[string]any)["statusCode"].(string)
		}
		all = append(all, word)
	}
	return all
}

func TestSalesforceCollection(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	body := records(`"Entra_Object_Id__c":"u1","LastName":"One"`, `"Entra_Object_Id__c":"u2","Email":"two@example.com"`, `"LastName":"Three"`,
		`"Entra_Object_Id__c":"u4","LastName":"Four","Email":"four at example.com"`, `"Entra_Object_Id__c":"u5","LastName":"`+strings.Repeat("x", 81)+`"`,
		`"Entra_Object_Id__c":"u6","LastName":"Six","CreatedById":"005"`, `"Entra_Object_Id__c":"u7","LastName":"Seven"`)
	status, header, got := s.do(t, "PATCH", orgUpsert, body)
	want := []string{"", "REQUIRED_FIELD_MISSING", "MISSING_ARGUMENT", "INVALID_EMAIL_ADDRESS", "STRING_TOO_LONG", "INVALID_FIELD_FOR_INSERT_UPDATE", ""}
	if diff := cmp.Diff(codes(t, got), want); diff != "" || status != 200 {
		t.Errorf("%d (-got +want):\n%s", status, diff)
	}
	if h := header.Get("Sforce-Limit-Info"); h != "api-usage=1/100000" {
		t.Errorf("usage %q", h)
	}
	_, _, again := s.do(t, "PATCH", orgUpsert, records(`"Entra_Object_Id__c":"U7","Phone":"1"`, `"entra_object_id__c":"u8","lastname":"Eight"`))
	seven, eight := again.([]any)[0].(map[string]any), again.([]any)[1].(map[string]any)
	if seven["id"] != got.([]any)[6].(map[string]any)["id"] || seven["created"] != false || eight["created"] != true || len(seven["id"].(string)) != 18 {
		t.Errorf("got %v", again)
	}
	if all := s.Records(); len(all) != 3 || all[1].Fields["LastName"] != "Seven" || all[1].Fields["Phone"] != "1" || all[2].Fields["LastName"] != "Eight" {
		t.Errorf("records %v", all)
	}
}

func TestSalesforceRefusesACollectionAsAWhole(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	good := `"Entra_Object_Id__c":"u1","LastName":"One"`
	many := make([]string, 201)
	for i := range many {
		many[i] = fmt.Sprintf(`"Entra_Object_Id__c":"u%d","LastName":"One"`, i)
	}
	tests := []struct {
		path, body string
		status     int
		code       string
	}{
		{orgUpsert, records(good, `"Entra_Object_Id__c":"u2","Shoe__c":"38"`), 400, "INVALID_FIELD"},
		{orgUpsert, records(good, `"Entra_Object_Id__c":"u2","Seats__c":"three"`), 400, "JSON_PARSER_ERROR"},
		{orgUpsert, records(good, `"Entra_Object_Id__c":"u2","Id":"0035f0000000001AAA"`), 400, "INVALID_FIELD"},
		{orgUpsert, `{"records":[{"attributes":{"type":"Lead"},` + good + `}]}`, 400, "INVALID_TYPE"},
		{orgUpsert, `{"records":[{` + good + `}]}`, 400, "INVALID_TYPE"},
		{orgUpsert, records(many...), 400, "EXCEEDED_ID_LIMIT"},
		{orgUpsert, "{", 400, "JSON_PARSER_ERROR"},
		{orgData + "/composite/sobjects/Contact/Email", records(good), 404, "NOT_FOUND"},
		{orgData + "/composite/sobjects/Contract/Entra_Object_Id__c", records(good), 404, "NOT_FOUND"},
		{"/services/data/62/composite/sobjects/Contact/Entra_Object_Id__c", records(good), 404, "NOT_FOUND"},
	}
	for _, tt := range tests {
		status, _, got := s.do(t, "PATCH", tt.path, tt.body)
		if c := codes(t, got); status != tt.status || c[0] != tt.code {
			t.Errorf("%s: %d %v, want %d %s", tt.path, status, c, tt.status, tt.code)
		}
	}
	if got := s.Records(); len(got) != 0 {
		t.Errorf("records %v", got)
	}
}

func TestSalesforceExternalIDsInOneCallAreDifferent(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	_, _, got := s.do(t, "PATCH", orgUpsert, records(`"Entra_Object_Id__c":"u1","LastName":"One"`, `"Entra_Object_Id__c":"u2","LastName":"Two"`, `"Entra_Object_Id__c":"U1","LastName":"One"`))
	if diff := cmp.Diff(codes(t, got), []string{"DUPLICATE_VALUE", "", "DUPLICATE_VALUE"}); diff != "" {
		t.Error(diff)
	}
}

func TestSalesforceUniqueIndexDecidesRaces(t *testing.T) {
	for _, path := range []string{orgUpsert, orgData + "/sobjects/Contact/Entra_Object_Id__c/u1"} {
		var both sync.WaitGroup
		both.Add(2)
		s := newOrg(t, sim.SalesforceOptions{During: func() { both.Done(); both.Wait() }})
		body := `{"LastName":"One"}`
		if path == orgUpsert {
			body = records(`"Entra_Object_Id__c":"u1","LastName":"One"`)
		}
		answers := make(chan any, 2)
		for range 2 {
			go func() {
				_, _, got := s.do(t, "PATCH", path, body)
				answers <- got
			}()
		}
		text := fmt.Sprint(<-answers, <-answers)
		if strings.Count(text, "DUPLICATE_VALUE") != 1 || strings.Count(text, "success:true") != 1 || len(s.Records()) != 1 ||
			!strings.Contains(text, "duplicate value found: Entra_Object_Id__c duplicates value on record with id: 003") {
			t.Errorf("%s: got %s, %d records", path, text, len(s.Records()))
		}
	}
}

func TestSalesforceOneRecord(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	one := orgData + "/sobjects/Contact/Entra_Object_Id__c/u1"
	status, _, got := s.do(t, "PATCH", one, `{"LastName":"One"}`)
	id := got.(map[string]any)["id"].(string)
	if status != 201 {
		t.Errorf("created: %d %v", status, got)
	}
	if status, _, got = s.do(t, "PATCH", one, `{"FirstName":"Ada"}`); status != 200 || got.(map[string]any)["created"] != false {
		t.Errorf("changed: %d %v", status, got)
	}
	for _, body := range []string{`{"Entra_Object_Id__c":"u1"}`, `{"Id":"` + id + `"}`} {
		if status, _, got := s.do(t, "PATCH", one, body); status != 400 || codes(t, got)[0] != "INVALID_FIELD" {
			t.Errorf("%s: %d %v", body, status, got)
		}
	}
	if status, _, got := s.do(t, "PATCH", orgData+"/sobjects/Contact/"+id, `{"Phone":"1"}`); status != 204 || got != nil {
		t.Errorf("by id: %d %v", status, got)
	}
	_, _, got = s.do(t, "GET", orgData+"/sobjects/Contact/"+id+"?fields=phone,Email", "")
	want := map[string]any{
		"attributes": map[string]any{"type": "Contact", "url": orgData + "/sobjects/Contact/" + id}, "Id": id, "Phone": "1", "Email": nil,
	}
	if diff := cmp.Diff(got, any(want)); diff != "" {
		t.Error(diff)
	}
	s.Edit(id, func(r *sim.SalesforceRecord) { r.Deleted = true })
	for _, method := range []string{"GET", "PATCH"} {
		if status, _, got := s.do(t, method, orgData+"/sobjects/Contact/"+id, "{}"); status != 404 || codes(t, got)[0] != "ENTITY_IS_DELETED" {
			t.Errorf("%s a deleted one: %d %v", method, status, got)
		}
	}
	if status, _, _ := s.do(t, "PATCH", one, `{"LastName":"One"}`); status != 201 {
		t.Errorf("made anew: %d", status)
	}
}

func TestSalesforceSeveralRecordsWithTheExternalID(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	for range 2 {
		s.Add(sim.SalesforceRecord{Object: "Contact", Fields: map[string]any{"Legacy_Id__c": "l1", "LastName": "One"}})
	}
	if status, _, got := s.do(t, "PATCH", orgData+"/sobjects/Contact/Legacy_Id__c/L1", `{}`); status != 300 || len(got.([]any)) != 2 {
		t.Errorf("one: %d %v", status, got)
	}
	status, _, got := s.do(t, "PATCH", orgData+"/composite/sobjects/Contact/Legacy_Id__c", records(`"Legacy_Id__c":"l1"`))
	if status != 200 || codes(t, got)[0] != "DUPLICATE_EXTERNAL_ID" {
		t.Errorf("collection: %d %v", status, got)
	}
}

func TestSalesforceDuplicateRules(t *testing.T) {
	const mail = `"Email":"one@example.com","LastName":"One"`
	tests := []struct {
		rule, header string
		code         string
	}{
		{"", "", ""}, {"alert", "", "DUPLICATES_DETECTED"}, {"alert", "allowSave=true; includeRecordDetails=true", ""},
		{"block", "allowSave=true", "DUPLICATES_DETECTED"},
	}
	for _, tt := range tests {
		s := newOrg(t, sim.SalesforceOptions{Duplicates: tt.rule})
		s.Add(sim.SalesforceRecord{Object: "Contact", Fields: map[string]any{"Email": "ONE@example.com", "LastName": "X"}})
		_, _, got := s.do(t, "PATCH", orgUpsert, records(`"Entra_Object_Id__c":"u1",`+mail), "Sforce-Duplicate-Rule-Header", tt.header)
		if c := codes(t, got); c[0] != tt.code || strings.Contains(fmt.Sprint(got), "matchResults") {
			t.Errorf("%s, %s: %v, want %q", tt.rule, tt.header, got, tt.code)
		}
	}
	for header, wantDetails := range map[string]bool{"": false, "includeRecordDetails=true": true} {
		s := newOrg(t, sim.SalesforceOptions{Duplicates: "alert"})
		id := s.Add(sim.SalesforceRecord{Object: "Contact", Fields: map[string]any{"Email": "ONE@example.com", "LastName": "X"}})
		status, _, got := s.do(t, "PATCH", orgData+"/sobjects/Contact/Entra_Object_Id__c/u1", "{"+mail+"}", "Sforce-Duplicate-Rule-Header", header)
		text := fmt.Sprint(got)
		if status != 400 || !strings.Contains(text, "duplicateResut:map") || !strings.Contains(text, "Id:"+id) || strings.Contains(text, "LastName:X") != wantDetails {
			t.Errorf("%s: %d %s", header, status, text)
		}
	}
}

func TestSalesforceSessionsAndLimits(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{SessionCalls: 2, DailyCalls: 100})
	describe := orgData + "/sobjects/Contact/describe"
	for i, want := range []int{200, 200, 401, 401} {
		if status, header, got := s.do(t, "GET", describe, ""); status != want || want == 401 && (codes(t, got)[0] != "INVALID_SESSION_ID" || header.Get("Sforce-Limit-Info") != "") {
			t.Errorf("call %d: %d", i, status)
		}
	}
	s.login(t)
	s.EndSessions()
	if status, _, _ := s.do(t, "GET", describe, ""); status != 401 {
		t.Errorf("after the end: %d", status)
	}
	s.login(t)
	s.UseUp(100)
	if status, header, got := s.do(t, "GET", describe, ""); status != 403 || codes(t, got)[0] != "REQUEST_LIMIT_EXCEEDED" || header.Get("Sforce-Limit-Info") != "api-usage=100/100" {
		t.Errorf("used up: %d %v", status, got)
	}
	if got := s.Calls(); got["describe"] != 2 || got["token"] != 3 {
		t.Errorf("calls %v", got)
	}
}

// Of 25 calls that last 20 s or longer none more is let in; as long as they are shorter it does not matter how many there are.
func TestSalesforceLimitsLongCallsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.NewSalesforce(sim.SalesforceOptions{ClientID: orgKey, ClientSecret: orgSecret, Takes: func() time.Duration { return 30 * time.Second }})
		grant := httptest.NewRequest("POST", "/services/oauth2/token", strings.NewReader("grant_type=client_credentials&client_id="+orgKey+"&client_secret="+orgSecret))
		grant.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, grant)
		var session struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &session); err != nil {
			t.Fatal(err)
		}
		var answers [28]int
		var calls sync.WaitGroup
		for i, at := range [28]time.Duration{25: 19 * time.Second, 26: 20 * time.Second, 27: 31 * time.Second} {
			calls.Go(func() {
				time.Sleep(at)
				r := httptest.NewRequest("GET", orgData+"/sobjects/Contact/describe", nil)
				r.Header.Set("Authorization", "Bearer "+session.Token)
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				if answers[i] = w.Code; w.Code == 403 && !strings.Contains(w.Body.String(), "REQUEST_LIMIT_EXCEEDED") {
					t.Errorf("refused with %s", w.Body)
				}
			})
		}
		calls.Wait()
		for i, got := range answers {
			if want := map[bool]int{false: 200, true: 403}[i == 26]; got != want {
				t.Errorf("call %d: %d, want %d", i, got, want)
			}
		}
	})
}

func TestSalesforceDescribesAnObject(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	_, _, got := s.do(t, "GET", orgData+"/sobjects/lead/describe", "")
	described := got.(map[string]any)
	fields := map[string]map[string]any{}
	for _, f := range described["fields"].([]any) {
		fields[f.(map[string]any)["name"].(string)] = f.(map[string]any)
	}
	own, company, created := fields["Entra_Object_Id__c"], fields["Company"], fields["CreatedById"]
	if described["name"] != "Lead" || own["externalId"] != true || own["unique"] != true || own["length"] != 36.0 || own["nillable"] != true ||
		company["nillable"] != false || company["defaultedOnCreate"] != false || created["createable"] != false || fields["Id"]["type"] != "id" {
		t.Errorf("got %v", got)
	}
}

func TestSalesforceRefusesRecordsThatItIsToldTo(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	s.RefuseRecords(1, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
	_, _, got := s.do(t, "PATCH", orgUpsert, records(`"Entra_Object_Id__c":"u1","LastName":"One"`, `"Entra_Object_Id__c":"u2","LastName":"Two"`))
	if diff := cmp.Diff(codes(t, got), []string{"UNABLE_TO_LOCK_ROW", ""}); diff != "" {
		t.Error(diff)
	}
}

// signed is a JWT by this key.
func signed(t *testing.T, key *rsa.PrivateKey, head, claims string) string {
	t.Helper()
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(head)) + "." + enc.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + enc.EncodeToString(signature)
}

func TestSalesforceAssertions(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := newOrg(t, sim.SalesforceOptions{PublicKey: &key.PublicKey, Username: "sync@example.org"})
	const rs256 = `{"alg":"RS256"}`
	claims := func(iss, sub, aud string, left time.Duration) string {
		return fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":%s,"exp":%d}`, iss, sub, aud, start.Add(left).Unix())
	}
	const user, login = "sync@example.org", `"https://login.salesforce.com"`
	tests := []struct {
		name, assertion, want string
	}{
		{"good", signed(t, key, rs256, claims(orgKey, user, login, 2*time.Minute)), ""},
		{"consumer", signed(t, key, rs256, claims("other", user, login, 2*time.Minute)), "invalid_client_id: client identifier invalid"},
		{"user", signed(t, key, rs256, claims(orgKey, "other", login, 2*time.Minute)), "invalid_grant: user hasn't approved this consumer"},
		{"audience", signed(t, key, rs256, claims(orgKey, user, `"https://test.salesforce.com"`, 2*time.Minute)), "invalid_grant: audience is invalid"},
		{"audiences", signed(t, key, rs256, claims(orgKey, user, "["+login+"]", 2*time.Minute)), "invalid_grant: invalid assertion"},
		{"late", signed(t, key, rs256, claims(orgKey, user, login, 0)), "invalid_grant: expired authorization code"},
		{"far", signed(t, key, rs256, claims(orgKey, user, login, 6*time.Minute)), "invalid_grant: expired authorization code"},
		{"key", signed(t, other, rs256, claims(orgKey, user, login, 2*time.Minute)), "invalid_grant: invalid assertion"},
		{"algorithm", signed(t, key, `{"alg":"none"}`, claims(orgKey, user, login, 2*time.Minute)), "invalid_grant: invalid assertion"},
		{"nonsense", "a.b", "invalid_grant: invalid assertion"},
	}
	for _, tt := range tests {
		status, body := s.grant(t, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {tt.assertion}})
		got := ""
		if status != 200 {
			got = fmt.Sprintf("%v: %v", body["error"], body["error_description"])
		}
		if got != tt.want {
			t.Errorf("%s: %d %q, want %q", tt.name, status, got, tt.want)
		}
	}
	for word, form := range map[string]url.Values{
		"invalid_client":         {"grant_type": {"client_credentials"}, "client_id": {orgKey}, "client_secret": {"other"}},
		"invalid_client_id":      {"grant_type": {"client_credentials"}, "client_id": {"other"}, "client_secret": {orgSecret}},
		"unsupported_grant_type": {"grant_type": {"password"}},
	} {
		if status, body := s.grant(t, form); status != 400 || body["error"] != word {
			t.Errorf("%s: %d %v", word, status, body)
		}
	}
}

// A creation asks for nothing but the unique index.
func TestSalesforceCreates(t *testing.T) {
	s := newOrg(t, sim.SalesforceOptions{})
	const body = `{"LastName":"Lovelace","Email":"a@example.com"`
	for range 2 {
		if status, _, got := s.do(t, "POST", orgData+"/sobjects/Contact", body+`}`); status != 201 || got.(map[string]any)["success"] != true {
			t.Errorf("got %d %v", status, got)
		}
	}
	for _, want := range []int{201, 400} {
		if status, _, got := s.do(t, "POST", orgData+"/sobjects/Contact", body+`,"Entra_Object_Id__c":"6d2c0f5e"}`); status != want {
			t.Errorf("got %d %v, want %d", status, got, want)
		}
	}
	if all := s.Records(); len(all) != 3 || all[0].Fields["Email"] != "a@example.com" || all[0].ID == all[1].ID {
		t.Errorf("got %v", all)
	}
}
