package filter

// Packet is one frame as Match sees it. The zero value is an empty frame.
type Packet struct {
	Ethernet []byte   // its header, 14 bytes
	Payload  [][]byte // what follows, in pieces
	Out      bool     // the endpoint sent it

	length int
	short  bool // something was read beyond the end, or divided by zero
}

// Offsets in a frame, in bytes (RFC 894; RFC 791; RFC 8200; RFC 826).
const (
	atEtherType = 12
	atNetwork   = 14 // the packet
	atIPv4Proto = atNetwork + 9
	atIPv4Frag  = atNetwork + 6
	atIPv4Src   = atNetwork + 12
	atIPv4Dst   = atNetwork + 16
	atIPv6Next  = atNetwork + 6
	atIPv6Src   = atNetwork + 8
	atIPv6Dst   = atNetwork + 24
	atIPv6Upper = atNetwork + 40 // what is behind the fixed header
	atARPSrc    = atNetwork + 14
	atARPDst    = atNetwork + 24
)

// Numbers of protocols (IANA, "IEEE 802 Numbers").
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIPv6 = 0x86dd

	ipv6Fragment = 44 // the next header that is a fragment header (RFC 8200, 4.5)
	fragOffset   = 0x1fff
)

// at is the byte at an offset.
func (p *Packet) at(offset int) (byte, bool) {
	if offset < 0 {
		return 0, false
	}
	if offset < len(p.Ethernet) {
		return p.Ethernet[offset], true
	}
	offset -= len(p.Ethernet)
	for _, piece := range p.Payload {
		if offset < len(piece) {
			return piece[offset], true
		}
		offset -= len(piece)
	}
	return 0, false
}

// load is the number of one, two or four bytes at an offset, in network order. Where the frame ends before, it marks
// the frame as too short.
func (p *Packet) load(offset, size int) uint32 {
	var n uint32
	for i := range size {
		b, ok := p.at(offset + i)
		if !ok {
			p.short = true
			return 0
		}
		n = n<<8 | uint32(b)
	}
	return n
}

// is says whether the bytes at an offset are want, of which mask counts; a nil mask counts all.
func (p *Packet) is(offset int, want, mask []byte) bool {
	for i, w := range want {
		b, ok := p.at(offset + i)
		if !ok {
			p.short = true
			return false
		}
		if mask != nil {
			b &= mask[i]
		}
		if b != w {
			return false
		}
	}
	return true
}

func (p *Packet) etherType() uint32 { return p.load(atEtherType, 2) }

// later says whether an IPv4 packet is a fragment but the first.
func (p *Packet) later() bool { return p.load(atIPv4Frag, 2)&fragOffset != 0 }

// upper4 is where the transport header of an IPv4 packet begins.
func (p *Packet) upper4() int { return atNetwork + int(p.load(atNetwork, 1)&0xf)*4 }

// A Filter is a parsed expression. It may be used by many goroutines at once.
type Filter struct{ match predicate }

// predicate says whether a frame is wanted.
type predicate func(*Packet) bool

// Match says whether the frame is wanted. A nil filter wants all.
func (f *Filter) Match(p *Packet) bool {
	if f == nil || f.match == nil {
		return true
	}
	p.short, p.length = false, len(p.Ethernet)
	for _, piece := range p.Payload {
		p.length += len(piece)
	}
	return f.match(p) && !p.short
}
