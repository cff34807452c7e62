package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/url"
	"regexp"
	"time"
)

// CloudEvent is an event in the JSON format of CloudEvents 1.0.2 (github.com/cloudevents/spec).
type CloudEvent struct {
	ID, Source, Type, Subject string
	Time                      time.Time
	Data                      json.RawMessage
}

var eventAttribute = regexp.MustCompile(`^[a-z0-9]+$`)

// readCloudEvent takes an event by the letter of the specification, and says what is wrong with any other.
func readCloudEvent(raw []byte) (CloudEvent, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return CloudEvent{}, errors.New("the event is no JSON object")
	}
	e := CloudEvent{Data: members["data"]}
	if members["data"] != nil && members["data_base64"] != nil {
		return CloudEvent{}, errors.New("the event has both data and data_base64")
	}
	delete(members, "data")
	delete(members, "data_base64")
	attributes := map[string]any{}
	for name, value := range members {
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			return CloudEvent{}, err
		}
		n, isNumber := v.(float64)
		_, isText := v.(string)
		_, isBool := v.(bool)
		switch {
		case !eventAttribute.MatchString(name):
			return CloudEvent{}, fmt.Errorf("the attribute %q is not of a-z and 0-9", name)
		case v == nil: // null is absent
		case isText, isBool, isNumber && n == math.Trunc(n) && math.Abs(n) < 1<<31:
			attributes[name] = v
		default:
			return CloudEvent{}, fmt.Errorf("the attribute %q is neither text nor boolean nor integer", name)
		}
	}
	return e, e.read(attributes)
}

// read checks the attributes that the specification names, and keeps some.
func (e *CloudEvent) read(attributes map[string]any) error {
	texts := map[string]string{}
	for _, name := range []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"} {
		v, there := attributes[name]
		s, _ := v.(string)
		if there && s == "" {
			return fmt.Errorf("the attribute %q is empty or no text", name)
		}
		texts[name] = s
	}
	e.ID, e.Source, e.Type, e.Subject = texts["id"], texts["source"], texts["type"], texts["subject"]
	if texts["specversion"] != "1.0" || e.ID == "" || e.Source == "" || e.Type == "" {
		return errors.New("the event lacks one of specversion 1.0, id, source and type")
	}
	if _, err := url.Parse(e.Source); err != nil {
		return errors.New("the source is no URI reference")
	}
	if s := texts["dataschema"]; s != "" {
		if u, err := url.Parse(s); err != nil || !u.IsAbs() {
			return errors.New("the dataschema is no absolute URI")
		}
	}
	if s := texts["datacontenttype"]; s != "" {
		if _, _, err := mime.ParseMediaType(s); err != nil {
			return errors.New("the datacontenttype is no media type")
		}
	}
	if s := texts["time"]; s != "" {
		var err error
		if e.Time, err = time.Parse(time.RFC3339, s); err != nil {
			return errors.New("the time is not as in RFC 3339")
		}
	}
	return nil
}
