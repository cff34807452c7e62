package connector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

type serviceBusSettings struct {
	URL     string        `json:"url" doc:"The namespace's root: https://NAMESPACE.servicebus.windows.net." required:"true"`
	Entity  string        `json:"entity" doc:"The queue or topic. Create it with duplicate detection, for as long a time as retries matter (at most 7 days): it cannot be switched on later." required:"true"`
	Session bool          `json:"session" doc:"The entity requires sessions: each user is a session of its own."`
	Timeout time.Duration `json:"timeout" doc:"How long one call may take, its answer included." default:"15s"`
}

func serviceBusKind() Kind {
	return Kind{
		Name: "serviceBus",
		Doc: "A message in a Service Bus queue or topic: a CloudEvent, sent as the Function App's identity, which needs the role Azure Service Bus Data Sender. " +
			"The message id is the event's and the same in every try. The entity's duplicate detection drops a second one within its window; after that, and without it, the receiver de-duplicates by the id. " +
			"A check gets a token and reaches the namespace; it sees the entity only if the identity may manage it, and the right to send is proven by the first message.",
		Settings: serviceBusSettings{}, Rate: 50, Burst: 50, Concurrency: 8,
		Limit:   "1,000 messages a second for a Standard namespace, all its senders and receivers together, and 256 KB a message (learn.microsoft.com/azure/service-bus-messaging/service-bus-throttling and service-bus-quotas)",
		Connect: Connector(openServiceBus),
	}
}

// maxBusMessage is the limit of the event in bytes: a Standard namespace takes 256 KB, the message's properties included.
const maxBusMessage = 250_000

// entityPath is what Service Bus allows in a name; a slash makes folders.
var entityPath = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._/-]{0,258}[A-Za-z0-9_])?$`)

// serviceBus sends one message a user over HTTPS. Nothing can be looked up there; the message id does all.
type serviceBus struct {
	entity   string // its URL
	session  bool
	identity identity
	rest     *rest
}

var _ signup.Connector = (*serviceBus)(nil)

func openServiceBus(s serviceBusSettings, env Env) (signup.Connector, []error) {
	var errs []error
	if err := checkAzure(s.URL, ".servicebus.windows.net", ".servicebus.usgovcloudapi.net", ".servicebus.chinacloudapi.cn"); err != nil {
		errs = append(errs, err)
	}
	parts := strings.Split(s.Entity, "/")
	if s.Entity != "" && (!entityPath.MatchString(s.Entity) || slices.ContainsFunc(parts, func(p string) bool { return strings.Trim(p, ".") == "" })) {
		errs = append(errs, errors.New("settings.entity: wants the name of a queue or topic: letters, digits, '.', '-', '_' and '/', at most 260"))
	}
	return &serviceBus{
		entity: strings.TrimRight(s.URL, "/") + "/" + s.Entity, session: s.Session,
		identity: identity{env.Token, scopeServiceBus},
		rest:     &rest{client: redirectless(env.HTTP.Transport), clock: env.Clock, timeout: s.Timeout, judge: judgeServiceBus},
	}, errs
}

// judgeServiceBus knows what the statuses mean there. What is sent has the same shape for everybody, so that a refusal is
// about the entity, except for one of the size.
func judgeServiceBus(a answer, e *signup.Error) {
	switch {
	case a.status == http.StatusBadRequest:
		e.Class, e.Detail = signup.Systemic, "the entity takes no such messages; settings.session must be true if, and only if, it requires sessions"
	case a.status == http.StatusForbidden:
		e.Status, e.Detail = 0, "the entity is full, or the namespace's network rules keep the app out"
	case a.status == http.StatusNotFound, a.status == http.StatusGone:
		e.Class, e.Code, e.Detail = signup.Systemic, "not-found", "there is no such queue or topic in the namespace"
	case e.Class == signup.Permanent && a.status != http.StatusRequestEntityTooLarge:
		e.Class = signup.Systemic
	}
}

// brokerProperties are a message's own, as the header of that name has them.
type brokerProperties struct {
	MessageID string        `json:"MessageId"`
	Label     string        `json:"Label"` // what subscriptions may filter by
	SessionID signup.UserID `json:"SessionId,omitempty"`
}

// errBusAnswer is the outcome of a 2xx answer that is not the one that Service Bus gives.
var errBusAnswer = &signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Service Bus's"}

// Associate sends the message. The service answers a second one that it drops like the first, so that nobody can tell
// whether this call made the account.
func (c *serviceBus) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	body, err := encodeEvent(req, maxBusMessage)
	if err != nil {
		return signup.Account{}, err
	}
	properties := brokerProperties{MessageID: eventID(req), Label: eventType}
	if c.session {
		properties.SessionID = req.User
	}
	line, err := json.Marshal(properties)
	if err != nil {
		return signup.Account{}, err // three strings
	}
	header, err := c.header(ctx)
	if err != nil {
		return signup.Account{}, err
	}
	header.Set("Content-Type", eventMedia)
	header["BrokerProperties"] = []string{string(line)}
	header.Set("X-Ms-Retrypolicy", "NoRetry") // whoever called us decides on that
	a, err := c.rest.call(ctx, request{method: http.MethodPost, url: c.entity + "/messages", header: header, body: body})
	if err != nil {
		return signup.Account{}, err
	}
	if a.status != http.StatusCreated {
		return signup.Account{}, errBusAnswer
	}
	return signup.Account{ID: eventID(req), Created: true}, nil
}

// Check reads the entity's description, which only an identity that manages it may do: one that may send is refused as a
// stranger is, and rightly so. Everything else that REST offers there sends, or takes a message from somebody.
func (c *serviceBus) Check(ctx context.Context) error {
	header, err := c.header(ctx)
	if err != nil {
		return err
	}
	a, err := c.rest.call(ctx, request{method: http.MethodGet, url: c.entity + "?api-version=2021-05", header: header})
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Status == http.StatusUnauthorized {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case bytes.Contains(a.body, []byte("<QueueDescription")), bytes.Contains(a.body, []byte("<TopicDescription")):
		return nil
	case bytes.Contains(a.body, []byte("<feed")): // for a name that it does not know it lists what is below: nothing
		return &signup.Error{Class: signup.Systemic, Code: "not-found", Status: a.status, Detail: "there is no such queue or topic in the namespace"}
	}
	return errBusAnswer
}

func (c *serviceBus) header(ctx context.Context) (http.Header, error) {
	token, err := c.identity.bearer(ctx)
	return http.Header{"Authorization": {token}, "User-Agent": {"signup-sync"}}, err
}
