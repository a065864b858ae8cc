package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/hostaddr"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/static"
)

// vxlanDriver is a switch with a gateway on this machine, and a port to VXLAN devices of others at static addresses.
type vxlanDriver struct {
	static *static.Set
	bgp    *routing                  // nil: the daemon speaks to no router
	others func() []*network.Network // all networks of the model
}

// Name implements Driver.
func (vxlanDriver) Name() string { return network.DriverVXLAN }

// Validate implements Driver.
func (d vxlanDriver) Validate(n *network.Network) error {
	if err := n.CheckOptions(); err != nil { // else what is wrong would look as if it were missing
		return err
	}
	s := n.Settings()
	switch {
	case s.VNI == 0:
		return errdefs.Invalid("a vxlan network has a number on the wire: give -o usernet.vni=N, the peers' VNI (or key)")
	case len(s.Peers) == 0 && !s.EVPN:
		return errdefs.Invalid("a vxlan network leads to peers: give -o usernet.peers=ADDRESS[:PORT],..., or " +
			"-o usernet.evpn=true; without any, a bridge network does")
	}
	encap, err := encapOf(s)
	if err != nil {
		return err
	}
	if err := checkPeers(s, portOf(s, encap)); err != nil {
		return err
	}
	if err := d.checkEVPN(s, encap); err != nil {
		return err
	}
	if err = (bridgeDriver{d.bgp}).Validate(n); err != nil {
		return err
	}
	for _, o := range d.others() {
		if o.Driver != n.Driver || o.Name == n.Name { // of one name there is one: the model says so
			continue
		}
		t := o.Settings()
		if e, err := encapOf(t); err != nil || e != encap || portOf(t, e) != portOf(s, encap) {
			continue
		}
		if err := goTogether(s, t, portOf(s, encap)); err != nil {
			return errdefs.Conflict("%w network %s: give another one, or -o usernet.port=", err, o.Name)
		}
	}
	if err := d.static.Probe(encap, portOf(s, encap)); err != nil {
		return errdefs.Unavailable("%w", err)
	}
	return nil
}

// checkPeers refuses a peer that is this host at the network's own port: frames that are sent there come back.
func checkPeers(s network.Settings, port uint16) error {
	own := hostaddr.Watch()
	defer own.Close()
	for _, p := range s.Peers {
		if own.Has(p.Addr()) && cmp.Or(p.Port(), port) == port {
			return errdefs.Invalid("usernet.peers: %s is this host itself: name the others", p.Addr())
		}
	}
	return nil
}

// goTogether says whether two networks can share a port: what comes there is told apart by its number, and a peer by
// its address.
func goTogether(s, t network.Settings, port uint16) error {
	if s.VNI == t.VNI {
		return fmt.Errorf("usernet.vni %d is in use by", s.VNI)
	}
	for _, p := range s.Peers {
		for _, q := range t.Peers {
			if p.Addr() == q.Addr() && cmp.Or(p.Port(), port) != cmp.Or(q.Port(), port) {
				return fmt.Errorf("peer %v has port %d for", p.Addr(), cmp.Or(q.Port(), port))
			}
		}
	}
	return nil
}

// portOf is the UDP port that a network's frames come in at.
func portOf(s network.Settings, e fabric.Encap) uint16 { return cmp.Or(s.Port, e.Port()) }

// encapOf is how a network's frames are carried.
func encapOf(s network.Settings) (fabric.Encap, error) {
	if s.Encap == "" {
		return fabric.VXLAN, nil
	}
	e, err := fabric.ParseEncap(s.Encap)
	if err != nil {
		return 0, errdefs.Invalid("usernet.encap: %w", err)
	}
	return e, nil
}

// Open implements Driver.
func (d vxlanDriver) Open(_ context.Context, n *network.Network, env Env) (*engine.Network, error) {
	s := n.Settings()
	encap, err := encapOf(s)
	if err != nil {
		return nil, err
	}
	cfg, err := engineConfig(n, env)
	if err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		ends := s.Peers
		if s.EVPN && d.bgp != nil { // VTEPs of a fabric have addresses of one family
			ends = append(ends, netip.AddrPortFrom(d.bgp.speaker.Addr(), 0))
		}
		cfg.MTU = static.MTU(ends...)
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	link := static.Config{
		ID: n.ID, Name: n.Name, Encap: encap, Port: portOf(s, encap), VNI: s.VNI, Peers: s.Peers, Subnets: cfg.Subnets,
	}
	for _, p := range n.Pools {
		if p.Gateway.IsValid() {
			link.Gateways = append(link.Gateways, p.Gateway)
		}
	}
	if s.EVPN {
		if link.Follow, err = d.follow(n, s); err != nil {
			_ = e.Close()
			return nil, err
		}
	}
	if err := d.static.Join(link, e); err != nil {
		_ = e.Close()
		return nil, errdefs.Unavailable("%w", err)
	}
	return e, nil
}
