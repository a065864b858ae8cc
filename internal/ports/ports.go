// Package ports has the one form of published ports that all of the program speaks of: what is asked for, a [Binding],
// and what is bound, a [Bound].
//
// The model stores bindings, the API carries both, and package forwarder/publish makes one of the other. The package
// parses and checks nothing.
package ports

import "net/netip"

// Protocol is a transport that a port can be published for: "tcp", "udp" or "sctp".
type Protocol string

// The transports.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// Port is a container's port.
type Port struct {
	Port  uint16   `json:"port"`
	Proto Protocol `json:"proto"`
}

// Binding publishes one container port, or an equally long range of them, on the host.
type Binding struct {
	HostIP         netip.Addr `json:"host_ip,omitzero"` // zero: every address of both families
	HostPort       uint16     `json:"host_port"`        // 0: a free one is chosen
	HostEnd        uint16     `json:"host_end"`         // last port of the host's range; HostPort where there is none
	Port           uint16     `json:"port"`
	End            uint16     `json:"end"` // last port of the container's range; Port where there is none
	Proto          Protocol   `json:"proto"`
	FromPublishAll bool       `json:"from_publish_all,omitempty"`
	// Interface limits the ports to what comes by this interface of the host; "": they are not.
	Interface string `json:"-"`
	// FreeBind lets HostIP be an address that the host does not have yet.
	FreeBind bool `json:"-"`
}

// Count is how many container ports the binding publishes.
func (b Binding) Count() int { return int(max(b.End, b.Port)-b.Port) + 1 }

// HostCount is how many host ports there are to choose from.
func (b Binding) HostCount() int { return int(max(b.HostEnd, b.HostPort)-b.HostPort) + 1 }

// Covers says whether the binding publishes a container's port.
func (b Binding) Covers(p Port) bool {
	return b.Proto == p.Proto && b.Port <= p.Port && p.Port <= max(b.Port, b.End)
}

// Bound is one published port as it is bound.
type Bound struct {
	Host  netip.AddrPort `json:"host"`
	Port  uint16         `json:"port"`
	Proto Protocol       `json:"proto"`
	// Interface is the one that the port is limited to; "": it is not.
	Interface string `json:"-"`
}

// Bound is a binding of a single port as it is bound: what [Bound.Binding] was made of.
func (b Binding) Bound() Bound {
	return Bound{Host: netip.AddrPortFrom(b.HostIP, b.HostPort), Port: b.Port, Proto: b.Proto, Interface: b.Interface}
}

// Binding asks for the port again, at the same place.
func (b Bound) Binding() Binding {
	return Binding{
		HostIP:    b.Host.Addr(),
		HostPort:  b.Host.Port(),
		HostEnd:   b.Host.Port(),
		Port:      b.Port,
		End:       b.Port,
		Proto:     b.Proto,
		Interface: b.Interface,
	}
}
