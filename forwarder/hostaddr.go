package forwarder

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// hostAddrs knows the host's own addresses as they were at most a second ago.
type hostAddrs struct {
	now atomic.Pointer[addrSet]
}

type addrSet struct {
	own   map[netip.Addr]struct{}
	until time.Time
}

// has says whether a is an address of the host itself, whose clients have to appear as the gateway.
func (h *hostAddrs) has(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	set, now := h.now.Load(), time.Now()
	if set == nil || now.After(set.until) {
		set = &addrSet{own: map[netip.Addr]struct{}{}, until: now.Add(time.Second)}
		list, err := net.InterfaceAddrs()
		if err != nil {
			return true // the gateway's name always works
		}
		for _, x := range list {
			if n, ok := x.(*net.IPNet); ok {
				if own, ok := netip.AddrFromSlice(n.IP); ok {
					set.own[own.Unmap()] = struct{}{}
				}
			}
		}
		h.now.Store(set)
	}
	_, ok := set.own[a.WithZone("")]
	return ok
}
