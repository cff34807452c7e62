package main

import (
	"bytes"
	"time"

	"signup-sync/handler/sim"
)

// workforcePart is what stands in local.yaml's place before profile, and behind its destinations, in a workforce tenant:
// one without user flows, in whose log nobody signs up, and with access packages.
const workforcePart = `
  - name: starter
    connector: accessPackage
    settings: { accessPackage: ` + simPackage + `, policy: ` + simPolicy + ` }

sync:
  overlap: 16m    # that a guest has accepted is in the audit log alone, where records can be 15 minutes late

signups:
  origins: [selfService, emailVerified, invitation]
  entitlement: true    # tells partners who asked for an access package from those who were invited
`

// configOf is the configuration of a local run in a tenant of that kind.
func configOf(kind sim.TenantType) []byte {
	if kind != sim.Workforce {
		return localConfig
	}
	_, common, _ := bytes.Cut(localConfig, []byte("\nprofile:"))
	return append(append([]byte("# The configuration of `handler local --tenant workforce`.\nprofile:"), common...), workforcePart...)
}

// reachOf is how long after the last sign-up a census counts everyone: the configuration's overlap, and two runs.
func reachOf(kind sim.TenantType) time.Duration {
	if kind == sim.Workforce {
		return 18 * time.Minute
	}
	return 7 * time.Minute
}

// own reports that a user is one of those who are to be associated, by what the simulation knows of them.
func (r *localReport) own(u sim.DirectoryUser) bool {
	switch u.How {
	case sim.Email, sim.Social:
		return true
	case sim.EmailVerified:
		return r.Tenant == sim.Workforce
	case sim.Guest, sim.Requested:
		return r.Tenant == sim.Workforce && u.Properties["externalUserState"] == "Accepted"
	}
	return false
}

// crowdOf is who comes into a tenant of that kind.
func crowdOf(kind sim.TenantType, n int, seed uint64) []sim.Person {
	if kind == sim.Workforce {
		return sim.Partners(n, seed)
	}
	return sim.Crowd(n, seed)
}
