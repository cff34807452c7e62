package signup

import (
	"errors"
	"fmt"
	"time"
)

// Class says what an error means for the work, whoever returned it.
type Class int

const (
	// Transient: try again later, after a growing pause. Also every error that carries no class.
	Transient Class = iota
	// Throttled: try again after the service's own pause; costs no attempt.
	Throttled
	// Permanent: this user cannot be associated until a person changes something.
	Permanent
	// Skip: this user is not to be associated, and that is right so.
	Skip
	// Systemic: the destination refuses everybody (credentials, permissions); it opens the destination's breaker.
	Systemic
)

func (c Class) String() string {
	return [...]string{"transient", "throttled", "permanent", "skip", "systemic"}[c]
}

// Error is an outcome other than success. It never holds a secret or anything that identifies a person: Code is one
// of a few words, Detail at most 200 redacted characters that come from us or from the service's error code.
type Error struct {
	Class      Class
	Code       string        // a word for machines: "throttled", "rejected", "unauthorized", "forbidden", "no-email", …
	Detail     string        // for the person who looks
	Status     int           // the HTTP status; 0 if there was none, and for a 403 or 404 that is surely not about the one user
	RetryAfter time.Duration // how long the service asked to wait; 0 if it did not say
	Err        error         // the cause, for errors.Is; its text is not printed
}

func (e *Error) Error() string {
	s := e.Code
	if s == "" {
		s = e.Class.String()
	}
	if e.Status != 0 {
		s = fmt.Sprintf("%s (HTTP %d)", s, e.Status)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// ClassOf is the class of any error; Transient for one that carries none.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Transient
}

// StatusClass maps an HTTP status (RFC 9110) to a class and a code; ok is false for a 2xx, which is no error. It is
// the one place where this is decided; a connector overrides it only for its API's own codes.
func StatusClass(status int) (class Class, code string, ok bool) {
	switch {
	case status >= 200 && status < 300:
		return 0, "", false
	case status == 401:
		return Systemic, "unauthorized", true
	case status == 403:
		return Systemic, "forbidden", true
	case status == 408, status == 425:
		return Transient, "timeout", true
	case status == 409, status == 412, status == 423:
		return Transient, "conflict", true
	case status == 429:
		return Throttled, "throttled", true
	case status >= 300 && status < 400: // the address is wrong, for everybody
		return Systemic, "redirected", true
	case status >= 400 && status < 500:
		return Permanent, "rejected", true
	}
	return Transient, "unavailable", true
}

// ErrConflict is returned by a Ledger when a row or note was changed by someone else in between.
var ErrConflict = errors.New("changed by someone else")
