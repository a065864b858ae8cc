package fabric

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// carrier is one TCP connection that carries datagrams. Its reader and writer are goroutines of the fabric.
type carrier struct {
	f     *Fabric
	id    uint64
	conn  *net.TCPConn
	from  netip.AddrPort // the other end
	began time.Time
	queue carrierQueue
	once  sync.Once

	// peer is whose messages WireGuard has authenticated on it; nil: nobody's yet.
	peer atomic.Pointer[peer]
	left atomic.Int64 // since when the hosts go on by UDP, in Unix nanoseconds; 0: they do not
	used atomic.Int64 // when a datagram came or went last, in Unix nanoseconds

	greeted  bool      // its magic was read
	stranger *stranger // it counts among these; nil: it does not, or no more. Guarded by carriers.mu
}

func newCarrier(f *Fabric, id uint64, conn *net.TCPConn, from netip.AddrPort) *carrier {
	c := &carrier{f: f, id: id, conn: conn, from: from, began: time.Now()}
	c.queue.wake, c.queue.room = make(chan struct{}, 1), make(chan struct{}, 1)
	c.queue.closed = make(chan struct{})
	c.used.Store(c.began.UnixNano())
	return c
}

// close ends the connection; its reader and writer end by that.
func (c *carrier) close() {
	c.once.Do(func() {
		close(c.queue.closed)
		_ = c.conn.Close()
	})
}

// carrierEndpoint is a connection that a message came by. WireGuard answers there once the message has been
// authenticated.
type carrierEndpoint struct {
	noSource
	c    *carrier
	name string
}

func (e *carrierEndpoint) DstToString() string { return e.name }
func (e *carrierEndpoint) DstIP() netip.Addr   { return e.c.from.Addr() }
func (e *carrierEndpoint) DstToBytes() []byte {
	b, _ := e.c.from.MarshalBinary() // it has no error
	return b
}

const (
	blockRoom  = 1 << 17 // bytes of datagrams that go to WireGuard together
	blockQueue = 16      // such that wait; more stay in their connections, whose senders are held up by TCP
)

// block is datagrams that came by one carrier.
type block struct {
	buf  []byte
	ends []int // of each datagram
	next int   // that WireGuard has not got
	from conn.Endpoint
}

var blocks = sync.Pool{New: func() any { return &block{buf: make([]byte, 0, blockRoom)} }}

func newBlock() *block {
	b := blocks.Get().(*block)
	b.buf, b.ends, b.next, b.from = b.buf[:0], b.ends[:0], 0, nil
	return b
}

// datagram is the i-th.
func (b *block) datagram(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.buf[start:b.ends[i]:b.ends[i]]
}

// read receives datagrams until the connection ends.
func (c *carrier) read() {
	r := bufio.NewReaderSize(c.conn, 1<<16)
	var magic [len(carrierMagic)]byte
	if !c.greeted {
		_ = c.conn.SetReadDeadline(time.Now().Add(strangerFor))
		if _, err := io.ReadFull(r, magic[:]); err != nil || string(magic[:]) != carrierMagic {
			c.f.drops[DropNotVXLAN].Add(1)
			return
		}
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	endpoint := &carrierEndpoint{c: c, name: carrierName(c.id)}
	sealed, plain := newBlock(), newBlock()
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		first, err := r.Peek(1)
		if n == 0 || err != nil {
			c.f.drops[DropMalformed].Add(1)
			return
		}
		to := plain
		if first[0] != vxlanFlags {
			to = sealed
		}
		start := len(to.buf)
		to.buf = to.buf[:start+n] // there is room: see below
		if _, err := io.ReadFull(r, to.buf[start:]); err != nil {
			return
		}
		to.ends = append(to.ends, start+n)
		if more := r.Buffered() >= 2; more && cap(to.buf)-len(to.buf) >= 1<<16 && len(to.ends) < rxBlock {
			continue
		}
		c.used.Store(time.Now().UnixNano())
		if len(plain.ends) > 0 {
			c.f.carriedPlain(c, plain)
			plain.buf, plain.ends = plain.buf[:0], plain.ends[:0]
		}
		if len(sealed.ends) > 0 {
			if sealed.from = c.endpoint(endpoint); !c.f.carried(sealed) {
				return
			}
			sealed = newBlock()
		}
	}
}

// rxBlock is how many datagrams are handled together.
const rxBlock = 128

// endpoint is where WireGuard is to answer what came by the connection.
func (c *carrier) endpoint(own *carrierEndpoint) conn.Endpoint {
	if p := c.peer.Load(); p != nil && c.left.Load() != 0 {
		if d := p.dest.Load(); d != nil {
			return &addrEndpoint{dest: *d}
		}
	}
	return own
}

// carried hands datagrams to WireGuard. It waits for room: the sender is held up by TCP.
func (f *Fabric) carried(b *block) bool {
	select {
	case f.carriers.incoming <- b:
		return true
	case <-f.stop:
		return false
	}
}

// carrierReader is what WireGuard has of carriers' datagrams.
type carrierReader struct {
	f    *Fabric
	rest *block // of which some is left
}

// receive implements conn.ReceiveFunc for what carriers bring.
func (r *carrierReader) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if len(bufs) == 0 {
		return 0, errors.New("no room for a message")
	}
	if r.rest == nil {
		select {
		case r.rest = <-r.f.carriers.incoming:
		case <-r.f.stop:
			return 0, net.ErrClosed
		}
	}
	b, n := r.rest, 0
	for ; n < len(bufs) && b.next < len(b.ends); b.next++ {
		m := b.datagram(b.next)
		if !isSealed(m) {
			r.f.drops[DropNotVXLAN].Add(1)
			continue
		}
		sizes[n], eps[n] = copy(bufs[n], m), b.from
		n++
	}
	if b.next == len(b.ends) {
		r.rest = nil
		blocks.Put(b)
	}
	return n, nil
}

// carriedPlain handles plain frames: of the host whose connection it is, once that is known.
func (f *Fabric) carriedPlain(c *carrier, b *block) {
	p := c.peer.Load()
	if p == nil {
		f.drops[DropUnknownPeer].Add(uint64(len(b.ends)))
		return
	}
	st := f.state.Load()
	f.delivering.RLock()
	defer f.delivering.RUnlock()
	j := joiners.Get().(*joiner)
	defer joiners.Put(j)
	defer j.flush()
	for i := range b.ends {
		vni, frame, ok := parseVXLAN(b.datagram(i))
		if !ok || vni == controlVNI { // hosts with connections can seal what they say to each other
			f.drops[DropNotVXLAN].Add(1)
			continue
		}
		l := st.byVNI[vni]
		switch {
		case l == nil:
			f.drops[DropUnknownVNI].Add(1)
		case l.cfg.Sealed:
			l.drop(DropPlain)
		default:
			j.deliver(l, p, frame, 0)
		}
	}
}
