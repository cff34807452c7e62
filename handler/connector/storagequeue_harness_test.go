package connector_test

import (
	"testing"

	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/sim"
)

// queueKey is the key of the simulated account.
const queueKey = "c2ltdWxhdGVkIGFjY291bnQga2V5"

func storageQueueSystem(t testing.TB, byKey bool) *connectortest.System {
	clock := sim.NewClock(start)
	there := sim.NewStorageQueue(sim.StorageQueueOptions{Clock: clock, Key: queueKey, Queues: []string{"newcomers"}})
	return broker{
		kind: "storageQueue",
		settings: func(root string) map[string]any {
			if byKey {
				return map[string]any{"queue": "newcomers", "connection": queueConnection(root)}
			}
			return map[string]any{"queue": "newcomers", "url": root + "/devstoreaccount1"}
		},
		handler: there, faults: &there.Faults, limit: 48 << 10,
		events: func() (all []sim.CloudEvent) {
			for _, m := range there.Messages() {
				all = append(all, m.Event)
			}
			return all
		},
	}.system(t, clock)
}

func queueConnection(root string) string {
	return "DefaultEndpointsProtocol=https;AccountName=devstoreaccount1;AccountKey=" + queueKey + ";QueueEndpoint=" + root + "/devstoreaccount1;"
}
