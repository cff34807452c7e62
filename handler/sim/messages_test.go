package sim_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/sim"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const gridMedia = "application/cloudevents-batch+json; charset=utf-8"

// ask calls a simulated Azure service with a token for a resource ("" = none) and headers, as name and value.
func ask(h http.Handler, method, target, resource, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-Ms-Version", "2026-04-06")
	if resource != "" {
		r.Header.Set("Authorization", "Bearer "+sim.Token(sim.Claims{Audience: resource, Expires: noon.Add(time.Hour).Unix()}))
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEventGridTakesEventsByTheLetter(t *testing.T) {
	const minimal = `{"specversion":"1.0","id":"e1","source":"/s","type":"t"`
	tests := map[string]int{
		minimal + `}`: 200,
		minimal + `,"subject":"u","time":"2026-11-20T12:00:00.5+01:00","datacontenttype":"application/json","dataschema":"https://example.com/s","data":{}}`: 200,
		minimal + `,"data":null,"subject":null,"tries":3,"vip":true,"plan":"free"}`:                                                                          200,
		minimal + `,"data_base64":"eA=="}`:                         200,
		minimal + `,"data":1,"data_base64":"eA=="}`:                400,
		minimal + `,"subject":""}`:                                 400,
		minimal + `,"subject":1}`:                                  400,
		minimal + `,"time":"yesterday"}`:                           400,
		minimal + `,"datacontenttype":"json/"}`:                    400,
		minimal + `,"dataschema":"schema.json"}`:                   400,
		minimal + `,"Plan":"free"}`:                                400,
		minimal + `,"plan_name":"free"}`:                           400,
		minimal + `,"plan":{"name":"free"}}`:                       400,
		minimal + `,"score":0.5}`:                                  400,
		minimal + `,"big":2147483648}`:                             400,
		`{"specversion":"0.3","id":"e1","source":"/s","type":"t"}`: 400,
		`{"specversion":1.0,"id":"e1","source":"/s","type":"t"}`:   400,
		`{"specversion":"1.0","id":"","source":"/s","type":"t"}`:   400,
		`{"specversion":"1.0","source":"/s","type":"t"}`:           400,
		`{"specversion":"1.0","id":"e1","source":"%","type":"t"}`:  400,
		`{"specversion":"1.0","id":"e1","type":"t"}`:               400,
		`{"specversion":"1.0","id":"e1","source":"/s"}`:            400,
		`null`: 400,
		`"x"`:  400,
	}
	for event, want := range tests {
		there := sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(noon)})
		w := ask(there, "POST", "/api/events?api-version=2018-01-01", "https://eventgrid.azure.net", "["+minimal+"},"+event+"]", "Content-Type", gridMedia)
		took := 0
		if want == 200 {
			took = 2
		}
		if w.Code != want || len(there.Events()) != took {
			t.Errorf("%s: got %d and %d events, want %d; %s", event, w.Code, len(there.Events()), want, w.Body)
		}
	}
}

func TestEventGridRefusals(t *testing.T) {
	const path, resource, good = "/api/events?api-version=2018-01-01", "https://eventgrid.azure.net", `[{"specversion":"1.0","id":"e1","source":"/s","type":"t"}]`
	there := sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(noon)})
	old := sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(noon), OldSchema: true})
	sized := func(n int) string {
		const frame = `[{"specversion":"1.0","id":"e1","source":"/s","type":"t","data":""}]`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", n-len(frame))+`"`, 1)
	}
	tests := []struct {
		name                   string
		there                  *sim.EventGrid
		method, path, resource string
		body, media            string
		want                   int
		code                   string
	}{
		{"good", there, "POST", path, resource, good, gridMedia, 200, ""},
		{"the resource with a slash", there, "POST", path, resource + "/", good, gridMedia, 200, ""},
		{"as large as can be", there, "POST", path, resource, sized(1 << 20), gridMedia, 200, ""},
		{"too large", there, "POST", path, resource, sized(1<<20 + 1), gridMedia, 413, "PayloadTooLarge"},
		{"no token", there, "POST", path, "", good, gridMedia, 401, "Unauthorized"},
		{"another's token", there, "POST", path, "https://servicebus.azure.net/", good, gridMedia, 401, "Unauthorized"},
		{"GET", there, "GET", path, resource, "", gridMedia, 404, "NotFound"},
		{"another path", there, "POST", "/events?api-version=2018-01-01", resource, good, gridMedia, 404, "NotFound"},
		{"no version", there, "POST", "/api/events", resource, good, gridMedia, 400, "BadRequest"},
		{"no array", there, "POST", path, resource, good[1 : len(good)-1], gridMedia, 400, "BadRequest"},
		{"nobody", there, "POST", path, resource, "[]", gridMedia, 400, "BadRequest"},
		{"one event's media type", there, "POST", path, resource, good, "application/cloudevents+json; charset=utf-8", 415, "UnsupportedMediaType"},
		{"another schema", old, "POST", path, resource, good, gridMedia, 400, "BadRequest"},
	}
	for _, tt := range tests {
		w := ask(tt.there, tt.method, tt.path, tt.resource, tt.body, "Content-Type", tt.media)
		var body struct{ Error struct{ Code string } }
		if err := json.Unmarshal(w.Body.Bytes(), &body); w.Code != tt.want || body.Error.Code != tt.code || err != nil && tt.code != "" {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, w.Code, w.Body, tt.want, tt.code)
		}
	}
	if there.Calls() != 3 || there.Events()[0].ID != "e1" || !there.Events()[0].At.Equal(noon) {
		t.Errorf("%d calls, %+v", there.Calls(), there.Events())
	}
}

func TestServiceBusDropsDuplicatesForAWhile(t *testing.T) {
	clock := sim.NewClock(noon)
	there := sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{"q", "crm/t"}})
	send := func(entity, id string) int {
		return ask(there, "POST", "/"+entity+"/messages", "https://servicebus.azure.net/", "x", "BrokerProperties", `{"MessageId":"`+id+`"}`).Code
	}
	for i, step := range []struct {
		entity, id string
		after      time.Duration
		want       int
	}{
		{"q", "m1", 0, 1},
		{"q", "m1", 10*time.Minute - 1, 1},
		{"crm/t", "m1", 0, 2}, // each entity remembers for itself
		{"q", "m2", 0, 3},
		{"q", "m1", 1, 4}, // the window is that of the message that was kept
		{"q", "", 0, 5},   // without an id there are no duplicates
		{"q", "", 0, 6},
	} {
		clock.Advance(step.after)
		if status := send(step.entity, step.id); status != 201 || len(there.Messages()) != step.want {
			t.Errorf("%d: got %d and %d messages, want %d", i, status, len(there.Messages()), step.want)
		}
	}
	m := there.Messages()[1]
	if m.Entity != "crm/t" || m.ID != "m1" || !m.At.Equal(noon.Add(10*time.Minute-1)) {
		t.Errorf("got %+v", m)
	}
}

func TestServiceBusRefusals(t *testing.T) {
	const resource = "https://servicebus.azure.net/"
	o := sim.ServiceBusOptions{Clock: sim.NewClock(noon), Entities: []string{"q"}}
	with := func(change func(*sim.ServiceBusOptions)) *sim.ServiceBus {
		changed := o
		change(&changed)
		return sim.NewServiceBus(changed)
	}
	there := sim.NewServiceBus(o)
	full := with(func(o *sim.ServiceBusOptions) { o.Full = true })
	sessions := with(func(o *sim.ServiceBusOptions) { o.Sessions = true })
	manages := with(func(o *sim.ServiceBusOptions) { o.Manages = true })
	tests := []struct {
		name                         string
		there                        *sim.ServiceBus
		method, path, resource, line string
		size                         int
		want                         int
	}{
		{"good", there, "POST", "/q/messages", resource, `{"MessageId":"m"}`, 9, 201},
		{"no properties", there, "POST", "/q/messages", resource, "", 9, 201},
		{"another's token", there, "POST", "/q/messages", "https://eventgrid.azure.net", "", 9, 401},
		{"no token", there, "POST", "/q/messages", "", "", 9, 401},
		{"a stranger learns nothing", there, "POST", "/nobody/messages", "", "", 9, 401},
		{"no such entity", there, "POST", "/nobody/messages", resource, "", 9, 404},
		{"properties are no JSON", there, "POST", "/q/messages", resource, "{", 9, 400},
		{"the longest id", there, "POST", "/q/messages", resource, `{"MessageId":"` + strings.Repeat("m", 128) + `"}`, 9, 201},
		{"an id too long", there, "POST", "/q/messages", resource, `{"MessageId":"` + strings.Repeat("m", 129) + `"}`, 9, 400},
		{"as large as can be", there, "POST", "/q/messages", resource, "", 256 << 10, 201},
		{"too large", there, "POST", "/q/messages", resource, "", 256<<10 + 1, 403},
		{"full", full, "POST", "/q/messages", resource, "", 9, 403},
		{"no session", sessions, "POST", "/q/messages", resource, `{"MessageId":"m"}`, 9, 400},
		{"a session", sessions, "POST", "/q/messages", resource, `{"MessageId":"m","SessionId":"u"}`, 9, 201},
		{"takes none away", there, "DELETE", "/q/messages", resource, "", 0, 405},
		{"a sender reads", there, "GET", "/q", resource, "", 0, 401},
		{"a manager reads", manages, "GET", "/q", resource, "", 0, 200},
		{"a manager reads nothing", manages, "GET", "/nobody", resource, "", 0, 200},
	}
	for _, tt := range tests {
		w := ask(tt.there, tt.method, tt.path, tt.resource, strings.Repeat("x", tt.size), "BrokerProperties", tt.line)
		if w.Code != tt.want || tt.want >= 400 && !strings.HasPrefix(w.Body.String(), fmt.Sprintf("<Error><Code>%d</Code>", tt.want)) {
			t.Errorf("%s: got %d %s, want %d", tt.name, w.Code, w.Body, tt.want)
		}
	}
}

func TestStorageQueueRefusals(t *testing.T) {
	const resource = "https://storage.azure.com"
	there := sim.NewStorageQueue(sim.StorageQueueOptions{Clock: sim.NewClock(noon), Queues: []string{"q"}, Key: "a2V5"})
	sender := sim.NewStorageQueue(sim.StorageQueueOptions{Clock: sim.NewClock(noon), Queues: []string{"q"}, SendOnly: true})
	text := func(n int) string {
		return "<QueueMessage><MessageText>" + strings.Repeat("x", n) + "</MessageText></QueueMessage>"
	}
	tests := []struct {
		name                         string
		there                        *sim.StorageQueue
		method, path, resource, body string
		headers                      []string
		want                         int
		code                         string
	}{
		{"good", there, "POST", "/q/messages", resource, text(1), nil, 201, ""},
		{"the resource with a slash", there, "POST", "/q/messages", resource + "/", text(1), nil, 201, ""},
		{"below the account's name", there, "POST", "/devstoreaccount1/q/messages?messagettl=-1", resource, text(1), nil, 201, ""},
		{"as large as can be", there, "POST", "/q/messages", resource, text(64 << 10), nil, 201, ""},
		{"too large", there, "POST", "/q/messages", resource, text(64<<10 + 1), nil, 400, "MessageTooLarge"},
		{"no XML", there, "POST", "/q/messages", resource, "x", nil, 400, "InvalidXmlDocument"},
		{"no time to live", there, "POST", "/q/messages?messagettl=0", resource, text(1), nil, 400, "OutOfRangeQueryParameterValue"},
		{"no version", there, "POST", "/q/messages", resource, text(1), []string{"X-Ms-Version", ""}, 400, "MissingRequiredHeader"},
		{"no token", there, "POST", "/q/messages", "", text(1), nil, 401, "NoAuthenticationInformation"},
		{"another's token", there, "POST", "/q/messages", "https://vault.azure.net", text(1), nil, 401, "InvalidAuthenticationInfo"},
		{"a bad signature", there, "POST", "/q/messages", "", text(1), []string{"Authorization", "SharedKey devstoreaccount1:eA=="}, 403, "AuthenticationFailed"},
		{"no such queue", there, "POST", "/nobody/messages", resource, text(1), nil, 404, "QueueNotFound"},
		{"takes none away", there, "GET", "/q/messages", resource, "", nil, 405, "UnsupportedHttpVerb"},
		{"makes no queue", there, "PUT", "/q", resource, "", nil, 405, "UnsupportedHttpVerb"},
		{"properties", there, "GET", "/q?comp=metadata", resource, "", nil, 200, ""},
		{"properties of no queue", there, "GET", "/nobody?comp=metadata", resource, "", nil, 404, "QueueNotFound"},
		{"a sender reads", sender, "GET", "/q?comp=metadata", resource, "", nil, 403, "AuthorizationPermissionMismatch"},
		{"a sender sends", sender, "POST", "/q/messages", resource, text(1), nil, 201, ""},
	}
	for _, tt := range tests {
		w := ask(tt.there, tt.method, tt.path, tt.resource, tt.body, tt.headers...)
		if got := w.Header().Get("x-ms-error-code"); w.Code != tt.want || got != tt.code {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, w.Code, got, tt.want, tt.code)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (tt.want == 401) {
			t.Errorf("%s: challenge %q", tt.name, challenge)
		}
	}
}

func TestStorageQueueMessagesExpire(t *testing.T) {
	clock := sim.NewClock(noon)
	there := sim.NewStorageQueue(sim.StorageQueueOptions{Clock: clock, Queues: []string{"q"}})
	event := base64.StdEncoding.EncodeToString([]byte(`{"specversion":"1.0","id":"e1","source":"/s","type":"t","subject":"u1"}`))
	for _, ttl := range []string{"?messagettl=-1", "?messagettl=60", ""} {
		w := ask(there, "POST", "/q/messages"+ttl, "https://storage.azure.com", "<QueueMessage><MessageText>"+event+"</MessageText></QueueMessage>")
		if w.Code != 201 || !strings.Contains(w.Body.String(), "<MessageId>") {
			t.Errorf("%s: %d %s", ttl, w.Code, w.Body)
		}
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 3}, {time.Minute, 2}, {7 * 24 * time.Hour, 1}, {365 * 24 * time.Hour, 1}} {
		clock.Advance(step.after)
		got := there.Messages()
		if len(got) != step.want || got[0].Event.ID != "e1" || got[0].Event.Subject != "u1" || got[0].Text != event {
			t.Errorf("after %s: %+v, want %d", step.after, got, step.want)
		}
	}
}

func TestIdentityGivesTokens(t *testing.T) {
	const header, client = "h1", "11111111-5eed-4000-8000-0000000000aa"
	there := sim.NewIdentity(sim.IdentityOptions{Clock: sim.NewClock(noon), Header: header, ClientID: client, TokenLife: 2 * time.Hour})
	get := func(header, query string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/msi/token/?"+query, nil)
		r.Header.Set("X-IDENTITY-HEADER", header)
		w := httptest.NewRecorder()
		there.ServeHTTP(w, r)
		return w
	}
	const version, who, what = "api-version=2019-08-01", "&client_id=" + client, "&resource=https://servicebus.azure.net/"
	for query, want := range map[string]int{
		version + who + what: 200,
		version + what:       400, // there is none that the system assigned
		version + "&client_id=22222222-5eed-4000-8000-0000000000bb" + what: 400,
		version + who + "&principal_id=x" + what:                           400,
		version + who:                                                      400,
		version + who + "&resource=https://management.azure.com/":          400,
		"api-version=2017-09-01" + who + what:                              400,
	} {
		if w := get(header, query); w.Code != want {
			t.Errorf("%s: got %d %s, want %d", query, w.Code, w.Body, want)
		}
	}
	for _, wrong := range []string{"", "h2"} {
		if w := get(wrong, version+who+what); w.Code != 401 {
			t.Errorf("header %q: got %d", wrong, w.Code)
		}
	}
	var got map[string]string
	if err := json.Unmarshal(get(header, version+who+what).Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	expires, err := strconv.ParseInt(got["expires_on"], 10, 64)
	if left := time.Until(time.Unix(expires, 0)); err != nil || left > 2*time.Hour || left < 2*time.Hour-time.Minute {
		t.Errorf("it expires at %s by the machine's time: %s, %v", got["expires_on"], left, err)
	}
	if got["token_type"] != "Bearer" || got["resource"] != "https://servicebus.azure.net/" || got["client_id"] != client {
		t.Errorf("got %v", got)
	}
	clock := sim.NewClock(noon.Add(2*time.Hour - time.Second))
	bus := sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{"q"}})
	for _, want := range []int{201, 401} { // the token lives by the simulated time
		if w := ask(bus, "POST", "/q/messages", "", "x", "Authorization", "Bearer "+got["access_token"]); w.Code != want {
			t.Errorf("at %s: got %d, want %d", clock.Now(), w.Code, want)
		}
		clock.Advance(time.Second)
	}
}
