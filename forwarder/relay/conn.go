package relay

import "io"

// Conn is a container's TCP connection, as the gateway terminates it. No method but Close and Abort waits. One
// goroutine reads, one writes; Abort and OnReset may be called beside.
type Conn interface {
	// TryRead moves what has arrived to w, which must not block: the connection's lock is held meanwhile. An error of
	// w's ends it early; w knows it. The result is EAGAIN where nothing has arrived, and io.EOF after the container's
	// FIN.
	TryRead(w io.Writer) error
	// TryWrite queues as much of b as there is room for, with EAGAIN where that is not all.
	TryWrite(b []byte) (int, error)
	// Readable and Writable have a signal when it is worth to try again, also when the connection was reset or aborted.
	Readable() <-chan struct{}
	Writable() <-chan struct{}
	// OnReset calls f, which must neither block nor call the connection, once it was reset, timed out or aborted. stop
	// ends that.
	OnReset(f func()) (stop func())
	// SetBuffers says how many bytes the connection may hold in each direction.
	SetBuffers(size int)
	// CloseWrite sends a FIN behind what is queued.
	CloseWrite() error
	// Abort resets the connection. It is closed nevertheless, once nobody reads or writes any more.
	Abort()
	io.Closer
}

// Buffers bound what a session of a Conn holds. Its methods are called by both directions at once.
type Buffers interface {
	// Moved says how many bytes the session has moved in all.
	Moved(n uint64)
	// Chunk is how many bytes are read from the host at once at most; no more than sockio.BufferSize.
	Chunk() int
}
