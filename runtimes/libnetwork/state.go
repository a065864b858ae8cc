package libnetwork

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// state is what a plugin that is started again has to know. It is a small file, written anew with each change.
type state struct {
	path string

	sync.Mutex // guards the maps, and is held while the file is written
	content
}

type content struct {
	// Networks are the daemon's networks, by the ids of Docker's.
	Networks map[string]netRef `json:"networks"`
	// Pools are the daemon's networks, by their subnets: Docker asks for a pool before it makes a network of it.
	Pools map[string]poolRef `json:"pools"`
	// Docker is the dockerd that has called last: its pid, and when it started.
	Docker string `json:"docker,omitempty"`
}

// netRef is one of the daemon's networks.
type netRef struct {
	ID  string `json:"id"`
	Own bool   `json:"own,omitempty"` // made for Docker's network, and removed with it
}

// poolRef is a subnet that Docker uses.
type poolRef struct {
	netRef
	Uses int `json:"uses"` // how many of Docker's pools it is
	// Range is where addresses are chosen from; "": anywhere.
	Range string `json:"range,omitempty"`
}

// openState reads the file at path, which need not be there.
func openState(path string) (*state, error) {
	s := &state{path: path, content: content{Networks: map[string]netRef{}, Pools: map[string]poolRef{}}}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.content)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says what networks Docker has: %w", path, err)
	}
	if s.Networks == nil {
		s.Networks = map[string]netRef{}
	}
	if s.Pools == nil {
		s.Pools = map[string]poolRef{}
	}
	return s, nil
}

// save writes the file. The caller holds the lock.
func (s *state) save() error {
	text, err := json.MarshalIndent(s.content, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	next := s.path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, s.path)
}

// change applies f to the content and stores it: both or neither.
func (s *state) change(f func(*content)) error {
	s.Lock()
	defer s.Unlock()
	before := s.clone()
	f(&s.content)
	if err := s.save(); err != nil {
		s.content = before
		return err
	}
	return nil
}

func (s *state) clone() content {
	return content{maps.Clone(s.Networks), maps.Clone(s.Pools), s.Docker}
}

// copy is what there is now.
func (s *state) copy() content {
	s.Lock()
	defer s.Unlock()
	return s.clone()
}

func (s *state) network(id string) (netRef, bool) {
	s.Lock()
	defer s.Unlock()
	n, ok := s.Networks[id]
	return n, ok
}

func (s *state) pool(subnet string) (poolRef, bool) {
	s.Lock()
	defer s.Unlock()
	p, ok := s.Pools[subnet]
	return p, ok
}
