package connector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

type eventGridSettings struct {
	URL     string        `json:"url" doc:"The topic's root: https://TOPIC.REGION-1.eventgrid.azure.net." required:"true"`
	Timeout time.Duration `json:"timeout" doc:"How long one call may take, its answer included." default:"15s"`
}

func eventGridKind() Kind {
	return Kind{
		Name: "eventGrid",
		Doc: "An event in a custom topic of Event Grid: a CloudEvent, sent as the Function App's identity, which needs the role EventGrid Data Sender. " +
			"The topic's input schema must be CloudEvents 1.0. The event's id is the same in every try; the topic keeps a second one, so subscribers de-duplicate by the id. " +
			"A check sends an array without events: it shows the topic and the right to send, not the input schema.",
		Settings: eventGridSettings{}, Rate: 50, Burst: 50, Concurrency: 8,
		Limit:   "5,000 events or 5 MB a second for a topic, and 1 MB a call (learn.microsoft.com/azure/event-grid/quotas-limits)",
		Connect: Connector(openEventGrid),
	}
}

const (
	// maxGridBatch is the limit of an array in bytes: the topic takes 1 MB.
	maxGridBatch = 1_000_000
	gridMedia    = "application/cloudevents-batch+json; charset=utf-8"
)

// eventGrid sends the users of one read in one array, which the topic takes as a whole or not at all.
type eventGrid struct {
	url      string
	identity identity
	rest     *rest
}

var _ signup.Batcher = (*eventGrid)(nil)

func openEventGrid(s eventGridSettings, env Env) (signup.Connector, []error) {
	var errs []error
	if err := checkAzure(s.URL, ".eventgrid.azure.net", ".eventgrid.azure.us", ".eventgrid.azure.cn"); err != nil {
		errs = append(errs, err)
	}
	return &eventGrid{
		url:      strings.TrimRight(s.URL, "/") + "/api/events?api-version=2018-01-01",
		identity: identity{env.Token, scopeEventGrid},
		rest:     &rest{client: redirectless(env.HTTP.Transport), clock: env.Clock, timeout: s.Timeout, judge: judgeEventGrid},
	}, errs
}

// judgeEventGrid knows what the statuses mean there. What is sent has the same shape for everybody, so that a refusal is
// about the topic, except for one of the size.
func judgeEventGrid(a answer, e *signup.Error) {
	switch {
	case a.status == http.StatusForbidden:
		e.Status, e.Detail = 0, "the identity may not send to the topic, or the topic's network rules keep the app out"
	case a.status == http.StatusNotFound, a.status == http.StatusGone:
		e.Class, e.Code, e.Detail = signup.Systemic, "not-found", "there is no such topic"
	case a.status == http.StatusRequestEntityTooLarge:
		e.Detail = "the topic finds the event too large"
	case e.Class == signup.Permanent:
		e.Class, e.Detail = signup.Systemic, "the topic refuses every event; is CloudEvents 1.0 its input schema?"
	}
}

// Associate sends the event, and always says that it made the account: the topic knows no second one.
func (c *eventGrid) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	result := c.AssociateAll(ctx, []signup.Request{req})[0]
	return result.Account, result.Err
}

// AssociateAll sends the events in as few arrays as their sizes allow. A request that makes no event is answered alone.
func (c *eventGrid) AssociateAll(ctx context.Context, reqs []signup.Request) []signup.Result {
	results := make([]signup.Result, len(reqs))
	var batch []gridEvent
	size := 0
	flush := func() {
		c.settle(ctx, batch)
		batch, size = nil, 0
	}
	for i, req := range reqs {
		body, err := encodeEvent(req, maxGridBatch-2)
		if err != nil {
			results[i].Err = err
			continue
		}
		results[i].Account = signup.Account{ID: eventID(req), Created: true}
		if size+len(body)+2 > maxGridBatch {
			flush()
		}
		batch, size = append(batch, gridEvent{body, &results[i]}), size+len(body)+1
	}
	flush()
	if slices.ContainsFunc(results, func(r signup.Result) bool { return r.Err == nil }) {
		blameEvents(results)
	}
	return results
}

// blameEvents is for a topic that has taken others of the same read: who was refused alone beside them is to blame.
func blameEvents(results []signup.Result) {
	for _, r := range results {
		if e, ok := errors.AsType[*signup.Error](r.Err); ok && e.Status == http.StatusBadRequest {
			e.Class, e.Detail = signup.Permanent, "the topic refuses the event, and takes others"
		}
	}
}

// gridEvent is an event, and where its outcome goes. The account stands there already.
type gridEvent struct {
	body   []byte
	result *signup.Result
}

// settle sends an array and gives its outcome to all of them. An array that is refused for what is in it, or for its
// size, had no effect; it is halved, until the event that is to blame stands alone.
func (c *eventGrid) settle(ctx context.Context, batch []gridEvent) {
	if len(batch) == 0 {
		return
	}
	var bodies [][]byte
	for _, e := range batch {
		bodies = append(bodies, e.body)
	}
	err := c.send(ctx, bodies)
	if err == nil {
		return
	}
	if len(batch) > 1 && code(err) == "rejected" {
		c.settle(ctx, batch[:len(batch)/2])
		c.settle(ctx, batch[len(batch)/2:])
		return
	}
	for _, e := range batch {
		*e.result = signup.Result{Err: err}
	}
}

// errGridAnswer is the outcome of a 2xx answer that is not the one that Event Grid gives.
var errGridAnswer = &signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Event Grid's"}

// send posts an array. The answer to one that is taken is 200 and empty, or an object without an error.
func (c *eventGrid) send(ctx context.Context, events [][]byte) error {
	token, err := c.identity.bearer(ctx)
	if err != nil {
		return err
	}
	header := http.Header{"Authorization": {token}, "Content-Type": {gridMedia}, "User-Agent": {"signup-sync"}}
	body := append(append([]byte("["), bytes.Join(events, []byte(","))...), ']')
	a, err := c.rest.call(ctx, request{method: http.MethodPost, url: c.url, header: header, body: body})
	if err != nil {
		return err
	}
	var text struct{ Error any }
	if a.status != http.StatusOK || len(bytes.TrimSpace(a.body)) > 0 && (json.Unmarshal(a.body, &text) != nil || text.Error != nil) {
		return errGridAnswer
	}
	return nil
}

// Check sends no events, in an array. A topic that takes the array, and one that will not have an empty one, have both
// taken the identity.
func (c *eventGrid) Check(ctx context.Context) error {
	err := c.send(ctx, nil)
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Status == http.StatusBadRequest && e.Code == "rejected" {
		return nil
	}
	return err
}
