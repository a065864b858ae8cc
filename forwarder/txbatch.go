package forwarder

import (
	"sync"

	"github.com/usernet/usernet/internal/packet"
)

// Datagrams that a container sends in one go leave in one system call: those of one size to one destination are gathered
// until the container's frames are all read, and are then sent as segments of one (udp(7), UDP_SEGMENT). Sending 64 bytes
// takes 4.6 µs alone and 0.8 µs among 32 on the machine of docs/performance.md (BenchmarkDatagramOutward).

const (
	// maxBatch is how many datagrams leave at once at most: a receiver that is slow to wake must have room for them (212,992
	// bytes by default, net.core.rmem_default, of which a datagram of 1400 bytes takes 2304).
	maxBatch = 32
	// maxBatchedSize is the payload up to which datagrams are gathered, in bytes: a segment must fit the path's MTU, and the
	// kernel refuses all of them where one does not.
	maxBatchedSize = 1472
)

// txBatch holds datagrams for one destination. The zero value is empty.
type txBatch struct {
	buf     *[]byte // of buffers; nil while empty
	n, size int     // bytes in all, and in each datagram but the last
	count   int
	ended   bool // the last one is shorter, so none can follow
}

// batchable says whether a datagram may wait for others.
func batchable(p packet.Datagram) bool {
	return p.More && p.Segment == 0 && p.TTL == packet.DefaultTTL && len(p.Payload) > 0 && len(p.Payload) <= maxBatchedSize
}

// add copies a datagram into the batch. False: the batch has to be sent first.
func (g *txBatch) add(payload []byte) bool {
	if g.buf == nil {
		g.buf, g.size = buffers.Get().(*[]byte), len(payload)
	}
	if g.ended || g.count == maxBatch || len(payload) > g.size {
		return false
	}
	g.n += copy((*g.buf)[g.n:], payload)
	g.count++
	g.ended = len(payload) < g.size
	return true
}

// send sends the batch.
func (g *txBatch) send(fd int, to *rawAddr, control []byte) error {
	return sendSegments(fd, (*g.buf)[:g.n], g.size, to, control)
}

// clear empties the batch and gives its buffer back.
func (g *txBatch) clear() {
	buffers.Put(g.buf)
	*g = txBatch{}
}

// batchHead is the first datagram of those that wait, without its payload, for an ICMP error to quote.
type batchHead struct {
	packet   packet.Datagram
	original [quotedLen]byte
}

// quotedLen is an IPv6 header without extensions and 8 bytes behind it: gathered datagrams have no more.
const quotedLen = 48

func (f *batchHead) keep(p packet.Datagram) {
	p.Payload, p.Original = nil, f.original[:copy(f.original[:], p.Original)]
	f.packet = p
}

// pendingFlush has a batch that waits for Flush.
type pendingFlush interface{ flush() }

// flushList is the batches that wait for Flush.
type flushList struct {
	mu          sync.Mutex
	list, spare []pendingFlush
}

func (g *flushList) add(f pendingFlush) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = append(g.list, f)
}

// Flush implements Handler: it sends the batches that wait.
func (f *Forwarder) Flush() {
	g := &f.toFlush
	g.mu.Lock()
	list := g.list
	g.list, g.spare = g.spare, nil
	g.mu.Unlock()
	if len(list) == 0 {
		return
	}
	for _, s := range list {
		s.flush()
	}
	clear(list)
	g.mu.Lock()
	g.spare = list[:0]
	g.mu.Unlock()
}
