package evpn

import (
	"math"
	"net/netip"
)

// claim is a VTEP's word that a MAC is behind it.
type claim struct {
	sequence uint32
	sticky   bool
	at       netip.Addr
}

// beats says which of two claims counts: one that does not move, the one after more moves, the one of the lower address
// (RFC 7432, sections 15 and 15.2).
func (c claim) beats(d claim) bool {
	switch {
	case c.sticky != d.sticky:
		return c.sticky
	case c.sequence != d.sequence:
		return c.sequence > d.sequence
	}
	return c.at.Less(d.at)
}

// ownMAC is that of an endpoint of this host. While another VTEP claims the MAC with more right, it is not announced:
//
//	new, nobody claims it                          -> announced, sequence 0
//	new, another claims it with sequence n         -> announced, sequence n+1: it has moved here
//	announced, another's claim beats this one      -> yielded: it has moved away, and its endpoint here is about to end
//	yielded, the other's claim is withdrawn        -> announced, with the sequence after that of the other
type ownMAC struct {
	claim
	known   bool // decide was called before
	yielded bool
	seen    uint32 // the highest sequence number of a claim that beat it
}

// decide takes the best claim of the others, or nil, and says whether this host's changed from announced to yielded.
func (o *ownMAC) decide(other *claim) (lost bool) {
	first := !o.known
	o.known = true
	switch {
	case other == nil:
		o.claimAgain()
	case first && !other.sticky && other.sequence < math.MaxUint32:
		o.sequence = other.sequence + 1
	case first || other.beats(o.claim):
		lost = !o.yielded
		o.yielded = true
		o.seen = max(o.seen, other.sequence)
	default: // if something beat it, that is gone, and another is there that does not
		o.claimAgain()
	}
	return lost
}

// claimAgain ends yielding.
func (o *ownMAC) claimAgain() {
	if o.yielded {
		o.yielded = false
		o.sequence = after(max(o.sequence, o.seen))
	}
}

// after is the next sequence number. The last one is not followed by the first, which would beat nobody.
func after(n uint32) uint32 {
	if n == math.MaxUint32 {
		return n
	}
	return n + 1
}
