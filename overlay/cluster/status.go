package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/table"
)

// Status is how a cluster is, as this host sees it.
type Status struct {
	Identity Identity
	Table    table.Status
	// Skew is how much this host's clock is ahead of those of the hosts that answer: the median.
	Skew   time.Duration
	Notes  []string
	Drops  map[string]uint64 // datagrams that belong to no network or host, by reason
	Hosts  []HostStatus
	Routes []RouteStatus
}

// HostStatus is a host in it. The fields mean what they mean in package api's ClusterHost.
type HostStatus struct {
	ID          string
	Name        string
	Addrs       []string
	Self        bool
	State       string
	Since       time.Time
	Path        string
	Via         string
	PathMTU     int
	RTT         time.Duration
	Answers     bool
	BytesIn     uint64
	BytesOut    uint64
	FramesIn    uint64
	FramesOut   uint64
	RateIn      float64
	RateOut     float64
	Endpoints   int
	Version     string
	PublicKey   string
	KeyRefused  bool
	Incarnation uint64
}

// States of a host.
const (
	stateUp      = "up"
	stateDown    = "down"
	stateUnknown = "unknown"
)

// Status describes the cluster.
func (c *Cluster) Status() Status {
	c.mu.Lock()
	t, f, id := c.mu.table, c.mu.fabric, c.mu.id
	refused := maps.Clone(c.mu.refused)
	rates := map[overlay.HostID]rate{}
	for h, r := range c.mu.rates {
		rates[h] = *r
	}
	c.mu.Unlock()
	s := Status{Identity: id, Table: t.Status(), Drops: map[string]uint64{}}
	for reason, n := range f.Drops() {
		s.Drops[fmt.Sprint(reason)] = n
	}
	s.Notes = append(s.Notes, s.Table.Notes...)
	for key, err := range t.Refused() {
		s.Notes = append(s.Notes, fmt.Sprintf("record %.120q makes no sense and is not used: %v", key, err))
	}
	for key, row := range t.Lost() {
		s.Notes = append(s.Notes, fmt.Sprintf("%s was claimed by host %s before this one", key, c.hostName(row.Owner)))
	}
	peers := map[overlay.HostID]fabric.PeerState{}
	for _, p := range f.Peers() {
		peers[p.Host] = p
	}
	s.compareClocks(peers, c.hostName)
	slices.Sort(s.Notes)
	s.Routes = c.routes()
	endpoints := map[overlay.HostID]int{}
	for _, n := range t.Networks() {
		for _, e := range t.Endpoints(n.ID) {
			endpoints[e.Host]++
		}
	}
	for _, h := range t.Hosts() {
		one := HostStatus{
			ID:          string(h.ID),
			Name:        h.Name,
			Self:        h.ID == id.ID,
			Since:       h.Down,
			Endpoints:   endpoints[h.ID],
			Version:     h.Version,
			PublicKey:   h.Key.String(),
			Incarnation: h.Incarnation,
			State:       stateUnknown,
		}
		for _, a := range h.Addrs {
			one.Addrs = append(one.Addrs, a.String())
		}
		switch {
		case h.Alive || one.Self:
			one.State = stateUp
		case !h.Down.IsZero():
			one.State = stateDown
		}
		one.KeyRefused = refused[h.ID]
		one.RateIn, one.RateOut = rates[h.ID].perIn, rates[h.ID].perOut
		one.describe(peers[h.ID])
		s.Hosts = append(s.Hosts, one)
	}
	return s
}

// clockTolerance is by how much clocks may differ without a word. Hosts that keep their time by NTP are within it even
// where answers are late on busy machines.
const clockTolerance = 5 * time.Second

// compareClocks says whose clock differs. Claims that were made apart are decided by clocks (table.Older).
func (s *Status) compareClocks(peers map[overlay.HostID]fabric.PeerState, name func(overlay.HostID) string) {
	var ahead []time.Duration
	for id, p := range peers {
		if id == "" || !p.Alive {
			continue
		}
		ahead = append(ahead, p.Ahead)
		if d := p.Ahead.Abs().Round(time.Second); d >= clockTolerance {
			which := "ahead of"
			if p.Ahead > 0 {
				which = "behind"
			}
			s.Notes = append(s.Notes, fmt.Sprintf("the clock of host %s is %v %s this host's: set them by NTP",
				name(id), d, which))
		}
	}
	if len(ahead) > 0 {
		slices.Sort(ahead)
		s.Skew = ahead[len(ahead)/2].Round(time.Millisecond)
	}
}

// describe adds what the fabric knows of the host.
func (h *HostStatus) describe(p fabric.PeerState) {
	if p.Host == "" || h.Self {
		return
	}
	h.BytesIn, h.BytesOut = p.BytesIn, p.BytesOut
	h.FramesIn, h.FramesOut = p.FramesIn, p.FramesOut
	h.PathMTU, h.RTT, h.Answers = p.PathMTU, p.RTT, p.Alive
	switch {
	case p.Path == fabric.Relayed:
		h.Path, h.Via = p.Path.String(), p.Relay.Short()
	case p.Addr.IsValid():
		h.Path, h.Via = p.Path.String(), p.Addr.String()
	}
}

// Leave takes the records of a host out of the cluster: of this one ("") for good, until its daemon starts again; of
// another one that is not heard of before its records expire. What this host remembers of the other's key is forgotten:
// that is all where the key was refused of a host that is heard of, or another host has called Leave already.
func (c *Cluster) Leave(ctx context.Context, host string, force bool) error {
	t, self := c.Table(), c.Identity().ID
	if host == "" {
		host = string(self)
	}
	var found []table.HostView
	for _, h := range t.Hosts() {
		if string(h.ID) == host || h.Name == host ||
			len(host) >= 4 && len(host) < len(h.ID) && string(h.ID[:len(host)]) == host {
			found = append(found, h)
		}
	}
	pinned := c.pins.Find(host)
	switch {
	case len(found) == 0 && len(pinned) == 1:
		return c.forget(pinned[0])
	case len(found) == 0 && len(pinned) == 0:
		return errdefs.NotFound("host %s is not in the cluster", host)
	case len(found) != 1:
		return errdefs.Invalid(
			"%d hosts of the cluster are called %s: give an id (usernet cluster ls)",
			max(len(found), len(pinned)),
			host,
		)
	}
	h := found[0]
	c.mu.Lock()
	containers, refused := len(c.mu.own), c.mu.refused[h.ID]
	c.mu.Unlock()
	switch {
	case h.ID != self && h.Alive && refused:
		return c.forget(h.ID)
	case h.ID == self && containers > 0 && !force:
		return errdefs.Conflict(
			"containers of this host (%d) are on networks that span hosts: disconnect them, or give --force",
			containers,
		)
	case h.ID != self && h.Alive && !force:
		return errdefs.Conflict(
			"host %s is heard of: call leave there, or give --force, and it comes back when it is heard of again",
			h.Name,
		)
	}
	if h.ID == self {
		c.mu.Lock()
		c.mu.left = true
		c.mu.Unlock()
	}
	if err := t.Expel(ctx, h.ID); err != nil || h.ID == self {
		return err
	}
	return c.forget(h.ID)
}

// forget lets a host come with another key, now or later.
func (c *Cluster) forget(host overlay.HostID) error {
	if err := c.pins.Forget(host); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.mu.refused, host)
	c.mu.Unlock()
	c.Table().TellHosts()
	return nil
}
