package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// ServiceBusOptions describe a namespace.
type ServiceBusOptions struct {
	Clock    signup.Clock  // nil = the wall clock
	Entities []string      // the queues and topics that there are
	Window   time.Duration // of their duplicate detection; 0 = 10 minutes, the default; negative = they have none
	Sessions bool          // they require sessions
	Full     bool          // they are full
	Manages  bool          // the callers' identity may also manage them
	Resource string        // what tokens must be for; "" = https://servicebus.azure.net
}

// ServiceBus is a namespace's runtime interface over HTTP (docs: Service Bus REST, Send Message; Duplicate detection).
type ServiceBus struct {
	Faults Faults

	o       ServiceBusOptions
	handler http.Handler

	mu       sync.Mutex
	messages []BusMessage
	seen     map[string]time.Time // when a message id was last taken, by entity and id
}

// BusMessage is a message that was taken and not dropped as a duplicate.
type BusMessage struct {
	Entity, ID, Label, Session string
	Event                      CloudEvent
	ContentType                string
	At                         time.Time
}

// maxBusMessage is what a Standard namespace takes, in bytes.
const maxBusMessage = 256 << 10

// NewServiceBus makes a namespace whose entities are empty.
func NewServiceBus(o ServiceBusOptions) *ServiceBus {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.Window, 10*time.Minute)
	setDefault(&o.Resource, resourceServiceBus)
	s := &ServiceBus{o: o, seen: map[string]time.Time{}}
	s.handler = s.Faults.Wrap(http.HandlerFunc(s.serve))
	return s
}

// ServeHTTP answers POST /{entity}/messages and GET /{entity}.
func (s *ServiceBus) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Messages returns what the entities hold, in order.
func (s *ServiceBus) Messages() []BusMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// serve checks the caller before it looks for an entity, so that nobody learns what there is.
func (s *ServiceBus) serve(w http.ResponseWriter, r *http.Request) {
	now := s.o.Clock.Now().UTC()
	if !admits(r, s.o.Resource, now) {
		refuseBus(w, http.StatusUnauthorized, "InvalidAudience: Invalid authorization token audience.")
		return
	}
	entity, send := strings.CutSuffix(strings.Trim(r.URL.Path, "/"), "/messages")
	known := slices.Contains(s.o.Entities, entity)
	switch {
	case send && r.Method == http.MethodPost && !known:
		refuseBus(w, http.StatusNotFound, "SubCode=40400. The messaging entity could not be found.")
	case send && r.Method == http.MethodPost:
		s.send(w, r, entity, now)
	case send || r.Method != http.MethodGet:
		refuseBus(w, http.StatusMethodNotAllowed, "The method is not supported.")
	case !s.o.Manages:
		refuseBus(w, http.StatusUnauthorized, "Manage,EntityRead claims required for this operation.")
	case !known:
		writeAtom(w, `<feed xmlns="http://www.w3.org/2005/Atom"><title type="text">Publicly Listed Services</title></feed>`)
	default:
		writeAtom(w, `<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><QueueDescription xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"/></content></entry>`)
	}
}

func (s *ServiceBus) send(w http.ResponseWriter, r *http.Request, entity string, now time.Time) {
	body, ok := readBody(r)
	var properties struct{ MessageID, Label, SessionID string }
	line := r.Header.Get("BrokerProperties")
	bad := !ok || line != "" && json.Unmarshal([]byte(line), &properties) != nil || len(properties.MessageID) > 128 || len(properties.SessionID) > 128
	event, err := readCloudEvent(body)
	switch {
	case len(body)+len(line) > maxBusMessage || s.o.Full:
		refuseBus(w, http.StatusForbidden, "SubCode=40300. The maximum entity or message size has been reached or exceeded.")
		return
	case bad || s.o.Sessions && properties.SessionID == "":
		refuseBus(w, http.StatusBadRequest, "The BrokerProperties are not valid, or the entity requires a SessionId.")
		return
	case err != nil:
		event = CloudEvent{} // a message may be anything
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusCreated)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := entity + "|" + properties.MessageID
	if at, ok := s.seen[key]; ok && properties.MessageID != "" && now.Sub(at) < s.o.Window {
		return
	}
	s.seen[key] = now
	s.messages = append(s.messages, BusMessage{Entity: entity, ID: properties.MessageID, Label: properties.Label, Session: properties.SessionID,
		Event: event, ContentType: r.Header.Get("Content-Type"), At: now})
}

func refuseBus(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%d</Code><Detail>%s TrackingId:00000000-0000-4000-8000-00000000c0de_G0</Detail></Error>", status, detail)
}

func writeAtom(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/atom+xml;type=entry;charset=utf-8")
	_, _ = w.Write([]byte(body))
}
