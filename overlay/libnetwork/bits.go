package libnetwork

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// bitmap is a sequence of bits as Docker's daemons store them (package bitseq of moby, docker-20.10): which addresses
// of a subnet are taken, and which VNIs. Bit 0 is the highest one of the first block. Equal blocks that follow each
// other are one run.
type bitmap struct {
	id   string // the daemons' name of it
	size uint64 // in bits
	free uint64 // bits that are not set, as the daemons count them
	runs []run
}

// run is count blocks with the same bits.
type run struct {
	block uint32
	count uint64
}

const (
	blockBits = 32
	runBytes  = 4 + 8   // a block and its count, big endian
	headBytes = 8 + 8   // size and free
	maxBits   = 1 << 32 // of an IPv4 subnet
	maxRuns   = 1 << 16 // of a bitmap that is read: 786 KB; one with every other block in use has a subnet of a /10
	allSet    = ^uint32(0)
)

// errBits says that a record is no bitmap.
var errBits = errors.New("it is no bitmap of Docker's")

// newBitmap makes one with no bit set.
func newBitmap(id string, size uint64) *bitmap {
	return &bitmap{id: id, size: size, free: size, runs: []run{{0, (size + blockBits - 1) / blockBits}}}
}

// bitmapRecord is how it is stored: the sequence is its size, its free bits, and its runs; in JSON it is base64.
type bitmapRecord struct {
	ID       string `json:"id"`
	Sequence []byte `json:"sequence"`
}

// decodeBitmap reads a record.
func decodeBitmap(text []byte) (*bitmap, error) {
	var r bitmapRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errBits, err)
	}
	s := r.Sequence
	if len(s) < headBytes || (len(s)-headBytes)%runBytes != 0 || (len(s)-headBytes)/runBytes > maxRuns {
		return nil, fmt.Errorf("%w: %d bytes", errBits, len(s))
	}
	b := &bitmap{id: r.ID, size: binary.BigEndian.Uint64(s), free: binary.BigEndian.Uint64(s[8:])}
	if b.size == 0 || b.size > maxBits {
		return nil, fmt.Errorf("%w: %d bits", errBits, b.size)
	}
	left := (b.size + blockBits - 1) / blockBits
	for s = s[headBytes:]; len(s) > 0; s = s[runBytes:] {
		one := run{binary.BigEndian.Uint32(s), binary.BigEndian.Uint64(s[4:])}
		if one.count == 0 || one.count > left {
			return nil, fmt.Errorf("%w: its runs do not have %d bits", errBits, b.size)
		}
		left -= one.count
		b.runs = append(b.runs, one)
	}
	if left != 0 || b.free > b.size {
		return nil, fmt.Errorf("%w: its runs do not have %d bits", errBits, b.size)
	}
	return b, nil
}

// encode is the record.
func (b *bitmap) encode() ([]byte, error) {
	s := make([]byte, 0, headBytes+len(b.runs)*runBytes)
	s = binary.BigEndian.AppendUint64(s, b.size)
	s = binary.BigEndian.AppendUint64(s, b.free)
	for _, r := range b.runs {
		s = binary.BigEndian.AppendUint32(s, r.block)
		s = binary.BigEndian.AppendUint64(s, r.count)
	}
	return json.Marshal(bitmapRecord{ID: b.id, Sequence: s})
}

// mask has the one bit of a block that bit i is.
func mask(i uint64) uint32 { return 1 << (blockBits - 1 - i%blockBits) }

// find is the run that bit i is in, and how many blocks are before it in that run.
func (b *bitmap) find(i uint64) (at int, before uint64) {
	block := i / blockBits
	for at = range b.runs {
		if block < b.runs[at].count {
			return at, block
		}
		block -= b.runs[at].count
	}
	return -1, 0
}

// isSet says whether bit i is set; one outside counts as set.
func (b *bitmap) isSet(i uint64) bool {
	if i >= b.size {
		return true
	}
	at, _ := b.find(i)
	return b.runs[at].block&mask(i) != 0
}

// set sets or clears bit i, and says whether that changed anything.
func (b *bitmap) set(i uint64, on bool) bool {
	if i >= b.size || b.isSet(i) == on {
		return false
	}
	at, before := b.find(i)
	old := b.runs[at]
	var next []run
	for _, r := range []run{{old.block, before}, {old.block ^ mask(i), 1}, {old.block, old.count - before - 1}} {
		if r.count > 0 {
			next = append(next, r)
		}
	}
	all := append(append(append([]run{}, b.runs[:at]...), next...), b.runs[at+1:]...)
	b.runs = all[:0]
	for _, r := range all { // equal neighbours become one
		if n := len(b.runs); n > 0 && b.runs[n-1].block == r.block {
			b.runs[n-1].count += r.count
		} else {
			b.runs = append(b.runs, r)
		}
	}
	if on {
		b.free = max(b.free, 1) - 1
	} else {
		b.free = min(b.free+1, b.size)
	}
	return true
}

// firstFree is the lowest bit from one to another, both included, that is not set.
func (b *bitmap) firstFree(from, to uint64) (uint64, bool) {
	to = min(to, b.size-1)
	start := uint64(0) // the first bit of the run
	for _, r := range b.runs {
		end := start + r.count*blockBits
		if r.block != allSet && end > from {
			for i := max(start, from) / blockBits; i < end/blockBits; i++ {
				open := ^r.block
				if low := from % blockBits; i == from/blockBits {
					open &= allSet >> low
				}
				if open != 0 {
					bit := i*blockBits + uint64(bits.LeadingZeros32(open))
					return bit, bit <= to
				}
				if i > from/blockBits { // all further blocks of the run are the same
					break
				}
			}
		}
		start = end
	}
	return 0, false
}
