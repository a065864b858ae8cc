package names

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/network"
)

var _ dns.Directory = (*Table)(nil)

// Network is what the table knows of a network.
type Network struct {
	ID       string
	Subnets  []netip.Prefix // the names of their addresses are never asked for outside
	Resolves bool           // its containers find each other by name
}

// Container is a running container.
type Container struct {
	ID        string
	DNS       dns.Client              // how its questions are answered
	Hosts     map[string][]netip.Addr // names that only it sees, in lower case
	Links     []network.Link          // that are in its hosts file
	Endpoints []Endpoint
}

// Endpoint is what a container has on a network.
type Endpoint struct {
	Network  string // id
	Suffix   string // the network's name: each name is also found with it behind a dot
	Names    []string
	Addrs    []netip.Addr
	Services []Service
	Links    []network.Link // aliases that only its own container sees; the targets are names on this network
	Down     bool           // its host is not heard of: its addresses come behind those of others with the same name
}

// Service is a port that a container exposes.
type Service struct {
	Port  uint16
	Proto string
}

// Table is the names of all networks. Its methods may be called by many goroutines at once. Make it with NewTable.
type Table struct {
	mu sync.RWMutex // guards the rest, and all that is in it

	networks   map[string]*segment // by id
	containers map[string]*member  // by id
	linkers    map[string]set      // by a link's target: the containers with it in Container.Links
}

type set map[string]struct{}

// segment is a network and who is on it.
type segment struct {
	Network
	known   bool                 // SetNetwork was called for it
	names   map[string][]*seat   // by name in lower case, also with the suffix
	addrs   map[netip.Addr]*seat // the last that came with an address
	linkers map[*seat]struct{}   // those with links
}

// member is a container in the table.
type member struct {
	Container
	seats []*seat
}

// seat is an endpoint in the table.
type seat struct {
	Endpoint
	container string
	segment   *segment
	links     map[string][]string // targets, by alias, all in lower case; the alias also with the suffix
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{networks: map[string]*segment{}, containers: map[string]*member{}, linkers: map[string]set{}}
}

// full is the name of an endpoint that the names of its addresses lead to.
func (e *Endpoint) full() string {
	if len(e.Names) == 0 {
		return ""
	}
	return e.Names[0] + "." + e.Suffix
}

// spellings are a name as it is found on the endpoint's network: alone and with the suffix.
func (e *Endpoint) spellings(name string) [2]string {
	name = strings.ToLower(name)
	return [2]string{name, name + "." + strings.ToLower(e.Suffix)}
}

// SetNetwork adds a network, or replaces what is known of it. Who is on it stays.
func (t *Table) SetNetwork(n Network) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.segment(n.ID)
	s.Network, s.known = n, true
}

// RemoveNetwork forgets a network.
func (t *Table) RemoveNetwork(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.networks[id]; s != nil {
		s.Network, s.known = Network{ID: id}, false
		t.dropIfEmpty(s)
	}
}

// segment returns a network's, making it where there is none. The caller holds mu.
func (t *Table) segment(id string) *segment {
	s := t.networks[id]
	if s == nil {
		s = &segment{
			Network: Network{ID: id},
			names:   map[string][]*seat{},
			addrs:   map[netip.Addr]*seat{},
			linkers: map[*seat]struct{}{},
		}
		t.networks[id] = s
	}
	return s
}

// dropIfEmpty forgets a network that is not known and that nobody is on. The caller holds mu.
func (t *Table) dropIfEmpty(s *segment) {
	if !s.known && len(s.names) == 0 && len(s.addrs) == 0 && len(s.linkers) == 0 {
		delete(t.networks, s.ID)
	}
}

// SetContainer adds a container, or replaces all that is known of it. It returns the networks that it was on or is on.
func (t *Table) SetContainer(c Container) (touched []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	touched = t.remove(c.ID)
	m := &member{Container: c}
	t.containers[c.ID] = m
	for _, e := range c.Endpoints {
		s := t.segment(e.Network)
		one := &seat{Endpoint: e, container: c.ID, segment: s, links: map[string][]string{}}
		s.add(one)
		m.seats = append(m.seats, one)
		if !slices.Contains(touched, e.Network) {
			touched = append(touched, e.Network)
		}
	}
	for _, l := range c.Links {
		if t.linkers[l.Target] == nil {
			t.linkers[l.Target] = set{}
		}
		t.linkers[l.Target][c.ID] = struct{}{}
	}
	return touched
}

// RemoveContainer forgets a container, and returns the networks that it was on.
func (t *Table) RemoveContainer(id string) (touched []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(id)
}

// remove does so. The caller holds mu.
func (t *Table) remove(id string) (touched []string) {
	m := t.containers[id]
	if m == nil {
		return nil
	}
	delete(t.containers, id)
	for _, one := range m.seats {
		one.segment.remove(one)
		if !slices.Contains(touched, one.Network) {
			touched = append(touched, one.Network)
		}
		t.dropIfEmpty(one.segment)
	}
	for _, l := range m.Links {
		delete(t.linkers[l.Target], id)
		if len(t.linkers[l.Target]) == 0 {
			delete(t.linkers, l.Target)
		}
	}
	return touched
}

func (s *segment) add(one *seat) {
	for _, name := range one.Names {
		for _, spelling := range one.spellings(name) {
			if !slices.Contains(s.names[spelling], one) { // two of its names may differ in case only
				s.names[spelling] = append(s.names[spelling], one)
			}
		}
	}
	for _, a := range one.Addrs {
		s.addrs[a] = one
	}
	for _, l := range one.Links {
		for _, spelling := range one.spellings(l.Alias) {
			one.links[spelling] = append(one.links[spelling], strings.ToLower(l.Target))
		}
		s.linkers[one] = struct{}{}
	}
}

func (s *segment) remove(one *seat) {
	for _, name := range one.Names {
		for _, spelling := range one.spellings(name) {
			rest := slices.DeleteFunc(s.names[spelling], func(o *seat) bool { return o == one })
			if len(rest) == 0 {
				delete(s.names, spelling)
			} else {
				s.names[spelling] = rest
			}
		}
	}
	for _, a := range one.Addrs {
		if s.addrs[a] == one {
			delete(s.addrs, a)
		}
	}
	delete(s.linkers, one)
}
