package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"signup-sync/handler/entra"
	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// patient is what the doctor looks at: the program as the host would wire it, or as far as that went.
type patient struct {
	system
	app     *app  // nil = the configuration is refused, and only that can be talked about
	refused error // why

	granted      asked[entra.Grant]
	tokenTook    time.Duration             // how long that took; read it after the answer
	proof        asked[bool]               // that this process has a login, or an identity, in Azure
	object       asked[entra.Organization] // the tenant's own, as the app sees it
	organization asked[entra.Organization]
	person       asked[*entra.Tenant]
	access       asked[ledger.Access]
	status       asked[pipeline.Status]
}

// asked is an answer that several questions need, and that is asked for once.
type asked[T any] struct {
	once  sync.Once
	value T
	err   error
}

// get waits for the answer, asking if nobody has.
func (a *asked[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	a.once.Do(func() {
		a.err = errors.New("the question has run into a defect of the program") // unless ask returns
		a.value, a.err = ask(ctx)
	})
	return a.value, a.err
}

// grant is what the app's token says of itself. A token that cannot be read is one, all the same.
func (p *patient) grant(ctx context.Context) (entra.Grant, error) {
	return p.granted.get(ctx, func(ctx context.Context) (entra.Grant, error) {
		begun := time.Now()
		defer func() { p.tokenTook = time.Since(begun) }()
		return p.app.tenant.Grant(ctx)
	})
}

// needsToken is a question that nobody can ask without the app's token.
func needsToken(name string, ask func(context.Context, *patient) []finding) examination {
	return examination{name, func(ctx context.Context, p *patient) []finding {
		if _, err := p.grant(ctx); err != nil && errorCode(err) != tokenUnreadable {
			return []finding{notAsked(name, "Mend identity, token, first.", "the app has no token (%s)", reasonOf(err))}
		}
		return ask(ctx, p)
	}}
}

// needsGraph is a question to the tenant, which nobody can ask without a token, nor where Graph does not answer.
func needsGraph(name string, ask func(context.Context, *patient) []finding) examination {
	return needsToken(name, func(ctx context.Context, p *patient) []finding {
		if err := p.silence(ctx); err != nil {
			return []finding{silent(name, err)}
		}
		return ask(ctx, p)
	})
}

// silence is why Graph does not answer the app; nil if it does, were it to refuse something.
func (p *patient) silence(ctx context.Context) error {
	if _, err := p.object.get(ctx, p.app.tenant.Organization); err != nil && passing(err) {
		return err
	}
	return nil
}

// passing reports that an error is of a kind that ends by itself: nobody is at fault for it, or who is cannot be seen.
func passing(err error) bool {
	class := signup.ClassOf(err)
	return class == signup.Transient || class == signup.Throttled
}

// silent is a line that nobody could answer because Graph did not.
func silent(name string, err error) finding {
	return notAsked(name, "Mend tenant, graph, first.", "Graph does not answer (%s)", reasonOf(err))
}

// needsLedger is a question to what the ledger says of the installation.
func needsLedger(name string, ask func(*patient, pipeline.Status) []finding) examination {
	return examination{name, func(ctx context.Context, p *patient) []finding {
		s, err := p.status.get(ctx, p.readStatus)
		if err != nil {
			return []finding{notAsked(name, "Mend the ledger first.", "the ledger could not be read (%s)", reasonOf(err))}
		}
		return ask(p, s)
	}}
}

// readStatus reads the ledger, unless there is none yet: to read would make a SQLite file.
func (p *patient) readStatus(ctx context.Context) (pipeline.Status, error) {
	access, err := p.access.get(ctx, p.app.ledger.Access)
	if err != nil || !slices.Contains(access.Absent, stateTable) { // one that cannot be written may be readable
		return p.app.engine.Status(ctx)
	}
	fresh := pipeline.Status{Now: p.app.env.Clock.Now()}
	for _, d := range p.app.engine.Detectors {
		fresh.Detectors = append(fresh.Detectors, pipeline.DetectorStatus{Name: d.Name()})
	}
	return fresh, nil
}

// stateTable is there since the first run; the ledger's other table, since the first sign-up.
const stateTable = "state"

// tokenUnreadable is the code of a token that does not say what is in it.
const tokenUnreadable = "token-unreadable"

// errorCode is an error's code; "" if it has none.
func errorCode(err error) string {
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e.Code
	}
	return ""
}

// detailOf is what an error says beside its code.
func detailOf(err error) string {
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Detail != "" {
		return e.Detail
	}
	return oneLine(err)
}

// reasonOf is an error in a word: its code, or its text.
func reasonOf(err error) string {
	if code := errorCode(err); code != "" {
		return code
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return "no answer in time"
	}
	return oneLine(err)
}
