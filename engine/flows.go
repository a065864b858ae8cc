package engine

import (
	"net/netip"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/internal/openmetrics"
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

// DetachFlows detaches the TCP connections that bypass the gateway, for another process to resume, and begins no more
// flows. The descriptors are the caller's. Close the network after it.
func (n *Network) DetachFlows() []*forwarder.State { return n.fwd.DetachFlows() }

// ResumeFlow takes up a connection that another process has detached, and owns its descriptors, also where it fails:
// its attachment has to be there.
func (n *Network) ResumeFlow(st *forwarder.State) error {
	if n.byAddr(st.Inside.Addr()) == nil {
		st.Close()
		return ErrNotAttached
	}
	return n.fwd.ResumeFlow(st)
}

// CloseFlows ends the flows of a protocol between two ends, with an invalid outside all of the inside one, and says how
// many there were.
func (n *Network) CloseFlows(proto string, inside, outside netip.AddrPort) int {
	return n.fwd.CloseFlows(proto, inside, outside)
}

// Counts are those of the attachment's switch port: in is what it sends.
func (a *Attachment) Counts() vswitch.Stats { return a.port.Stats() }

// Dials are how long destinations outside took to answer connections, by result.
func (n *Network) Dials() map[string]*openmetrics.Histogram { return n.fwd.Dials() }

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
