package dashboard

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/observe/rates"
)

// minAge is how old a sample has to be before the daemon is asked for another, however many pages are open.
const minAge = 900 * time.Millisecond

// What a page shows at most of each kind. The rest is counted in view.Left.
const (
	maxNetworks   = 100
	maxContainers = 300
	maxFlows      = 300
	maxQuestions  = 100
	maxRefusals   = 100
)

// view is what the page shows: no more of networks and containers than is named here, so none of their environment.
type view struct {
	Time       time.Time       `json:"time"`
	Networks   []networkView   `json:"networks"`
	Containers []containerView `json:"containers"`
	Flows      []flowView      `json:"flows"`
	Questions  []questionView  `json:"questions"` // the latest first
	Refusals   []refusalView   `json:"refusals"`  // the latest first
	Left       map[string]int  `json:"left"`      // how many of a kind are left out
}

type networkView struct {
	Name     string         `json:"name"`
	Driver   string         `json:"driver"`
	Subnets  []netip.Prefix `json:"subnets"`
	Internal bool           `json:"internal"`
}

type containerView struct {
	Name      string              `json:"name"`
	Status    network.Status      `json:"status"`
	Endpoints []endpointView      `json:"endpoints"`
	Ports     []api.ContainerPort `json:"ports"`
	In        float64             `json:"in"` // bytes a second
	Out       float64             `json:"out"`
	Flows     int                 `json:"flows"`
	Drops     uint64              `json:"drops"`
}

type endpointView struct {
	Network string       `json:"network"`
	Addrs   []netip.Addr `json:"addrs"`
	In      float64      `json:"in"`
	Out     float64      `json:"out"`
}

type flowView struct {
	Container string         `json:"container"`
	Network   string         `json:"network"`
	Proto     string         `json:"proto"`
	Direction string         `json:"direction"`
	Peer      string         `json:"peer"` // by its name where it has one
	Inside    netip.AddrPort `json:"inside"`
	Outside   netip.AddrPort `json:"outside"`
	State     string         `json:"state"`
	Path      string         `json:"path"`
	In        float64        `json:"in"`
	Out       float64        `json:"out"`
	Bytes     uint64         `json:"bytes"`
	Created   time.Time      `json:"created"`
}

type questionView struct {
	Time      time.Time    `json:"time"`
	Container string       `json:"container"`
	Name      string       `json:"name"`
	Type      string       `json:"type"`
	Result    string       `json:"result"`
	Source    string       `json:"source"`
	Addrs     []netip.Addr `json:"addrs"`
}

type refusalView struct {
	api.Refusal
	Peer string `json:"peer"`
}

// viewer makes views of the daemon's samples.
type viewer struct {
	src Source

	mu          sync.Mutex // guards the rest
	before, now *api.Sample
	names       rates.Names
	last        *view
}

// get is the view now, or a little while ago. One request asks the daemon; others wait for it.
func (v *viewer) get(ctx context.Context) (*view, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last != nil && time.Since(v.now.Time) < minAge {
		return v.last, nil
	}
	sample, err := v.src.Sample(ctx)
	if err != nil {
		return nil, err
	}
	networks, err := v.src.NetworkRecords(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := v.src.ContainerRecords(ctx)
	if err != nil {
		return nil, err
	}
	v.before, v.now = v.now, sample
	v.names.Learn(sample)
	v.last = v.make(networks, containers)
	return v.last, nil
}

// make makes a view. The caller holds v.mu.
func (v *viewer) make(networks []*network.Network, containers []*network.Container) *view {
	r := rates.Of(v.before, v.now)
	out := &view{Time: v.now.Time, Left: map[string]int{}}
	for _, n := range networks {
		if n.ConfigOnly || !n.HasInterfaces() {
			continue // nobody is connected to these
		}
		one := networkView{Name: n.Name, Driver: n.Driver, Internal: n.Internal, Subnets: []netip.Prefix{}}
		for _, p := range n.Pools {
			one.Subnets = append(one.Subnets, p.Subnet)
		}
		out.Networks = append(out.Networks, one)
	}
	out.Containers = v.containers(containers, r)
	for i := range v.now.Flows {
		f := &v.now.Flows[i]
		t := r.Flows[rates.KeyOf(f)]
		out.Flows = append(out.Flows, flowView{
			Container: f.Container, Network: f.Network, Proto: f.Proto, Direction: f.Direction,
			Peer: v.names.Of(f.Outside), Inside: f.Inside, Outside: f.Outside, State: f.State, Path: f.Path,
			In: t.In, Out: t.Out, Bytes: f.BytesIn + f.BytesOut, Created: f.Created,
		})
	}
	slices.SortStableFunc(out.Flows, func(a, b flowView) int { return b.Created.Compare(a.Created) })
	for _, q := range slices.Backward(v.now.Questions) {
		out.Questions = append(out.Questions, questionView{
			Time: q.Time, Container: cmp.Or(q.Container, "(gone)"), Name: strings.TrimSuffix(q.Name, "."),
			Type: q.Type, Result: q.Rcode, Source: q.Source, Addrs: q.Addrs,
		})
	}
	for _, f := range slices.Backward(v.now.Refusals) {
		out.Refusals = append(out.Refusals, refusalView{f, v.refused(&f)})
	}
	out.Networks = cut(out, "networks", out.Networks, maxNetworks)
	out.Containers = cut(out, "containers", out.Containers, maxContainers)
	out.Flows = cut(out, "flows", out.Flows, maxFlows)
	out.Questions = cut(out, "questions", out.Questions, maxQuestions)
	out.Refusals = cut(out, "refusals", out.Refusals, maxRefusals)
	return out
}

// refused is what was refused, by its name where it has one.
func (v *viewer) refused(f *api.Refusal) string {
	if f.Proto == "dns" || !f.Destination.IsValid() {
		return f.Name
	}
	return v.names.Of(f.Destination)
}

// containers are those that run or can run again, by name.
func (v *viewer) containers(list []*network.Container, r rates.Rates) []containerView {
	flows, drops, ports := map[string]int{}, map[string]uint64{}, map[string][]api.ContainerPort{}
	for i := range v.now.Flows {
		flows[v.now.Flows[i].Container]++
	}
	for _, i := range v.now.Interfaces {
		for _, n := range i.Drops {
			drops[i.Container] += n
		}
	}
	for _, p := range v.now.Ports {
		ports[p.Container] = append(ports[p.Container], p)
	}
	var out []containerView
	for _, c := range list {
		one := containerView{
			Name: c.Name, Status: c.Status, Endpoints: []endpointView{},
			Ports: append([]api.ContainerPort{}, ports[c.Name]...),
			In:    r.Containers[c.Name].In, Out: r.Containers[c.Name].Out, Flows: flows[c.Name], Drops: drops[c.Name],
		}
		for _, e := range c.Endpoints {
			t := r.Interfaces[[2]string{c.Name, e.Network}]
			end := endpointView{Network: e.Network, Addrs: []netip.Addr{}, In: t.In, Out: t.Out}
			for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
				if p.IsValid() {
					end.Addrs = append(end.Addrs, p.Addr())
				}
			}
			one.Endpoints = append(one.Endpoints, end)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b containerView) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// cut bounds a list, which is never null, and counts the rest.
func cut[T any](v *view, kind string, list []T, most int) []T {
	if len(list) > most {
		v.Left[kind] = len(list) - most
		return list[:most]
	}
	return append([]T{}, list...)
}
