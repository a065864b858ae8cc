package seal

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"

	"github.com/usernet/usernet/overlay"
)

// PrivateKey is a WireGuard private key: a Curve25519 scalar. The zero value is none.
type PrivateKey [32]byte

// NewKey draws a key.
func NewKey() PrivateKey {
	var k PrivateKey
	_, _ = rand.Read(k[:]) // crypto/rand does not fail (Go 1.24)
	k[0] &= 248            // RFC 7748, section 5
	k[31] = k[31]&127 | 64
	return k
}

// Public is the key's public part.
func (k PrivateKey) Public() overlay.Key {
	p, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil { // the length alone is checked
		return overlay.Key{}
	}
	return overlay.Key(p.PublicKey().Bytes())
}

// Addr is the address of a host inside the tunnel: a unique local one (RFC 4193) that follows from its public key.
func Addr(k overlay.Key) netip.Addr {
	sum := sha256.Sum256(append([]byte("usernet overlay address\x00"), k[:]...))
	a := [16]byte(sum[:16])
	a[0] = 0xfd
	return netip.AddrFrom16(a)
}
