package policy

import (
	"net/netip"
	"strings"
)

// privatePrefixes are addresses of networks that are not the internet, and of the machine itself.
var privatePrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network (RFC 1122, 3.2.1.3); Linux takes 0.0.0.0 for the loopback
	netip.MustParsePrefix("10.0.0.0/8"),     // RFC 1918
	netip.MustParsePrefix("100.64.0.0/10"),  // shared address space (RFC 6598)
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback
	netip.MustParsePrefix("169.254.0.0/16"), // link-local (RFC 3927)
	netip.MustParsePrefix("172.16.0.0/12"),  // RFC 1918
	netip.MustParsePrefix("192.168.0.0/16"), // RFC 1918
	netip.MustParsePrefix("::/127"),         // unspecified and loopback
	netip.MustParsePrefix("fc00::/7"),       // unique local (RFC 4193)
	netip.MustParsePrefix("fe80::/10"),      // link-local (RFC 4291)
	netip.MustParsePrefix("fec0::/10"),      // site-local, once (RFC 3879)
}

// Prefixes of IPv6 addresses that stand for an IPv4 address, and the byte at which that begins.
var embedded = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},   // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // NAT64 of local networks (RFC 8215), in its usual form
	{netip.MustParsePrefix("::/96"), 12},          // IPv4-compatible, once (RFC 4291, 2.5.5.1)
	{netip.MustParsePrefix("2002::/16"), 2},       // 6to4 (RFC 3056)
}

// private says whether an address is, or stands for, one of a network that is not the internet.
func private(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range privatePrefixes {
		if p.Contains(a) {
			return true
		}
	}
	for _, e := range embedded {
		if e.prefix.Contains(a) {
			b := a.As16()
			if private(netip.AddrFrom4([4]byte(b[e.at : e.at+4]))) {
				return true
			}
		}
	}
	return false
}

// privateDomains are domains that are not in the internet's DNS, whose names have private addresses rightly: RFC
// 6761, 6762 with its appendix G, 8375, and ICANN's "internal".
var privateDomains = []string{
	"corp", "home", "home.arpa", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost",
	"private", "test",
}

// public says whether a name, in lower case without a final dot, is of the internet's DNS.
func public(name string) bool {
	if !strings.Contains(name, ".") {
		return false
	}
	for _, d := range privateDomains {
		if Within(name, d) {
			return false
		}
	}
	return true
}

// Within says whether name is domain or below it, both in lower case without a final dot.
func Within(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || rest[len(rest)-1] == '.') && domain != ""
}

var refusedRebind = &Refusal{
	"--egress no-rebind, and a public name has a private address: give --allow-egress NAME if that is right",
}

// AllowAnswer returns nil where the container may be answered addr for name, which is in lower case and has no dot at
// its end, else a *Refusal. It refuses where the mode has no-rebind, the name is public and the address is private:
// by such answers an owner of a name can have clients reach into their own network (DNS rebinding). A rule for the
// name allows it; the rule "*" is for no name in particular, and does not. own says whether an address is the
// machine's; nil: none is.
func (p *Policy) AllowAnswer(name string, addr netip.Addr, own func(netip.Addr) bool) error {
	if p == nil || !p.mode.NoRebind() || !public(name) || !private(addr) && (own == nil || !own(addr)) {
		return nil
	}
	for i := range p.rules {
		if r := &p.rules[i]; r.names(name) && !(r.wildcard && r.name == "") {
			return nil
		}
	}
	return refusedRebind
}
