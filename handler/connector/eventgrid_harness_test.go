package connector_test

import (
	"testing"

	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/sim"
)

func eventGridSystem(t testing.TB) *connectortest.System {
	clock := sim.NewClock(start)
	there := sim.NewEventGrid(sim.EventGridOptions{Clock: clock})
	return broker{
		kind: "eventGrid", settings: func(root string) map[string]any { return map[string]any{"url": root} },
		handler: there, faults: &there.Faults, limit: 1_000_000,
		events: func() (all []sim.CloudEvent) {
			for _, e := range there.Events() {
				all = append(all, e.CloudEvent)
			}
			return all
		},
	}.system(t, clock)
}
