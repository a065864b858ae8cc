package filter

import "net/netip"

// anyOf holds where one of list does. As in BPF, nothing is looked at behind one that finds the frame too short.
func anyOf(list []predicate) predicate {
	if len(list) == 1 {
		return list[0]
	}
	return func(k *Packet) bool {
		for _, m := range list {
			if m(k) {
				return true
			}
			if k.short {
				return false
			}
		}
		return false
	}
}

// directed joins what holds for the source and for the destination.
func directed(dir string, src, dst predicate) predicate {
	switch dir {
	case "src":
		return src
	case "dst":
		return dst
	case "src and dst":
		return func(k *Packet) bool { return src(k) && dst(k) }
	}
	return func(k *Packet) bool { return src(k) || dst(k) }
}

func ofEtherType(n uint32) predicate { return func(k *Packet) bool { return k.etherType() == n } }

// overIPv4 holds for IPv4 packets of a protocol, fragments included.
func overIPv4(n uint32) predicate {
	return func(k *Packet) bool { return k.etherType() == etherIPv4 && k.load(atIPv4Proto, 1) == n }
}

// overIPv6 holds for IPv6 packets whose fixed header, or the fragment header next to it, names a protocol.
func overIPv6(n uint32) predicate {
	return func(k *Packet) bool {
		if k.etherType() != etherIPv6 {
			return false
		}
		next := k.load(atIPv6Next, 1)
		return next == n || next == ipv6Fragment && k.load(atIPv6Upper, 1) == n
	}
}

// ofTransport holds for packets of a protocol. ICMP and IGMP are IPv4's, ICMPv6 is IPv6's.
func ofTransport(n uint32) predicate {
	switch n {
	case transports["icmp"], transports["igmp"]:
		return overIPv4(n)
	case transports["icmp6"]:
		return overIPv6(n)
	}
	return anyOf([]predicate{overIPv4(n), overIPv6(n)})
}

// ofProtocol holds for frames of a protocol that stands alone in an expression.
func ofProtocol(name string) predicate {
	if n, ok := etherTypes[name]; ok {
		return ofEtherType(n)
	}
	if n, ok := transports[name]; ok {
		return ofTransport(n)
	}
	return func(*Packet) bool { return true } // ether
}

// ofPrefix holds for packets whose addresses are in a prefix: of IPv4 and ARP, or of IPv6. Nil: the protocol that was
// asked for has no such addresses.
func ofPrefix(q qualifiers, p netip.Prefix) predicate {
	want := p.Masked().Addr().AsSlice()
	mask := make([]byte, len(want))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	at := func(etherType uint32, src, dst int) predicate {
		m := directed(q.dir, func(k *Packet) bool { return k.is(src, want, mask) },
			func(k *Packet) bool { return k.is(dst, want, mask) })
		return func(k *Packet) bool { return k.etherType() == etherType && m(k) }
	}
	var list []predicate
	for _, l := range []struct {
		proto     string
		v6        bool
		etherType uint32
		src, dst  int
	}{
		{"ip", false, etherIPv4, atIPv4Src, atIPv4Dst},
		{"arp", false, etherARP, atARPSrc, atARPDst},
		{"rarp", false, etherRARP, atARPSrc, atARPDst},
		{"ip6", true, etherIPv6, atIPv6Src, atIPv6Dst},
	} {
		if l.v6 == p.Addr().Is6() && (q.proto == "" || q.proto == l.proto) {
			list = append(list, at(l.etherType, l.src, l.dst))
		}
	}
	if list == nil {
		return nil
	}
	return anyOf(list)
}

// ofPorts holds for packets of a transport, or of any that has ports, with a port in a range.
func ofPorts(q qualifiers, low, high uint32) predicate {
	within := func(k *Packet, offset int) bool {
		n := k.load(offset, 2)
		return !k.short && n >= low && n <= high
	}
	has := func(proto uint32) bool {
		if q.proto != "" {
			return proto == transports[q.proto]
		}
		return proto == transports["tcp"] || proto == transports["udp"] || proto == transports["sctp"]
	}
	return func(k *Packet) bool {
		var base int
		switch k.etherType() {
		case etherIPv4:
			if !has(k.load(atIPv4Proto, 1)) || k.later() {
				return false
			}
			base = k.upper4()
		case etherIPv6:
			if !has(k.load(atIPv6Next, 1)) {
				return false
			}
			base = atIPv6Upper
		default:
			return false
		}
		switch q.dir {
		case "src":
			return within(k, base)
		case "dst":
			return within(k, base+2)
		case "src and dst":
			return within(k, base) && within(k, base+2)
		}
		return within(k, base) || within(k, base+2)
	}
}
