package forwarder

import (
	"sync"

	"github.com/usernet/usernet/internal/packet"
)

// Datagrams that a container sends in one go leave in one system call: those of one size to one destination are
// gathered until the container's frames are all read, and are then sent as segments of one (udp(7), UDP_SEGMENT).
// Sending 64 bytes takes 4.6 µs alone and 0.8 µs among 32 on the machine of docs/performance.md
// (BenchmarkDatagramOutward).

// maxBatchedSize is the payload up to which datagrams are gathered, in bytes: a segment must fit the path's MTU, and
// the kernel refuses all of them where one does not.
const maxBatchedSize = 1472

// batchable says whether a datagram may wait for others.
func batchable(p packet.Datagram) bool {
	return p.MorePending && p.GSOSize == 0 && p.TTL == packet.DefaultTTL && len(p.Payload) > 0 &&
		len(p.Payload) <= maxBatchedSize
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
	mu          sync.Mutex // guards the rest
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
