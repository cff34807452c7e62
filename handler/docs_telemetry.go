package main

import "strings"

const telemetryIntro = `Two ways to the same figures. **Without any setting** each invocation leaves one line of JSON, its summary, which the host
hands to Application Insights; the [workbook and the alerts](operations.md#alerts) ask that line, by the names that the table below has in "in the summary
line", and for what happened to somebody the log's lines beside it. They do not ask the metrics. **With
` + "`OTEL_EXPORTER_OTLP_ENDPOINT`" + `** ([app settings](settings.md#app-settings)) an OpenTelemetry collector gets the same figures as
metrics, made of the same summary, and traces besides. The names below are promised: dashboards are made of them.

## Setting it up

In the bicepparam file ` + "`OTEL_EXPORTER_OTLP_ENDPOINT: 'https://otel.example.com:4318'`" + ` among ` + "`settings`" + `, and if the collector wants a
key ` + "`OTEL_EXPORTER_OTLP_HEADERS: 'otlp-headers'`" + ` among ` + "`vaultSettings`" + `, where the vault's secret ` + "`otlp-headers`" + ` holds
` + "`Authorization=Bearer%20…`" + ` or whatever it asks for. The protocol is OTLP over HTTP, in protobuf: port 4318 as a rule, not 4317. Settings for one signal alone
(` + "`OTEL_EXPORTER_OTLP_TRACES_…`" + `) are not read.

To see it on this machine: ` + "`OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 make run`" + ` beside any collector; times are then by the clock of
this machine, and the delays and ages by the simulation's.

There is no exporter to Azure Monitor for Go. To have these metrics and traces there, run an OpenTelemetry Collector that takes OTLP and has the
` + "`azuremonitor`" + ` exporter; without one nothing is missing, since the summary line is there.

* **Metrics are deltas:** what this invocation has added. For Prometheus put the collector's ` + "`deltatocumulative`" + ` processor in front.
* **A collector that is down, slow or refuses** delays the end of an invocation by three seconds at most, when its work is done and the
  run lease is free. What it does not take is dropped, and stands in the summary line all the same. The log says so
  [once](operations.md#telemetry-does-not-arrive-at-the-collector).
* **Nobody is in it:** no object ids, addresses or names. Spans have no path or query of what is called.

## Metrics

What an invocation asked of Graph and the ledger has in it what the other function asked at the same time. Delays are counted in the
classes of the summary line; a sum takes each for the upper bound of its class, so an average is too high rather than too low. A
counter of nothing is not sent.

`

const telemetryTraces = `
## Traces

An invocation is a span that goes on with the host's ` + "`traceparent`" + `, and every call of it, to Graph, to the ledger and to every
destination that is spoken to over HTTP, carries the trace on. The host marks its timers as not sampled, whatever it keeps itself; all are
recorded here unless ` + "`OTEL_TRACES_SAMPLER`" + ` says otherwise.

| span | attributes | what |
|---|---|---|
| SyncNewUsers, TakeCensus | ` + "`faas.trigger`, `faas.invocation_id`" + ` | the invocation |
| detect | ` + "`signup_sync.detector`" + ` | one detector's turn; a run that takes minutes gives each some |
| profiles | ` + "`signup_sync.users`" + ` | one read of at most 15 users |
| associate | ` + "`signup_sync.destination`, `signup_sync.users`" + ` | one destination's work for them, its waiting for its turn included |
| patch | ` + "`signup_sync.users`" + ` | what is written to their records |
| settle | ` + "`signup_sync.users`" + ` | what is written to the ledger |
| GET, POST, … | ` + "`http.request.method`, `server.address`, `server.port`, `http.response.status_code`" + ` | a call, until the answer's header is there |

One that failed has ` + "`error.type`" + `: a status, or one of [the codes](operations.md#what-the-codes-mean). At most 2,048 spans wait for the
collector; of a run that makes more, faster than it takes them, some are missing.
`

// telemetryPage is about metrics and traces.
func telemetryPage() []byte {
	var b strings.Builder
	b.WriteString("# Metrics and traces\n\n" + generated + telemetryIntro)
	metricsTable(&b)
	b.WriteString(telemetryTraces)
	return []byte(b.String())
}
