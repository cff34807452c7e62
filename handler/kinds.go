package main

import (
	"signup-sync/handler/connector"
	"signup-sync/handler/entra"
)

// kinds are all kinds of destination, sorted by name: those of package connector, and those that live in the tenant
// itself. Without a tenant their settings can be checked and nothing else.
func kinds(tenant *entra.Tenant) []connector.Kind {
	return connector.Kinds()
}
