package fabric

import (
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

var _ vswitch.Flusher = (*Link)(nil)

// WriteFrame implements vswitch.Device: a frame of a container goes to the host that its destination is on. What does
// not go out is counted here by its reason and is no error: the switch's port would count it again.
func (l *Link) WriteFrame(f *vswitch.Frame) error {
	eth := f.Ethernet()
	dst, src := overlay.MAC(eth[:6]), overlay.MAC(eth[6:12])
	if dst == l.gate || src == l.gate && l.via.Load() == nil {
		l.drop(DropGateway)
		return nil
	}
	if len(f.Payload) > 1 {
		return l.writeFlat(f)
	}
	var payload []byte
	if len(f.Payload) == 1 {
		payload = f.Payload[0]
	}
	t := l.table.Load()
	if src == l.gate {
		l.fromGateway(t, f, payload)
		return nil
	}
	if l.cfg.Routed != nil {
		l.writeRouted(t, f, payload)
		return nil
	}
	var h inner
	switch et := f.EtherType(); et {
	case vswitch.EtherTypeARP:
		if dst[0]&1 != 0 {
			return l.outwardARP(t, f, payload)
		}
	case vswitch.EtherTypeIPv4, vswitch.EtherTypeIPv6:
		var ok bool
		if h, ok = parseInner(et, payload); !ok {
			l.drop(DropMalformed)
			return nil
		}
		if why := configuration(&h, payload, false); why != pass {
			l.drop(why)
			return nil
		}
		if h.v6 && h.proto == protoICMPv6 && !h.fragment && l.outwardND(t, f, &h, payload) {
			return nil
		}
	}
	if dst[0]&1 != 0 {
		l.flood(t, f, &h, payload)
		return nil
	}
	if l.hold(t, f, &h, payload) {
		return nil
	}
	p := l.find(t, dst)
	if p == nil {
		l.unknown(t, f, &h, payload)
		return nil
	}
	l.sendTo(p, f, &h, payload)
	return nil
}

// find is the peer that a MAC is behind; nil where none is known.
func (l *Link) find(t *table, mac overlay.MAC) *peer {
	if e := t.byMAC[mac]; e != nil {
		return e.peer
	}
	if len(t.foreign) > 0 {
		return l.learned.find(mac)
	}
	return nil
}

// flats has buffers for frames in pieces. The gateway's frames are such, and do not come here; a test's do.
var flats = sync.Pool{New: func() any { return new([vswitch.MaxPayload]byte) }}

// writeFlat writes a frame whose payload is in pieces.
func (l *Link) writeFlat(f *vswitch.Frame) error {
	if f.PayloadLen() > vswitch.MaxPayload {
		l.drop(DropMalformed)
		return nil
	}
	buf := flats.Get().(*[vswitch.MaxPayload]byte)
	defer flats.Put(buf)
	n := 0
	for _, p := range f.Payload {
		n += copy(buf[n:], p)
	}
	flat := vswitch.Frame{Header: f.Header, Payload: [][]byte{buf[:n]}} // not MorePending: the buffer does not last
	return l.WriteFrame(&flat)
}

// mayFlood says whether n copies of a frame may leave now.
func (l *Link) mayFlood(n int) bool {
	l.limits.Lock()
	defer l.limits.Unlock()
	return l.limits.flood.Allow(time.Now(), float64(n))
}

// flood sends a frame to all other hosts of the network and to its foreign peers (head-end replication).
func (l *Link) flood(t *table, f *vswitch.Frame, h *inner, payload []byte) {
	if !l.mayFlood(len(t.members) + len(t.foreign)) {
		l.drop(DropRate)
		return
	}
	for _, p := range t.members {
		l.sendTo(p, f, h, payload)
	}
	for _, p := range t.foreign {
		l.sendTo(p, f, h, payload)
	}
}

// unknown handles a frame to a MAC that nobody is known to have: only a foreign peer could.
func (l *Link) unknown(t *table, f *vswitch.Frame, h *inner, payload []byte) {
	l.floodForeign(t, f, h, payload, DropNoPeer)
}

// floodForeign sends a frame to the foreign peers; where there are none it counts as dropped.
func (l *Link) floodForeign(t *table, f *vswitch.Frame, h *inner, payload []byte, otherwise Reason) {
	if len(t.foreign) == 0 {
		l.drop(otherwise)
		return
	}
	if !l.mayFlood(len(t.foreign)) {
		l.drop(DropRate)
		return
	}
	for _, p := range t.foreign {
		l.sendTo(p, f, h, payload)
	}
}

// sendTo sends a frame to one peer, in as many datagrams as its path needs.
func (l *Link) sendTo(p *peer, f *vswitch.Frame, h *inner, payload []byte) {
	mtu := p.innerMTU(l.cfg.Sealed)
	if mtu <= 0 {
		l.drop(DropNoPeer)
		return
	}
	v := f.Virtio()
	leave := p.leavesChecksum(h, v)
	switch {
	case v.GSO != vswitch.GSONone:
		l.flushPeer(p)
		l.sendSuper(p, f, h, payload, v, mtu, leave)
	case len(payload) > mtu:
		l.flushPeer(p)
		l.sendLarge(p, f, h, payload, v, mtu)
	default:
		v.NeedsChecksum = v.NeedsChecksum && !leave
		l.sendSmall(p, f, payload, v)
	}
}

// leavesChecksum says whether a checksum that a container's kernel has left to be done is not done on the way to a peer
// either: it is another host's, which finds the sum of the pseudo header in the field, and tells the other container's
// kernel. The frame is no less protected between the hosts: WireGuard authenticates it, and a plain one is in a
// datagram, or on a connection, whose checksum is of the same kind and has the whole frame.
func (p *peer) leavesChecksum(h *inner, v vswitch.Virtio) bool {
	return v.NeedsChecksum && p.partial.Load() && h.transport() &&
		int(v.ChecksumStart) == vswitch.EthernetHeaderLen+h.l4 && int(v.ChecksumOffset) == h.check()
}

// sendSmall sends a frame that fits. One that others follow at once waits for them.
func (l *Link) sendSmall(p *peer, f *vswitch.Frame, payload []byte, v vswitch.Virtio) {
	if !f.MorePending {
		l.flushPeer(p)
		b := bursts.Get().(*burst)
		if l.load(b, f, payload, v, false) {
			b.send(l, p)
		}
		b.release()
		return
	}
	n := l.overhead + len(payload)
	p.pending.Lock()
	b := p.pending.burst
	if b != nil && (p.pending.link != l || !b.fits(n)) {
		b.send(p.pending.link, p)
	}
	first := b == nil
	if first {
		b = bursts.Get().(*burst)
		p.pending.burst = b
		p.pending.waits.Store(true)
	}
	p.pending.link = l
	l.load(b, f, payload, v, true)
	p.pending.Unlock()
	if first {
		l.f.flushList.add(p)
	}
}

// load puts a frame that fits into a burst. A checksum that was left to be done is done: frames on the wire are whole.
func (l *Link) load(b *burst, f *vswitch.Frame, payload []byte, v vswitch.Virtio, keep bool) bool {
	room := b.start(l, f)
	head := 0
	if v.NeedsChecksum {
		if head = finishChecksum(room, payload, v); head < 0 {
			l.drop(DropMalformed)
			return false
		}
	}
	data := payload[head:]
	if keep {
		data = b.copied(data)
	}
	b.add(l.overhead+head, data)
	return true
}

// Flush implements vswitch.Flusher.
func (l *Link) Flush() { l.f.flushList.flush() }

// flushPeer sends what waits for a peer.
func (l *Link) flushPeer(p *peer) {
	if p.pending.waits.Load() {
		p.flush()
	}
}

// flush sends what waits.
func (p *peer) flush() {
	p.pending.Lock()
	defer p.pending.Unlock()
	if b := p.pending.burst; b != nil {
		b.send(p.pending.link, p)
		b.release()
		p.pending.burst, p.pending.link = nil, nil
		p.pending.waits.Store(false)
	}
}

// flushList is the peers with frames that wait.
type flushList struct {
	mu          sync.Mutex // guards list and spare
	list, spare []*peer
}

func (g *flushList) add(p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = append(g.list, p)
}

func (g *flushList) flush() {
	g.mu.Lock()
	list := g.list
	g.list, g.spare = g.spare, nil
	g.mu.Unlock()
	if len(list) == 0 {
		return
	}
	for _, p := range list {
		p.flush()
	}
	clear(list)
	g.mu.Lock()
	g.spare = list[:0]
	g.mu.Unlock()
}
