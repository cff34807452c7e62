package devhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// judge says what the host makes of a reply, in the host's own order: the status, an empty body, the media type, the
// shape. outputs are the function's declared output bindings.
func judge(resp *http.Response, body []byte, outputs map[string]bool) (Result, error) {
	r := Result{Status: resp.StatusCode, Body: body}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return r, fmt.Errorf("%w: Response status code does not indicate success: %s", ErrFailed, reason(resp))
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	if len(text) == 0 || string(text) == "null" {
		return r, fmt.Errorf("%w: the reply is %d with the body %q; write a JSON object", ErrHang, resp.StatusCode, body)
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && media != "text/json" {
		return r, fmt.Errorf("%w: Invalid HttpResponseMessage: unsupported media type %q; set application/json before the body",
			ErrFailed, resp.Header.Get("Content-Type"))
	}
	if err := r.read(text); err != nil {
		return r, fmt.Errorf("%w: Invalid HttpResponseMessage: %w", ErrFailed, err)
	}
	for name := range r.Outputs {
		if !outputs[name] {
			r.Defects = append(r.Defects, fmt.Sprintf("output %q is declared in no function.json: it is lost", name))
		}
	}
	slices.Sort(r.Defects)
	for _, line := range r.Logs {
		if strings.ContainsAny(line, "\r\n") {
			r.Defects = append(r.Defects, fmt.Sprintf("log line %q is more than one line", line))
		}
	}
	return r, nil
}

// read takes the members of the first JSON value, whose names the host compares without regard to case.
func (r *Result) read(text []byte) error {
	var reply map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(text)) // what follows the object is ignored
	if err := dec.Decode(&reply); err != nil {
		return fmt.Errorf("read the reply as a JSON object: %w", err)
	}
	for name, raw := range reply {
		switch strings.ToLower(name) {
		case "outputs":
			if err := json.Unmarshal(raw, &r.Outputs); err != nil {
				return fmt.Errorf("read Outputs: %w", err)
			}
		case "logs":
			var logs []any
			if err := json.Unmarshal(raw, &logs); err != nil {
				return fmt.Errorf("read Logs: %w", err)
			}
			for _, v := range logs {
				line, err := scalar(v)
				if err != nil {
					return err
				}
				r.Logs = append(r.Logs, line)
			}
		case "returnvalue":
			if err := json.Unmarshal(raw, &r.ReturnValue); err != nil {
				return fmt.Errorf("read ReturnValue: %w", err)
			}
		}
	}
	return nil
}

// scalar is an element of Logs as text.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, float64:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("read Logs: an element is neither text nor number")
}
