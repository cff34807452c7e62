package sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// StorageQueueOptions describe a storage account's queues.
type StorageQueueOptions struct {
	Clock    signup.Clock // nil = the wall clock
	Account  string       // the account's name; "" = devstoreaccount1
	Key      string       // the account's key, base64; "" = keys are not taken
	Queues   []string     // those that there are
	Resource string       // what tokens must be for; "" = https://storage.azure.com
	SendOnly bool         // the callers' identity may send and nothing else
}

// StorageQueue is the queue service of a storage account (docs: Queue Storage REST API), at the account's host or below
// its name. Messages are put and not taken; the service knows no duplicates.
type StorageQueue struct {
	Faults Faults

	o       StorageQueueOptions
	handler http.Handler

	mu       sync.Mutex
	messages []QueueMessage
}

// QueueMessage is a message in a queue.
type QueueMessage struct {
	Queue   string
	ID      string     // the queue's own
	Text    string     // as it was put
	Event   CloudEvent // if the text is one in base64
	At      time.Time
	Expires time.Time // zero = never
}

// maxQueueText is what a message may be, in bytes.
const maxQueueText = 64 << 10

// NewStorageQueue makes an account whose queues are empty.
func NewStorageQueue(o StorageQueueOptions) *StorageQueue {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.Account, "devstoreaccount1")
	setDefault(&o.Resource, resourceStorage)
	s := &StorageQueue{o: o}
	s.handler = s.Faults.Wrap(http.HandlerFunc(s.serve))
	return s
}

// ServeHTTP answers POST /{queue}/messages and GET /{queue}?comp=metadata.
func (s *StorageQueue) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Messages returns what the queues hold now, in order.
func (s *StorageQueue) Messages() []QueueMessage {
	now := s.o.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.messages), func(m QueueMessage) bool {
		return !m.Expires.IsZero() && !m.Expires.After(now)
	})
}

func (s *StorageQueue) serve(w http.ResponseWriter, r *http.Request) {
	now := s.o.Clock.Now().UTC()
	if status, code := s.refuse(r, now); code != "" {
		s.fail(w, status, code, now)
		return
	}
	path := strings.Trim(r.URL.Path, "/")
	if below, ok := strings.CutPrefix(path, s.o.Account+"/"); ok {
		path = below
	}
	queue, put := strings.CutSuffix(path, "/messages")
	metadata := !put && r.URL.Query().Get("comp") == "metadata"
	switch {
	case put && r.Method != http.MethodPost || !put && (!metadata || r.Method != http.MethodGet):
		s.fail(w, http.StatusMethodNotAllowed, "UnsupportedHttpVerb", now)
	case metadata && s.o.SendOnly:
		s.fail(w, http.StatusForbidden, "AuthorizationPermissionMismatch", now)
	case !slices.Contains(s.o.Queues, queue):
		s.fail(w, http.StatusNotFound, "QueueNotFound", now)
	case metadata:
		n := len(slices.DeleteFunc(s.Messages(), func(m QueueMessage) bool { return m.Queue != queue }))
		w.Header().Set("x-ms-approximate-messages-count", strconv.Itoa(n))
		w.WriteHeader(http.StatusOK)
	default:
		s.put(w, r, queue, now)
	}
}

// put adds a message (docs: Put Message).
func (s *StorageQueue) put(w http.ResponseWriter, r *http.Request, queue string, now time.Time) {
	life := int64(7 * 24 * 60 * 60)
	if v := r.URL.Query().Get("messagettl"); v != "" {
		var err error
		if life, err = strconv.ParseInt(v, 10, 32); err != nil || life == 0 || life < -1 {
			s.fail(w, http.StatusBadRequest, "OutOfRangeQueryParameterValue", now)
			return
		}
	}
	body, ok := readBody(r)
	var message struct {
		XMLName xml.Name `xml:"QueueMessage"`
		Text    string   `xml:"MessageText"`
	}
	if !ok || xml.Unmarshal(body, &message) != nil {
		s.fail(w, http.StatusBadRequest, "InvalidXmlDocument", now)
		return
	}
	if len(message.Text) > maxQueueText {
		s.fail(w, http.StatusBadRequest, "MessageTooLarge", now)
		return
	}
	m := QueueMessage{Queue: queue, Text: message.Text, At: now}
	if life > 0 {
		m.Expires = now.Add(time.Duration(life) * time.Second)
	}
	if raw, err := base64.StdEncoding.DecodeString(message.Text); err == nil {
		if m.Event, err = readCloudEvent(raw); err != nil {
			m.Event = CloudEvent{}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.ID = fmt.Sprintf("%08d-0000-4000-8000-00000000aaaa", len(s.messages)+1)
	s.messages = append(s.messages, m)
	expires := m.Expires
	if expires.IsZero() {
		expires = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><QueueMessagesList><QueueMessage><MessageId>%s</MessageId><InsertionTime>%s</InsertionTime>`+
		`<ExpirationTime>%s</ExpirationTime><PopReceipt>AgAAAAMAAAAAAAAA</PopReceipt><TimeNextVisible>%s</TimeNextVisible></QueueMessage></QueueMessagesList>`,
		m.ID, now.Format(http.TimeFormat), expires.Format(http.TimeFormat), now.Format(http.TimeFormat))
}

// refuse says by status and code why a caller is turned away, "" if it is not (docs: Authorize with Microsoft Entra ID,
// Authorize with Shared Key). The time of a signature is not looked at: clients sign by the machine's clock.
func (s *StorageQueue) refuse(r *http.Request, now time.Time) (status int, code string) {
	authorization := r.Header.Get("Authorization")
	account, signature, _ := strings.Cut(strings.TrimPrefix(authorization, "SharedKey "), ":")
	switch {
	case r.Header.Get("X-Ms-Version") == "":
		return http.StatusBadRequest, "MissingRequiredHeader"
	case authorization == "":
		return http.StatusUnauthorized, "NoAuthenticationInformation"
	case strings.HasPrefix(authorization, "SharedKey "):
		key, err := base64.StdEncoding.DecodeString(s.o.Key)
		if err != nil || len(key) == 0 || account != s.o.Account || !hmac.Equal([]byte(signature), []byte(sharedKey(r, account, key))) {
			return http.StatusForbidden, "AuthenticationFailed"
		}
		return 0, ""
	case !admits(r, s.o.Resource, now):
		return http.StatusUnauthorized, "InvalidAuthenticationInfo"
	}
	return 0, ""
}

// sharedKey is a call's signature by the account's key.
func sharedKey(r *http.Request, account string, key []byte) string {
	length := ""
	if r.ContentLength > 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	lines := []string{r.Method, r.Header.Get("Content-Encoding"), r.Header.Get("Content-Language"), length,
		r.Header.Get("Content-Md5"), r.Header.Get("Content-Type"), "", "", "", "", "", r.Header.Get("Range")}
	var own []string
	for name, v := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-ms-") {
			own = append(own, lower+":"+strings.Join(v, ","))
		}
	}
	slices.Sort(own)
	path, query, _ := strings.Cut(r.RequestURI, "?") // as it was sent, whatever has been cut off since
	lines = append(append(lines, own...), "/"+account+path)
	if parameters, err := url.ParseQuery(query); err == nil {
		var more []string
		for name, v := range parameters {
			slices.Sort(v)
			more = append(more, strings.ToLower(name)+":"+strings.Join(v, ","))
		}
		slices.Sort(more)
		lines = append(lines, more...)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(strings.Join(lines, "\n")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (s *StorageQueue) fail(w http.ResponseWriter, status int, code string, now time.Time) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("x-ms-error-code", code)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri=https://login.microsoftonline.com/common/oauth2/authorize resource_id=`+resourceStorage)
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><Error><Code>%s</Code><Message>The request was refused.`+"\n"+`Time:%s</Message></Error>`,
		code, now.Format(time.RFC3339))
}
