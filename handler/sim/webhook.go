package sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// WebhookOptions say what a simulated receiver is like.
type WebhookOptions struct {
	Clock    signup.Clock // nil = the wall clock
	Secrets  []string     // whsec_…; a signature by any of them is good
	NoAnswer bool         // answer with an empty body instead of an id
}

// Webhook is a simulated receiver of signed events that does what Standard Webhooks 1.0.0 asks of one: it checks the
// signature and the time, and takes each webhook-id once. Any path will do.
type Webhook struct {
	Faults Faults

	o       WebhookOptions
	handler http.Handler

	mu         sync.Mutex
	deliveries []*Delivery
}

// Delivery is an event that was taken.
type Delivery struct {
	ID      string // webhook-id
	Account string // the id that the receiver gave it
	Subject string // of the CloudEvent
	At      time.Time
	Body    []byte // of the first delivery
	Times   int    // how often it was delivered, the first one included
}

// webhookTolerance is how far an event's time may be from ours.
const webhookTolerance = 5 * time.Minute

// NewWebhook returns a receiver that has received nothing.
func NewWebhook(o WebhookOptions) *Webhook {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	s := &Webhook{o: o}
	s.handler = s.Faults.Wrap(http.HandlerFunc(s.receive))
	return s
}

// ServeHTTP receives at any path.
func (s *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Deliveries returns the events that were taken, in the order in which they first came.
func (s *Webhook) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Delivery
	for _, d := range s.deliveries {
		all = append(all, *d)
	}
	return all
}

func (s *Webhook) receive(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "POST events here", http.StatusMethodNotAllowed)
		return
	}
	body, ok := readBody(r)
	if !ok || len(body) >= 20_000 {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	id := r.Header.Get("Webhook-Id")
	if why := s.refuse(r, id, body); why != "" {
		http.Error(w, why, http.StatusUnauthorized)
		return
	}
	var event struct{ SpecVersion, ID, Source, Type, Subject string }
	if json.Unmarshal(body, &event) != nil || event.SpecVersion != "1.0" || event.ID == "" || event.Source == "" || event.Type == "" ||
		!strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents+json") {
		http.Error(w, "not a CloudEvent", http.StatusBadRequest)
		return
	}
	account := s.take(id, event.Subject, body)
	w.Header().Set("Content-Type", "application/json")
	if s.o.NoAnswer {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"id": account}) // whoever has gone away comes again
}

// refuse says what is wrong with the headers, "" if they are good.
func (s *Webhook) refuse(r *http.Request, id string, body []byte) string {
	stamp := r.Header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || err != nil {
		return "missing required headers"
	}
	if off := s.o.Clock.Now().Sub(time.Unix(seconds, 0)); off > webhookTolerance || off < -webhookTolerance {
		return "the event's time is too far from ours"
	}
	for _, secret := range s.o.Secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			continue
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(slices.Concat([]byte(id), []byte("."), []byte(stamp), []byte("."), body))
		want := mac.Sum(nil)
		for signature := range strings.FieldsSeq(r.Header.Get("Webhook-Signature")) {
			version, coded, _ := strings.Cut(signature, ",")
			got, err := base64.StdEncoding.DecodeString(coded)
			if err == nil && version == "v1" && hmac.Equal(got, want) {
				return ""
			}
		}
	}
	return "no matching signature"
}

// take keeps an event the first time, and counts it every time.
func (s *Webhook) take(id, subject string, body []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.deliveries {
		if d.ID == id {
			d.Times++
			return d.Account
		}
	}
	account := "contact-" + strconv.Itoa(len(s.deliveries)+1)
	s.deliveries = append(s.deliveries, &Delivery{
		ID: id, Account: account, Subject: subject, At: s.o.Clock.Now().UTC(), Body: body, Times: 1,
	})
	return account
}
