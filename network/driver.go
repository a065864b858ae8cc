package network

import (
	"iter"
	"net/netip"
	"slices"
)

// Driver is a kind of networks, as far as the model has to know it. What makes them run is the daemon's.
//
// Drivers lists all of them: one more is one more line there, since nothing else compares drivers' names.
type Driver struct {
	Name string
	// Scope is how far its networks reach.
	Scope Scope
	// Predefined is the network of this driver that always exists; "": there is none.
	Predefined string
	// Single: there is no other network of it than the predefined one.
	Single bool
	// Interfaces: its endpoints are interfaces, with addresses of the network's subnets. Only such networks go
	// together.
	Interfaces bool
	// HostNamespace: its endpoints are the host's own network namespace.
	HostNamespace bool
	// RangeOnly: addresses of a pool outside its range are other hosts', and no endpoint here can have one.
	RangeOnly bool
	// Direct: its endpoints are stations of a physical network, which they reach without the gateway. That of the
	// network stands for the host alone, at addresses of its own (Network.HostAddrs).
	Direct bool
	// Outside: its endpoints reach stations of other machines without the gateway.
	Outside bool
	// Options are those that its networks can have.
	Options []Option
	// pools are the subnets that its networks are given where none is asked for, in order; nil means Docker's.
	pools iter.Seq[netip.Prefix]
}

// Scope is how far a network reaches.
type Scope string

// The scopes, in Docker's words.
const (
	ScopeLocal  Scope = "local"  // this machine
	ScopeGlobal Scope = "global" // all machines of a cluster
)

// Drivers are all drivers; the first is that of networks for which none is given.
var Drivers = []Driver{
	{Name: DriverBridge, Scope: ScopeLocal, Predefined: BridgeName, Interfaces: true, Options: NetworkOptions},
	{Name: DriverHost, Scope: ScopeLocal, Predefined: HostName, Single: true, HostNamespace: true},
	{Name: DriverNull, Scope: ScopeLocal, Predefined: NoneName, Single: true},
	{
		Name:       DriverOverlay,
		Scope:      ScopeGlobal,
		Interfaces: true,
		Outside:    true,
		Options:    OverlayOptions,
		pools:      overlayPools,
	},
	{Name: DriverVXLAN, Scope: ScopeLocal, Interfaces: true, Outside: true, Options: VXLANOptions},
	{
		Name:       DriverFlannel,
		Scope:      ScopeLocal,
		Interfaces: true,
		Outside:    true,
		RangeOnly:  true,
		Options:    FlannelOptions,
	},
	{Name: DriverMacvlan, Scope: ScopeLocal, Interfaces: true, Outside: true, Direct: true, Options: MacvlanOptions},
}

// DriverOf returns the driver with a name. Docker's clients call that of the network "none" by this name too.
func DriverOf(name string) (Driver, bool) {
	if name == NoneName {
		name = DriverNull
	}
	i := slices.IndexFunc(Drivers, func(d Driver) bool { return d.Name == name })
	if i < 0 {
		return Driver{}, false
	}
	return Drivers[i], true
}

// driver is the network's; the zero one where the network is gone.
func (n *Network) driver() Driver {
	d, _ := DriverOf(n.Driver)
	return d
}

// HasInterfaces says whether endpoints of the network are interfaces with addresses.
func (n *Network) HasInterfaces() bool { return n.driver().Interfaces }

// IsDirect says whether endpoints of the network are stations of a physical network.
func (n *Network) IsDirect() bool { return n.driver().Direct }

// SpansHosts says whether the network is one of all machines of a cluster.
func (n *Network) SpansHosts() bool { return n.driver().Scope == ScopeGlobal }

// TCPStaysLocal says whether what TCP connections of its endpoints send goes no further than this machine, up to the
// gateway, a neighbour or a socket that carries it on.
func (n *Network) TCPStaysLocal() bool {
	s := n.Settings()
	return (!n.driver().Outside || s.TCP == TCPSockets) && s.BGP == ""
}

// HasPeers says whether the network leads to devices of others, which have stations that the model does not know.
func (n *Network) HasPeers() bool {
	s := n.Settings()
	return len(s.Peers) > 0 || s.EVPN
}

// IsHost says whether the network is the host's own network namespace.
func (n *Network) IsHost() bool { return n.driver().HostNamespace }

// IsPredefined says whether the network always exists.
func (n *Network) IsPredefined() bool { return n.driver().Predefined == n.Name }
