package bgp

import (
	"encoding/binary"
	"net/netip"
)

// update is an UPDATE message (RFC 4271, section 4.3; RFC 4760) as far as it is used here: of EVPN.
type update struct {
	reach     []Route
	withdrawn []NLRI
	// ended is the family that the neighbour has now told all routes of (RFC 4724, section 2); 0: it goes on.
	ended Family
	// passedOver counts routes that are of other types, or say nothing that can be used.
	passedOver int
	// fault says why routes that were announced count as withdrawn (RFC 7606, section 2); "": they do not.
	fault string
}

// self is what a speaker has to know of itself to read and write an UPDATE.
type self struct {
	asn      uint32
	external bool // the neighbour is in another AS
	id       netip.Addr
	addrs    addrs
}

// addrs are the addresses that routes lead to, one of each family at most.
type addrs struct {
	v4, v6  netip.Addr
	v6First bool // EVPN routes lead to v6
}

// vtep is the one that EVPN routes lead to.
func (a addrs) vtep() netip.Addr {
	if a.v4.IsValid() && !a.v6First {
		return a.v4
	}
	return a.v6
}

// Flags of attributes (RFC 4271, section 4.3).
const (
	flagOptional, flagTransitive, flagExtended = 0x80, 0x40, 0x10

	wellKnown   = flagTransitive
	optional    = flagOptional
	passedAlong = flagOptional | flagTransitive
)

// Types of attributes.
const (
	attrOrigin          = 1
	attrASPath          = 2
	attrNextHop         = 3
	attrMED             = 4
	attrLocalPref       = 5
	attrAtomicAggregate = 6
	attrAggregator      = 7
	attrCommunities     = 8
	attrOriginatorID    = 9
	attrClusterList     = 10
	attrMPReach         = 14
	attrMPUnreach       = 15
	attrExtended        = 16
	attrPMSI            = 22 // RFC 6514, section 5
)

// attrFlags are the flags that attributes have.
var attrFlags = [...]byte{
	attrOrigin: wellKnown, attrASPath: wellKnown, attrNextHop: wellKnown, attrMED: optional, attrLocalPref: wellKnown,
	attrAtomicAggregate: wellKnown, attrAggregator: passedAlong, attrCommunities: passedAlong,
	attrOriginatorID: optional, attrClusterList: optional, attrMPReach: optional, attrMPUnreach: optional,
	attrExtended: passedAlong, attrPMSI: passedAlong,
}

// attributes are those of one UPDATE.
type attributes struct {
	self           *self
	seen           [256]bool
	path           Path
	reach, unreach []byte
	pmsi           bool
	label          uint32 // of the tunnel
	reachFamily    Family
	fault          string // the first that makes routes count as withdrawn
	looped         bool   // the routes went through this speaker or its AS before
	others         bool   // there are attributes besides unreach
}

func (a *attributes) blame(what string) {
	if a.fault == "" {
		a.fault = what
	}
}

// parseUpdate reads the body of an UPDATE. An error is a *notification: the session ends with it.
func parseUpdate(b []byte, me *self) (update, error) {
	var u update
	withdrawn, b, ok := counted16(b)
	if !ok {
		return u, updateError(updateMalformedList, "withdrawn routes of more bytes than there are")
	}
	attrs, nlri, ok := counted16(b)
	if !ok {
		return u, updateError(updateMalformedList, "attributes of more bytes than there are")
	}
	nobody := func(netip.Prefix) {} // there is no forwarding table
	if err := eachPrefix(withdrawn, false, nobody); err != nil {
		return u, updateError(updateNetwork, "withdrawn routes: %v", err)
	}
	if err := eachPrefix(nlri, false, nobody); err != nil {
		return u, updateError(updateNetwork, "%v", err)
	}
	if len(withdrawn)+len(attrs)+len(nlri) == 0 {
		u.ended = IPv4Unicast
		return u, nil
	}
	a := attributes{self: me}
	if err := a.read(attrs); err != nil {
		return u, err
	}
	return u, u.take(&a)
}

// counted16 cuts off what a length of two bytes is in front of.
func counted16(b []byte) (head, rest []byte, ok bool) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], true
}

// read goes over all attributes.
func (a *attributes) read(b []byte) error {
	for len(b) > 0 {
		head := 3
		if b[0]&flagExtended != 0 {
			head = 4
		}
		if len(b) < head {
			a.blame("an attribute that is cut short") // RFC 7606, section 4
			return nil
		}
		n := int(b[2])
		if head == 4 {
			n = int(binary.BigEndian.Uint16(b[2:]))
		}
		if len(b) < head+n {
			a.blame("an attribute of more bytes than there are")
			return nil
		}
		flags, kind, value := b[0], b[1], b[head:head+n]
		b = b[head+n:]
		if a.seen[kind] {
			if kind == attrMPReach || kind == attrMPUnreach { // RFC 7606, section 3 (g)
				return updateError(updateMalformedList, "attribute %d appears twice", kind)
			}
			continue
		}
		a.seen[kind] = true
		a.others = a.others || kind != attrMPUnreach
		if err := a.attribute(flags, kind, value); err != nil {
			return err
		}
	}
	return nil
}

// attribute takes one. What is wrong with it is handled as RFC 7606, section 7, says.
func (a *attributes) attribute(flags, kind byte, v []byte) error {
	known := int(kind) < len(attrFlags) && attrFlags[kind] != 0
	switch {
	case !known && flags&flagOptional == 0:
		return updateError(updateUnrecognized, "type %d", kind)
	case !known || kind == attrAtomicAggregate || kind == attrAggregator:
		return nil
	case flags&(flagOptional|flagTransitive) != attrFlags[kind]:
		a.blame("an attribute with the flags of another kind") // section 3 (c); what routes it is about is still read
	}
	switch kind {
	case attrOrigin:
		a.check(len(v) == 1 && v[0] <= 2, "a malformed origin")
	case attrASPath:
		a.asPath(v)
	case attrNextHop:
		a.check(len(v) == 4, "a malformed next hop")
	case attrMED:
		a.check(len(v) == 4, "a malformed metric")
	case attrLocalPref:
		a.check(a.self.external || len(v) == 4, "a malformed preference")
	case attrCommunities:
		a.check(len(v) > 0 && len(v)%4 == 0, "malformed communities")
	case attrOriginatorID:
		a.check(a.self.external || len(v) == 4, "a malformed originator")
		if !a.self.external && len(v) == 4 && netip.AddrFrom4([4]byte(v)) == a.self.id {
			a.looped = true // a route reflector tells routes to whom it has them from, too (RFC 4456, section 8)
		}
	case attrClusterList:
		a.check(a.self.external || len(v) > 0 && len(v)%4 == 0, "a malformed list of clusters")
	case attrExtended:
		if a.check(len(v) > 0 && len(v)%extendedLen == 0, "malformed extended communities") {
			a.path.readCommunities(v)
		}
	case attrPMSI:
		a.tunnel(v)
	case attrMPReach:
		return a.mpReach(v)
	case attrMPUnreach:
		if len(v) < 3 {
			return updateError(updateOptional, "withdrawn routes without a family")
		}
		a.unreach = v
	}
	return nil
}

func (a *attributes) check(ok bool, what string) bool {
	if !ok {
		a.blame(what)
	}
	return ok
}

// asPath looks for loops and errors in a path of four-byte AS numbers (RFC 6793; RFC 7606, section 7.2).
func (a *attributes) asPath(v []byte) {
	const set, sequence, confederation, asLen = 1, 2, 4, 4
	for len(v) > 0 {
		if len(v) < 2 || v[0] < set || v[0] > confederation || v[1] == 0 || len(v) < 2+asLen*int(v[1]) {
			a.blame("a malformed AS path")
			return
		}
		for i := range int(v[1]) {
			if binary.BigEndian.Uint32(v[2+asLen*i:]) == a.self.asn {
				a.looped = true // RFC 4271, section 9.1.2
			}
		}
		v = v[2+asLen*int(v[1]):]
	}
}

// tunnel reads how copies of frames to all are asked for (RFC 6514, section 5).
func (a *attributes) tunnel(v []byte) {
	const ingressReplication, headerLen = 6, 5
	if !a.check(len(v) >= headerLen, "a malformed tunnel") {
		return
	}
	a.pmsi = v[1] == ingressReplication
	a.label = uint24(v[2:])
}

// mpReach finds the next hop and the routes (RFC 4760, section 3).
func (a *attributes) mpReach(v []byte) error {
	if len(v) < 5 || len(v) < 5+int(v[3]) {
		return updateError(updateOptional, "routes without a next hop")
	}
	a.reachFamily = familyOf(v)
	hop := v[4 : 4+int(v[3])]
	a.reach = v[4+len(hop)+1:]
	if a.reachFamily == EVPN {
		next, ok := netip.AddrFromSlice(hop)
		a.path.NextHop = next
		a.check(ok && !next.IsUnspecified() && !next.IsMulticast(), "a next hop that is no address")
	}
	return nil
}

func familyOf(b []byte) Family { return Family(binary.BigEndian.Uint16(b))<<16 | Family(b[2]) }

// take makes routes of what the attributes say.
func (u *update) take(a *attributes) error {
	if a.unreach != nil {
		if err := u.withdraw(a.unreach, !a.others); err != nil {
			return err
		}
	}
	if a.reach == nil || a.reachFamily != EVPN {
		return nil
	}
	if !a.seen[attrOrigin] || !a.seen[attrASPath] || !a.self.external && !a.seen[attrLocalPref] {
		a.blame("a mandatory attribute is missing") // RFC 7606, section 3 (d)
	}
	if !a.seen[attrExtended] {
		a.path.VXLAN = true
	}
	if u.fault = a.fault; u.fault != "" {
		a.path = Path{}
	}
	n, err := eachEVPN(a.reach, func(e EVPNRoute, label uint32) {
		nlri := NLRI{Family: EVPN, EVPN: e}
		if u.fault != "" || a.looped {
			u.withdrawn = append(u.withdrawn, nlri)
			return
		}
		p := a.path
		if p.Label = label; e.Type == Multicast {
			p.Label, p.Ingress = a.label, a.pmsi
		}
		u.reach = append(u.reach, Route{nlri, p})
	})
	u.passedOver += n
	if err != nil {
		return updateError(updateOptional, "%v", err)
	}
	return nil
}

// withdraw reads MP_UNREACH_NLRI; alone says that the message has nothing else.
func (u *update) withdraw(v []byte, alone bool) error {
	family, v := familyOf(v), v[3:]
	if len(v) == 0 && alone {
		u.ended = family
	}
	if family != EVPN {
		return nil
	}
	n, err := eachEVPN(v, func(e EVPNRoute, _ uint32) {
		u.withdrawn = append(u.withdrawn, NLRI{Family: EVPN, EVPN: e})
	})
	u.passedOver += n
	if err != nil {
		return updateError(updateOptional, "withdrawn routes: %v", err)
	}
	return nil
}
