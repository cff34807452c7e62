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

// EventGridOptions describe a custom topic.
type EventGridOptions struct {
	Clock     signup.Clock // nil = the wall clock
	Resource  string       // what tokens must be for; "" = https://eventgrid.azure.net
	OldSchema bool         // its input schema is Event Grid's own
}

// EventGrid is a custom topic whose input schema is CloudEvents 1.0 (docs: Publish events to Azure Event Grid custom
// topics, CloudEvents v1.0 schema with Azure Event Grid). It keeps every event that it takes, also one that it had.
type EventGrid struct {
	Faults Faults

	o       EventGridOptions
	handler http.Handler

	mu     sync.Mutex
	events []GridEvent
	calls  int
}

// GridEvent is an event that was taken.
type GridEvent struct {
	CloudEvent
	At time.Time
}

// maxGridBatch is what a topic takes in one call, in bytes.
const maxGridBatch = 1 << 20

// NewEventGrid makes a topic.
func NewEventGrid(o EventGridOptions) *EventGrid {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.Resource, resourceEventGrid)
	s := &EventGrid{o: o}
	s.handler = s.Faults.Wrap(http.HandlerFunc(s.publish))
	return s
}

// ServeHTTP answers POST /api/events.
func (s *EventGrid) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Events returns what was taken, in order.
func (s *EventGrid) Events() []GridEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Calls counts the arrays that were taken.
func (s *EventGrid) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// publish takes an array of events, all or none. An empty one has no event that it could take, and is refused.
func (s *EventGrid) publish(w http.ResponseWriter, r *http.Request) {
	now := s.o.Clock.Now().UTC()
	media := strings.ReplaceAll(strings.ToLower(r.Header.Get("Content-Type")), " ", "")
	body, ok := readBody(r)
	var batch []json.RawMessage
	switch {
	case !admits(r, s.o.Resource, now):
		refuseGrid(w, http.StatusUnauthorized, "Unauthorized", "The request's authorization is missing, or not for this resource.")
	case r.URL.Path != "/api/events" || r.Method != http.MethodPost:
		refuseGrid(w, http.StatusNotFound, "NotFound", "There is no such resource.")
	case r.URL.Query().Get("api-version") != "2018-01-01":
		refuseGrid(w, http.StatusBadRequest, "BadRequest", "The api-version is missing or not supported.")
	case !ok || len(body) > maxGridBatch:
		refuseGrid(w, http.StatusRequestEntityTooLarge, "PayloadTooLarge", "The maximum size (1048576) has been exceeded.")
	case s.o.OldSchema:
		refuseGrid(w, http.StatusBadRequest, "BadRequest", "This resource is configured for 'EventGridEvent' schema.")
	case media != "application/cloudevents-batch+json;charset=utf-8":
		refuseGrid(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", "The content type is not one of a batch of CloudEvents.")
	case json.Unmarshal(body, &batch) != nil || len(batch) == 0:
		refuseGrid(w, http.StatusBadRequest, "BadRequest", "The input is no array of events.")
	default:
		s.take(w, batch, now)
	}
}

func (s *EventGrid) take(w http.ResponseWriter, batch []json.RawMessage, now time.Time) {
	var events []GridEvent
	for i, raw := range batch {
		e, err := readCloudEvent(raw)
		if err != nil {
			refuseGrid(w, http.StatusBadRequest, "BadRequest", fmt.Sprintf("Event %d: %v.", i, err))
			return
		}
		events = append(events, GridEvent{e, now})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.events = append(s.events, events...)
	w.WriteHeader(http.StatusOK)
}

func refuseGrid(w http.ResponseWriter, status int, code, message string) {
	writeJSONBody(w, status, map[string]any{"error": map[string]any{"code": code, "message": message,
		"details": []map[string]string{{"code": code, "message": message}}}})
}
