package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rule is a destination that is allowed, or that all names may be asked for. The zero Rule matches nothing.
type Rule struct {
	text     string
	dns      bool         // the word dns: of what follows nothing counts
	prefix   netip.Prefix // of addresses; invalid for a name
	name     string       // lower case, without a dot at the end; of a wildcard what follows "*"
	wildcard bool
	lo, hi   uint16 // ports; 0 and 65535: all
	proto    uint8  // of the IP header; 0: all
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP}

// ruleDNS is the rule that lets all names be asked for, and opens no destination. A host of that name is "dns." or
// "dns:*".
const ruleDNS = "dns"

// ParseRule reads CIDR|ADDRESS|NAME[:PORT[/PROTO]], or dns. A name may begin with "*." for all names below it, or be
// "*" alone for whatever has a name. PORT is a number, a range (8000-8100) or "*"; PROTO is tcp, udp or icmp. IPv6
// with a port is written in brackets: [2001:db8::/32]:443.
func ParseRule(s string) (Rule, error) {
	bad := func(why string) (Rule, error) {
		return Rule{}, fmt.Errorf(
			"egress rule %q: %s; give CIDR|NAME[:PORT[/PROTO]], such as 10.0.0.0/8, *.debian.org:443 or [2001:db8::/32]:53/udp, or dns",
			s,
			why,
		)
	}
	if strings.EqualFold(s, ruleDNS) {
		return Rule{text: s, dns: true}, nil
	}
	r := Rule{text: s, hi: 65535}
	what, port := s, ""
	if rest, ok := strings.CutPrefix(s, "["); ok {
		inside, after, ok := strings.Cut(rest, "]")
		if !ok || after != "" && after[0] != ':' {
			return bad("the bracket is not closed")
		}
		what, port = inside, strings.TrimPrefix(after, ":")
		if after == ":" {
			return bad("there is no port")
		}
	} else if strings.Count(s, ":") == 1 {
		what, port, _ = strings.Cut(s, ":")
		if port == "" {
			return bad("there is no port")
		}
	}
	if why := r.ports(port); why != "" {
		return bad(why)
	}
	if p, err := netip.ParsePrefix(what); err == nil {
		r.prefix = p.Masked()
	} else if a, err := netip.ParseAddr(what); err == nil && a.Zone() == "" {
		r.prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
	} else if why := r.named(what); why != "" {
		return bad(why)
	}
	return r, nil
}

func (r *Rule) ports(s string) (why string) {
	if s == "" {
		return ""
	}
	s, proto, ok := strings.Cut(s, "/")
	if ok {
		if r.proto = protocols[strings.ToLower(proto)]; r.proto == 0 {
			return "the protocol is not tcp, udp or icmp"
		}
	}
	if s == "*" {
		return ""
	}
	lo, hi, ranged := strings.Cut(s, "-")
	if !ranged {
		hi = lo
	}
	from, err1 := strconv.ParseUint(lo, 10, 16)
	to, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return "the port is not a number from 1 to 65535, a range of them, or *"
	}
	if r.proto == unix.IPPROTO_ICMP {
		return "icmp has no ports: give *"
	}
	r.lo, r.hi = uint16(from), uint16(to)
	return ""
}

func (r *Rule) named(s string) (why string) {
	name := strings.ToLower(s)
	if name != "*." {
		name = strings.TrimSuffix(name, ".")
	}
	if rest, ok := strings.CutPrefix(name, "*"); ok {
		r.wildcard, name = true, rest
		if name == "" {
			return ""
		}
		if name[0] != '.' {
			return "a * stands for whole labels"
		}
	}
	r.name = name
	// RFC 1035, 2.3.4: 63 bytes for a label, 255 for a name. Underscores are in names of services.
	if len(name) > 253 {
		return "the name is too long"
	}
	digits := true
	for _, label := range strings.Split(strings.TrimPrefix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "it is neither an address, nor a subnet, nor a name"
		}
		digits = strings.Trim(label, "0123456789") == ""
	}
	if digits {
		return "it looks like an address and is none"
	}
	return ""
}

// String is the rule as it was written.
func (r Rule) String() string { return r.text }

// carries says whether the rule is for this protocol and port.
func (r *Rule) carries(proto uint8, port uint16) bool {
	if proto == unix.IPPROTO_ICMPV6 {
		proto = unix.IPPROTO_ICMP
	}
	if r.proto != 0 && r.proto != proto {
		return false
	}
	if proto == unix.IPPROTO_ICMP {
		return r.lo == 0 // a rule with ports is not for what has none
	}
	return r.lo <= port && port <= r.hi
}

// names says whether the rule is for a name, which is in lower case and has no dot at its end. What is no letter,
// digit or the like in a label is escaped with a backslash (RFC 1035, 5.1), and so is a dot.
func (r *Rule) names(name string) bool {
	switch {
	case r.prefix.IsValid() || r.dns || r.text == "":
		return false
	case r.wildcard && r.name != "" && strings.Contains(name, `\`):
		return false // its last dots may be none
	case r.wildcard:
		return len(name) > len(r.name) && strings.HasSuffix(name, r.name)
	}
	return name == r.name
}
