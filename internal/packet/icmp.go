package packet

import "net/netip"

// Problem is why a packet does not get where it should.
type Problem uint8

// The problems that a router tells a sender of: RFC 792, RFC 1812 section 5.2.7, RFC 4443 section 3.
const (
	NetUnreachable  Problem = iota // no route to the destination
	HostUnreachable                // the destination's neighbours do not reach it
	PortUnreachable                // nobody listens there
	TooBig                         // it does not fit the path, and must not be fragmented
	Prohibited                     // by policy
	HopsExceeded                   // its TTL, or hop limit, is used up
	problems
)

// icmpError is a type and a code.
type icmpError struct{ kind, code byte }

var icmpErrors4 = [problems]icmpError{
	NetUnreachable:  {3, 0},
	HostUnreachable: {3, 1},
	PortUnreachable: {3, 3},
	TooBig:          {3, 4},
	Prohibited:      {3, 13},
	HopsExceeded:    {11, 0},
}

var icmpErrors6 = [problems]icmpError{
	NetUnreachable:  {1, 0},
	HostUnreachable: {1, 3},
	PortUnreachable: {1, 4},
	TooBig:          {2, 0},
	Prohibited:      {1, 1},
	HopsExceeded:    {3, 0},
}

// ErrorHeaderLen is the length in bytes of an ICMP error's header; what it quotes follows.
const ErrorHeaderLen = 8

// Type is the type and code of the ICMP error, or with v6 the ICMPv6 error, that tells of a problem.
func (p Problem) Type(v6 bool) (kind, code byte) {
	e := icmpErrors4[p]
	if v6 {
		e = icmpErrors6[p]
	}
	return e.kind, e.code
}

// IsICMPError says whether a message of this type, of ICMPv6 with v6, tells of a problem with a packet: a destination
// unreachable, a packet too big, time exceeded, a parameter problem, and of the old ones source quench and redirect
// (RFC 1122, 3.2.2; RFC 4443, 2.1).
func IsICMPError(kind byte, v6 bool) bool {
	if v6 {
		return kind < 128
	}
	switch kind {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// ICMPError is the message that tells a sender of a problem with a packet, of which original is the IP header and the
// first bytes behind it. Its checksum is left out.
func ICMPError(p Problem, sender netip.Addr, original []byte) []byte {
	m := make([]byte, ErrorHeaderLen, ErrorHeaderLen+len(original))
	m[0], m[1] = p.Type(sender.Is6())
	return append(m, original...)
}
