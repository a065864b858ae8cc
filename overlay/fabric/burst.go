package fabric

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

const (
	// maxSegments is how many datagrams one call sends: the kernel's UDP_MAX_SEGMENTS before 6.9.
	maxSegments = 64
	// maxBurst is how many bytes, headers included: the largest UDP payload over IPv4 is 65,507.
	maxBurst = 65000
	// headerSpace is room for VXLAN and Ethernet headers, and inner headers of 120 bytes: IPv4 and TCP with all
	// options.
	headerSpace = encapLen + 120
)

// burst is datagrams to one peer that leave in one call. All have the same size but the last, which may be shorter.
type burst struct {
	message sendMessage
	n       int // datagrams
	size    int // of each but the last
	total   int // bytes of all
	ended   bool

	iov     [2 * maxSegments]unix.Iovec
	iovs    int
	headers [maxSegments][headerSpace]byte
	heads   [maxSegments]int    // how much of headers is used
	data    [maxSegments][]byte // what is behind it
	stored  int                 // bytes of payload that were copied to store
	store   []byte
}

var bursts = sync.Pool{New: func() any {
	b := &burst{store: make([]byte, maxBurst)}
	b.message.prepare()
	return b
}}

// fits says whether a datagram of n bytes can follow.
func (b *burst) fits(n int) bool {
	return b.n == 0 || !b.ended && b.n < maxSegments && n <= b.size && b.total+n <= maxBurst
}

// header is the room for the next datagram's headers.
func (b *burst) header() []byte { return b.headers[b.n][:] }

// add puts a datagram behind the others: head bytes of header(), then data, which stays the caller's and must not
// change until the burst is sent.
func (b *burst) add(head int, data []byte) {
	n := head + len(data)
	b.heads[b.n], b.data[b.n] = head, data
	if b.n == 0 {
		b.size = n
	}
	b.ended = n < b.size
	b.iov[b.iovs].Base = &b.headers[b.n][0]
	b.iov[b.iovs].SetLen(head)
	b.iovs++
	if len(data) > 0 {
		b.iov[b.iovs].Base = &data[0]
		b.iov[b.iovs].SetLen(len(data))
		b.iovs++
	}
	b.n++
	b.total += n
}

// copied is a copy of data that lasts as long as the burst; fits has seen to the room.
func (b *burst) copied(data []byte) []byte {
	c := b.store[b.stored : b.stored+copy(b.store[b.stored:], data)]
	b.stored += len(c)
	return c
}

// reset empties the burst and forgets what it pointed to.
func (b *burst) reset() {
	clear(b.iov[:b.iovs])
	clear(b.data[:b.n])
	b.n, b.size, b.total, b.iovs, b.stored, b.ended = 0, 0, 0, 0, 0, false
}

// release empties the burst and gives it back.
func (b *burst) release() {
	b.reset()
	bursts.Put(b)
}

// send sends the datagrams to a peer and empties the burst.
func (b *burst) send(l *Link, p *peer) {
	if b.n == 0 {
		return
	}
	if b.size > largeDatagram && !p.sentLarge.Load() {
		p.sentLarge.Store(true)
	}
	errno := b.transmit(l, p)
	switch {
	case errno == 0:
		p.out.add(b.n, b.total-b.n*min(l.overhead, vxlanHeaderLen))
	case errno == unix.EMSGSIZE || errno == unix.EINVAL:
		// The route's MTU became smaller; EINVAL is from Linux before 5.15.
		p.refreshMTU()
		l.drops[DropTooBig].Add(uint64(b.n))
	case errno == unix.ENOKEY || errno == unix.EBUSY:
		l.drops[DropNoSeal].Add(uint64(b.n))
	default:
		l.drops[DropSend].Add(uint64(b.n))
	}
	b.reset()
}

func (b *burst) transmit(l *Link, p *peer) syscall.Errno {
	if l.cfg.Sealed {
		return b.seal(l.f, p)
	}
	if c := p.carrier.Load(); c != nil {
		c.sendBurst(b)
		return 0
	}
	d := p.dest.Load()
	if d == nil {
		return unix.EDESTADDRREQ
	}
	size := b.size
	if b.n == 1 {
		size = 0
	}
	return b.message.send(d, b.iov[:b.iovs], size)
}

// seal gives the datagrams to WireGuard.
func (b *burst) seal(f *Fabric, p *peer) syscall.Errno {
	t, to := f.tunnel.Load(), p.inside.Load()
	if t == nil || to == nil || !p.mayStage(b.n) {
		return unix.ENOKEY
	}
	batch := t.Batch()
	for i := range b.n {
		t.Add(batch, *to, b.headers[i][:b.heads[i]], b.data[i])
	}
	if err := t.Send(batch); err != nil {
		return unix.EBUSY
	}
	return 0
}

// start writes the headers of the encapsulation and Ethernet for the next datagram and returns the room behind them.
func (b *burst) start(l *Link, f *vswitch.Frame) []byte {
	h := b.header()
	if l.overhead == 0 {
		return h
	}
	l.f.cfg.Encap.put(h, l.cfg.VNI)
	copy(h[vxlanHeaderLen:encapLen], f.Ethernet())
	return h[encapLen:]
}
