package dns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// upstream is one server that queries are forwarded to.
type upstream struct {
	addr netip.AddrPort
	name string // of its certificate; empty: not over TLS
}

// Ports of servers whose address names none (RFC 1035, RFC 7858).
const (
	portDNS = 53
	portTLS = 853
)

// ParseUpstream reads an upstream server: an address, address:port, or tls://address[:port][#name] for DNS over TLS
// (RFC 7858), where name is that of the server's certificate, by default its address.
func ParseUpstream(s string) (string, error) {
	u, err := parseUpstream(s)
	return u.String(), err
}

func parseUpstream(s string) (upstream, error) {
	rest, overTLS := strings.CutPrefix(s, "tls://")
	rest, name, _ := strings.Cut(rest, "#")
	port := uint16(portDNS)
	if overTLS {
		port = portTLS
	} else if name != "" {
		return upstream{}, fmt.Errorf("DNS server %q: a name of a certificate goes with tls:// only", s)
	}
	u := upstream{name: name}
	// With a port first: anything may be in a zone, also a bracket and a port.
	if at, err := netip.ParseAddrPort(rest); err == nil && at.Port() != 0 {
		u.addr = at
	} else if a, err := netip.ParseAddr(unbracketed(rest)); err == nil && !strings.ContainsAny(a.Zone(), "[]%#") {
		u.addr = netip.AddrPortFrom(a, port)
	} else {
		return upstream{}, fmt.Errorf("DNS server %q: give an IP address, address:port, or tls://address[:port][#name]", s)
	}
	if overTLS && name == "" {
		u.name = u.addr.Addr().WithZone("").String()
	}
	return u, nil
}

// unbracketed is s without the brackets around it.
func unbracketed(s string) string {
	if inside, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inside, "]") {
		return strings.TrimSuffix(inside, "]")
	}
	return s
}

// String is what ParseUpstream reads.
func (u upstream) String() string {
	switch {
	case !u.addr.IsValid():
		return ""
	case u.name == "":
		return u.addr.String()
	}
	return "tls://" + u.addr.String() + "#" + u.name
}

// ParseSplit reads DOMAIN=SERVER[,SERVER...]: the servers that names in a domain are asked of.
func ParseSplit(s string) (Split, error) {
	domain, list, ok := strings.Cut(s, "=")
	domain = strings.ToLower(strings.Trim(domain, "."))
	if _, valid := dns.IsDomainName(domain); !ok || domain == "" || !valid {
		return Split{}, fmt.Errorf("split DNS %s: give DOMAIN=SERVER[,SERVER...]", strconv.Quote(s))
	}
	split := Split{Domain: domain}
	for _, server := range strings.Split(list, ",") {
		u, err := ParseUpstream(server)
		if err != nil {
			return Split{}, err
		}
		split.Servers = append(split.Servers, u)
	}
	return split, nil
}

// Split says which servers are asked for the names in a domain.
type Split struct {
	Domain  string // in lower case, without dots at its ends
	Servers []string
}

// contains says whether a name, in lower case and without a final dot, is in the domain.
func (s Split) contains(name string) bool {
	return name == s.Domain || strings.HasSuffix(name, s.Domain) && name[len(name)-len(s.Domain)-1] == '.'
}
