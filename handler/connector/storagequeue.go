package connector

import (
	"context"
	"encoding/base64"
	"errors"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"

	"signup-sync/handler/signup"
)

type storageQueueSettings struct {
	URL        string        `json:"url" doc:"The account's root, https://ACCOUNT.queue.core.windows.net, where the Function App's identity is used. Either this or connection."`
	Connection string        `json:"connection" doc:"A connection string, with an account key or a shared access signature. Either this or url." secret:"true"`
	Queue      string        `json:"queue" doc:"The queue, which must exist." required:"true"`
	TTL        time.Duration `json:"ttl" doc:"After what time a message that nobody took is gone; by default never."`
	Timeout    time.Duration `json:"timeout" doc:"How long one call may take, its answer included." default:"15s"`
}

func storageQueueKind() Kind {
	return Kind{
		Name: "storageQueue",
		Doc: "A message in a queue of Azure Storage: a CloudEvent in base64, as a Function's queue trigger expects it, sent as the Function App's identity, which needs the role Storage Queue Data Message Sender, or with a connection string. " +
			"The event's id is the same in every try; a try whose answer was lost leaves a second message, so whoever reads the queue de-duplicates by the id. " +
			"A check shows the account and the credential, and the queue if the identity may read its properties (Storage Queue Data Reader); the right to send is proven by the first message.",
		Settings: storageQueueSettings{}, Rate: 50, Burst: 50, Concurrency: 8,
		Limit:   "2,000 messages of 1 KiB a second for a queue, 20,000 for an account, and 64 KiB a message (learn.microsoft.com/azure/storage/queues/scalability-targets)",
		Connect: Connector(openStorageQueue),
	}
}

// maxQueueMessage is the limit of the event in bytes: 64 KiB in base64.
const maxQueueMessage = 48 << 10

var queueName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// storageQueue enqueues one message a user. The service knows no idempotency, and nothing can be looked up there.
type storageQueue struct {
	sdk *azqueue.QueueClient
	ttl int32 // seconds; -1 = never
}

var _ signup.Connector = (*storageQueue)(nil)

func openStorageQueue(s storageQueueSettings, env Env) (signup.Connector, []error) {
	var errs []error
	if err := checkAccountURL(s.URL); err != nil {
		errs = append(errs, err)
	}
	if (s.URL == "") == (s.Connection == "") {
		errs = append(errs, errors.New("settings.url: wants either url or settings.connection"))
	}
	if s.Queue != "" && (!queueName.MatchString(s.Queue) || len(s.Queue) < 3 || len(s.Queue) > 63) {
		errs = append(errs, errors.New("settings.queue: wants 3 to 63 of a-z, 0-9 and single dashes between them"))
	}
	ttl := int64(-1)
	if s.TTL > 0 {
		if ttl = int64(math.Ceil(s.TTL.Seconds())); ttl > math.MaxInt32 {
			errs = append(errs, errors.New("settings.ttl: is longer than the service can count"))
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	sdk, err := s.client(env)
	if err != nil {
		return nil, []error{err}
	}
	return &storageQueue{sdk: sdk, ttl: int32(ttl)}, nil
}

// client makes the SDK's. Of its pipeline remain the requests, their signature by key and the answers: a try is one call.
func (s storageQueueSettings) client(env Env) (*azqueue.QueueClient, error) {
	under := underQueue{rest: &rest{client: redirectless(env.HTTP.Transport), clock: env.Clock, timeout: s.Timeout, judge: judgeQueue}}
	if s.Connection == "" {
		under.identity = &identity{env.Token, scopeStorage}
	}
	o := &azqueue.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: under, Retry: policy.RetryOptions{MaxRetries: -1}, Telemetry: policy.TelemetryOptions{Disabled: true},
	}}
	if s.Connection == "" {
		sdk, err := azqueue.NewQueueClientWithNoCredential(strings.TrimRight(s.URL, "/")+"/"+s.Queue, o)
		if err != nil {
			return nil, errors.New("settings.url: is not the address of a storage account")
		}
		return sdk, nil
	}
	sdk, err := azqueue.NewQueueClientFromConnectionString(s.Connection, s.Queue, o)
	if err != nil {
		return nil, errors.New("settings.connection: wants AccountName and AccountKey, or QueueEndpoint and SharedAccessSignature, as Name=value;Name=value")
	}
	if checkURL(sdk.URL()) != nil {
		return nil, errors.New("settings.connection: the queue's endpoint wants https://; http:// is for this machine only")
	}
	return sdk, nil
}

// checkAccountURL is checkAzure, but for an emulator, whose accounts are paths.
func checkAccountURL(s string) error {
	if err := checkURL(s); err != nil || s == "" {
		return err
	}
	if u, err := url.Parse(s); err == nil && isLoopback(u.Hostname()) && u.RawQuery == "" {
		return nil
	}
	return checkAzure(s, ".queue.core.windows.net", ".queue.storage.azure.net", ".queue.core.usgovcloudapi.net", ".queue.core.chinacloudapi.cn")
}

// underQueue sends the SDK's requests through the one call. The SDK's own way with tokens is not used: it would ask for
// one of whatever resource the service names in a challenge, and send the message again with it.
type underQueue struct {
	rest     *rest
	identity *identity // nil = requests come signed
}

func (t underQueue) Do(r *http.Request) (*http.Response, error) {
	if t.identity != nil {
		token, err := t.identity.bearer(r.Context())
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", token)
	}
	r.Header.Set("User-Agent", "signup-sync")
	a, err := t.rest.forward(r)
	if err != nil {
		return nil, err
	}
	return a.response(r), nil
}

// codeMismatch is the outcome for a caller whom the service knows, and who may not do this.
const codeMismatch = "permission-mismatch"

var storageWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{1,63}$`)

// judgeQueue reads the service's error codes: https://learn.microsoft.com/rest/api/storageservices/queue-service-error-codes.
// A message is base64 whoever it is about, so that a refusal is about the queue, except for one of the size.
func judgeQueue(a answer, e *signup.Error) {
	word := a.header.Get("X-Ms-Error-Code")
	if storageWord.MatchString(word) {
		e.Detail = "storage: " + word
	}
	if a.status == http.StatusForbidden {
		e.Status = 0
	}
	switch {
	case word == "ServerBusy":
		e.Class, e.Code = signup.Throttled, "throttled"
	case word == "AuthenticationFailed":
		e.Code = "unauthorized"
	case word == "AuthorizationPermissionMismatch":
		e.Code = codeMismatch
	case a.status == http.StatusNotFound:
		e.Class, e.Code = signup.Systemic, "not-found"
	case a.status >= 400 && e.Class == signup.Permanent && word != "MessageTooLarge" && word != "RequestBodyTooLarge" && a.status != http.StatusRequestEntityTooLarge:
		e.Class = signup.Systemic
	}
}

// errQueueAnswer is the outcome of a 2xx answer that is not the service's.
var errQueueAnswer = &signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Azure Storage's"}

// outcome is the call's error, in a class.
func (c *storageQueue) outcome(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return cancelled("call the queue", ctx.Err())
	}
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	return errQueueAnswer
}

// Associate enqueues the message, and always says that it made the account: the queue knows no second one.
func (c *storageQueue) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	body, err := encodeEvent(req, maxQueueMessage+1)
	if err != nil {
		return signup.Account{}, err
	}
	answer, err := c.sdk.EnqueueMessage(ctx, base64.StdEncoding.EncodeToString(body), &azqueue.EnqueueMessageOptions{TimeToLive: &c.ttl})
	if err := c.outcome(ctx, err); err != nil {
		return signup.Account{}, err
	}
	if len(answer.Messages) != 1 || answer.Messages[0].MessageID == nil {
		return signup.Account{}, errQueueAnswer
	}
	return signup.Account{ID: eventID(req), Created: true}, nil
}

// Check reads the queue's properties. Who may only send is refused that by a word of its own, and rightly so: the right to
// send is proven by the first message.
func (c *storageQueue) Check(ctx context.Context) error {
	answer, err := c.sdk.GetProperties(ctx, nil)
	err = c.outcome(ctx, err)
	switch {
	case code(err) == codeMismatch:
		return nil
	case err != nil:
		return err
	case answer.ApproximateMessagesCount == nil:
		return errQueueAnswer
	}
	return nil
}
