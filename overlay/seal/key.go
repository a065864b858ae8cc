package seal

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/usernet/usernet/overlay"
)

// PrivateKey is a WireGuard private key: a Curve25519 scalar. The zero value is none.
type PrivateKey [32]byte

// keyFile is the private key's file, in base64, as wg(8) writes it.
const keyFile = "overlay.key"

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

// LoadKey reads the key in a directory, or makes it where there is none: a file that its owner alone may read.
func LoadKey(dir string) (PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	k, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k = NewKey()
	f, err := os.CreateTemp(dir, keyFile+".*") // 0600
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make this host's key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(k[:]) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return PrivateKey{}, fmt.Errorf("make this host's key: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil { // fails where another process was first
		if errors.Is(err, fs.ErrExist) {
			return readKey(path)
		}
		return PrivateKey{}, fmt.Errorf("make this host's key: %w", err)
	}
	return k, nil
}

func readKey(path string) (PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read this host's key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read this host's key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return PrivateKey{}, fmt.Errorf(
			"the key %s may be read by others (%v): chmod 600 it, or remove it for a new one",
			path,
			st.Mode().Perm(),
		)
	}
	var text [64]byte
	n, err := f.Read(text[:])
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read the key %s: %w", path, err)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text[:n])))
	if err != nil || len(b) != len(PrivateKey{}) {
		return PrivateKey{}, fmt.Errorf("the key %s is not 32 bytes in base64: remove it for a new one", path)
	}
	return PrivateKey(b), nil
}

// Addr is the address of a host inside the tunnel: a unique local one (RFC 4193) that follows from its public key.
func Addr(k overlay.Key) netip.Addr {
	sum := sha256.Sum256(append([]byte("usernet overlay address\x00"), k[:]...))
	a := [16]byte(sum[:16])
	a[0] = 0xfd
	return netip.AddrFrom16(a)
}
