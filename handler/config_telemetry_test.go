package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/telemetry"
)

const collectorSetting = "OTEL_EXPORTER_OTLP_ENDPOINT"

func TestTelemetryIsOffUnlessThereIsACollector(t *testing.T) {
	nonsense := map[string]string{"OTEL_TRACES_SAMPLER": "jaeger_remote", "OTEL_EXPORTER_OTLP_HEADERS": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
	off := map[string]string{collectorSetting: "nonsense", "OTEL_SDK_DISABLED": "True"}
	for _, changes := range []map[string]string{nil, nonsense, off} {
		if e, err := parseEnvironment(environmentWith(changes)); err != nil || e.Telemetry != nil {
			t.Errorf("%v: got %+v, %v", changes, e.Telemetry, err)
		}
	}
}

func TestTelemetrySettings(t *testing.T) {
	for _, tc := range []struct {
		changes map[string]string
		want    telemetry.Options
	}{
		{map[string]string{collectorSetting: "https://otel.example.com:4318/"},
			telemetry.Options{Endpoint: "https://otel.example.com:4318", Resource: map[string]string{"service.name": "signup-sync"}, Sampler: telemetry.Sampler{Name: "always_on", Ratio: 1}}},
		{map[string]string{collectorSetting: "http://127.0.0.1:4318/otlp", "OTEL_EXPORTER_OTLP_HEADERS": " Authorization=Basic%20YQ==, x-scope=1 ,", "OTEL_SERVICE_NAME": "sync",
			"OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment.name=t%C3%A9st", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25",
			"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_SDK_DISABLED": "false"},
			telemetry.Options{Endpoint: "http://127.0.0.1:4318/otlp", Headers: map[string]string{"Authorization": "Basic YQ==", "x-scope": "1"},
				Resource: map[string]string{"service.name": "sync", "deployment.environment.name": "tést"}, Sampler: telemetry.Sampler{Name: "parentbased_traceidratio", Ratio: 0.25}}},
		{map[string]string{collectorSetting: "https://c.example", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other", "OTEL_TRACES_SAMPLER_ARG": "nonsense for others"},
			telemetry.Options{Endpoint: "https://c.example", Resource: map[string]string{"service.name": "other"}, Sampler: telemetry.Sampler{Name: "always_on", Ratio: 1}}},
	} {
		if tc.want.Headers == nil {
			tc.want.Headers = map[string]string{}
		}
		e, err := parseEnvironment(environmentWith(tc.changes))
		if diff := cmp.Diff(&tc.want, e.Telemetry); diff != "" || err != nil {
			t.Errorf("%v: %v (-want +got):\n%s", tc.changes, err, diff)
		}
	}
}

// TestTelemetryErrors name the variable and the fix, and never show a value, which may be a secret.
func TestTelemetryErrors(t *testing.T) {
	const pairs = "wants name=value,name=value, with the values percent-encoded"
	for _, tc := range []struct{ name, value, want string }{
		{collectorSetting, "hunter2", "wants the URL of an OTLP/HTTP collector, such as https://otel.example.com:4318"},
		{collectorSetting, "grpc://hunter2:4317", "wants the URL of an OTLP/HTTP collector, such as https://otel.example.com:4318"},
		{collectorSetting, "https://me:hunter2@otel.example.com", "must not hold a password or query; put credentials into OTEL_EXPORTER_OTLP_HEADERS"},
		{collectorSetting, "https://otel.example.com?key=hunter2", "must not hold a password or query; put credentials into OTEL_EXPORTER_OTLP_HEADERS"},
		{collectorSetting, "http://hunter2.example.com:4318", "http:// is for this machine only; use https://"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "hunter2", pairs},
		{"OTEL_EXPORTER_OTLP_HEADERS", "api key=hunter2", pairs},
		{"OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2%", pairs},
		{"OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2%0d%0aHost:x", pairs},
		{"OTEL_EXPORTER_OTLP_HEADERS", "=hunter2", pairs},
		{"OTEL_RESOURCE_ATTRIBUTES", "hunter2", pairs},
		{"OTEL_RESOURCE_ATTRIBUTES", "a=hunter2%ff", pairs},
		{"OTEL_TRACES_SAMPLER", "hunter2", "wants always_on or always_off or traceidratio or parentbased_always_on or parentbased_always_off or parentbased_traceidratio"},
		{"OTEL_TRACES_SAMPLER_ARG", "hunter2", "wants a number from 0 to 1"},
		{"OTEL_TRACES_SAMPLER_ARG", "1.01", "wants a number from 0 to 1"},
		{"OTEL_TRACES_SAMPLER_ARG", "NaN", "wants a number from 0 to 1"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "wants http/protobuf"},
		{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative", "wants delta"},
	} {
		changes := map[string]string{collectorSetting: "https://c.example", "OTEL_TRACES_SAMPLER": "traceidratio"}
		maps.Copy(changes, map[string]string{tc.name: tc.value})
		e, err := parseEnvironment(environmentWith(changes))
		if err == nil || err.Error() != tc.name+": "+tc.want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s=%s\n got %v, %+v\nwant %s", tc.name, tc.value, err, e.Telemetry, tc.want)
		}
	}
	reference := environmentWith(map[string]string{collectorSetting: "https://c.example", "OTEL_EXPORTER_OTLP_HEADERS": "@Microsoft.KeyVault(SecretUri=https://v/hunter2)"})
	if _, err := parseEnvironment(reference); err == nil || !strings.HasPrefix(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS: the Key Vault reference") {
		t.Errorf("got %v", err)
	}
}
