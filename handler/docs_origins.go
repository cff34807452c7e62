package main

import (
	"fmt"
	"strings"

	"signup-sync/handler/signup"
)

const originsIntro = "People get into a tenant in several ways, and not everyone is to be brought everywhere. Who is, `signups.origins` says; rules ask for\n" +
	"`signup.origin`, the finer `signup.way` and `signup.identityProvider`: `when: signup.way == \"federated\" and signup.identityProvider == \"google.com\"`.\n" +
	"Both are decided once, when the profile is first read. The first line that fits counts:\n\n" +
	"| `signup.origin` | `signup.way` | who | tenants | evidence |\n|---|---|---|---|---|\n"

const originsRest = `| unknown | | anybody else | | nothing of the above: the user is ` + "`failed: origin-unknown`, never silently skipped, and a person looks" + ` |

` + "`bin/handler explain ID`" + ` shows a user's evidence: types and states, no values that name anybody. Who has an origin that is not among
` + "`signups.origins` is `skipped: origin`" + `; [replay](operations.md#commands) lets them in after a change.

* **The audit log's actor is no evidence.** It is published for none of these who it is; an app that imports customers and the service that
  signs them up look alike.
* **Imported customers.** A customer whom an app makes through Graph with an e-mail identity has the profile of one who signed up. Only the
  sign-up log (beta) knows better, by having no record; but a record that is late, or that a native app's sign-up never leaves, would then
  keep a real customer out. So nobody is taken for imported because something is missing. The configuration says who was:
  ` + "`signups: { migrated: user.attributes.requiresMigration != nil }`" + `, with the attribute that the import writes. (For passwords that are migrated
  at the first sign-in there has to be one, ` + "`migrationPropertyId`" + `, and it stays there, false, afterwards.)
* **Invited guests** are ` + "`skipped: not-redeemed`" + ` until they accept, and reopen by themselves then. With ` + "`signups: { guests: invited }`" + ` they are
  associated when they are invited, and accepting changes nothing: it does not run rules again either, and where a guest will sign in
  (` + "`signup.identityProvider`" + `) is mostly not known before. Who was skipped before the setting was changed comes in by accepting, or by
  ` + "`replay --state skipped --reason not-redeemed`" + `.
* **Guests whom an access package let in** are guests like any other but for the request that is older than their account. With
  ` + "`signups: { entitlement: true }`" + ` entitlement management is asked about each guest who is about to be associated, one call each, which takes the
  permission EntitlementManagement.Read.All. An account younger than ten minutes of which it knows nothing waits so long, since a request names
  the account that it brings only some minutes after; who cannot be looked up waits. Without the setting they are of the way ` + "`invitation`" + `.
* **What a tenant cannot do** ` + "`bin/handler doctor`" + ` says by name: an external tenant has no access packages and nobody who joins with a verified
  address; its guests are invited by administrators only.
`

// originsPage is the table of the ways into a tenant, from the one that decides.
func originsPage() []byte {
	var b strings.Builder
	b.WriteString("# Who signed up, and how\n\n" + generated + originsIntro)
	for _, c := range signup.Cases {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", c.Origin, c.Way, c.Who, c.Tenants, c.Evidence)
	}
	b.WriteString(originsRest)
	return []byte(b.String())
}
