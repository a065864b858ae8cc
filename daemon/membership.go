package daemon

import (
	"context"
	"net/netip"
	"path/filepath"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/libnetwork"
)

// membership is how this host is one of several that have networks in common: in a cluster of usernet's, or beside
// Docker's daemons with a key-value store. Its methods may be called at the same time.
type membership interface {
	network.Allocator
	// Adopt notes an address that an endpoint has from an earlier life, before Start.
	Adopt(network string, a netip.Addr, owner string)
	// Start begins to follow the others, and Close ends that.
	Start()
	Close() error
	// Networks are those that all hosts have. They are the caller's. Synced says that there are no others.
	Networks() []*network.Network
	Synced() bool
	// Validate refuses a network that cannot be one of them.
	Validate(n *network.Network) error
	// CreateNetwork and RemoveNetwork change what all hosts have, or fail with the reason and change nothing.
	CreateNetwork(ctx context.Context, n *network.Network) error
	RemoveNetwork(ctx context.Context, id string) error
	// PutAgain has the others know a network that is in use here and was removed elsewhere.
	PutAgain(n *network.Network) error
	// Pools are subnets that no new network may have.
	Pools() []netip.Prefix
	// DefaultMTU is that of a network's interfaces where none was asked for.
	DefaultMTU(n *network.Network) int
	// Join connects a network that runs here to the other hosts, until it is closed. Unjoin notes that it is.
	Join(n *network.Network, e *engine.Network) error
	Unjoin(id string)
	// LinkDrops are the counts of what a network dropped on the way to and from other hosts, by reason.
	LinkDrops(id string) map[string]uint64
	// SetContainer has the others know a container's endpoints, in the place of what they knew.
	SetContainer(id string, endpoints []overlay.Endpoint)
	// Elsewhere are the endpoints of other hosts on a network.
	Elsewhere(network string) []overlay.Elsewhere
}

var (
	_ membership = (*cluster.Cluster)(nil)
	_ membership = (*libnetwork.Member)(nil)
)

// openMember becomes a member, where the daemon is to be one. Nothing is told to others before startMember.
func (d *Daemon) openMember() (err error) {
	switch {
	case d.cfg.Cluster != nil:
		cfg := *d.cfg.Cluster
		cfg.Dir, cfg.Logger, cfg.Version = filepath.Join(d.cfg.StateDir, "cluster"), d.log, d.cfg.Version
		cfg.Changed = d.membersChanged
		cfg.Event = func(action string, about map[string]string) { d.events.add("cluster", action, "", about) }
		if d.cluster, err = cluster.Open(cfg); err == nil {
			d.member = d.cluster
		}
	case d.cfg.Docker != nil:
		var m *libnetwork.Member
		cfg := *d.cfg.Docker
		cfg.Dir, cfg.Logger, cfg.Changed = filepath.Join(d.cfg.StateDir, "docker-store"), d.log, d.membersChanged
		if m, err = libnetwork.Open(cfg); err == nil {
			d.member = m
		}
	}
	return err
}

// closeMember ends the membership of this life.
func (d *Daemon) closeMember() error {
	if d.member == nil {
		return nil
	}
	return d.member.Close()
}

// adoptAddresses tells the others which addresses endpoints of this host have.
func (d *Daemon) adoptAddresses() {
	if d.member == nil {
		return
	}
	for _, c := range d.model.Containers() {
		for _, e := range c.Endpoints {
			if n := d.networkByID(e.NetworkID); n != nil && n.SpansHosts() {
				for _, a := range endpointAddrs(e) {
					d.member.Adopt(n.ID, a, e.ID)
				}
			}
		}
	}
}

// startMember begins to follow the others, once what ran before is known again.
func (d *Daemon) startMember() {
	if d.member == nil {
		return
	}
	d.importNetworks(false)
	for _, n := range d.model.Networks() {
		d.nameElsewhere(n.ID)
	}
	d.member.Start()
	d.runExposing()
}
