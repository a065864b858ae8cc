package forwarder

import (
	"net/netip"
	"time"

	"github.com/usernet/usernet/forwarder/mapping"
)

// Flow is one live connection or association. Bytes and packets "in" are those towards the container.
type Flow struct {
	Proto     string         // tcp, udp or icmp
	Direction string         // who began: out (the container) or in
	State     string         // of TCP: opening, established, closing; of others: mapped
	Inside    netip.AddrPort // the container's end; for icmp the port is the identifier
	Outside   netip.AddrPort // the other end as the container sees it; of an association, its last
	HostSide  netip.AddrPort // the host's own address and port
	Path      string         // one of the paths

	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64 // not counted for TCP
	PacketsLost           uint64 // of an association: those for the container lost at its socket, at least
	Created               time.Time
}

// The paths of flows.
const (
	PathGateway = "gateway"
	PathBypass  = "bypass"  // from a socket of the container's namespace to one of the host's
	PathSockets = "sockets" // the same, to a container of another host
)

// Flows lists what is live.
func (f *Forwarder) Flows() []Flow {
	f.mu.Lock() // for no longer than a copy takes
	flows := f.flows.all()
	f.mu.Unlock()
	udp, inbound, echo := f.udp.All(), f.inbound.All(), f.echo.All()
	list := make([]Flow, 0, len(flows)+len(udp)+len(inbound)+len(echo))
	for _, fl := range flows {
		list = append(list, fl.list())
	}
	for _, a := range udp {
		list = append(list, a.list())
	}
	for _, in := range inbound {
		list = append(list, in.list())
	}
	for _, s := range echo {
		list = append(list, s.list())
	}
	return list
}

// mapped begins the Flow of a mapping.
func mapped(m *mapping.Mapping, proto, direction string) Flow {
	return Flow{
		Proto:      proto,
		Direction:  direction,
		State:      "mapped",
		Path:       "gateway",
		BytesIn:    m.BytesIn.Load(),
		BytesOut:   m.BytesOut.Load(),
		PacketsIn:  m.PacketsIn.Load(),
		PacketsOut: m.PacketsOut.Load(),
		Created:    m.Created(),
	}
}

func (a *association) list() Flow {
	l := mapped(a.Base(), "udp", "out")
	l.Inside, l.HostSide, l.PacketsLost = a.inside, a.hostSide, a.lost.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	l.Outside = a.outside
	return l
}

func (in *inboundUDP) list() Flow {
	l := mapped(in.Base(), "udp", "in")
	l.Inside, l.Outside, l.HostSide = in.key.inside, in.client.from, in.client.port.Bound().Host
	if in.client.local.IsValid() {
		l.HostSide = netip.AddrPortFrom(in.client.local.Unmap(), l.HostSide.Port())
	}
	return l
}

func (s *pinger) list() Flow {
	l := mapped(s.Base(), "icmp", "out")
	l.Inside = netip.AddrPortFrom(s.key.src, s.key.id)
	return l
}
