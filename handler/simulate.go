package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the database that simulated runs write to

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// What the simulations and local.settings.json agree on. None of it is a secret: it opens nothing but a simulation.
const (
	simTenant  = "04dcc6ab-388a-4559-b527-fbec656300ea"
	simClient  = "5f7f1f6a-0000-4000-8000-00000000c11e"
	simSecret  = "simulated"
	simWelcome = "whsec_c2ltdWxhdGVkLXNpbXVsYXRlZC1zaW11bGF0ZWQ="

	simMailchimp = "0123456789abcdef0123456789abcdef-us1"
	simAdmin     = "728309ae-1a37-4937-9afe-e35d964db09b" // who logs in to policy and invite
	simAudience  = "1a2b3c4d5e"
	simQueue     = "signups" // in the storage account and in the Service Bus namespace
	simGroup     = "6d2c0f5e-0000-4000-8000-0000000c0b01"
	simPackage   = "a914b616-0000-4000-8000-0000000c0b02"
	simPolicy    = "2264bf65-0000-4000-8000-0000000c0b03"
	simPartners  = "a914b616-0000-4000-8000-0000000c0b05" // the access package that partners ask for
	simAsked     = "2264bf65-0000-4000-8000-0000000c0b06" // … by this policy
)

// simRoles are the application permissions that signup-sync.yaml needs, and so the app has in `handler sim`.
var simRoles = []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All"}

// simAdministrator may do all that the commands with a login ask for.
var simAdministrator = sim.Login{Object: simAdmin, Roles: []string{sim.GlobalAdministrator}, Consent: []string{"Policy.Read.All", "EventListener.Read.All",
	"Policy.ReadWrite.Authorization", "EventListener.ReadWrite.All", "User.Invite.All"}}

// simFlow is the user flow by which people sign up.
var simFlow = sim.UserFlow{Name: "Sign up", Attributes: []sim.FlowAttribute{{Name: "givenName"}, {Name: "surname"}, {Name: "marketingOptIn", Type: "boolean"}}}

// simulation is the simulated world on an address of this machine, with its files in a folder.
type simulation struct {
	*sim.World
	server *sim.Server
	dir    string
}

// openSimulation serves the simulated systems, with a tenant of that kind, and makes the folder with an empty customers
// database.
func openSimulation(ctx context.Context, dir, addr string, seed uint64, clock signup.ScaledClock, kind sim.TenantType) (*simulation, error) {
	tenant := sim.TenantOptions{ID: simTenant, Clock: clock, Seed: seed, Type: kind, Groups: []sim.Group{{ID: simGroup}},
		Attributes: []string{"stripeCustomerId", "salesforceId", "welcomeId", "marketingOptIn", "requiresMigration"}, Flags: []string{"marketingOptIn"}}
	roles := append([]string{"GroupMember.ReadWrite.All"}, simRoles...)
	if kind == sim.Workforce {
		tenant.EntitlementManagement = true
		tenant.AccessPackages = []sim.AccessPackage{{ID: simPackage, Policies: []string{simPolicy}}, {ID: simPartners, Policies: []string{simAsked}}}
		roles = append(roles, "EntitlementManagement.ReadWrite.All")
	} else {
		tenant.UserFlows = []sim.UserFlow{simFlow}
	}
	s := &simulation{dir: dir, World: &sim.World{
		Tenant: sim.NewTenant(tenant),
		// Clients keep tokens by the machine's clock, so the tokens live by it too.
		Entra: sim.NewEntra(sim.EntraOptions{Clock: clock, Tenant: simTenant, Seed: seed, TokenLife: tokenLife(clock),
			Apps: []sim.App{{ID: simClient, Secret: simSecret, Roles: roles}}}),
		Stripe:     sim.NewStripe(sim.StripeOptions{Clock: clock, APIKey: simSecret}),
		Mailchimp:  sim.NewMailchimp(sim.MailchimpOptions{Clock: clock, APIKey: simMailchimp, Audience: simAudience}),
		Salesforce: sim.NewSalesforce(sim.SalesforceOptions{Clock: clock, ClientID: simSecret, ClientSecret: simSecret, Objects: sim.SalesforceObjects()}),
		Webhook:    sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: []string{simWelcome}}),
		Queue:      sim.NewStorageQueue(sim.StorageQueueOptions{Clock: clock, Queues: []string{simQueue}}),
		ServiceBus: sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{simQueue}}),
		EventGrid:  sim.NewEventGrid(sim.EventGridOptions{Clock: clock}),
		Identity:   sim.NewIdentity(sim.IdentityOptions{Clock: clock, Tenant: simTenant, Header: simSecret, TokenLife: tokenLife(clock)}),
	}}
	s.Entra.SetLogin(simAdministrator)
	var err error
	if s.server, err = sim.Serve(ctx, addr, s.World); err != nil {
		return nil, err // before anything of one that is running is touched
	}
	if err := s.makeFiles(ctx); err != nil {
		s.server.Close()
		return nil, err
	}
	return s, nil
}

// makeFiles empties the folder of what an earlier run left and makes what this one needs.
func (s *simulation) makeFiles(ctx context.Context) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	for _, name := range []string{"customers.db", "ledger.db"} {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(s.path(name + suffix)); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("remove what an earlier run left: %w", err)
			}
		}
	}
	if err := s.createCustomers(ctx); err != nil {
		return fmt.Errorf("create the customers table: %w", err)
	}
	if err := os.WriteFile(s.path("ca.pem"), s.server.CA, 0o644); err != nil {
		return fmt.Errorf("write the simulations' certificate authority: %w", err)
	}
	return nil
}

func tokenLife(clock signup.ScaledClock) time.Duration {
	if clock.Rate > 1 {
		return time.Duration(clock.Rate * float64(time.Hour))
	}
	return 0
}

func (s *simulation) path(name string) string { return filepath.Join(s.dir, name) }

func (s *simulation) createCustomers(ctx context.Context) error {
	db, err := sql.Open("sqlite", s.path("customers.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, `CREATE TABLE customers (
		entra_id  TEXT PRIMARY KEY,
		email     TEXT,
		name      TEXT,
		stripe_id TEXT NOT NULL)`)
	return err
}

// settings are the app settings with which signup-sync.yaml works against the simulation; local.settings.json has them too.
func (s *simulation) settings() map[string]string {
	return map[string]string{
		"ENTRA_TENANT_ID": simTenant, "ENTRA_CLIENT_ID": simClient, "ENTRA_CREDENTIAL": "secret", "ENTRA_CLIENT_SECRET": simSecret,
		"ENTRA_AUTHORITY": s.server.URL, "GRAPH_URL": s.server.URL, "EXTRA_CA_FILE": s.path("ca.pem"),
		"STRIPE_URL": s.server.URL, "STRIPE_API_KEY": simSecret,
		"WELCOME_URL": s.server.URL + "/webhook", "WELCOME_SECRET": simWelcome,
		"CUSTOMERS_DSN": s.path("customers.db"),
	}
}

// more are those that local.yaml needs besides: a managed identity among them, as in Azure.
func (s *simulation) more() map[string]string {
	return map[string]string{
		"SIMULATED_URL": s.server.URL, "MAILCHIMP_API_KEY": simMailchimp, "SALESFORCE_SECRET": simSecret,
		"IDENTITY_ENDPOINT": s.server.URL + "/msi/token", "IDENTITY_HEADER": simSecret,
	}
}

type simCommand struct {
	Listen string        `default:"127.0.0.1:7443" help:"Address on this machine, as in local.settings.json."`
	Dir    string        `default:".sim" type:"path" help:"Folder for ca.pem and customers.db; what an earlier run left of them is removed, and a ledger.db with it."`
	Tenant string        `default:"external" enum:"external,workforce" help:"What kind of tenant it is: external, where customers sign up, or workforce, with partners and access packages."`
	Every  time.Duration `default:"20s" help:"Somebody comes into the tenant so often. Guests accept after three times as long: all whom you invite, and half of the others."`
	Seed   uint64        `help:"The same seed makes the same people with the same ids, whom a ledger that is kept knows already; without one they are new each time."`
}

// Run serves the simulations, by the wall clock, until it is stopped.
func (c simCommand) Run(ctx context.Context, s system) error {
	if c.Every <= 0 {
		return refusal{errors.New("--every: want a time above zero, such as 20s")}
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	world, err := openSimulation(ctx, c.Dir, c.Listen, c.Seed, signup.ScaledClock{}, sim.TenantType(c.Tenant))
	if err != nil {
		return err
	}
	defer world.server.Close()
	world.Entra.SetApp(sim.App{ID: simClient, Secret: simSecret, Roles: simRoles})
	fmt.Fprintf(s.stdout, "The simulated tenant and systems are at %s; what they hold goes with this process.\n", world.server.URL)
	fmt.Fprintf(s.stdout, "Certificate authority: %s\nCustomers database:    %s\n", world.path("ca.pem"), world.path("customers.db"))
	fmt.Fprintln(s.stdout, "Start Azurite and, in the project's folder, 'func start'. Ctrl+C ends this.")
	clock, stay := signup.ScaledClock{}, map[signup.UserID]bool{}
	tell := func(what sim.How, id signup.UserID) {
		fmt.Fprintf(s.stdout, "%s  %-13s %s\n", clock.Now().Format(time.TimeOnly), what, id)
	}
	for i, p := range crowdOf(sim.TenantType(c.Tenant), 10_000, c.Seed) {
		if clock.Sleep(ctx, c.Every) != nil {
			break
		}
		id := world.Tenant.SignUp(p)
		tell(p.How, id)
		stay[id] = i%2 == 1
		for _, u := range world.Tenant.Users() {
			pending := !u.Deleted && u.Properties["externalUserState"] == "PendingAcceptance"
			if pending && !stay[u.ID] && clock.Now().Sub(u.Created) >= 3*c.Every {
				world.Tenant.Redeem(u.ID)
				tell("accepted", u.ID)
			}
		}
	}
	<-ctx.Done()
	return nil
}
