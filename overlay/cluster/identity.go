package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// Identity is who a host is, for as long as its state directory exists.
type Identity struct {
	ID overlay.HostID `json:"id"`
	// PrivateKey is the WireGuard private key.
	PrivateKey overlay.Key `json:"private_key"`
	// Incarnation is that of the life that began last.
	Incarnation uint64 `json:"incarnation"`
	// Port is the UDP port of the fabric, so that others find this host again after a restart; 0: none yet.
	Port uint16 `json:"port,omitempty"`
}

// newIdentity draws an id and a key.
func newIdentity() Identity {
	return Identity{ID: overlay.NewHostID(), PrivateKey: overlay.Key(seal.NewKey())}
}

// PublicKey is what other hosts know.
func (i Identity) PublicKey() overlay.Key {
	return seal.PrivateKey(i.PrivateKey).Public()
}

// identityPath is the file of a state directory.
func identityPath(dir string) string { return filepath.Join(dir, "identity.json") }

// loadIdentity reads who this host is, or draws it, and begins a new life.
func loadIdentity(dir string, now time.Time) (Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Identity{}, err
	}
	path := identityPath(dir)
	text, err := os.ReadFile(path)
	var id Identity
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id = newIdentity()
	case err != nil:
		return Identity{}, err
	default:
		if err := json.Unmarshal(text, &id); err != nil {
			return Identity{}, fmt.Errorf(
				"%s cannot be read: %w; remove it, and this host becomes another one",
				path,
				err,
			)
		}
		if _, err := overlay.ParseHostID(string(id.ID)); err != nil {
			return Identity{}, fmt.Errorf("%s: %w; remove it, and this host becomes another one", path, err)
		}
	}
	// Milliseconds since 1970, so that lives of a copied state directory are in the order of their starts; one more
	// than the last where the clock went back.
	id.Incarnation = max(id.Incarnation+1, uint64(now.UnixMilli()))
	return id, id.save(dir)
}

// save writes the file anew: all of it or nothing.
func (i Identity) save(dir string) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return overlay.ReplaceFile(identityPath(dir), text)
}
