package vmlink

import (
	"encoding/binary"
	"sync"
)

const (
	// lengthLen is the length in front of a frame, in bytes.
	lengthLen = 4
	// outboxSize bounds the bytes that wait for a guest: what a switch of this speed sends in some milliseconds.
	outboxSize = 1 << 20
	// outboxKeep is how large a buffer may be that is kept while nothing waits.
	outboxKeep = 64 << 10
)

// outbox holds frames for a guest, each behind its length, so that a stream can be sent as it is.
type outbox struct {
	mu      sync.Mutex // guards filling and closed
	filling []byte
	closed  bool
	wake    chan struct{} // has one value at least where filling is not empty, or closed is set
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put adds a copy of a frame. It does not block.
func (o *outbox) put(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return errNoGuest
	}
	if len(o.filling)+lengthLen+len(frame) > outboxSize {
		return errFull
	}
	o.filling = binary.BigEndian.AppendUint32(o.filling, uint32(len(frame)))
	o.filling = append(o.filling, frame...)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// take waits for frames and returns them. done is what the last call returned, whose memory is used again. It returns
// nil once the outbox is closed.
func (o *outbox) take(done []byte) []byte {
	if cap(done) > outboxKeep {
		done = nil
	}
	for {
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			return nil
		}
		if full := o.filling; len(full) > 0 {
			o.filling = done[:0]
			o.mu.Unlock()
			return full
		}
		o.mu.Unlock()
		<-o.wake
	}
}

// close has take return nil, and put fail.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.filling = true, nil
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// first splits the first frame off what take has returned.
func first(frames []byte) (frame, rest []byte) {
	n := int(binary.BigEndian.Uint32(frames)) // put has written it
	return frames[lengthLen : lengthLen+n], frames[lengthLen+n:]
}
