package forwarder

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Flow is one live connection or association. Bytes and packets "in" are those towards the container.
type Flow struct {
	Proto     string         // tcp, udp or icmp
	Direction string         // who began: out (the container) or in
	State     string         // of TCP: opening, established, closing; of others: mapped
	Inside    netip.AddrPort // the container's end; for icmp the port is the identifier
	Outside   netip.AddrPort // the other end as the container sees it; of an association, its last
	HostSide  netip.AddrPort // the host's own address and port
	Path      string         // gateway, or bypass where the kernel splices

	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64 // not counted for TCP
	Created               time.Time
}

// Flows lists what is live.
func (f *Forwarder) Flows() []Flow {
	f.mu.Lock() // for no longer than a copy takes: each packet of the network may need it
	flows, udp := slices.Collect(maps.Keys(f.flows)), slices.Collect(maps.Values(f.udp))
	inbound, echo := slices.Collect(maps.Values(f.inbound)), slices.Collect(maps.Values(f.echo))
	f.mu.Unlock()
	list := make([]Flow, 0, len(flows)+len(udp)+len(inbound)+len(echo))
	for _, fl := range flows {
		list = append(list, fl.list())
	}
	for _, a := range udp {
		a.mu.Lock()
		outside := a.outside
		a.mu.Unlock()
		list = append(list, Flow{
			Proto: "udp", Direction: "out", State: "mapped", Inside: a.inside, Outside: outside, HostSide: a.hostSide, Path: "gateway",
			BytesIn: a.bytesIn.Load(), BytesOut: a.bytesOut.Load(), PacketsIn: a.packetsIn.Load(), PacketsOut: a.packetsOut.Load(), Created: a.created,
		})
	}
	for _, in := range inbound {
		hostSide := in.client.port.Bound().Host
		if in.client.local.IsValid() {
			hostSide = netip.AddrPortFrom(in.client.local.Unmap(), hostSide.Port())
		}
		list = append(list, Flow{
			Proto: "udp", Direction: "in", State: "mapped", Inside: in.key.inside, Outside: in.client.from, HostSide: hostSide, Path: "gateway",
			BytesIn: in.bytesIn.Load(), BytesOut: in.bytesOut.Load(), PacketsIn: in.packetsIn.Load(), PacketsOut: in.packetsOut.Load(), Created: in.created,
		})
	}
	for _, s := range echo {
		list = append(list, Flow{
			Proto: "icmp", Direction: "out", State: "mapped", Inside: netip.AddrPortFrom(s.key.src, s.key.id), Path: "gateway",
			PacketsIn: s.packetsIn.Load(), PacketsOut: s.packetsOut.Load(), Created: s.created,
		})
	}
	return list
}
