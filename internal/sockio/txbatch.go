package sockio

import "sync"

// BufferSize is the length of a Buffer in bytes: it holds the largest datagram, and what one read of a stream brings.
const BufferSize = 64 << 10

// Buffer is memory that is used again.
type Buffer [BufferSize]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// GetBuffer returns a buffer with any content. PutBuffer gives it back.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// PutBuffer gives a buffer back, which nobody may use any more. nil does nothing.
func PutBuffer(b *Buffer) {
	if b != nil {
		buffers.Put(b)
	}
}

// MaxBatch is how many datagrams leave at once at most: a receiver that is slow to wake must have room for them
// (212,992 bytes by default, net.core.rmem_default, of which a datagram of 1400 bytes takes 2304).
const MaxBatch = 32

// TXBatch gathers datagrams for one destination that leave in one system call, as segments of one (udp(7),
// UDP_SEGMENT). The zero value is empty.
type TXBatch struct {
	buf     *Buffer // nil while empty
	n, size int     // bytes in all, and in each datagram but the last
	count   int
	short   bool // the last one is shorter, so none can follow
}

// Empty says that no datagram waits.
func (b *TXBatch) Empty() bool { return b.count == 0 }

// Size is the length in bytes of each datagram but the last, which may be shorter.
func (b *TXBatch) Size() int { return b.size }

// Add copies a datagram into the batch. False: the batch has to be sent first.
func (b *TXBatch) Add(payload []byte) bool {
	if b.buf == nil {
		b.buf, b.size = GetBuffer(), len(payload)
	}
	if b.short || b.count == MaxBatch || len(payload) > b.size || len(payload) > BufferSize-b.n {
		return false
	}
	b.n += copy(b.buf[b.n:], payload)
	b.count++
	b.short = len(payload) < b.size
	return true
}

// Send sends the batch, which stays as it is.
func (b *TXBatch) Send(fd int, to *RawAddr, control []byte) error {
	return SendSegments(fd, b.buf[:b.n], b.size, to, control)
}

// Clear empties the batch.
func (b *TXBatch) Clear() {
	PutBuffer(b.buf)
	*b = TXBatch{}
}
