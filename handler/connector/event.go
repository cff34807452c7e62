package connector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"signup-sync/handler/signup"
)

const (
	eventType = "signup-sync.user.created.v1"
	// eventMedia is the media type of a CloudEvent in structured JSON mode.
	eventMedia = "application/cloudevents+json; charset=utf-8"
)

// event is a CloudEvent 1.0 in structured JSON mode (github.com/cloudevents/spec, v1.0.2, JSON event format).
type event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        eventUser `json:"data"`
}

type eventUser struct {
	User   signup.UserID  `json:"userId"`
	Tenant string         `json:"tenantId"`
	Origin signup.Origin  `json:"origin"`
	Record map[string]any `json:"record"` // as mapped
}

// eventID is the same in every try of one user at one destination, so that receivers can take an event once: 68
// characters.
func eventID(req signup.Request) string { return "ea1_" + req.Key }

// encodeEvent is a sign-up as a CloudEvent, which must be shorter than limit bytes.
func encodeEvent(req signup.Request, limit int) ([]byte, error) {
	e := event{
		SpecVersion: "1.0", ID: eventID(req), Source: "/tenants/" + req.Tenant, Type: eventType, Subject: string(req.User),
		Time: req.Created.UTC(), ContentType: "application/json",
		Data: eventUser{User: req.User, Tenant: req.Tenant, Origin: req.Origin, Record: req.Record},
	}
	if e.Data.Record == nil {
		e.Data.Record = map[string]any{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(e) != nil {
		return nil, invalidRecord("the record has a value that JSON cannot hold")
	}
	body := bytes.TrimRight(b.Bytes(), "\n")
	if len(body) >= limit {
		return nil, invalidRecord(fmt.Sprintf("the event has %d bytes; it must be below %d", len(body), limit))
	}
	return body, nil
}

// maxAccountID is the limit of signup.Account.ID.
const maxAccountID = 250

// validAccountID keeps addresses, and what cannot be stored, out of the ledger.
func validAccountID(s string) bool {
	return s != "" && len(s) <= maxAccountID && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '@' || r == unicode.ReplacementChar || !unicode.IsPrint(r) })
}

// repeats reports that an id is a text of the record, or a word of one, in whatever spelling.
func repeats(id string, value any) bool {
	switch v := value.(type) {
	case map[string]any:
		return slices.ContainsFunc(sortedKeys(v), func(key string) bool { return repeats(id, v[key]) })
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return repeats(id, item) })
	case string:
		apart := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
		words := strings.FieldsFunc(v, apart)
		words = append(words, strings.Join(words, ""))
		bare := strings.Join(strings.FieldsFunc(id, apart), "")
		return slices.ContainsFunc(words, func(word string) bool { return strings.EqualFold(word, bare) })
	}
	return false
}
