package connector_test

import (
	"testing"

	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/sim"
)

func serviceBusSystem(t testing.TB) *connectortest.System {
	clock := sim.NewClock(start)
	there := sim.NewServiceBus(sim.ServiceBusOptions{Clock: clock, Entities: []string{"newcomers"}, Sessions: true})
	return broker{
		kind: "serviceBus",
		settings: func(root string) map[string]any {
			return map[string]any{"url": root, "entity": "newcomers", "session": true}
		},
		handler: there, faults: &there.Faults, limit: 256 << 10,
		events: func() (all []sim.CloudEvent) {
			for _, m := range there.Messages() {
				all = append(all, m.Event)
			}
			return all
		},
	}.system(t, clock)
}
