package seal

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/usernet/usernet/internal/packet"
)

const (
	// Port is the UDP port of both ends inside the tunnel: VXLAN's (IANA).
	Port = 4789

	hopLimit  = packet.DefaultTTL
	batchRoom = 65000 + BatchSize*innerHeaders

	queued = 64 // batches that wait for WireGuard

	// inFlight is how many packets WireGuard may hold before they are sent. Each has a buffer of 64 KiB there.
	inFlight = 2048
	// stall is for how long a full WireGuard holds all senders up. What it has dropped by then (it holds packets of a
	// host without a session, and drops the oldest) does not count any more.
	stall = 20 * time.Millisecond
	// sendWait is for how long a sender is held up before its datagrams are dropped.
	sendWait = 100 * time.Millisecond
)

// ErrFull says that datagrams were dropped, as WireGuard does not get done with those before them.
var ErrFull = errors.New("the queue to WireGuard is full")

// Batch is datagrams to one host. Get it with Tunnel.Batch.
type Batch struct {
	buf   []byte
	sizes [BatchSize]int
	n     int
}

var batches = sync.Pool{New: func() any { return &Batch{buf: make([]byte, 0, batchRoom)} }}

// Batch returns an empty one for datagrams to an address inside the tunnel. Send takes it back.
func (t *Tunnel) Batch() *Batch {
	b := batches.Get().(*Batch)
	b.buf, b.n = b.buf[:0], 0
	return b
}

// Add puts a datagram into the batch: head, then data. There may be BatchSize, of 65,000 bytes in all.
func (t *Tunnel) Add(b *Batch, to netip.Addr, head, data []byte) {
	n := len(head) + len(data)
	var h [innerHeaders]byte
	h[0], h[6], h[7] = 6<<4, packet.ProtoUDP, hopLimit
	binary.BigEndian.PutUint16(h[4:], uint16(8+n))
	src, dst := t.own.As16(), to.As16()
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	binary.BigEndian.PutUint16(h[40:], Port)
	binary.BigEndian.PutUint16(h[42:], Port)
	binary.BigEndian.PutUint16(h[44:], uint16(8+n)) // no checksum (RFC 6935): WireGuard authenticates it
	b.buf = append(append(append(b.buf, h[:]...), head...), data...)
	b.sizes[b.n] = innerHeaders + n
	b.n++
}

// Send hands a batch to WireGuard. It waits a little where that is busy: the containers behind it are to slow down, not
// to lose.
func (t *Tunnel) Send(b *Batch) error {
	select {
	case t.queue.batches <- b:
		return nil
	default:
	}
	timer := time.NewTimer(sendWait)
	defer timer.Stop()
	select {
	case t.queue.batches <- b:
		return nil
	case <-t.queue.closed:
		return os.ErrClosed
	case <-timer.C:
		batches.Put(b)
		return ErrFull
	}
}

// Sent is told by the Bind how many packets with data it has sent.
func (t *Tunnel) Sent(packets int) {
	t.queue.sent.Add(int64(packets))
	select {
	case t.queue.room <- struct{}{}:
	default:
	}
}

// queue is what WireGuard takes for an interface.
type queue struct {
	t       *Tunnel
	batches chan *Batch
	events  chan tun.Event
	closed  chan struct{}
	once    sync.Once

	taken int64         // packets that WireGuard has read; Read's alone
	sent  atomic.Int64  // and those that it has sent
	room  chan struct{} // something was sent
	batch *Batch        // of which some is left; Read's alone
	next  int           // the next packet in it, and where it begins
	at    int
}

var _ tun.Device = (*queue)(nil)

func newQueue(t *Tunnel) *queue {
	q := &queue{
		t:       t,
		batches: make(chan *Batch, queued),
		events:  make(chan tun.Event, 1),
		closed:  make(chan struct{}),
		room:    make(chan struct{}, 1),
	}
	q.events <- tun.EventUp
	return q
}

// Read implements tun.Device: what is to be sealed.
func (q *queue) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	q.awaitRoom()
	if q.batch == nil {
		select {
		case q.batch = <-q.batches:
		case <-q.closed:
			return 0, os.ErrClosed
		}
		q.next, q.at = 0, 0
	}
	n := 0
	for n < len(bufs) {
		if q.next == q.batch.n {
			batches.Put(q.batch)
			q.batch = nil
			select { // another one goes along where it is there
			case q.batch = <-q.batches:
				q.next, q.at = 0, 0
			default:
				q.taken += int64(n)
				return n, nil
			}
			continue
		}
		size := q.batch.sizes[q.next]
		sizes[n] = copy(bufs[n][offset:], q.batch.buf[q.at:q.at+size])
		q.at += size
		q.next++
		n++
	}
	q.taken += int64(n)
	return n, nil
}

// awaitRoom waits while WireGuard holds too many packets.
func (q *queue) awaitRoom() {
	if q.taken-q.sent.Load() < inFlight {
		return
	}
	timer := time.NewTimer(stall)
	defer timer.Stop()
	for q.taken-q.sent.Load() >= inFlight {
		select {
		case <-q.room:
		case <-q.closed:
			return
		case <-timer.C:
			q.taken = q.sent.Load()
			return
		}
	}
}

// Write implements tun.Device: what was opened, of one peer.
func (q *queue) Write(bufs [][]byte, offset int) (int, error) {
	var list [2 * BatchSize][]byte
	var from netip.Addr
	n := 0
	for _, b := range bufs {
		src, datagram, ok := open(b[offset:])
		if !ok || n == len(list) {
			continue
		}
		from, list[n] = src, datagram
		n++
	}
	if n > 0 {
		q.t.cfg.Receive(from, list[:n])
	}
	return len(bufs), nil
}

// open finds the payload of a datagram to Port in an IPv6 packet. WireGuard has seen to it that the source is the
// peer's.
func open(p []byte) (src netip.Addr, datagram []byte, ok bool) {
	if len(p) < innerHeaders || p[0]>>4 != 6 || p[6] != packet.ProtoUDP || binary.BigEndian.Uint16(p[42:]) != Port {
		return src, nil, false
	}
	n := int(binary.BigEndian.Uint16(p[44:]))
	if n < 8 || 40+n > len(p) {
		return src, nil, false
	}
	return netip.AddrFrom16([16]byte(p[8:24])), p[innerHeaders : 40+n : 40+n], true
}

// MTU implements tun.Device. WireGuard pads packets up to it.
func (q *queue) MTU() (int, error) { return 1<<16 - 1, nil }

// Name implements tun.Device.
func (q *queue) Name() (string, error) { return "usernet", nil }

// File implements tun.Device: there is none.
func (q *queue) File() *os.File { return nil }

// Events implements tun.Device.
func (q *queue) Events() <-chan tun.Event { return q.events }

// BatchSize implements tun.Device.
func (q *queue) BatchSize() int { return BatchSize }

// Close implements tun.Device.
func (q *queue) Close() error {
	q.once.Do(func() {
		close(q.closed)
		close(q.events)
	})
	return nil
}
