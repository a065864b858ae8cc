package overlay

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// HostID tells one host from all others: 32 lower-case hexadecimal digits. A host is one daemon of one user; it draws
// its id at the first start and has it for as long as its state directory exists.
type HostID string

// hostIDLen is the length of an id in digits: 128 random bits.
const hostIDLen = 32

// NewHostID draws an id.
func NewHostID() HostID {
	var b [hostIDLen / 2]byte
	_, _ = rand.Read(b[:]) // crypto/rand does not fail (Go 1.24)
	return HostID(hex.EncodeToString(b[:]))
}

// ParseHostID reads an id.
func ParseHostID(s string) (HostID, error) {
	if !isHex(s, hostIDLen) {
		return "", fmt.Errorf("host id %.40q: it has to be %d lower-case hexadecimal digits", s, hostIDLen)
	}
	return HostID(s), nil
}

// Short is the beginning of an id, for people.
func (h HostID) Short() string { return string(h[:min(len(h), 12)]) }

// isHex says whether s is n lower-case hexadecimal digits.
func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
