package filter

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// protocols are the words that may stand before a direction or a type.
var protocols = []string{"ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "pim",
	"vrrp", "carp", "ah", "esp"}

// kinds are the types of ids.
var kinds = []string{"host", "net", "port", "portrange", "proto"}

// primitive is [protocol] [direction] [type] id, or a word that needs no id.
func (p *parser) primitive() (predicate, error) {
	t := p.peek()
	if !t.word {
		if p.next == len(p.tokens) {
			return nil, p.errorf("something is missing at the end")
		}
		return nil, p.errorf("%q was not expected", t.text)
	}
	if !t.escaped {
		if why := unsupported[t.text]; why != "" {
			return nil, p.errorf("%s is not supported: %s", t.text, why)
		}
		if m, ok, err := p.alone(t.text); ok || err != nil {
			return m, err
		}
	}
	var q qualifiers
	q.proto, _ = p.accept(protocols...)
	q.dir = p.direction()
	q.kind, _ = p.accept(kinds...)
	t = p.peek()
	switch {
	case q == qualifiers{}: // an id alone, as behind or
		q = p.last
	case q.dir == "" && q.kind == "":
		if m, ok := p.group(q.proto); ok {
			return m, nil
		}
		if !t.word || t.escaped || isConnective(t.text) {
			return ofProtocol(q.proto), nil
		}
		if why := unsupported[t.text]; why != "" {
			return nil, p.errorf("%s is not supported: %s", t.text, why)
		}
		return nil, p.errorf("%q was not expected behind %s: give src, dst, host, net, port or proto before it", t.text, q.proto)
	}
	if why := unsupported[t.text]; why != "" && !t.escaped {
		return nil, p.errorf("%s is not supported: %s", t.text, why)
	}
	if !t.word || !t.escaped && isConnective(t.text) {
		return nil, p.errorf("what %s is to be is missing", describe(q))
	}
	p.last = q
	return p.id(q)
}

func isConnective(word string) bool { return word == "and" || word == "or" }

// describe is qualifiers in words.
func describe(q qualifiers) string {
	return strings.Join(strings.Fields(strings.Join([]string{q.proto, q.dir, q.kind}, " ")), " ")
}

// alone is a word that needs nothing behind it, or a number.
func (p *parser) alone(word string) (predicate, bool, error) {
	switch word {
	case "broadcast", "multicast":
		m, _ := p.group("ether")
		return m, true, nil
	case "inbound", "outbound":
		p.next++
		return func(k *Packet) bool { return k.Out == (word == "outbound") }, true, nil
	case "less", "greater":
		p.next++
		n, ok := number(p.peek().text)
		if !ok {
			return nil, true, p.errorf("a length in bytes is missing behind %s", word)
		}
		p.next++
		if word == "less" {
			return func(k *Packet) bool { return k.length <= int(n) }, true, nil
		}
		return func(k *Packet) bool { return k.length >= int(n) }, true, nil
	}
	return nil, false, nil
}

// group is broadcast or multicast of a protocol.
func (p *parser) group(proto string) (predicate, bool) {
	word := p.peek().text
	switch {
	case proto == "ether" && word == "broadcast":
		p.next++
		all := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		return func(k *Packet) bool { return k.is(0, all, nil) }, true
	case proto == "ether" && word == "multicast":
		p.next++
		return func(k *Packet) bool { return k.load(0, 1)&1 != 0 }, true
	case proto == "ip" && word == "multicast":
		p.next++
		return func(k *Packet) bool { return k.etherType() == etherIPv4 && k.load(atIPv4Dst, 1) >= 224 }, true
	case proto == "ip6" && word == "multicast":
		p.next++
		return func(k *Packet) bool { return k.etherType() == etherIPv6 && k.load(atIPv6Dst, 1) == 0xff }, true
	}
	return nil, false
}

// direction is src, dst, or both with a word between them.
func (p *parser) direction() string {
	first, ok := p.accept("src", "dst")
	if !ok {
		return ""
	}
	if p.next+1 < len(p.tokens) {
		between, second := p.tokens[p.next], p.tokens[p.next+1]
		if isConnective(between.text) && !second.escaped && (second.text == "src" || second.text == "dst") &&
			second.text != first {
			p.next += 2
			if between.text == "and" {
				return "src and dst"
			}
			return "src or dst"
		}
	}
	return first
}

// id is the predicate of an id with its qualifiers.
func (p *parser) id(q qualifiers) (predicate, error) {
	t := p.peek()
	if q.proto == "ether" && q.kind != "proto" {
		return p.station(q)
	}
	switch q.kind {
	case "port", "portrange":
		return p.ports(q)
	case "proto":
		return p.protocol(q)
	case "net":
		return p.net(q)
	}
	if !slices.Contains([]string{"", "ip", "ip6", "arp", "rarp"}, q.proto) {
		return nil, p.errorf("%s does not go with a host: give %s and host %s", q.proto, q.proto, t.text)
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(t.text); err == nil {
		addrs = []netip.Addr{a.WithZone("")}
	} else if _, err := netip.ParsePrefix(t.text); err == nil {
		return nil, p.errorf("%s is a network: give net %s", t.text, t.text)
	} else if p.o.Lookup != nil {
		addrs = p.o.Lookup(t.text)
	}
	if len(addrs) == 0 {
		return nil, p.errorf("no container or network address is called %q: give an address, or a qualifier such as port before it",
			t.text)
	}
	p.next++
	var any []predicate
	for _, a := range addrs {
		if m := ofPrefix(q, netip.PrefixFrom(a, a.BitLen())); m != nil {
			any = append(any, m)
		}
	}
	if len(any) == 0 {
		return nil, p.errorf("%s has no address that goes with %s", t.text, q.proto)
	}
	return anyOf(any), nil
}

// station is a MAC address behind ether.
func (p *parser) station(q qualifiers) (predicate, error) {
	t := p.peek()
	mac, err := net.ParseMAC(t.text)
	if err != nil || len(mac) != 6 {
		return nil, p.errorf("%q is no MAC address such as 02:42:0a:01:00:02", t.text)
	}
	if q.kind != "" && q.kind != "host" {
		return nil, p.errorf("ether does not go with %s", q.kind)
	}
	p.next++
	return directed(q.dir, func(k *Packet) bool { return k.is(6, mac, nil) },
		func(k *Packet) bool { return k.is(0, mac, nil) }), nil
}

// net is 10.0.0.0/8, 10.1, 10.0.0.0 mask 255.0.0.0 or fd00::/8.
func (p *parser) net(q qualifiers) (predicate, error) {
	t := p.peek()
	if !slices.Contains([]string{"", "ip", "ip6", "arp", "rarp"}, q.proto) {
		return nil, p.errorf("%s does not go with net", q.proto)
	}
	prefix, err := parseNet(t.text)
	if err != nil {
		return nil, p.errorf("%q is no network such as 10.0.0.0/8", t.text)
	}
	p.next++
	if _, ok := p.accept("mask"); ok {
		mask, err := netip.ParseAddr(p.peek().text)
		if err != nil || !mask.Is4() || !prefix.Addr().Is4() {
			return nil, p.errorf("%q is no mask such as 255.255.0.0", p.peek().text)
		}
		b := mask.As4()
		ones, bits := net.IPv4Mask(b[0], b[1], b[2], b[3]).Size()
		if bits == 0 {
			return nil, p.errorf("the mask %s has gaps", mask)
		}
		p.next++
		prefix = netip.PrefixFrom(prefix.Addr(), ones)
	}
	if prefix.Masked() != prefix {
		return nil, p.errorf("%s has bits beyond its length: give %s", prefix, prefix.Masked())
	}
	m := ofPrefix(q, prefix)
	if m == nil {
		return nil, p.errorf("%s does not go with %s", prefix, q.proto)
	}
	return m, nil
}

// parseNet reads a network. Of an IPv4 one without a length, the numbers that were given count.
func parseNet(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	if strings.Contains(text, ":") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	parts := strings.Count(text, ".") + 1
	a, err := netip.ParseAddr(text + strings.Repeat(".0", max(0, 4-parts)))
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, 8*parts), nil
}

// ports is a port or a range of them.
func (p *parser) ports(q qualifiers) (predicate, error) {
	t := p.peek()
	if !slices.Contains([]string{"", "tcp", "udp", "sctp"}, q.proto) {
		return nil, p.errorf("%s does not go with %s: give tcp, udp or sctp", q.proto, q.kind)
	}
	first, last := t.text, t.text
	p.next++
	if q.kind == "portrange" {
		if _, ok := p.accept("-"); ok {
			last = p.peek().text
			p.next++
		} else if a, b, ok := strings.Cut(t.text, "-"); ok {
			first, last = a, b
		}
	}
	low, ok1 := port(first)
	high, ok2 := port(last)
	if !ok1 || !ok2 {
		p.next = min(p.next, len(p.tokens)) - 1
		return nil, p.errorf("%q is no port: give a number up to 65535, or a service's usual name", t.text)
	}
	return ofPorts(q, uint32(min(low, high)), uint32(max(low, high))), nil
}

func port(text string) (uint16, bool) {
	if n, ok := services[text]; ok {
		return n, true
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil
}

// protocol is a protocol above Ethernet, IPv4 or IPv6.
func (p *parser) protocol(q qualifiers) (predicate, error) {
	t := p.peek()
	if q.dir != "" {
		return nil, p.errorf("a protocol has no %s", q.dir)
	}
	names := transports
	if q.proto == "ether" {
		names = etherTypes
	}
	n, ok := number(t.text)
	if !ok {
		n, ok = names[t.text]
	}
	if !ok {
		return nil, p.errorf("%q is no protocol that has a name here: give its number", t.text)
	}
	p.next++
	switch q.proto {
	case "ether":
		return ofEtherType(n), nil
	case "ip":
		return overIPv4(n), nil
	case "ip6":
		return overIPv6(n), nil
	case "":
		return anyOf([]predicate{overIPv4(n), overIPv6(n)}), nil
	}
	return nil, p.errorf("%s does not go with proto: give ether, ip or ip6", q.proto)
}
