package flannel

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/usernet/usernet/overlay"
)

// state is what a node knows after a restart without the store.
type state struct {
	MAC    overlay.MAC     `json:"vtep_mac"` // of this host's VTEP, for as long as the state exists
	Config json.RawMessage `json:"config,omitempty"`
	Subnet netip.Prefix    `json:"subnet,omitzero"` // that this host has or had
	Public netip.Addr      `json:"public,omitzero"` // under which it had it
	Nodes  []stateNode     `json:"nodes,omitempty"` // the others
}

// stateNode is another node.
type stateNode struct {
	Subnet netip.Prefix `json:"subnet"`
	Public netip.Addr   `json:"public"`
	MAC    overlay.MAC  `json:"vtep_mac,omitzero"`
}

func statePath(dir string) string { return filepath.Join(dir, "state.json") }

// loadState reads the state, or begins one.
func loadState(dir string) (state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state{}, err
	}
	text, err := os.ReadFile(statePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		s := state{MAC: newMAC()}
		return s, s.save(dir)
	}
	if err != nil {
		return state{}, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return state{}, fmt.Errorf("%s cannot be read: %w; remove it, and this host takes another lease",
			statePath(dir), err)
	}
	if s.MAC == (overlay.MAC{}) || s.MAC[0]&1 != 0 {
		s.MAC = newMAC()
	}
	return s, nil
}

// newMAC draws a MAC that is locally administered and of a single station.
func newMAC() (m overlay.MAC) {
	_, _ = rand.Read(m[:]) // it does not fail (Go 1.24)
	m[0] = m[0]&^1 | 2
	return m
}

// save writes the file anew: all of it or nothing.
func (s state) save(dir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return overlay.ReplaceFile(statePath(dir), text)
}
