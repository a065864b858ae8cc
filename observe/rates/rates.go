package top

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/usernet/usernet/api"
)

// traffic is bytes a second, as the container sees them.
type traffic struct{ in, out float64 }

func (t *traffic) add(o traffic) { t.in, t.out = t.in+o.in, t.out+o.out }

// flowKey tells flows apart.
type flowKey struct {
	container, network, proto, direction string
	inside, outside                      netip.AddrPort
	created                              int64
}

func keyOf(f *api.Flow) flowKey {
	return flowKey{f.Container, f.Network, f.Proto, f.Direction, f.Inside, f.Outside, f.Created.UnixNano()}
}

// rates are what happened between two samples.
type rates struct {
	containers map[string]traffic
	flows      map[flowKey]traffic
	drops      map[[3]string]float64 // by container, network and reason
}

// ratesOf compares two samples. What is in the later one only began at zero; a counter that has become less did so as
// well.
func ratesOf(before, now *api.Sample) rates {
	r := rates{map[string]traffic{}, map[flowKey]traffic{}, map[[3]string]float64{}}
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
		t := r.containers[i.Container]
		t.add(traffic{per(old.BytesIn, i.BytesIn), per(old.BytesOut, i.BytesOut)})
		r.containers[i.Container] = t
		for reason, n := range i.Drops {
			r.drops[[3]string{i.Container, i.Network, reason}] = per(old.Drops[reason], n)
		}
	}
	flows := map[flowKey]*api.Flow{}
	for i := range before.Flows {
		flows[keyOf(&before.Flows[i])] = &before.Flows[i]
	}
	for i := range now.Flows {
		f := &now.Flows[i]
		old := flows[keyOf(f)]
		if old == nil {
			old = &api.Flow{}
		}
		t := traffic{per(old.BytesIn, f.BytesIn), per(old.BytesOut, f.BytesOut)}
		r.flows[keyOf(f)] = t
		if f.Path == "bypass" { // which does not pass the interface
			sum := r.containers[f.Container]
			sum.add(t)
			r.containers[f.Container] = sum
		}
	}
	return r
}

// names are what addresses are called: containers, and what containers have asked for.
type names struct{ byAddr map[netip.Addr]string }

// maxNames bounds them.
const maxNames = 10000

func (n *names) learn(s *api.Sample) {
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

// of is an address and port with its name where it has one.
func (n *names) of(a netip.AddrPort) string {
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

// amount is a number of at most five characters: 999, 1.5k, 20M.
func amount(n float64) string {
	for _, unit := range []string{"", "k", "M", "G", "T"} {
		switch {
		case n < 10 && unit != "":
			return fmt.Sprintf("%.1f%s", n, unit)
		case n < 999.5:
			return fmt.Sprintf("%.0f%s", n, unit)
		}
		n /= 1000
	}
	return ">1P"
}
