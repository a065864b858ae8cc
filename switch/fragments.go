package vswitch

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/usernet/usernet/internal/packet"
)

const (
	// maxDatagrams is how many fragmented datagrams of one port are followed at once; older ones are forgotten, and
	// their late fragments then count as first ones.
	maxDatagrams = 64
	// maxRanges is how many separate pieces of one datagram may be waiting for what is between them. A sender emits
	// fragments in order, so there is one.
	maxRanges = 8
	// fragmentUnit is what offsets count in (RFC 791).
	fragmentUnit = 8
)

// fragments remembers which parts of fragmented datagrams have passed, to drop those that overlap: what a receiver
// makes of these depends on its system, so a checked header could be replaced by another (RFC 5722, RFC 1858).
type fragments struct {
	slots [maxDatagrams]datagram
	next  int // the slot to reuse

	linked     [maxDatagrams]uint64 // keys of datagrams whose first fragment passed by a link; 0: free
	nextLinked int
}

// datagram is a fragmented datagram that is on its way.
type datagram struct {
	key    uint64 // of addresses, identification and protocol; 0: free
	end    int    // where it ends, once the last fragment has passed; else 0
	ranges [maxRanges]span
	n      int
}

// span is a range of bytes, from lo up to but not including hi.
type span struct{ lo, hi int }

// fragmentOK notes the fragment b and says whether it may pass.
func (p *Port) fragmentOK(b []byte, h packet.Headers) bool {
	n := h.Length - h.Transport
	if h.V6 && !h.MoreFragments && h.Offset == 0 {
		return true // an atomic fragment (RFC 6946)
	}
	if n <= 0 || h.Offset+n > MaxPayload-1 || h.MoreFragments && n%fragmentUnit != 0 {
		return false
	}
	key := fragmentKey(h, b)
	p.fragMu.Lock()
	defer p.fragMu.Unlock()
	if p.frags == nil {
		p.frags = new(fragments)
	}
	return p.frags.note(key, span{h.Offset, h.Offset + n}, !h.MoreFragments)
}

// fragmentSeed makes the keys of datagrams unpredictable.
var fragmentSeed = maphash.MakeSeed()

// fragmentKey is the same for all fragments of a datagram, b being one of them, and never 0.
func fragmentKey(h packet.Headers, b []byte) uint64 {
	var extra [5]byte
	addrs := b[12:20]
	if h.V6 { // identification and addresses alone name a datagram (RFC 8200 section 4.5)
		addrs = b[8:40]
		binary.BigEndian.PutUint32(extra[:], h.FragmentID(b))
	} else {
		copy(extra[2:], b[4:6])
		extra[4] = h.Proto
	}
	return maphash.Bytes(fragmentSeed, addrs)*31 + maphash.Bytes(fragmentSeed, extra[:]) | 1
}

// noteFirst remembers whether the first fragment of a datagram passed by a link.
func (p *Port) noteFirst(key uint64, passed bool) {
	p.fragMu.Lock()
	defer p.fragMu.Unlock()
	if p.frags == nil {
		p.frags = new(fragments)
	}
	fs := p.frags
	i := slices.Index(fs.linked[:], key)
	switch {
	case i >= 0 && !passed:
		fs.linked[i] = 0
	case i < 0 && passed:
		fs.linked[fs.nextLinked] = key
		fs.nextLinked = (fs.nextLinked + 1) % maxDatagrams
	}
}

// firstPassed says whether the first fragment of a datagram passed by a link: those that follow have no ports to go by.
func (p *Port) firstPassed(key uint64) bool {
	p.fragMu.Lock()
	defer p.fragMu.Unlock()
	return p.frags != nil && slices.Contains(p.frags.linked[:], key)
}

func (fs *fragments) note(key uint64, s span, last bool) bool {
	for i := range fs.slots {
		if fs.slots[i].key == key {
			return fs.slots[i].add(s, last)
		}
	}
	d := &fs.slots[fs.next]
	fs.next = (fs.next + 1) % maxDatagrams
	*d = datagram{key: key}
	return d.add(s, last)
}

// add notes a range; false if it overlaps one that passed, contradicts the datagram's end, or makes too many holes.
// A complete datagram is forgotten: its identification may come again.
func (d *datagram) add(s span, last bool) bool {
	if d.end != 0 && (last || s.hi > d.end) {
		return false
	}
	for _, o := range d.ranges[:d.n] {
		if s.lo < o.hi && (o.lo < s.hi || last) {
			return false
		}
	}
	if last {
		d.end = s.hi
	}
	kept := 0
	for _, o := range d.ranges[:d.n] { // join with what is beside it
		switch {
		case o.hi == s.lo:
			s.lo = o.lo
		case s.hi == o.lo:
			s.hi = o.hi
		default:
			d.ranges[kept] = o
			kept++
		}
	}
	if kept == maxRanges {
		return false
	}
	d.ranges[kept] = s
	d.n = kept + 1
	if d.n == 1 && s == (span{0, d.end}) {
		*d = datagram{}
	}
	return true
}
