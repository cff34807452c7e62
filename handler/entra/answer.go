package entra

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// maxRetryAfter caps what a service may ask for.
const maxRetryAfter = time.Hour

// graphError is Graph's error body. The message may name a person: it is looked into, never printed.
type graphError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Code   string `json:"code"`
		Target string `json:"target"`
	} `json:"details"`
	InnerError struct {
		RequestID string `json:"request-id"`
	} `json:"innerError"`
}

// refusal reads an answer that is not 2xx. The body may be anything: {}, HTML, nothing, half of something.
func (c *client) refusal(resp *http.Response, r request) *failure {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var envelope struct {
		Error graphError `json:"error"`
	}
	// What cannot be decoded stays empty; the status is what counts.
	_ = json.Unmarshal(body, &envelope)
	g := envelope.Error

	class, code, _ := signup.StatusClass(resp.StatusCode)
	e := &signup.Error{Class: class, Code: code, Status: resp.StatusCode, RetryAfter: c.retryAfter(resp)}
	if class == signup.Throttled {
		c.throttled.Add(1)
	}
	if class == signup.Throttled && e.RetryAfter == 0 {
		e.RetryAfter = c.jitter(20 * time.Second)
	}
	parts := []string{word(g.Code)}
	switch resp.StatusCode {
	case http.StatusForbidden:
		parts = append(parts, r.kind.remedy())
	case http.StatusUnauthorized:
		parts = append(parts, "Graph refuses the app's token")
	}
	id := word(resp.Header.Get("request-id"))
	if id == "" {
		id = word(g.InnerError.RequestID)
	}
	if id != "" {
		parts = append(parts, "request-id "+id)
	}
	e.Detail = strings.TrimPrefix(strings.Join(parts, "; "), "; ")
	if r.refine != nil {
		r.refine(e, g)
	}
	f := &failure{err: e, again: resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500}
	if resp.StatusCode == http.StatusUnauthorized {
		f.claims = claimsChallenge(resp.Header)
	}
	return f
}

// word keeps a service's identifier if it is one: a short run of letters, digits and - _ . only.
func word(s string) string {
	if len(s) > 64 {
		return ""
	}
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.':
		default:
			return ""
		}
	}
	return s
}

// retryAfter reads the header (RFC 9110, 10.2.3) in its three forms: whole seconds, seconds with a fraction, which Graph
// sends and which are rounded up, and a date, which is taken relative to the answer's own Date. 0 if there is none, or
// none that makes sense.
func (c *client) retryAfter(resp *http.Response) time.Duration {
	v := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		if math.IsNaN(s) || s <= 0 {
			return 0
		}
		if s >= maxRetryAfter.Seconds() {
			return maxRetryAfter
		}
		return time.Duration(math.Ceil(s)) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		now = c.clock.Now()
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

var claimsParameter = regexp.MustCompile(`(?i)\bclaims="([^"]+)"`)

// claimsChallenge is what continuous access evaluation asks a new token to carry, decoded; "" if it asks nothing.
func claimsChallenge(h http.Header) string {
	for _, v := range h.Values("WWW-Authenticate") {
		m := claimsParameter.FindStringSubmatch(v)
		if m == nil {
			continue
		}
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			if b, err := enc.DecodeString(m[1]); err == nil && json.Valid(b) {
				return string(b)
			}
		}
	}
	return ""
}

// transportError is a call that got no answer, or lost it half way. The cause's text holds the URL and is not kept.
func transportError(err error) *signup.Error {
	e := &signup.Error{Class: signup.Transient, Code: "unreachable", Detail: "the connection failed"}
	var (
		timeout net.Error
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Detail = "timeout", "no answer in time"
	case errors.As(err, &cert):
		e.Detail = "the server's certificate is not trusted"
	case errors.As(err, &dns):
		e.Detail = "the host's name cannot be resolved"
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Code, e.Detail = "timeout", "no answer in time"
	}
	return e
}

// answerError is a 2xx whose body is not what it should be. A body that was cut off is worth another try.
func answerError(err error, resp *http.Response) *failure {
	var syntax *json.SyntaxError
	e := &signup.Error{Class: signup.Transient, Code: "bad-answer", Status: resp.StatusCode}
	again := false
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.Detail, again = "the answer is cut off", true
	case errors.Is(err, io.EOF):
		e.Detail = "the answer is empty"
	case errors.As(err, &syntax):
		e.Detail = "the answer is not JSON at byte " + strconv.FormatInt(syntax.Offset, 10)
	default:
		if bad, ok := errors.AsType[badPage](err); ok {
			e.Detail = string(bad)
			break
		}
		if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			shape, _, _ := strings.Cut(typed.Value, " ") // without the number itself
			e.Detail = "the answer has a " + shape + " where it should not"
			break
		}
		e = transportError(err)
		again = true
	}
	if id := word(resp.Header.Get("request-id")); id != "" {
		e.Detail += "; request-id " + id
	}
	return &failure{err: e, again: again}
}
