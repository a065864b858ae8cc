package libnetwork

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/usernet/usernet/overlay"
)

// leases are the addresses that this host has taken in Docker's bitmaps, which do not say who has one. They are in a
// file, so that those of endpoints that are gone after a crash are given back.
type leases struct {
	path string
	host string // this host's id, for as long as the file exists

	mu struct {
		sync.Mutex
		taken map[place]*lease
	}
}

// place is an address of a network.
type place struct {
	network string // id
	addr    netip.Addr
}

// lease is what is known of a taken address.
type lease struct {
	owner   string // the endpoint's id
	subnet  netip.Prefix
	adopted bool // the endpoint is there in this life
	leaving bool // the address is to be given back
}

// leasesFile is the file's content.
type leasesFile struct {
	Host   overlay.HostID `json:"host"`
	Leases []leaseRecord  `json:"leases"`
}

type leaseRecord struct {
	Network string       `json:"network"`
	Addr    netip.Addr   `json:"addr"`
	Subnet  netip.Prefix `json:"subnet"`
	Owner   string       `json:"owner"`
}

// openLeases reads the file, or begins one.
func openLeases(dir string) (*leases, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &leases{path: filepath.Join(dir, "leases.json")}
	l.mu.taken = map[place]*lease{}
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		l.host = string(overlay.NewHostID())
		return l, l.save()
	}
	if err != nil {
		return nil, err
	}
	var f leasesFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", l.path, err)
	}
	if _, err := overlay.ParseHostID(string(f.Host)); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", l.path, err)
	}
	l.host = string(f.Host)
	for _, r := range f.Leases {
		l.mu.taken[place{r.Network, r.Addr}] = &lease{owner: r.Owner, subnet: r.Subnet}
	}
	return l, nil
}

// save writes the file. The caller holds mu, or is the only one.
func (l *leases) save() error {
	f := leasesFile{Host: overlay.HostID(l.host), Leases: []leaseRecord{}}
	for p, t := range l.mu.taken {
		f.Leases = append(f.Leases, leaseRecord{p.network, p.addr, t.subnet, t.owner})
	}
	text, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return err
	}
	return overlay.ReplaceFile(l.path, text)
}

// add notes an address that was taken.
func (l *leases) add(p place, subnet netip.Prefix, owner string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.taken[p] = &lease{owner: owner, subnet: subnet, adopted: true}
	return l.save()
}

// remove forgets one that was given back.
func (l *leases) remove(p place) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mu.taken, p)
	return l.save()
}

// of is the address that an endpoint has of a subnet.
func (l *leases) of(network, owner string, subnet netip.Prefix) (netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, t := range l.mu.taken {
		if p.network == network && t.owner == owner && subnet.Contains(p.addr) && !t.leaving {
			return p.addr, true
		}
	}
	return netip.Addr{}, false
}

// adopt notes that an endpoint is there that took an address in an earlier life.
func (l *leases) adopt(p place, owner string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.mu.taken[p]; t != nil && t.owner == owner {
		t.adopted = true
	}
}

// release has an address given back, if the endpoint has it.
func (l *leases) release(p place, owner string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.mu.taken[p]
	if t == nil || t.owner != owner {
		return false
	}
	t.leaving = true
	return true
}

// abandon has those given back whose endpoints are gone.
func (l *leases) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.mu.taken {
		t.leaving = t.leaving || !t.adopted
	}
}

// leaving are the addresses that are to be given back.
func (l *leases) leaving() map[place]lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := map[place]lease{}
	for p, t := range l.mu.taken {
		if t.leaving {
			list[p] = *t
		}
	}
	return list
}

// on are the addresses that this host has on a network.
func (l *leases) on(network string) (list []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.mu.taken {
		if p.network == network {
			list = append(list, p.addr)
		}
	}
	return list
}

// forgetNetworks forgets the addresses of networks that are gone: their bitmaps went with them.
func (l *leases) forgetNetworks(there func(id string) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.mu.taken)
	maps.DeleteFunc(l.mu.taken, func(p place, t *lease) bool { return t.leaving && !there(p.network) })
	if len(l.mu.taken) == before {
		return nil
	}
	return l.save()
}
