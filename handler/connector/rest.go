package connector

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"signup-sync/handler/signup"
)

const (
	// maxAnswer is how much of an answer is read, in bytes, unless a connector expects more.
	maxAnswer = 1 << 20
	// maxRetryAfter caps what a service may ask us to wait.
	maxRetryAfter = 24 * time.Hour
)

// rest is the one HTTP call of all connectors.
type rest struct {
	client  *http.Client // as redirectless made it
	clock   signup.Clock
	timeout time.Duration // of one try, its body included
	most    int           // how much of an answer is read, in bytes; 0 = maxAnswer
	// judge may change what an answer means, by the API's own codes; nil = the status says it all. It must not copy text
	// of the answer into the error, but for codes that it knows.
	judge func(a answer, e *signup.Error)
}

type request struct {
	method string
	url    string // the full URL; it does not get into errors
	header http.Header
	body   []byte
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request once. The error is the context's own (wrapped) if that ended, and an *signup.Error otherwise:
// transient, with a word for what broke, if there was no whole answer, and by status and judge for any answer but 2xx,
// which is then returned beside it.
func (c *rest) call(ctx context.Context, r request) (answer, error) {
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	hr, err := http.NewRequestWithContext(try, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, &signup.Error{Class: signup.Permanent, Code: "invalid-request"}
	}
	// The transport sends a request again by itself if it can read the body again. Whoever called us decides on that.
	hr.GetBody = nil
	if len(r.body) == 0 {
		hr.Body = http.NoBody
	}
	if r.header != nil {
		hr.Header = r.header
	}
	resp, err := c.client.Do(hr)
	if err != nil {
		return answer{}, transportError(ctx, err)
	}
	defer resp.Body.Close()
	most := cmp.Or(c.most, maxAnswer)
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	a := answer{status: resp.StatusCode, header: resp.Header, body: body}
	class, word, bad := signup.StatusClass(a.status)
	switch {
	case !bad && err != nil:
		return answer{}, transportError(ctx, err)
	case !bad && len(body) > most:
		return answer{}, &signup.Error{Class: signup.Transient, Code: "answer-too-large", Status: a.status}
	case !bad:
		return a, nil
	}
	e := &signup.Error{Class: class, Code: word, Status: a.status, RetryAfter: retryAfter(a.header, c.clock.Now())}
	if c.judge != nil {
		c.judge(a, e)
	}
	return a, e
}

// forward sends a request that a vendor's SDK has made, through the one call.
func (c *rest) forward(r *http.Request) (answer, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		_ = r.Body.Close() // a reader of bytes
		if err != nil {
			return answer{}, err
		}
	}
	return c.call(r.Context(), request{method: r.Method, url: r.URL.String(), header: r.Header.Clone(), body: body})
}

// response is the answer to r in the terms of an SDK.
func (a answer) response(r *http.Request) *http.Response {
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: r,
	}
}

// redirectless is a client on the transport of another, without its timeout, that takes a redirect as the answer: a
// request with a secret or a person in it goes where it was sent and nowhere else.
func redirectless(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, of which fractions are rounded up since they occur,
// or an HTTP date. It is 0 if there is none or it makes no sense, and at most maxRetryAfter.
func retryAfter(h http.Header, now time.Time) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if s == "" {
		return 0
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil {
		at, err := http.ParseTime(s)
		if err != nil {
			return 0
		}
		seconds = at.Sub(now).Seconds()
	}
	if math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(min(seconds, maxRetryAfter.Seconds()))) * time.Second
}

// transportError says in one word why there is no answer. The cause is not kept: its text has the URL in it.
func transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return cancelled("call", ctx.Err())
	}
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	word := "network"
	var (
		dns         *net.DNSError
		verify      *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate x509.CertificateInvalidError
		timeout     net.Error
	)
	switch {
	case errors.As(err, &dns):
		word = "dns"
	case errors.As(err, &verify), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &authority),
		errors.As(err, &hostname), errors.As(err, &certificate):
		word = "tls"
	case errors.Is(err, syscall.ECONNREFUSED):
		word = "refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		word = "cut"
	case errors.As(err, &timeout) && timeout.Timeout():
		word = "timeout"
	}
	return &signup.Error{Class: signup.Transient, Code: word}
}
