package connector

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

type webhookSettings struct {
	URL            string        `json:"url" doc:"Where events are sent, by POST." required:"true"`
	Secret         string        `json:"secret" doc:"The signing secret: whsec_ and 24 to 64 bytes in base64." required:"true" secret:"true"`
	PreviousSecret string        `json:"previousSecret" doc:"The secret before, while receivers change over: events carry both signatures." secret:"true"`
	AllowPrivate   bool          `json:"allowPrivate" doc:"Allow addresses inside the network, and http:// to this machine."`
	Timeout        time.Duration `json:"timeout" doc:"How long one call may take, its answer included." default:"20s"`
}

func webhookKind() Kind {
	return Kind{
		Name: "webhook",
		Doc: "A signed event to a URL: a CloudEvent with a Standard Webhooks signature; the receiver de-duplicates by webhook-id. " +
			"It answers 2xx for what it has, 401 for a signature that does not match, 422 for an event that it never wants, and 410 to get no more. Anything else is tried again.",
		Settings: webhookSettings{}, Rate: 10, Burst: 10, Concurrency: 4,
		Connect: Connector(openWebhook),
	}
}

// maxWebhook is the body's limit in bytes: Standard Webhooks 1.0.0 asks for payloads below 20 kB.
const maxWebhook = 20_000

// webhookConnector sends one event a user. The event's id is the same in every try, and it is the receiver's to take it
// once; nobody can look anything up at a receiver.
type webhookConnector struct {
	url  string
	keys [][]byte // of the signatures, the current one first
	rest *rest
}

var _ signup.Connector = (*webhookConnector)(nil)

func openWebhook(s webhookSettings, env Env) (signup.Connector, []error) {
	var errs []error
	if err := checkURL(s.URL); err != nil {
		errs = append(errs, err)
	} else if strings.HasPrefix(strings.ToLower(s.URL), "http:") && !s.AllowPrivate {
		errs = append(errs, errors.New("settings.url: http:// is for this machine, and with allowPrivate, only; use https://"))
	}
	c := &webhookConnector{url: s.URL}
	for _, secret := range []struct{ name, value string }{{"secret", s.Secret}, {"previousSecret", s.PreviousSecret}} {
		if secret.value == "" {
			continue
		}
		key, err := signingKey(secret.value)
		if err != nil {
			errs = append(errs, errors.New("settings."+secret.name+": "+err.Error()))
		}
		c.keys = append(c.keys, key)
	}
	transport := env.HTTP.Transport
	if !s.AllowPrivate {
		guarded, err := publicOnly(env.HTTP.Transport)
		if err != nil {
			errs = append(errs, err)
		}
		transport = guarded
	}
	c.rest = &rest{client: redirectless(transport), clock: env.Clock, timeout: s.Timeout, judge: judgeWebhook}
	return c, errs
}

// judgeWebhook knows what the statuses mean by Standard Webhooks, where a receiver fails by any but 2xx and is tried
// again, and 410 asks to stop sending. A 400 may be a record or, as in the standard's own examples, a signature that does
// not match; only 413 and 422 speak of the event for sure, and the others of the address.
func judgeWebhook(a answer, e *signup.Error) {
	switch {
	case a.status == http.StatusGone:
		e.Class, e.Code, e.Detail = signup.Systemic, "gone", "the receiver asks for no more events"
	case a.status == http.StatusBadRequest:
		e.Class, e.Detail = signup.Transient, "the receiver refuses the event, or its signature"
	case a.status == http.StatusNotFound:
		e.Class, e.Code, e.Detail = signup.Systemic, "not-found", "there is no receiver at this URL"
	case e.Class == signup.Permanent && a.status != http.StatusRequestEntityTooLarge && a.status != http.StatusUnprocessableEntity:
		e.Class = signup.Systemic
	}
}

// Associate sends the event. The account is the id that the receiver answers, {"id": "…"}, or else the event's. A value of
// the record is no such id: it would bring a name into the ledger.
func (c *webhookConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	id := eventID(req)
	body, err := encodeEvent(req, maxWebhook)
	if err != nil {
		return signup.Account{}, err
	}
	at := strconv.FormatInt(c.rest.clock.Now().Unix(), 10)
	header := http.Header{}
	header.Set("Content-Type", eventMedia)
	header.Set("User-Agent", "signup-sync")
	header.Set("Webhook-Id", id)
	header.Set("Webhook-Timestamp", at)
	header.Set("Webhook-Signature", c.sign(id, at, body))
	a, err := c.rest.call(ctx, request{method: http.MethodPost, url: c.url, header: header, body: body})
	if err != nil {
		return signup.Account{}, err
	}
	var receipt struct{ ID any }
	_ = json.Unmarshal(a.body, &receipt) // a receiver may answer anything
	if own, ok := receipt.ID.(string); ok && validAccountID(own) && !repeats(own, req.Record) {
		id = own
	}
	return signup.Account{ID: id, Created: true}, nil
}

// Check asks for the URL's headers, which changes nothing. Any answer shows that there is a receiver, but for one that
// says that it is gone or broken. The secret is proven by the first event only.
func (c *webhookConnector) Check(ctx context.Context) error {
	header := http.Header{"User-Agent": {"signup-sync"}}
	_, err := c.rest.call(ctx, request{method: http.MethodHead, url: c.url, header: header})
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusGone {
		return nil
	}
	return err
}

// sign is the webhook-signature of Standard Webhooks 1.0.0: for each secret "v1," and the HMAC-SHA256, in base64, of id,
// time and body, joined by dots; separated by blanks.
func (c *webhookConnector) sign(id, at string, body []byte) string {
	var all []string
	for _, key := range c.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + at + "."))
		mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

func signingKey(secret string) ([]byte, error) {
	coded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return nil, errors.New("wants whsec_ and base64")
	}
	key, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return nil, errors.New("is not base64 after whsec_")
	}
	if len(key) < 24 || len(key) > 64 {
		return nil, errors.New("wants 24 to 64 bytes, has " + strconv.Itoa(len(key)))
	}
	return key, nil
}
