// Package block has the memory that payloads of frames are read into.
//
// A [Block] is gVisor's own kind of memory, so that package stack can give a large payload to netstack without a copy.
// Package switch and devices see bytes; only package stack asks for the [Block.View]. Blocks that go back to the pool
// are used again as they are: gVisor's own pool clears a block each time it is taken, which costs more than reading a
// small frame into it.
package block

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
)

// Size is the length of a block in bytes: the largest IP packet has 65535, and it is the largest that gVisor pools.
const Size = buffer.MaxChunkSize

// Block is memory of one owner. The zero value is none.
type Block struct{ view *buffer.View }

var pool sync.Pool // of *buffer.View

// New returns a block of Size bytes with any content.
func New() Block {
	if v, ok := pool.Get().(*buffer.View); ok {
		return Block{v}
	}
	return Block{buffer.NewViewSize(Size)}
}

// Copy returns a block with a copy of pieces, and of their length.
func Copy(pieces [][]byte, length int) Block {
	v := buffer.NewView(length)
	for _, p := range pieces {
		_, _ = v.Write(p) // grows as needed, so it never falls short
	}
	return Block{v}
}

// IsZero says that there is no memory.
func (b Block) IsZero() bool { return b.view == nil }

// Bytes returns the Size bytes of a block of New, valid until the block changes hands.
func (b Block) Bytes() []byte {
	if b.view.Size() != Size {
		b.view.Reset()
		b.view.Grow(Size)
	}
	return b.view.AsSlice()
}

// Cut makes the first n bytes all that View has.
func (b Block) Cut(n int) { b.view.CapLength(n) }

// Recycle gives a block of New back, which nobody may use any more.
func (b Block) Recycle() { pool.Put(b.view) }

// View returns the memory as netstack's, which owns it from here.
func (b Block) View() *buffer.View { return b.view }
