package engine

import (
	"github.com/usernet/usernet/forwarder"
	vswitch "github.com/usernet/usernet/switch"
)

// Flow is a connection or association through the gateway or past it, and whose it is.
type Flow struct {
	forwarder.Flow
	ID, Name string // of the attachment; "" where it is nobody's any more
}

// Flows lists all flows.
func (n *Network) Flows() []Flow {
	flows := n.fwd.Flows()
	list := make([]Flow, len(flows))
	for i, f := range flows {
		id, name := n.Owner(f.Inside.Addr())
		list[i] = Flow{Flow: f, ID: id, Name: name}
	}
	return list
}

// Release lets go of the TCP connections that bypass the gateway, for another process to carry on, and begins no more flows.
// The descriptors are the caller's. Close the network after it.
func (n *Network) Release() []*forwarder.Carried { return n.fwd.Release() }

// CarryOn takes up a connection that another process has let go of, and owns its descriptors, also where it fails: its
// attachment has to be there.
func (n *Network) CarryOn(c *forwarder.Carried) error {
	if n.byAddr(c.Inside.Addr()) == nil {
		c.Close()
		return ErrNotAttached
	}
	return n.fwd.CarryOn(c)
}

// Stats are a network's counters.
type Stats struct {
	Ports    []vswitch.PortInfo // the switch's ports, with what each dropped and why
	Counters map[string]uint64  // of flows, by what they count
}

// Stats returns the counters as they are now.
func (n *Network) Stats() Stats {
	counters := n.fwd.Counters()
	counters["tcp_attempt_limit"] = n.gw.LimitedSYNs()
	return Stats{Ports: n.sw.Ports(), Counters: counters}
}
