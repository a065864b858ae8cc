package fabric

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// reader receives from one socket.
type reader struct {
	f     *Fabric
	sock  *socket
	batch *rxBatch
	next  int // of batch
	join  joiner
	call  func(fd uintptr) bool // drain

	message struct { // the one under way
		rest []byte // of its datagrams
		size int    // of each
		from netip.AddrPort
		to   netip.Addr // of this host
		st   *state
		peer *peer // that sends from there, or nil
	}
	sealed struct { // where WireGuard's messages go; n of them are there
		bufs  [][]byte
		sizes []int
		eps   []conn.Endpoint
		n     int
	}
}

func newReader(f *Fabric, s *socket) *reader {
	r := &reader{f: f, sock: s, batch: newRxBatch()}
	r.call = r.drain
	return r
}

// receive implements conn.ReceiveFunc: it returns with messages for WireGuard, having handled all that came before
// them. Without a tunnel it returns when the fabric is closed.
func (r *reader) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	r.sealed.bufs, r.sealed.sizes, r.sealed.eps, r.sealed.n = bufs, sizes, eps, 0
	for !r.f.closed.Load() {
		if !isolate.Do(r.f.log, "receiving from other hosts", func() { _ = r.sock.raw.Read(r.call) }) {
			r.join, r.message.rest, r.next = joiner{}, nil, r.batch.n // a panic ends that batch only
		}
		if r.sealed.n > 0 {
			return r.sealed.n, nil
		}
	}
	return 0, net.ErrClosed
}

// drain handles what is there and says whether to stop; false waits for more.
func (r *reader) drain(fd uintptr) bool {
	for !r.f.closed.Load() {
		all := r.handle()
		if !all || r.sealed.n > 0 {
			return true
		}
		r.next = 0
		switch errno := r.batch.receive(fd); errno {
		case 0:
		case unix.EAGAIN:
			r.f.readErrors(int(fd)) // an error that waits wakes the reader as well
			return false
		default: // of a datagram that was sent (IP_RECVERR); it goes with being returned
			r.f.readErrors(int(fd))
		}
	}
	return true
}

// handle is process, with what the joiner holds delivered.
func (r *reader) handle() bool {
	r.f.delivering.RLock()
	defer r.f.delivering.RUnlock()
	defer r.join.flush()
	return r.process()
}

// process handles what was received, and says whether that is all of it: else there is no room for WireGuard's
// messages.
func (r *reader) process() bool {
	m := &r.message
	for {
		if len(m.rest) == 0 {
			if r.next == r.batch.n {
				return true
			}
			r.begin(r.next)
			r.next++
			continue
		}
		n := min(m.size, len(m.rest))
		b := m.rest[:n:n]
		if isSealed(b) {
			if r.sealed.bufs != nil && r.sealed.n == len(r.sealed.bufs) {
				return false
			}
			r.addSealed(b)
		} else if n < len(m.rest) && r.f.cfg.Encap.tunnelled(m.rest, m.size) {
			r.datagram(m.rest, m.size)
			n = len(m.rest)
		} else {
			r.datagram(b, 0)
		}
		m.rest = m.rest[n:]
	}
}

// begin takes the datagrams of one sender.
func (r *reader) begin(i int) {
	m := &r.message
	m.rest, m.size, m.to = r.batch.message(i)
	m.from = r.batch.addrs[i].addrPort()
	m.st = r.f.state.Load()
	if m.peer = m.st.byAddr[m.from]; m.peer == nil {
		if m.peer = m.st.byIP[m.from.Addr()]; m.peer == nil {
			m.peer = m.st.byVTEP[m.from.Addr()]
		}
	}
}

// addSealed gives WireGuard a message.
func (r *reader) addSealed(b []byte) {
	q := &r.sealed
	if q.bufs == nil {
		r.f.drops[DropNotVXLAN].Add(1)
		return
	}
	q.sizes[q.n] = copy(q.bufs[q.n], b)
	q.eps[q.n] = r.f.endpoint(r.message.st, r.message.from, r.message.to, r.sock)
	q.n++
	if p := r.message.peer; b[0] == sealResponse && p != nil && p.carrier.Load() != nil {
		p.udpAnswered.Store(time.Now().UnixNano())
	}
}

// tunnelled says whether what was received is one datagram with a super-frame of UDP in it, which a kernel's VXLAN
// device on the same machine has not cut: then the size that the kernel tells is that of the inner segments.
func (e Encap) tunnelled(b []byte, size int) bool {
	_, frame, ok := e.parse(b)
	if !ok || e == BareIP {
		return false
	}
	h, ok := parseInner(binary.BigEndian.Uint16(frame[12:]), frame[vswitch.EthernetHeaderLen:])
	return ok && h.transport() && h.proto == packet.ProtoUDP &&
		len(b)-len(frame)+vswitch.EthernetHeaderLen+h.length > size
}

// datagram handles one plain datagram. segment is as for joiner.add.
func (r *reader) datagram(b []byte, segment int) {
	m := &r.message
	vni, frame, ok := r.f.cfg.Encap.parse(b)
	if !ok {
		r.f.drops[DropNotVXLAN].Add(1)
		return
	}
	if m.peer == nil {
		r.f.drops[DropUnknownPeer].Add(1)
		return
	}
	if vni == controlVNI && r.f.cfg.Encap == VXLAN && !r.f.cfg.Devices {
		r.f.control(m.peer, frame, false, m.from)
		return
	}
	l := m.st.byVNI[vni]
	if l == nil {
		r.f.drops[DropUnknownVNI].Add(1)
		return
	}
	if l.cfg.Sealed {
		l.drop(DropPlain)
		return
	}
	if l.cfg.Routed != nil {
		r.join.deliverRouted(l, m.peer, frame, segment)
		return
	}
	r.join.deliver(l, m.peer, frame, segment)
}

// deliver checks a frame of a peer and takes it.
func (j *joiner) deliver(l *Link, p *peer, frame []byte, segment int) {
	p.in.add(1, len(frame))
	port := l.port.Load()
	if port == nil {
		l.drop(DropNotReady)
		return
	}
	t := l.table.Load()
	dst, src := overlay.MAC(frame[:6]), overlay.MAC(frame[6:12])
	etherType := binary.BigEndian.Uint16(frame[12:])
	var h inner
	payload := frame[vswitch.EthernetHeaderLen:]
	why := pass
	if v := l.via.Load(); v != nil && !p.foreign && (src == l.gate) != (dst == l.gate) {
		why = l.checkVia(v, t, p, frame, etherType, payload, &h)
	} else {
		why = l.check(t, p, dst, src, etherType, payload, &h)
	}
	if why != pass {
		l.drop(why)
		return
	}
	j.take(l, port, frame, &h, payload, segment)
}

// take takes a frame that has passed the checks; add has what the others are.
func (j *joiner) take(l *Link, port *vswitch.Port, frame []byte, h *inner, payload []byte, segment int) {
	// A kernel's VXLAN device on the same machine does not cut super-frames of TCP either, and says nothing of it.
	if segment == 0 && h.length > l.cfg.MTU && h.transport() && h.proto == packet.ProtoTCP {
		segment = l.cfg.MTU - h.data
	}
	if segment < 0 || segment > 0 && (!h.transport() || h.length == h.data || !intact(h, payload[:h.length])) {
		l.drop(DropMalformed)
		return
	}
	j.add(port, frame, h, payload, segment)
}

// check is all that a frame of a peer must pass; it parses the packet in it into h. A frame counts only from an
// endpoint that the entries say is at that host. Of what is behind foreign peers it is known that it is nobody else's,
// and of some where it is (SetForeign).
func (l *Link) check(t *table, p *peer, dst, src overlay.MAC, etherType uint16, payload []byte, h *inner) Reason {
	switch {
	case src == l.gate || dst == l.gate || src == l.mac:
		return DropGateway
	case src[0]&1 != 0 || src == overlay.MAC{}:
		return DropSourceMAC
	}
	e := t.byMAC[src]
	if p.foreign {
		if e != nil && e.peer != p || e == nil && !slices.Contains(t.foreign, p) {
			return DropSourceMAC
		}
	} else if e == nil || e.peer != p {
		return DropSourceMAC
	}
	if why := l.checkPacket(t, e, etherType, payload, h); why != pass {
		return why
	}
	if dst[0]&1 != 0 && h.length > 0 && !l.isToGroup(h, payload) {
		return DropGateway
	}
	if p.foreign && e == nil {
		l.learned.saw(src, p)
	}
	return pass
}

func (l *Link) checkPacket(t *table, e *place, etherType uint16, payload []byte, h *inner) Reason {
	switch etherType {
	case vswitch.EtherTypeARP:
		if len(payload) < arpLen || [6]byte(payload[:6]) != arpWords {
			return DropMalformed
		}
		if e != nil && overlay.MAC(payload[8:14]) != e.MAC {
			return DropSourceMAC
		}
		return l.checkSource(t, e, netip.AddrFrom4([4]byte(payload[14:18])))
	case vswitch.EtherTypeIPv4, vswitch.EtherTypeIPv6:
		var ok bool
		if *h, ok = parseInner(etherType, payload); !ok {
			return DropMalformed
		}
		if why := configuration(h, payload, true); why != pass {
			return why
		}
		src, _ := h.ends(payload)
		if why := l.checkSource(t, e, src); why != pass {
			return why
		}
		return l.checkNeighbour(t, e, h, payload)
	case 0x8100, 0x88a8, 0x9100, 0x9200: // tags of IEEE 802.1Q and 802.1ad
		return DropVLAN
	}
	return pass
}

// isToGroup says whether a packet's destination is a group, as that of its frame is. One that is not would be taken by
// each host's gateway, and leave there in the name of that host.
func (l *Link) isToGroup(h *inner, p []byte) bool {
	if h.v6 {
		return p[24] == 0xff
	}
	dst := [4]byte(p[16:20])
	if dst[0]&0xf0 == 0xe0 || dst == [4]byte{255, 255, 255, 255} {
		return true
	}
	if len(l.cfg.Subnets) == 0 {
		return dst[3] == 255
	}
	a := netip.AddrFrom4(dst)
	for _, s := range l.cfg.Subnets {
		if s.Contains(a) && isLast(s, dst) {
			return true
		}
	}
	return false
}

// isLast says whether an address is the last of an IPv4 subnet that contains it.
func isLast(s netip.Prefix, a [4]byte) bool {
	host := uint32(1)<<(32-s.Bits()) - 1
	return binary.BigEndian.Uint32(a[:])&host == host
}

// checkSource says whether an endpoint may send from an address; a nil one is behind a foreign peer.
func (l *Link) checkSource(t *table, e *place, a netip.Addr) Reason {
	switch {
	case a.IsUnspecified(): // a probe (RFC 5227), duplicate address detection
		return pass
	case l.isGateway(a):
		return DropGateway
	case e != nil && (e.has(a) || a == vswitch.LinkLocal(e.MAC[:])):
		return pass
	case (e == nil || e.peer.foreign) && t.byAddr[a] == nil: // a foreign endpoint has addresses that nobody tells of
		return pass
	}
	return DropSourceAddr
}

// checkNeighbour says whether an advertisement is for the endpoint's own address.
func (l *Link) checkNeighbour(t *table, e *place, h *inner, p []byte) Reason {
	if h.proto != packet.ProtoICMPv6 || h.fragment || h.length < h.l4+ndLen || p[h.l4] != ndNeighbourAdvert {
		return pass
	}
	return l.checkSource(t, e, netip.AddrFrom16([16]byte(p[h.l4+8:h.l4+24])))
}
