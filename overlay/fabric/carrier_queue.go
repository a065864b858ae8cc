package fabric

import (
	"encoding/binary"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	carrierBatches = 64                     // that wait for a connection
	carrierBytes   = 2 << 20                // and their bytes
	carrierWait    = 20 * time.Millisecond  // a full queue holds its senders up so long
	carrierStale   = 500 * time.Millisecond // what waited longer is dropped: TCP inside has sent it again by then
	carrierWrites  = 16                     // batches in one call
)

// carrierQueue is what waits for a connection. When it is full the oldest goes: what is new is worth more, and the
// flows inside see early that they are too fast.
type carrierQueue struct {
	wake   chan struct{} // there is something
	room   chan struct{} // something went
	closed chan struct{}

	mu    sync.Mutex // guards what follows
	list  []carrierBatch
	bytes int
}

// carrierBatch is datagrams, each behind its length.
type carrierBatch struct {
	buf       *[]byte
	datagrams int
	at        time.Time
}

var carrierBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<16); return &b }}

func (b *carrierBatch) free() { carrierBuffers.Put(b.buf) }

// newCarrierBatch makes an empty one.
func newCarrierBatch(now time.Time) carrierBatch {
	buf := carrierBuffers.Get().(*[]byte)
	*buf = (*buf)[:0]
	return carrierBatch{buf: buf, at: now}
}

// add puts a datagram, in two pieces, into the batch.
func (b *carrierBatch) add(head, data []byte) {
	*b.buf = binary.BigEndian.AppendUint16(*b.buf, uint16(len(head)+len(data)))
	*b.buf = append(append(*b.buf, head...), data...)
	b.datagrams++
}

// full says whether n bytes more are too much. The caller holds mu.
func (q *carrierQueue) full(n int) bool {
	return len(q.list) >= carrierBatches || q.bytes+n > carrierBytes && len(q.list) > 0
}

// put adds a batch, and returns how many datagrams were dropped for it. It waits a little for room.
func (q *carrierQueue) put(b carrierBatch) (dropped int) {
	n := len(*b.buf)
	q.mu.Lock()
	if q.full(n) {
		q.mu.Unlock()
		timer := time.NewTimer(carrierWait)
		select {
		case <-q.room:
		case <-timer.C:
		case <-q.closed:
		}
		timer.Stop()
		q.mu.Lock()
	}
	for q.full(n) {
		old := q.list[0]
		q.list = q.list[1:]
		q.bytes -= len(*old.buf)
		dropped += old.datagrams
		old.free()
	}
	q.list = append(q.list, b)
	q.bytes += n
	q.mu.Unlock()
	signal(q.wake)
	return dropped
}

// take removes what one call writes, the stale left out, and says how many datagrams those had.
func (q *carrierQueue) take(list []carrierBatch, now time.Time) (_ []carrierBatch, stale int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) > 0 && len(list) < carrierWrites {
		b := q.list[0]
		q.list[0] = carrierBatch{}
		q.list = q.list[1:]
		q.bytes -= len(*b.buf)
		if now.Sub(b.at) > carrierStale {
			stale += b.datagrams
			b.free()
			continue
		}
		list = append(list, b)
	}
	if len(q.list) == 0 {
		q.list = nil
	}
	return list, stale
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write sends what is in the queue until the connection ends.
func (c *carrier) write() {
	if _, err := c.conn.Write([]byte(carrierMagic)); err != nil {
		return
	}
	var list []carrierBatch
	var bufs net.Buffers
	for {
		var stale int
		list, stale = c.queue.take(list[:0], time.Now())
		c.f.drops[DropSlow].Add(uint64(stale))
		if len(list) == 0 {
			select {
			case <-c.queue.wake:
				continue
			case <-c.queue.closed:
				return
			}
		}
		signal(c.queue.room)
		bufs = bufs[:0]
		for _, b := range list {
			bufs = append(bufs, *b.buf)
		}
		rest := bufs // WriteTo consumes it
		_, err := rest.WriteTo(c.conn)
		for i := range list {
			list[i].free()
			list[i] = carrierBatch{}
		}
		if err != nil {
			return
		}
		c.used.Store(time.Now().UnixNano())
	}
}

// send queues sealed messages.
func (c *carrier) send(messages [][]byte) {
	b := newCarrierBatch(time.Now())
	for _, m := range messages {
		if len(m) > 1<<16-1 {
			c.f.drops[DropTooBig].Add(1)
			continue
		}
		b.add(m, nil)
	}
	c.enqueue(b)
}

// sendBurst queues plain frames.
func (c *carrier) sendBurst(b *burst) {
	batch := newCarrierBatch(time.Now())
	for i := range b.n {
		batch.add(b.headers[i][:b.heads[i]], b.data[i])
	}
	c.enqueue(batch)
}

func (c *carrier) enqueue(b carrierBatch) {
	if b.datagrams == 0 {
		b.free()
		return
	}
	if n := c.queue.put(b); n > 0 {
		c.f.drops[DropSlow].Add(uint64(n))
	}
}

func carrierName(id uint64) string { return carrierPrefix + strconv.FormatUint(id, 10) }
