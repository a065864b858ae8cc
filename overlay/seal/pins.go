package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/usernet/usernet/overlay"
)

// Pins remembers the key of each host from when it was first seen. Its methods may be called by many goroutines at
// once.
type Pins struct {
	path string // "": nothing is written

	mu   sync.Mutex // guards keys, and the file
	keys map[overlay.HostID]overlay.Key
}

const (
	pinFile  = "overlay-peers.json"
	maxPins  = 1 << 14 // hosts that have ever been seen
	pinBytes = 2 << 20 // of the file; one pin has 85
)

// ChangedKeyError says that a host comes with another key than it had.
type ChangedKeyError struct {
	Host     overlay.HostID
	Had, Has overlay.Key
}

// Error implements error.
func (e *ChangedKeyError) Error() string {
	return fmt.Sprintf("host %s comes with the key %v and had %v: it is refused", e.Host.Short(), e.Has, e.Had)
}

// LoadPins reads the pins in a directory. An empty name is for pins that do not last.
func LoadPins(dir string) (*Pins, error) {
	p := &Pins{keys: map[overlay.HostID]overlay.Key{}}
	if dir == "" {
		return p, nil
	}
	p.path = filepath.Join(dir, pinFile)
	f, err := os.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of other hosts: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, pinBytes)).Decode(&p.keys); err != nil {
		return nil, fmt.Errorf("read the keys of other hosts in %s: %w", p.path, err)
	}
	return p, nil
}

// Check says whether hosts come with the keys they had, and remembers those of new ones. It returns the hosts whose
// keys count, and an error for each other: a *ChangedKeyError, or that the pins could not be written.
func (p *Pins) Check(keys map[overlay.HostID]overlay.Key) (good map[overlay.HostID]overlay.Key, errs []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	good = map[overlay.HostID]overlay.Key{}
	next := maps.Clone(p.keys)
	for h, k := range keys {
		had, ok := p.keys[h]
		switch {
		case k == overlay.Key{}:
			continue
		case ok && had != k:
			errs = append(errs, &ChangedKeyError{Host: h, Had: had, Has: k})
			continue
		case !ok && len(next) >= maxPins:
			errs = append(
				errs,
				fmt.Errorf("host %s: %d hosts have been seen, and no more are remembered", h.Short(), maxPins),
			)
			continue
		}
		next[h] = k
		good[h] = k
	}
	if len(next) == len(p.keys) {
		return good, errs
	}
	if err := p.write(next); err != nil {
		for h := range good { // what cannot be remembered does not count
			if _, ok := p.keys[h]; !ok {
				delete(good, h)
			}
		}
		return good, append(errs, err)
	}
	p.keys = next
	return good, errs
}

// Find returns the hosts that are remembered whose id is this, or begins with it where it has four digits or more.
func (p *Pins) Find(id string) []overlay.HostID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []overlay.HostID
	for h := range p.keys {
		if string(h) == id || len(id) >= 4 && strings.HasPrefix(string(h), id) {
			found = append(found, h)
		}
	}
	return found
}

// Forget lets a host come with another key.
func (p *Pins) Forget(h overlay.HostID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(p.keys)
	delete(next, h)
	if err := p.write(next); err != nil {
		return err
	}
	p.keys = next
	return nil
}

// write replaces the file. The caller holds mu.
func (p *Pins) write(keys map[overlay.HostID]overlay.Key) error {
	if p.path == "" {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("write the keys of other hosts: %w", err) }
	b, err := json.Marshal(keys)
	if err != nil {
		return fail(err)
	}
	if err := overlay.ReplaceFile(p.path, b); err != nil {
		return fail(err)
	}
	return nil
}
