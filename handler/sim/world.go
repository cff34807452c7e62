package sim

import (
	"net/http"
	"strings"
)

// World is all simulated systems behind one address: one http.Handler.
//
//	/v1.0/…, /beta/…                  Graph
//	/secrets/…                        the Key Vault
//	/v1/…                             Stripe
//	/webhook/…                        the webhook receiver, at its own root
//	/{tenant}/oauth2/v2.0/token, …    the token endpoint
//
// A system that is nil answers 404.
type World struct {
	Tenant  *Tenant
	Entra   *Entra
	Vault   *KeyVault
	Stripe  *Stripe
	Webhook *Webhook
}

// ServeHTTP hands a call to the system that its path belongs to.
func (w *World) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	h := http.NotFoundHandler()
	switch {
	case first == "v1.0" || first == "beta":
		if w.Tenant != nil {
			h = w.Tenant
		}
	case first == "secrets":
		if w.Vault != nil {
			h = w.Vault
		}
	case first == "v1":
		if w.Stripe != nil {
			h = w.Stripe
		}
	case first == "webhook":
		if w.Webhook != nil {
			h = http.StripPrefix("/webhook", w.Webhook)
		}
	case strings.HasPrefix(rest, "oauth2/") || strings.HasPrefix(rest, "v2.0/"):
		if w.Entra != nil {
			h = w.Entra
		}
	}
	h.ServeHTTP(rw, r)
}
