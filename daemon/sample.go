package daemon

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/usernet/usernet/api"
)

// Sample is what happens on the networks now.
func (d *Daemon) Sample() api.Sample {
	s := api.Sample{Time: time.Now(), Interfaces: d.interfaceCounts(), Questions: d.recentQuestions()}
	s.Refusals = d.recentRefusals(s.Questions)
	s.Flows, _ = d.Flows("") // of all: there is no container that could be missing
	s.Ports = []api.ContainerPort{}
	for _, c := range d.model.Containers() {
		list, err := d.Published(c.ID)
		if err != nil {
			continue // it has just gone
		}
		for _, p := range list {
			s.Ports = append(s.Ports, api.ContainerPort{Container: c.Name, Published: p})
		}
	}
	return s
}

// interfaceCounts are those of containers' switch ports.
func (d *Daemon) interfaceCounts() []api.InterfaceCounts {
	list := []api.InterfaceCounts{}
	for _, b := range d.bridgeList() {
		for _, a := range b.Attachments() {
			n := a.Counts()
			one := api.InterfaceCounts{
				Container: a.Name(),
				Network:   b.record.Name,
				Addrs:     a.Addrs(),
				BytesIn:   n.BytesOut, // out of the switch
				BytesOut:  n.BytesIn,
				FramesIn:  n.FramesOut,
				FramesOut: n.FramesIn,
				Drops:     map[string]uint64{},
			}
			for reason, count := range n.Drops {
				one.Drops[reason.String()] = count
			}
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b api.InterfaceCounts) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Network, b.Network))
	})
	return list
}

// recentQuestions are the latest DNS questions, with containers' names.
func (d *Daemon) recentQuestions() []api.DNSQuestion {
	names := map[string]string{}
	for _, c := range d.model.Containers() {
		names[c.ID] = c.Name
	}
	list := []api.DNSQuestion{}
	for _, q := range d.dns.Recent() {
		list = append(list, api.DNSQuestion{
			Time:      q.Time,
			Container: names[q.Client],
			Name:      q.Name,
			Type:      mdns.Type(q.Type).String(),
			Rcode:     mdns.RcodeToString[q.Rcode],
			Source:    q.Source,
			Duration:  q.Duration,
			Addrs:     q.Addrs,
		})
	}
	return list
}

// CloseFlows closes the flows of a protocol between two ends, with an invalid outside all of the inside one, and says
// how many there were.
func (d *Daemon) CloseFlows(proto string, inside, outside netip.AddrPort) int {
	n := 0
	for _, b := range d.bridgeList() {
		n += b.CloseFlows(proto, inside, outside)
	}
	return n
}
