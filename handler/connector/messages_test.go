package connector_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// simIdentity is an identity that all simulated Azure services know.
type simIdentity struct {
	clock signup.Clock
	err   error // instead of a token

	mu     sync.Mutex
	scopes []string // that were asked for
}

func (i *simIdentity) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.scopes = append(i.scopes, o.Scopes...)
	expires := i.clock.Now().Add(time.Hour)
	return azcore.AccessToken{Token: tokenFor(strings.TrimSuffix(o.Scopes[0], "/.default"), i.clock), ExpiresOn: expires}, i.err
}

func tokenFor(resource string, clock signup.Clock) string {
	return sim.Token(sim.Claims{Audience: resource, Expires: clock.Now().Add(time.Hour).Unix()})
}

// foreign is a good token for another service.
func foreign(clock signup.Clock) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+tokenFor("https://graph.microsoft.com", clock))
	}
}

// broker is what the three simulated ones have in common.
type broker struct {
	kind     string
	settings func(root string) map[string]any
	handler  http.Handler
	faults   *sim.Faults
	events   func() []sim.CloudEvent // all that were taken, again and again the same ones too
	limit    int                     // of an event, in bytes
}

// system puts a broker to the test. Its accounts are distinct event ids, which is what a receiver has that takes each id
// once; no broker promises more than that a message arrives.
func (b broker) system(t testing.TB, clock *sim.Clock) *connectortest.System {
	g := &gate{next: b.handler}
	root, client := serve(t, g)
	log := &lockedBuffer{}
	c := open(t, b.kind, b.settings(root), connector.Env{
		HTTP: client, Token: &simIdentity{clock: clock}, Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	s := &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{strings.TrimPrefix(root, "https://"), "newcomers", queueKey, "eyJ"},
		Accounts: func(user signup.UserID) int {
			ids := map[string]bool{}
			for _, e := range b.events() {
				if e.Subject == string(user) {
					ids[e.ID] = true
				}
			}
			return len(ids)
		},
		State: func() string { return asJSON(b.events()) },
		Record: func(email, name string) map[string]any {
			r := map[string]any{"name": name}
			if email != "" {
				r["email"] = email
			}
			return r
		},
		Rejected: func(signup.UserID) map[string]any {
			return map[string]any{"bio": strings.Repeat("lovelace", b.limit/8)}
		},
		Stranger: func() string { return "ea1_" + strings.Repeat("9", 64) },
		Move:     func(signup.UserID, string) {},
	}
	overHTTP(s, b.faults, g, "POST", "GET", foreign(clock))
	return s
}

// brokers are the kinds that send messages, each at a server with this handler.
func brokers(t *testing.T, h http.HandlerFunc) (map[string]signup.Connector, *simIdentity) {
	t.Helper()
	root, client := serve(t, h)
	clock := sim.NewClock(start)
	id := &simIdentity{clock: clock}
	env := connector.Env{HTTP: client, Token: id, Clock: clock}
	return map[string]signup.Connector{
		"eventGrid":    open(t, "eventGrid", map[string]any{"url": root}, env),
		"serviceBus":   open(t, "serviceBus", map[string]any{"url": root, "entity": "crm/newcomers", "session": true}, env),
		"storageQueue": open(t, "storageQueue", map[string]any{"url": root, "queue": "newcomers", "ttl": "129599500ms"}, env),
	}, id
}

// queued is the queue's answer to a message.
const queued = `<?xml version="1.0" encoding="utf-8"?><QueueMessagesList><QueueMessage><MessageId>m1</MessageId></QueueMessage></QueueMessagesList>`

// taken is what each broker answers when it takes a message.
func taken(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/events"):
	case strings.HasPrefix(r.URL.Path, "/crm/"):
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(queued))
	}
}

func TestBrokerRequests(t *testing.T) {
	var got *http.Request
	var body []byte
	all, id := brokers(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		taken(w, r)
	})
	for kind, scope := range map[string]string{
		"eventGrid":    "https://eventgrid.azure.net/.default",
		"serviceBus":   "https://servicebus.azure.net//.default",
		"storageQueue": "https://storage.azure.com/.default",
	} {
		id.scopes = nil
		for _, again := range []bool{false, true} { // the event is the same in every try
			req := ada
			req.Unsure = again
			a, err := all[kind].Associate(t.Context(), req)
			if diff := cmp.Diff(a, signup.Account{ID: "ea1_" + ada.Key, Created: true}); diff != "" || err != nil {
				t.Errorf("%s: account (-got +want):\n%s%v", kind, diff, err)
			}
			golden(t, "message-"+kind+".txt", message(t, got, body))
		}
		if diff := cmp.Diff(id.scopes, []string{scope, scope}); diff != "" {
			t.Errorf("%s: scopes (-got +want):\n%s", kind, diff)
		}
	}
}

// message is a request with the event in it made readable.
func message(t *testing.T, r *http.Request, body []byte) string {
	t.Helper()
	token := strings.HasPrefix(r.Header.Get("Authorization"), "Bearer eyJ")
	text := fmt.Sprintf("%s %s\nAuthorization: bearer %t\n", r.Method, r.URL.RequestURI(), token)
	for _, name := range []string{"Brokerproperties", "Content-Type", "User-Agent", "X-Ms-Retrypolicy", "X-Ms-Version"} {
		if v := r.Header.Get(name); v != "" {
			text += name + ": " + v + "\n"
		}
	}
	if before, coded, ok := strings.Cut(string(body), "<MessageText>"); ok {
		coded, after, _ := strings.Cut(coded, "</MessageText>")
		event, err := base64.StdEncoding.DecodeString(coded)
		if err != nil {
			t.Error(err)
		}
		text, body = text+"\n"+before+"<MessageText>(in base64)</MessageText>"+after+"\n", event
	}
	var pretty any
	if err := json.Unmarshal(body, &pretty); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	return text + "\n" + asJSON(pretty) + "\n"
}

func TestBrokerOutcomes(t *testing.T) {
	const chatty = `<Error><Code>1</Code><Detail>ada.lovelace@example.com</Detail></Error>`
	coded := func(status int, word string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-ms-error-code", word)
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(chatty))
		}
	}
	plain := func(status int) http.HandlerFunc { return coded(status, "") }
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	tests := []struct {
		kind   string
		answer http.HandlerFunc
		class  signup.Class
		code   string
		detail string
	}{
		{"eventGrid", plain(302), signup.Systemic, "redirected", ""},
		{"eventGrid", plain(400), signup.Systemic, "rejected", "the topic refuses every event; is CloudEvents 1.0 its input schema?"},
		{"eventGrid", plain(401), signup.Systemic, "unauthorized", ""},
		{"eventGrid", plain(403), signup.Systemic, "forbidden", "the identity may not send to the topic, or the topic's network rules keep the app out"},
		{"eventGrid", plain(404), signup.Systemic, "not-found", "there is no such topic"},
		{"eventGrid", plain(413), signup.Permanent, "rejected", "the topic finds the event too large"},
		{"eventGrid", plain(415), signup.Systemic, "rejected", "the topic refuses every event; is CloudEvents 1.0 its input schema?"},
		{"eventGrid", plain(429), signup.Throttled, "throttled", ""},
		{"eventGrid", plain(503), signup.Transient, "unavailable", ""},
		{"eventGrid", says(202, "{}"), signup.Transient, "not-understood", "the answer is not Event Grid's"},
		{"eventGrid", says(200, "<html>sign in</html>"), signup.Transient, "not-understood", "the answer is not Event Grid's"},
		{"eventGrid", says(200, `{"error":{"code":"BadRequest"}}`), signup.Transient, "not-understood", "the answer is not Event Grid's"},
		{"eventGrid", says(200, `"sign in"`), signup.Transient, "not-understood", "the answer is not Event Grid's"},
		{"serviceBus", plain(302), signup.Systemic, "redirected", ""},
		{"serviceBus", plain(400), signup.Systemic, "rejected", "the entity takes no such messages; settings.session must be true if, and only if, it requires sessions"},
		{"serviceBus", plain(401), signup.Systemic, "unauthorized", ""},
		{"serviceBus", plain(403), signup.Systemic, "forbidden", "the entity is full, or the namespace's network rules keep the app out"},
		{"serviceBus", plain(404), signup.Systemic, "not-found", "there is no such queue or topic in the namespace"},
		{"serviceBus", plain(410), signup.Systemic, "not-found", "there is no such queue or topic in the namespace"},
		{"serviceBus", plain(405), signup.Systemic, "rejected", ""},
		{"serviceBus", plain(413), signup.Permanent, "rejected", ""},
		{"serviceBus", plain(429), signup.Throttled, "throttled", ""},
		{"serviceBus", plain(500), signup.Transient, "unavailable", ""},
		{"serviceBus", says(200, "{}"), signup.Transient, "not-understood", "the answer is not Service Bus's"},
		{"storageQueue", plain(301), signup.Systemic, "redirected", ""},
		{"storageQueue", coded(400, "InvalidHeaderValue"), signup.Systemic, "rejected", "storage: InvalidHeaderValue"},
		{"storageQueue", coded(400, "MessageTooLarge"), signup.Permanent, "rejected", "storage: MessageTooLarge"},
		{"storageQueue", coded(400, "ada@example.com"), signup.Systemic, "rejected", ""},
		{"storageQueue", coded(401, "InvalidAuthenticationInfo"), signup.Systemic, "unauthorized", "storage: InvalidAuthenticationInfo"},
		{"storageQueue", coded(403, "AuthenticationFailed"), signup.Systemic, "unauthorized", "storage: AuthenticationFailed"},
		{"storageQueue", coded(403, "AuthorizationFailure"), signup.Systemic, "forbidden", "storage: AuthorizationFailure"},
		{"storageQueue", coded(403, "AuthorizationPermissionMismatch"), signup.Systemic, "permission-mismatch", "storage: AuthorizationPermissionMismatch"},
		{"storageQueue", coded(404, "QueueNotFound"), signup.Systemic, "not-found", "storage: QueueNotFound"},
		{"storageQueue", coded(409, "QueueBeingDeleted"), signup.Transient, "conflict", "storage: QueueBeingDeleted"},
		{"storageQueue", coded(413, "RequestBodyTooLarge"), signup.Permanent, "rejected", "storage: RequestBodyTooLarge"},
		{"storageQueue", coded(500, "OperationTimedOut"), signup.Transient, "unavailable", "storage: OperationTimedOut"},
		{"storageQueue", coded(503, "ServerBusy"), signup.Throttled, "throttled", "storage: ServerBusy"},
		{"storageQueue", plain(503), signup.Transient, "unavailable", ""},
		{"storageQueue", says(200, queued), signup.Transient, "not-understood", "the answer is not Azure Storage's"},
		{"storageQueue", says(201, "<html>sign in</html>"), signup.Transient, "not-understood", "the answer is not Azure Storage's"},
		{"storageQueue", says(201, ""), signup.Transient, "not-understood", "the answer is not Azure Storage's"},
		{"storageQueue", says(201, "<QueueMessagesList/>"), signup.Transient, "not-understood", "the answer is not Azure Storage's"},
		{"storageQueue", says(201, "<QueueMessagesList><QueueMessage/></QueueMessagesList>"), signup.Transient, "not-understood", "the answer is not Azure Storage's"},
	}
	for _, tt := range tests {
		calls := 0
		all, _ := brokers(t, func(w http.ResponseWriter, r *http.Request) { calls++; tt.answer(w, r) })
		e := call(t, all[tt.kind], ada)
		if e.Status == 403 {
			t.Errorf("%s: %v has a status that the engine takes for one user's trouble", tt.kind, e)
		}
		if e.Class != tt.class || e.Code != tt.code || e.Detail != tt.detail || calls != 1 {
			t.Errorf("%s: got %s, %q, %q after %d calls; want %s, %q, %q after one", tt.kind, e.Class, e.Code, e.Detail, calls, tt.class, tt.code, tt.detail)
		}
	}
}

// eventFrame is the length of ada's event with a record {"x": ""}, in bytes.
const eventFrame = 455

func TestBrokerLimits(t *testing.T) {
	bodies := 0
	all, _ := brokers(t, func(w http.ResponseWriter, r *http.Request) {
		bodies++
		_, _ = io.Copy(io.Discard, r.Body)
		taken(w, r)
	})
	sized := func(n int) signup.Request {
		req := ada
		req.Record = map[string]any{"x": strings.Repeat("x", n)}
		return req
	}
	for kind, limit := range map[string]int{"eventGrid": 1_000_000 - 3, "serviceBus": 250_000 - 1, "storageQueue": 48 << 10} {
		bodies = 0
		if _, err := all[kind].Associate(t.Context(), sized(limit-eventFrame)); err != nil || bodies != 1 {
			t.Errorf("%s: the largest event: %v after %d calls", kind, err, bodies)
		}
		if e := call(t, all[kind], sized(limit-eventFrame+1)); e.Class != signup.Permanent || e.Code != "invalid-record" || bodies != 1 {
			t.Errorf("%s: an event too large: %s, %v after %d calls", kind, e.Class, e, bodies)
		}
	}
}

func TestBrokerChecks(t *testing.T) {
	clock := sim.NewClock(start)
	bus := func(o sim.ServiceBusOptions) http.Handler {
		o.Clock = clock
		return sim.NewServiceBus(o)
	}
	queue := func(o sim.StorageQueueOptions) http.Handler {
		o.Clock = clock
		return sim.NewStorageQueue(o)
	}
	there := []string{"newcomers"}
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>sign in</html>")) })
	tests := []struct {
		kind string
		h    http.Handler
		want string // "" = it passes
	}{
		{"eventGrid", sim.NewEventGrid(sim.EventGridOptions{Clock: clock}), ""},
		{"eventGrid", sim.NewEventGrid(sim.EventGridOptions{Clock: clock, Resource: "https://other.azure.net"}), "unauthorized (HTTP 401)"},
		{"eventGrid", http.NotFoundHandler(), "not-found (HTTP 404): there is no such topic"},
		{"eventGrid", page, "not-understood: the answer is not Event Grid's"},
		{"serviceBus", bus(sim.ServiceBusOptions{Entities: there}), ""},
		{"serviceBus", bus(sim.ServiceBusOptions{Entities: there, Manages: true}), ""},
		{"serviceBus", bus(sim.ServiceBusOptions{Manages: true}), "not-found (HTTP 200): there is no such queue or topic in the namespace"},
		{"serviceBus", http.NotFoundHandler(), "not-found (HTTP 404): there is no such queue or topic in the namespace"},
		{"serviceBus", page, "not-understood: the answer is not Service Bus's"},
		{"storageQueue", queue(sim.StorageQueueOptions{Queues: there}), ""},
		{"storageQueue", queue(sim.StorageQueueOptions{Queues: there, SendOnly: true}), ""},
		{"storageQueue", queue(sim.StorageQueueOptions{}), "not-found (HTTP 404): storage: QueueNotFound"},
		{"storageQueue", queue(sim.StorageQueueOptions{Queues: there, Resource: "https://other.azure.net"}), "unauthorized (HTTP 401): storage: InvalidAuthenticationInfo"},
		{"storageQueue", page, "not-understood: the answer is not Azure Storage's"},
	}
	for i, tt := range tests {
		root, client := serve(t, tt.h)
		settings := map[string]map[string]any{
			"eventGrid": {"url": root}, "serviceBus": {"url": root, "entity": "newcomers"}, "storageQueue": {"url": root, "queue": "newcomers"},
		}[tt.kind]
		c := open(t, tt.kind, settings, connector.Env{HTTP: client, Token: &simIdentity{clock: clock}, Clock: clock})
		got := ""
		if err := c.Check(t.Context()); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%d, %s: got %q, want %q", i, tt.kind, got, tt.want)
		}
	}
}

func TestBrokerSettings(t *testing.T) {
	const ns, account = "https://contoso.servicebus.windows.net", "https://contoso.queue.core.windows.net"
	key := "AccountName=contoso;AccountKey=" + queueKey
	tests := []struct {
		kind     string
		settings map[string]any
		want     string
	}{
		{"eventGrid", map[string]any{}, "settings.url: missing"},
		{"eventGrid", map[string]any{"url": "https://t.westeurope-1.eventgrid.azure.net/api/events"}, "settings.url: wants the root only, without a path or query"},
		{"eventGrid", map[string]any{"url": "https://eventgrid.azure.net.example.com"}, "settings.url: the identity's token goes to Azure only: wants a host below .eventgrid.azure.net, .eventgrid.azure.us or .eventgrid.azure.cn"},
		{"serviceBus", map[string]any{"url": "https://contoso.example.com", "entity": "q"}, "settings.url: the identity's token goes to Azure only: wants a host below .servicebus.windows.net, .servicebus.usgovcloudapi.net or .servicebus.chinacloudapi.cn"},
		{"serviceBus", map[string]any{"url": "https://contoso.ServiceBus.chinacloudapi.cn", "entity": "q"}, ""},
		{"storageQueue", map[string]any{"url": "https://contoso.blob.core.windows.net", "queue": "newcomers"}, "settings.url: the identity's token goes to Azure only: wants a host below .queue.core.windows.net, .queue.storage.azure.net, .queue.core.usgovcloudapi.net or .queue.core.chinacloudapi.cn"},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": "QueueEndpoint=https://queues.example.com;SharedAccessSignature=sv=1&sig=x%3D"}, ""},
		{"serviceBus", map[string]any{"url": ns + "/"}, "settings.entity: missing"},
		{"serviceBus", map[string]any{"url": ns, "entity": "crm/sign-ups_2.0"}, ""},
		{"serviceBus", map[string]any{"url": "http://contoso.servicebus.windows.net", "entity": "q"}, "settings.url: http:// is for this machine only; use https://"},
		{"serviceBus", map[string]any{"url": ns, "entity": "../q"}, badEntity},
		{"serviceBus", map[string]any{"url": ns, "entity": "a/../q"}, badEntity},
		{"serviceBus", map[string]any{"url": ns, "entity": "a//q"}, badEntity},
		{"serviceBus", map[string]any{"url": ns, "entity": "q?x=1"}, badEntity},
		{"serviceBus", map[string]any{"url": ns, "entity": strings.Repeat("q", 261)}, badEntity},
		{"storageQueue", map[string]any{"url": account, "queue": "new-comers2"}, ""},
		{"storageQueue", map[string]any{"url": account, "queue": "new-comers2", "ttl": "1h"}, ""},
		{"storageQueue", map[string]any{"url": "http://127.0.0.1:10001/devstoreaccount1", "queue": "newcomers"}, ""},
		{"storageQueue", map[string]any{"url": account + "/newcomers", "queue": "newcomers"}, "settings.url: wants the root only, without a path or query"},
		{"storageQueue", map[string]any{"url": account + "?sv=1&sig=x", "queue": "newcomers"}, "settings.url: wants the root only, without a path or query"},
		{"storageQueue", map[string]any{"url": account}, "settings.queue: missing"},
		{"storageQueue", map[string]any{"url": account, "queue": "ab"}, badQueue},
		{"storageQueue", map[string]any{"url": account, "queue": "Newcomers"}, badQueue},
		{"storageQueue", map[string]any{"url": account, "queue": "new--comers"}, badQueue},
		{"storageQueue", map[string]any{"url": account, "queue": strings.Repeat("q", 64)}, badQueue},
		{"storageQueue", map[string]any{"url": account, "queue": "newcomers", "ttl": "600000h"}, "settings.ttl: is longer than the service can count"},
		{"storageQueue", map[string]any{"queue": "newcomers"}, "settings.url: wants either url or settings.connection"},
		{"storageQueue", map[string]any{"queue": "newcomers", "url": account, "connection": key}, "settings.url: wants either url or settings.connection"},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": key}, ""},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": "QueueEndpoint=" + account + ";SharedAccessSignature=sv=1&sig=x%3D"}, ""},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": "UseDevelopmentStorage=true"}, badConnection},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": "AccountName=contoso;AccountKey=%%%"}, badConnection},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": "DefaultEndpointsProtocol=http;" + key}, badEndpoint},
		{"storageQueue", map[string]any{"queue": "newcomers", "connection": "QueueEndpoint=http://10.0.0.1/contoso;" + key}, badEndpoint},
	}
	for _, tt := range tests {
		_, errs := kindOf(t, tt.kind).Open(tt.settings, connector.Env{})
		got := ""
		if err := errors.Join(errs...); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s %v: got %q, want %q", tt.kind, tt.settings, got, tt.want)
		}
	}
}

const (
	badEntity     = "settings.entity: wants the name of a queue or topic: letters, digits, '.', '-', '_' and '/', at most 260"
	badQueue      = "settings.queue: wants 3 to 63 of a-z, 0-9 and single dashes between them"
	badConnection = "settings.connection: wants AccountName and AccountKey, or QueueEndpoint and SharedAccessSignature, as Name=value;Name=value"
	badEndpoint   = "settings.connection: the queue's endpoint wants https://; http:// is for this machine only"
)

// What a receiver that does not look at the ids would see.
func TestHowOftenAMessageArrives(t *testing.T) {
	clock := sim.NewClock(start)
	const entity = "newcomers"
	bus := sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{entity}})
	plain := sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{entity}, Window: -1})
	grid := sim.NewEventGrid(sim.EventGridOptions{Clock: clock})
	queue := sim.NewStorageQueue(sim.StorageQueueOptions{Clock: clock, Queues: []string{entity}})
	tests := []struct {
		name, kind string
		there      http.Handler
		settings   map[string]any
		count      func() int
		want       []int // after a try, another at once, and another after the window
	}{
		{"duplicate detection", "serviceBus", bus, map[string]any{"entity": entity}, func() int { return len(bus.Messages()) }, []int{1, 1, 2}},
		{"no duplicate detection", "serviceBus", plain, map[string]any{"entity": entity}, func() int { return len(plain.Messages()) }, []int{1, 2, 3}},
		{"topic", "eventGrid", grid, map[string]any{}, func() int { return len(grid.Events()) }, []int{1, 2, 3}},
		{"queue", "storageQueue", queue, map[string]any{"queue": entity}, func() int { return len(queue.Messages()) }, []int{1, 2, 3}},
	}
	for _, tt := range tests {
		root, client := serve(t, tt.there)
		tt.settings["url"] = root
		c := open(t, tt.kind, tt.settings, connector.Env{HTTP: client, Token: &simIdentity{clock: clock}, Clock: clock})
		var got []int
		for _, pause := range []time.Duration{0, time.Minute, 10 * time.Minute} {
			clock.Advance(pause)
			if _, err := c.Associate(t.Context(), unsure(ada)); err != nil {
				t.Fatal(err)
			}
			got = append(got, tt.count())
		}
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", tt.name, diff)
		}
	}
}

// A server that names another resource in its challenge gets no token for that, and no second call.
func TestAQueueIsNotGivenAnotherServicesToken(t *testing.T) {
	calls := 0
	all, id := brokers(t, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.Header().Set("WWW-Authenticate", "Bearer authorization_uri=https://login.example/common resource_id=https://graph.microsoft.com")
		w.WriteHeader(http.StatusUnauthorized)
	})
	e := call(t, all["storageQueue"], ada)
	if diff := cmp.Diff(id.scopes, []string{"https://storage.azure.com/.default"}); diff != "" || calls != 1 || e.Code != "unauthorized" {
		t.Errorf("%d calls, %v; scopes (-got +want):\n%s", calls, e, diff)
	}
}
