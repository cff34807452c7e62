package connector

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"signup-sync/handler/signup"
)

// network is what every connector over HTTP can be told.
type network struct {
	URL     string        `json:"url" doc:"The vendor's root, without a version path; http:// only to this machine."`
	Timeout time.Duration `json:"timeout" doc:"How long one call may take, its answer included." default:"30s"`
}

// checkURL says what is wrong with a URL to which secrets and people are sent. An empty one is fine.
func checkURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("settings.url: wants a URL such as https://example.com")
	case u.User != nil:
		return errors.New("settings.url: must not hold a user name or password")
	case u.Fragment != "":
		return errors.New("settings.url: must not have a fragment")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return errors.New("settings.url: http:// is for this machine only; use https://")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("settings.url: wants https://")
	}
	return nil
}

// checkRoot is checkURL for a URL to which paths are added.
func checkRoot(s string) error {
	if err := checkURL(s); err != nil || s == "" {
		return err
	}
	if u, err := url.Parse(s); err != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return errors.New("settings.url: wants the root only, without a path or query")
	}
	return nil
}

// checkAzure is checkRoot for a URL to which the app's own token is sent, which is good for more than the one address
// there: the host must be below one of these domains of the service, or be this machine.
func checkAzure(s string, domains ...string) error {
	if err := checkRoot(s); err != nil || s == "" {
		return err
	}
	u, err := url.Parse(s)
	if err != nil {
		return err // checkRoot has parsed it
	}
	host, last := strings.ToLower(u.Hostname()), len(domains)-1
	if isLoopback(host) || slices.ContainsFunc(domains, func(d string) bool { return strings.HasSuffix(host, d) }) {
		return nil
	}
	return errors.New("settings.url: the identity's token goes to Azure only: wants a host below " + strings.Join(domains[:last], ", ") + " or " + domains[last])
}

// isLoopback reports that a URL's host is this machine, by its name or number alone.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// around is a transport that does something about the calls of another, and would do so about those of a third.
type around interface {
	Unwrap() http.RoundTripper
	Around(http.RoundTripper) http.RoundTripper
}

// publicOnly is a copy of a transport that connects to public addresses only, without a proxy. The address is checked
// after the name was resolved, on the socket, so that a name that changes its mind gets nowhere.
func publicOnly(from http.RoundTripper) (http.RoundTripper, error) {
	if from == nil {
		from = http.DefaultTransport
	}
	if a, ok := from.(around); ok {
		guarded, err := publicOnly(a.Unwrap())
		return a.Around(guarded), err
	}
	t, ok := from.(*http.Transport)
	if !ok {
		return nil, errors.New("settings.allowPrivate: must be true, since the addresses of this transport cannot be checked")
	}
	t = t.Clone()
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, ControlContext: refusePrivate}
	t.Proxy = nil
	t.DialContext = dialer.DialContext
	t.DialTLSContext = nil
	t.ForceAttemptHTTP2 = true
	return t, nil
}

// refusePrivate is the net.Dialer's ControlContext: it sees the address to which the socket is about to connect.
func refusePrivate(_ context.Context, _, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !isPublic(to.Addr()) {
		return &signup.Error{
			Class: signup.Systemic, Code: "private-address",
			Detail: "the URL leads to a private address; settings.allowPrivate would allow it",
		}
	}
	return nil
}

// special are the ranges that netip does not name and that lead into the host, the cloud or the network beside it.
// Source: the IANA special-purpose address registries; 168.63.129.16 is Azure's platform service.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return ip.IsGlobalUnicast() && !ip.IsPrivate() &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}
