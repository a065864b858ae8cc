package gossip

import (
	"hash/maphash"
	"iter"
)

// A slot has a register's number plus one in its lower bits, and as many bits of its key's hash as there is room for
// above: most registers of other keys are not looked at. 0: there is none.
const (
	refBits = 21 // holds maxRows+chunkLen
	refMask = 1<<refBits - 1
)

// minSlots is the size of the smallest table.
const minSlots = 16

// index finds registers by their keys' hashes: a hash table with open addressing and linear probing. Registers of one
// key are in one run of slots. It has 4 bytes for a slot, where a map from keys to lists of registers has some 70.
type index struct {
	slots []uint32 // a power of two, at most 7/8 of them used
	used  int
}

// hashKey hashes a key. The seed is another one in each process, so that nobody can write keys that collide.
func hashKey(key string) uint64 { return maphash.String(indexSeed, key) }

var indexSeed = maphash.MakeSeed()

// slotOf is what a slot says of a register.
func slotOf(hash uint64, n ref) uint32 { return uint32(hash>>32)&^refMask | uint32(n+1) }

// with are the registers whose keys may have a hash, each with its slot.
func (x *index) with(hash uint64) iter.Seq2[int, ref] {
	return func(yield func(int, ref) bool) {
		if len(x.slots) == 0 {
			return
		}
		tag := slotOf(hash, 0) &^ refMask
		last := len(x.slots) - 1
		for i := int(hash) & last; x.slots[i] != 0; i = (i + 1) & last {
			if s := x.slots[i]; s&^refMask == tag && !yield(i, ref(s&refMask)-1) {
				return
			}
		}
	}
}

// set has a slot say another register of the same key.
func (x *index) set(slot int, hash uint64, n ref) { x.slots[slot] = slotOf(hash, n) }

// add adds a register. hashOf are the hashes of those that are in it.
func (x *index) add(hash uint64, n ref, hashOf func(ref) uint64) {
	if x.used++; x.used > len(x.slots)-len(x.slots)/8 {
		old := x.slots
		x.slots = make([]uint32, max(2*len(old), minSlots))
		for _, s := range old {
			if s != 0 {
				n := ref(s&refMask) - 1
				x.put(hashOf(n), n)
			}
		}
	}
	x.put(hash, n)
}

func (x *index) put(hash uint64, n ref) {
	last := len(x.slots) - 1
	i := int(hash) & last
	for x.slots[i] != 0 {
		i = (i + 1) & last
	}
	x.slots[i] = slotOf(hash, n)
}

// remove empties a slot, and moves those of its run that would not be found any more (Knuth, The Art of Computer
// Programming, 6.4, algorithm R).
func (x *index) remove(slot int, hashOf func(ref) uint64) {
	x.used--
	last := len(x.slots) - 1
	for i := (slot + 1) & last; x.slots[i] != 0; i = (i + 1) & last {
		home := int(hashOf(ref(x.slots[i]&refMask)-1)) & last
		if (i-home)&last >= (i-slot)&last { // its run begins at or before the empty slot
			x.slots[slot], slot = x.slots[i], i
		}
	}
	x.slots[slot] = 0
}
