package connectortest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// faults are the mistakes of a connector, by name, and the checks that find them.
var faults = map[string][]string{
	"no key":                        {connectortest.SameTime},
	"no look":                       {connectortest.ForgottenKey, connectortest.ChangedAddress},
	"neither key nor look":          {connectortest.ManyCalls, connectortest.LostAnswer, connectortest.FailedAfter},
	"everybody has one account":     {connectortest.TwoUsers},
	"account is the address":        {connectortest.ManyCalls},
	"keeps a spent key":             {connectortest.SpentKey},
	"conflict is permanent":         {connectortest.ChangedRecord},
	"looks by address only":         {connectortest.ChangedAddress},
	"known is ignored":              {connectortest.KnownConfirmed},
	"known is believed":             {connectortest.KnownStranger},
	"throttled is transient":        {connectortest.Throttled},
	"retry-after is dropped":        {connectortest.Throttled},
	"unavailable is permanent":      {connectortest.Unavailable},
	"unauthorized is transient":     {connectortest.BadCredential},
	"rejected is transient":         {connectortest.RejectedRecord},
	"cancelled is permanent":        {connectortest.Cancelled},
	"wants an address":              {connectortest.NoAddress},
	"check makes an account":        {connectortest.CheckIsReadOnly},
	"check is empty":                {connectortest.CheckCredential},
	"failed look-up is not found":   {connectortest.FailedLookup},
	"address in the error":          {connectortest.Secrecy},
	"name in the log":               {connectortest.Secrecy},
	"secret in the error of a fail": {connectortest.Secrecy},
}

func TestAConnectorWithoutFaultPassesEveryCheck(t *testing.T) {
	connectortest.Run(t, connectortest.Harness{New: func(testing.TB) *connectortest.System { return newToy("") }})
}

func TestEachFaultIsFoundByItsChecks(t *testing.T) {
	checks := map[string]connectortest.Check{}
	for _, c := range connectortest.Checks() {
		checks[c.Name] = c
	}
	found := map[string]bool{}
	for _, fault := range slices.Sorted(maps.Keys(faults)) {
		for _, name := range faults[fault] {
			found[name] = true
			if checks[name].Run(t.Context(), newToy(fault)) == nil {
				t.Errorf("check %q does not find the fault %q", name, fault)
			}
		}
	}
	for name := range checks {
		if !found[name] {
			t.Errorf("no fault shows that check %q can fail", name)
		}
	}
}

func TestNoAddressWantsASkipWhereAnAccountIsAnAddress(t *testing.T) {
	for _, c := range connectortest.Checks() {
		if c.Name != connectortest.NoAddress {
			continue
		}
		s := newToy("")
		s.NeedsAddress = true
		if c.Run(t.Context(), s) == nil {
			t.Error("a connector that makes an account without an address passes")
		}
	}
}

// toy is an outside system, its network and a connector to it, in memory, with one fault.
type toy struct {
	fault string
	clock *sim.Clock
	log   bytes.Buffer

	mu       sync.Mutex
	accounts []toyAccount
	keys     map[string]toyKey
	wrong    string // what goes wrong now
	stalled  chan struct{}
}

type toyAccount struct {
	id, email string
	user      signup.UserID
}

type toyKey struct {
	at     time.Time
	record string
	id     string // "" = its stored answer is a failure
}

func newToy(fault string) *connectortest.System {
	t := &toy{fault: fault, clock: sim.NewClock(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)), keys: map[string]toyKey{}}
	goWrong := func(what string) func() { return func() { t.mu.Lock(); t.wrong = what; t.mu.Unlock() } }
	return &connectortest.System{
		Connector: t, Clock: t.clock, Heal: goWrong(""), Secrets: []string{"toy-secret"},
		Log:      func() string { t.mu.Lock(); defer t.mu.Unlock(); return t.log.String() },
		State:    func() string { t.mu.Lock(); defer t.mu.Unlock(); return fmt.Sprint(t.accounts) },
		Accounts: t.count,
		Record: func(email, name string) map[string]any {
			return map[string]any{"email": email, "name": name}
		},
		Rejected: func(signup.UserID) map[string]any { return map[string]any{"email": "bad"} },
		Stranger: func() string { return t.add(toyAccount{user: "somebody else"}) },
		Move: func(user signup.UserID, email string) {
			t.mu.Lock()
			defer t.mu.Unlock()
			for i := range t.accounts {
				if t.accounts[i].user == user {
					t.accounts[i].email = email
				}
			}
		},
		LoseAnswer: goWrong("lose"), FailAfterEffect: goWrong("fail after"), SpoilKey: goWrong("spoil"), Unavailable: goWrong("unavailable"),
		FailLookups: goWrong("look-up"), BreakCredential: goWrong("credential"),
		Throttle: func(time.Duration) { goWrong("throttle")() },
		Stall: func() <-chan struct{} {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.wrong, t.stalled = "stall", make(chan struct{})
			return t.stalled
		},
	}
}

func (t *toy) count(user signup.UserID) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.accounts {
		if a.user == user {
			n++
		}
	}
	return n
}

func (t *toy) add(a toyAccount) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addLocked(a)
}

func (t *toy) addLocked(a toyAccount) string {
	a.id = fmt.Sprint("account-", len(t.accounts)+1)
	t.accounts = append(t.accounts, a)
	return a.id
}

// fail is the answer of the system, or of the network before it.
func (t *toy) fail(ctx context.Context, req signup.Request) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.wrong {
	case "throttle":
		return &signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 90 * time.Second}
	case "unavailable":
		if t.fault == "secret in the error of a fail" {
			return &signup.Error{Class: signup.Transient, Detail: "toy-secret"}
		}
		return &signup.Error{Class: signup.Transient, Code: "unavailable"}
	case "credential":
		return &signup.Error{Class: signup.Systemic, Code: "unauthorized"}
	case "stall":
		close(t.stalled)
		<-ctx.Done()
		return ctx.Err()
	}
	if req.Record["email"] == "bad" {
		return &signup.Error{Class: signup.Permanent, Code: "rejected"}
	}
	return nil
}

func (t *toy) find(is func(toyAccount) bool) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wrong == "look-up" && t.fault != "failed look-up is not found" {
		return "", &signup.Error{Class: signup.Transient, Code: "unavailable"}
	}
	for _, a := range t.accounts {
		if is(a) && t.wrong != "look-up" {
			return a.id, nil
		}
	}
	return "", nil
}

func (t *toy) create(req signup.Request) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	record := fmt.Sprint(req.Record)
	email, _ := req.Record["email"].(string)
	now := t.clock.Now()
	if k, ok := t.keys[req.Key]; ok && now.Sub(k.at) < 24*time.Hour && t.fault != "no key" && t.fault != "neither key nor look" {
		switch {
		case k.record != record && t.fault == "conflict is permanent":
			return "", &signup.Error{Class: signup.Permanent, Code: "conflict"}
		case k.record != record:
			return "", &signup.Error{Class: signup.Transient, Code: "conflict"}
		case k.id == "":
			code := "key-spent"
			if t.fault == "keeps a spent key" {
				code = "unavailable"
			}
			return "", &signup.Error{Class: signup.Transient, Code: code}
		}
		return k.id, nil
	}
	if t.wrong == "spoil" {
		t.wrong = ""
		t.keys[req.Key] = toyKey{at: now, record: record}
		return "", &signup.Error{Class: signup.Transient, Code: "unavailable"}
	}
	id := t.addLocked(toyAccount{user: req.User, email: email})
	t.keys[req.Key] = toyKey{now, record, id}
	if t.wrong == "lose" || t.wrong == "fail after" {
		t.wrong = ""
		return "", &signup.Error{Class: signup.Transient, Code: "cut"}
	}
	return id, nil
}

func (t *toy) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	a, err := t.associate(ctx, req)
	e, _ := errors.AsType[*signup.Error](err)
	switch {
	case t.fault == "cancelled is permanent" && ctx.Err() != nil:
		err = &signup.Error{Class: signup.Permanent, Err: err}
	case e == nil:
	case t.fault == "throttled is transient" && e.Class == signup.Throttled,
		t.fault == "unauthorized is transient" && e.Class == signup.Systemic,
		t.fault == "rejected is transient" && e.Class == signup.Permanent:
		e.Class = signup.Transient
	case t.fault == "retry-after is dropped":
		e.RetryAfter = 0
	case t.fault == "unavailable is permanent" && e.Class == signup.Transient:
		e.Class = signup.Permanent
	case t.fault == "address in the error":
		e.Detail = req.Email
	}
	return a, err
}

func (t *toy) associate(ctx context.Context, req signup.Request) (a signup.Account, err error) {
	if err := t.fail(ctx, req); err != nil {
		return a, err
	}
	switch {
	case t.fault == "name in the log":
		t.mu.Lock()
		slog.New(slog.NewTextHandler(&t.log, nil)).Info("made", "name", req.Record["name"])
		t.mu.Unlock()
	case t.fault == "wants an address" && req.Email == "":
		return a, &signup.Error{Class: signup.Permanent, Code: "no-email"}
	case t.fault == "everybody has one account":
		return signup.Account{ID: "the one"}, nil
	case t.fault == "account is the address":
		return signup.Account{ID: req.Email}, nil
	case t.fault == "known is believed" && req.Known != "":
		return signup.Account{ID: req.Known}, nil
	}
	mine := func(a toyAccount) bool { return a.user == req.User }
	if t.fault == "looks by address only" {
		mine = func(a toyAccount) bool { return a.user == req.User && a.email == req.Email }
	}
	known := req.Known != "" && t.fault != "known is ignored"
	if (req.Unsure || known) && t.fault != "no look" && t.fault != "conflict is permanent" && t.fault != "neither key nor look" {
		if a.ID, err = t.find(mine); err != nil || a.ID != "" {
			return a, err
		}
	}
	a.ID, err = t.create(req)
	return a, err
}

func (t *toy) Check(ctx context.Context) error {
	switch t.fault {
	case "check is empty":
		return nil
	case "check makes an account":
		t.add(toyAccount{})
	}
	return t.fail(ctx, signup.Request{})
}
