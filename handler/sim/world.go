package sim

import (
	"net/http"
	"strings"
)

// World is all simulated systems behind one address: one http.Handler.
//
//	/v1.0/…, /beta/…                  Graph
//	/secrets/…                        the Key Vault
//	/certificates/…, /keys/…          the Key Vault too
//	/v1/…                             Stripe
//	/3.0/…                            Mailchimp
//	/services/…                       Salesforce
//	/webhook/…                        the webhook receiver, at its own root
//	/devstoreaccount1/…               the queues of a storage account, as an emulator has them
//	/{entity}, /{entity}/messages     Service Bus
//	/api/events                       an Event Grid topic
//	/msi/token                        the managed identity's endpoint
//	/{tenant}/oauth2/v2.0/token, …    the token endpoint
//
// A system that is nil answers 404.
type World struct {
	Tenant     *Tenant
	Entra      *Entra
	Vault      *KeyVault
	Stripe     *Stripe
	Mailchimp  *Mailchimp
	Salesforce *Salesforce
	Webhook    *Webhook
	Queue      *StorageQueue
	ServiceBus *ServiceBus
	EventGrid  *EventGrid
	Identity   *Identity
}

// ServeHTTP hands a call to the system that its path belongs to.
func (w *World) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var h http.Handler
	switch {
	case first == "v1.0" || first == "beta":
		h = present(w.Tenant)
	case first == "secrets" || first == "certificates" || first == "keys":
		h = present(w.Vault)
	case first == "v1":
		h = present(w.Stripe)
	case first == "3.0":
		h = present(w.Mailchimp)
	case first == "services":
		h = present(w.Salesforce)
	case first == "webhook":
		h = http.StripPrefix("/webhook", present(w.Webhook))
	case first == "devstoreaccount1":
		h = present(w.Queue)
	case first == "msi":
		h = present(w.Identity)
	case first == "api":
		h = present(w.EventGrid)
	case rest == "messages", rest == "" && first != "":
		h = present(w.ServiceBus)
	case strings.HasPrefix(rest, "oauth2/") || strings.HasPrefix(rest, "v2.0/"):
		h = present(w.Entra)
	default:
		h = http.NotFoundHandler()
	}
	h.ServeHTTP(rw, r)
}

// system is a pointer to a simulated system.
type system[T any] interface {
	*T
	http.Handler
}

// present is the system, or nobody where there is none.
func present[T any, P system[T]](p P) http.Handler {
	if p == nil {
		return http.NotFoundHandler()
	}
	return p
}
