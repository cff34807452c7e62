package main

import (
	"maps"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"signup-sync/handler/telemetry"
)

// telemetry reads the standard variables of OpenTelemetry. Nothing is told, and nothing is wrong with them, unless
// OTEL_EXPORTER_OTLP_ENDPOINT is set: they may be there for others.
func (p *envParser) telemetry(e *environment) {
	const wanted = "name=value,name=value, with the values percent-encoded"
	q := envParser{getenv: p.getenv}
	o := telemetry.Options{
		Endpoint: q.collector("OTEL_EXPORTER_OTLP_ENDPOINT"),
		Headers:  q.pairs("OTEL_EXPORTER_OTLP_HEADERS", wanted, headerName),
		Resource: map[string]string{"service.name": "signup-sync"},
		Sampler:  q.sampler("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"),
	}
	maps.Copy(o.Resource, q.pairs("OTEL_RESOURCE_ATTRIBUTES", wanted, nil))
	if service := q.text("OTEL_SERVICE_NAME", ""); service != "" {
		o.Resource["service.name"] = service
	}
	q.oneOf("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	q.oneOf("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
	if off := strings.EqualFold(q.text("OTEL_SDK_DISABLED", ""), "true"); off || p.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return
	}
	p.errs = append(p.errs, q.errs...)
	e.Telemetry = &o
}

// collector reads the base URL of a collector.
func (p *envParser) collector(name string) string {
	v := strings.TrimRight(p.text(name, ""), "/")
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		p.problem(name, "wants the URL of an OTLP/HTTP collector, such as https://otel.example.com:4318")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		p.problem(name, "must not hold a password or query; put credentials into OTEL_EXPORTER_OTLP_HEADERS")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		p.problem(name, "http:// is for this machine only; use https://")
	default:
		return v
	}
	return ""
}

// headerName is a header's (RFC 9110, 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// pairs reads name=value,…, as W3C's Baggage has it. The values may be secrets.
func (p *envParser) pairs(name, wanted string, allowed *regexp.Regexp) map[string]string {
	all := map[string]string{}
	for pair := range strings.SplitSeq(p.text(name, ""), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		text, err := url.PathUnescape(strings.TrimSpace(value))
		control := strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' })
		if !ok || key == "" || err != nil || control || allowed != nil && !allowed.MatchString(key) {
			p.problem(name, "wants %s", wanted)
			return map[string]string{}
		}
		all[key] = text
	}
	return all
}

// sampler reads which traces are recorded. All are unless it is said otherwise: a Functions host marks every invocation
// as not sampled, whatever becomes of its own record.
func (p *envParser) sampler(name, arg string) telemetry.Sampler {
	s := telemetry.Sampler{Name: p.oneOf(name, telemetry.Samplers()...), Ratio: 1}
	v := p.text(arg, "")
	if v == "" || !strings.HasSuffix(s.Name, "traceidratio") {
		return s
	}
	ratio, err := strconv.ParseFloat(v, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) {
		p.problem(arg, "wants a number from 0 to 1")
		return s
	}
	s.Ratio = ratio
	return s
}
