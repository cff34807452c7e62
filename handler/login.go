package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"signup-sync/handler/entra"
	"signup-sync/handler/identity"
)

// administrator are the flags by which a person logs in, for what the app should not be allowed to do. The Azure CLI's login
// is never tried: it has a fixed set of permissions of Graph, and these are not among them.
type administrator struct {
	ClientID string `name:"client-id" placeholder:"ID" help:"Log in by this app registration, a public client; otherwise by Microsoft Graph Command Line Tools, the client of Connect-MgGraph."`
	Browser  bool   `help:"Log in with a browser on this machine, where the tenant does not allow device codes."`
}

// helpOfLogin is in the help of every command that lets a person log in.
const helpOfLogin = `You log in yourself, in a browser, and the permissions that are asked for are said before; an administrator has to accept them once. Nothing of the login is kept. The app's own permissions stay as they are.`

// logIn lets a person log in to the configured tenant, for delegated permissions of Graph. What is said about it goes to stderr.
func (l administrator) logIn(ctx context.Context, s system, a *app, scopes ...string) (*entra.Tenant, entra.Grant, error) {
	if s.getenv("IDENTITY_ENDPOINT") != "" {
		return nil, entra.Grant{}, refusal{errors.New("this runs in Azure, where there is no person: run it on your own machine, with --settings")}
	}
	client := l.ClientID
	if client == "" {
		client = identity.GraphTools
	}
	if !guid.MatchString(client) {
		return nil, entra.Grant{}, refusal{errors.New("--client-id: wants the application (client) id of an app registration, a GUID")}
	}
	fmt.Fprintf(s.stderr, "Log in to the tenant %s, with the client %s, for %s.\n", a.env.Tenant, client, strings.Join(scopes, ", "))
	login, err := identity.LogIn(ctx, identity.LoginOptions{Tenant: a.env.Tenant, ClientID: client, Authority: a.env.Authority, Graph: graphResource(a.env.Graph), Scopes: scopes,
		Browser: l.Browser, HTTP: bounded(a.http), Show: func(text string) { fmt.Fprintln(s.stderr, text) }})
	if err != nil {
		return nil, entra.Grant{}, fmt.Errorf("log in: %w", err)
	}
	tenant, err := entra.Open(entra.Options{GraphURL: a.env.Graph, Credential: login, HTTP: a.http, Clock: a.env.Clock})
	if err != nil {
		return nil, entra.Grant{}, err
	}
	grant, err := tenant.Grant(ctx)
	if err != nil {
		return nil, entra.Grant{}, fmt.Errorf("read who has logged in: %w", err)
	}
	if grant.Tenant != a.env.Tenant {
		return nil, entra.Grant{}, fmt.Errorf("the login is for the tenant %s, and ENTRA_TENANT_ID is %s: nothing was asked of either", grant.Tenant, a.env.Tenant)
	}
	for _, scope := range scopes {
		if !slices.Contains(grant.Scopes, scope) {
			return nil, entra.Grant{}, fmt.Errorf("the login does not have %s: an administrator has to accept it", scope)
		}
	}
	return tenant, grant, nil
}

// graphResource is what the permissions belong to: Graph itself, also where a simulation stands in for it.
func graphResource(graph string) string {
	if u, err := url.Parse(graph); err == nil && loopback(u.Hostname()) {
		return defaultGraph
	}
	return graph
}
