// Package rates makes rates of two samples of the daemon, and gives addresses names. Views call it: the terminal's
// (observe/top) and the page's (observe/dashboard). It asks nobody for anything.
package rates

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
)

// Traffic is bytes a second, as the container sees them.
type Traffic struct{ In, Out float64 }

func (t *Traffic) add(o Traffic) { t.In, t.Out = t.In+o.In, t.Out+o.Out }

// FlowKey tells flows apart.
type FlowKey struct {
	container, network, proto, direction string
	inside, outside                      netip.AddrPort
	created                              int64
}

// KeyOf is a flow's.
func KeyOf(f *api.Flow) FlowKey {
	return FlowKey{f.Container, f.Network, f.Proto, f.Direction, f.Inside, f.Outside, f.Created.UnixNano()}
}

// Rates are what happened between two samples.
type Rates struct {
	Containers map[string]Traffic
	Interfaces map[[2]string]Traffic // by container and network
	Flows      map[FlowKey]Traffic
	Drops      map[[3]string]float64 // by container, network and reason
}

// Of compares two samples. What is in the later one only began at zero; a counter that has become less did so as
// well.
func Of(before, now *api.Sample) Rates {
	r := Rates{map[string]Traffic{}, map[[2]string]Traffic{}, map[FlowKey]Traffic{}, map[[3]string]float64{}}
	seconds := interval(before, now).Seconds()
	if seconds <= 0 {
		return r
	}
	per := func(was, is uint64) float64 {
		if is < was {
			was = 0
		}
		return float64(is-was) / seconds
	}
	was := map[[2]string]api.InterfaceCounts{}
	for _, i := range before.Interfaces {
		was[[2]string{i.Container, i.Network}] = i
	}
	for _, i := range now.Interfaces {
		old, known := was[[2]string{i.Container, i.Network}]
		if !known {
			old = i // it is new to us, whatever it counted before
		}
		r.count(i.Container, i.Network, Traffic{per(old.BytesIn, i.BytesIn), per(old.BytesOut, i.BytesOut)})
		for reason, n := range i.Drops {
			r.Drops[[3]string{i.Container, i.Network, reason}] = per(old.Drops[reason], n)
		}
	}
	flows := map[FlowKey]*api.Flow{}
	for i := range before.Flows {
		flows[KeyOf(&before.Flows[i])] = &before.Flows[i]
	}
	for i := range now.Flows {
		f := &now.Flows[i]
		old := flows[KeyOf(f)]
		if old == nil {
			old = &api.Flow{}
		}
		t := Traffic{per(old.BytesIn, f.BytesIn), per(old.BytesOut, f.BytesOut)}
		r.Flows[KeyOf(f)] = t
		if f.Path == "bypass" || f.Path == "sockets" { // which does not pass the interface
			r.count(f.Container, f.Network, t)
		}
	}
	return r
}

// count adds to what a container has on a network.
func (r *Rates) count(container, network string, t Traffic) {
	sum, one := r.Containers[container], r.Interfaces[[2]string{container, network}]
	sum.add(t)
	one.add(t)
	r.Containers[container], r.Interfaces[[2]string{container, network}] = sum, one
}

// interval is the time between the samples.
func interval(before, now *api.Sample) time.Duration {
	if before == nil || now == nil {
		return 0
	}
	return now.Time.Sub(before.Time)
}

// Names are what addresses are called: containers, and what containers have asked for. The zero value knows none.
type Names struct{ byAddr map[netip.Addr]string }

// maxNames bounds them.
const maxNames = 10000

// Learn notes the names in a sample.
func (n *Names) Learn(s *api.Sample) {
	if n.byAddr == nil || len(n.byAddr) > maxNames {
		n.byAddr = map[netip.Addr]string{}
	}
	for _, q := range s.Questions {
		for _, a := range q.Addrs {
			n.byAddr[a.Unmap()] = strings.TrimSuffix(q.Name, ".")
		}
	}
	for _, i := range s.Interfaces {
		for _, a := range i.Addrs {
			n.byAddr[a.Unmap()] = i.Container
		}
	}
}

// Of is an address and port with its name where it has one.
func (n *Names) Of(a netip.AddrPort) string {
	switch name := n.byAddr[a.Addr().Unmap()]; {
	case !a.IsValid():
		return "-"
	case name == "":
		return a.String()
	case a.Port() == 0:
		return name
	default:
		return fmt.Sprintf("%s:%d", name, a.Port())
	}
}
