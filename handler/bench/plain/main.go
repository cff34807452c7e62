// Command plain is the subject of a benchmark and no advice. It is the polling function that published articles have people
// write for new users of a tenant, in Go: a timer calls it every five minutes, it reads the "Add user" records of the last ten
// from the audit log, and takes one user after the other: it reads the user, makes a customer in Stripe, a contact in
// Mailchimp and one in Salesforce, and writes their ids to the user.
//
// It is written as a competent person would within that plan. It reads the log to its last page, takes a user once in
// a run, goes on after an error, which it logs, keeps its token and its connections, uses the Graph SDK with its own credential,
// middleware and models, and gives Salesforce the user's id, whose unique index refuses a second contact. Where the article's
// call to Mailchimp does not work (its path, the user principal name for the address) the nearest that does is here.
//
// What it does not do is what the plan leaves out: it keeps no state, so that nobody who shows later than ten minutes is ever
// seen, and nobody who failed for longer is tried again; its creations carry no idempotency key, and nothing is looked up before
// them. As published it does not know either whom it has done. With MARKS=1 it does: it passes over a destination whose id the
// user carries already, which is the first thing that those who run it add. LIFTED=1 leaves out what a platform's limit could
// hold up: Mailchimp, and what is written to the user.
//
// It is a custom handler, so that the same host starts, calls and kills it as the program that it is compared with.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// lookBack is how far a run looks back; it comes every five minutes.
const lookBack = 10 * time.Minute

func main() {
	f, err := open(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	http.HandleFunc("POST /SyncNewUsers", func(w http.ResponseWriter, r *http.Request) {
		if err := f.run(r.Context()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"Outputs":{},"Logs":[],"ReturnValue":null}`)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), nil))
	os.Exit(1)
}

// function is the polling function with its clients.
type function struct {
	graph   *graph
	vendors vendors
	clock   signup.ScaledClock
	marks   bool
	lifted  bool
}

func open(getenv func(string) string) (*function, error) {
	g, err := openGraph(getenv)
	if err != nil {
		return nil, err
	}
	f := &function{graph: g, marks: getenv("MARKS") != "", lifted: getenv("LIFTED") != "", vendors: vendors{
		http:   &http.Client{Timeout: 100 * time.Second},
		stripe: getenv("STRIPE_URL"), stripeKey: getenv("STRIPE_API_KEY"),
		mailchimp: getenv("SIMULATED_URL"), mailchimpKey: getenv("MAILCHIMP_API_KEY"), audience: getenv("MAILCHIMP_AUDIENCE"),
		salesforce: getenv("SIMULATED_URL"), salesforceID: getenv("SALESFORCE_ID"), salesforceSecret: getenv("SALESFORCE_SECRET"),
	}}
	if start, rate, ok := strings.Cut(getenv("SIGNUP_SYNC_CLOCK"), ","); ok {
		f.clock.Start, _ = time.Parse(time.RFC3339, start)
		f.clock.Rate, _ = strconv.ParseFloat(rate, 64)
	}
	return f, nil
}

// run is one call by the timer. An error of a user is logged, and the next one comes.
func (f *function) run(ctx context.Context) error {
	ids, err := f.graph.added(ctx, f.clock.Now().Add(-lookBack))
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	f.vendors.session = ""
	for _, id := range ids {
		if err := f.associate(ctx, id); err != nil {
			fmt.Fprintln(os.Stderr, id+":", err)
		}
	}
	return nil
}

// associate brings one user everywhere. A destination that fails is logged, and the next one comes.
func (f *function) associate(ctx context.Context, id string) error {
	u, err := f.graph.user(ctx, id)
	if err != nil {
		return fmt.Errorf("read the user: %w", err)
	}
	made := map[string]string{}
	for _, d := range []struct {
		attribute string
		create    func(context.Context, user) (string, error)
	}{
		{"stripeCustomerId", f.vendors.createCustomer},
		{"mailchimpId", f.vendors.createContact},
		{"salesforceId", f.vendors.createRecord},
	} {
		if f.marks && u.attributes[d.attribute] != "" || f.lifted && d.attribute == "mailchimpId" {
			continue
		}
		account, err := d.create(ctx, u)
		if err != nil {
			fmt.Fprintln(os.Stderr, id+":", d.attribute+":", err)
			continue
		}
		made[d.attribute] = account
	}
	if len(made) == 0 || f.lifted {
		return nil
	}
	if err := f.graph.patch(ctx, u, made); err != nil {
		return fmt.Errorf("write the user: %w", err)
	}
	return nil
}
