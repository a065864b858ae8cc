package gossip

import (
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// Messages begin with one of these.
const (
	msgRows    = 1 // rows
	msgSummary = 2 // name of the sender, buckets, and what the sender has in them
	msgNeed    = 3 // name of the sender, and identities of rows that it wants
	msgDigest  = 4 // as in push and pull
)

// errMessage says that a message is not as it has to be. Nobody without the key can send one.
var errMessage = errors.New("a message of another host is malformed")

// Flags of a row.
const flagDeleted = 1

// appendRow writes a row: flags, owner (16 bytes), incarnation, version, claimed, key and value with their lengths.
func appendRow(b []byte, row table.Row) []byte {
	var flags byte
	if row.Deleted {
		flags = flagDeleted
	}
	b = append(b, flags)
	var owner [16]byte
	_, _ = hex.Decode(owner[:], []byte(row.Owner)) // checked where it came in
	b = append(b, owner[:]...)
	b = binary.AppendUvarint(b, row.Incarnation)
	b = binary.AppendUvarint(b, row.Version)
	b = binary.AppendUvarint(b, uint64(row.Claimed))
	b = binary.AppendUvarint(b, uint64(len(row.Key)))
	b = append(b, row.Key...)
	b = binary.AppendUvarint(b, uint64(len(row.Value)))
	return append(b, row.Value...)
}

// reader reads a message; after an error it reads nothing any more.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// text reads a length of at most limit and so many bytes.
func (r *reader) text(limit int) []byte {
	n := r.number()
	if n > uint64(limit) {
		r.bad = true
		return nil
	}
	return r.bytes(int(n))
}

func (r *reader) hash() uint64 {
	b := r.bytes(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// row reads one. Its value is in the message.
func (r *reader) row() (table.Row, error) {
	var row table.Row
	flags := r.bytes(1)
	owner := r.bytes(16)
	row.Owner = overlay.HostID(hex.EncodeToString(owner))
	row.Incarnation, row.Version, row.Claimed = r.number(), r.number(), int64(r.number())
	row.Key = string(r.text(overlay.MaxKey))
	value := r.text(overlay.MaxRecord)
	if r.bad || flags[0] > flagDeleted || row.Key == "" {
		return row, errMessage
	}
	row.Deleted = flags[0] == flagDeleted
	if len(value) > 0 {
		row.Value = value
	}
	return row, nil
}

// identity of a register: its key and owner. Two rows with one identity would hide each other from the comparison of
// digests; there are 2^64.
func identity(key string, owner overlay.HostID) uint64 {
	h := fnv64(fnvOffset, key)
	return mix(fnv64(fnv64(h, "\x00"), string(owner)))
}

// fingerprint of what a register says, of its identity and the rest. A register with another version, incarnation or
// value has another one.
func fingerprint(id uint64, row table.Row) uint64 {
	h := mix(id ^ row.Version)
	h = mix(h ^ row.Incarnation)
	h = mix(h ^ uint64(row.Claimed))
	if row.Deleted {
		h = mix(h ^ flagDeleted)
	}
	return mix(fnv64(h, row.Value))
}

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/. All hosts have to compute the same, which maphash does not.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnv64[T string | []byte](h uint64, s T) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// mix spreads bits, so that sums and buckets of hashes are as good as random: the finalizer of splitmix64.
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
