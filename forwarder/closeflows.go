package forwarder

import "net/netip"

// CloseFlows ends the flows of a protocol between two ends, with an invalid outside all of the inside one, and says how
// many there were. TCP connections are reset at both ends; an association that is used again begins anew.
func (f *Forwarder) CloseFlows(proto string, inside, outside netip.AddrPort) int {
	n := 0
	is := func(l Flow) bool {
		found := l.Proto == proto && l.Inside == inside && (!outside.IsValid() || l.Outside == outside)
		if found {
			n++
		}
		return found
	}
	f.mu.Lock()
	var list []*flow
	for fl := range f.flows[inside.Addr()] {
		if proto == "tcp" && fl.inside == inside && (!outside.IsValid() || fl.outside == outside) {
			list = append(list, fl)
		}
	}
	f.mu.Unlock()
	for _, fl := range list {
		fl.abort()
	}
	f.udp.EndAll(func(a *association) bool { return is(a.list()) })
	f.inbound.EndAll(func(in *inboundUDP) bool { return is(in.list()) })
	f.echo.EndAll(func(s *pinger) bool { return is(s.list()) })
	return n + len(list)
}
