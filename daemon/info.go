package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/errdefs"

	"github.com/miekg/dns"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/flannel"
	vswitch "github.com/usernet/usernet/switch"
)

// Info is the daemon's state in numbers.
func (d *Daemon) Info() api.Info {
	info := api.Info{
		Version:  d.cfg.Version,
		Pid:      os.Getpid(),
		StateDir: d.cfg.StateDir,
		Socket:   d.cfg.Socket,
		Started:  d.started,
		Counters: map[string]json.Number{},
	}
	for _, c := range d.model.Containers() {
		info.Containers++
		switch c.Status {
		case network.Running:
			info.Running++
		case network.Exited:
			info.Exited++
		}
	}
	info.Budgets = d.budgets()
	info.BGP = d.bgp.report()
	info.Cgroups = d.cgroups()
	info.Networks = len(d.model.Networks())
	info.Confined, info.Warnings = d.confined.report()
	if d.flannel != nil {
		info.Warnings = append(info.Warnings, d.flannel.Warnings()...)
	}
	if !d.ping4 {
		info.Warnings = append(info.Warnings, pingHint)
	}
	sum := map[string]uint64{}
	for k, v := range d.dns.Counters() {
		sum["dns_"+k] += v
	}
	for _, b := range d.bridgeList() {
		for k, v := range b.Stats().Counters {
			sum[k] += v
		}
	}
	sum["panics"] = isolate.Count()
	for k, v := range sum {
		info.Counters[k] = json.Number(strconv.FormatUint(v, 10))
	}
	return info
}

// cgroups says whether containers can have limits.
func (d *Daemon) cgroups() api.Cgroups {
	switch {
	case d.cfg.Cgroups != nil:
		return api.Cgroups{Root: d.cfg.Cgroups.Root(), Controllers: d.cfg.Cgroups.Controllers()}
	case d.cfg.NoCgroups != nil:
		if u := new(cgroup.Unavailable); errors.As(d.cfg.NoCgroups, &u) {
			return api.Cgroups{Error: u.Reason, Fix: u.Fix}
		}
		return api.Cgroups{Error: d.cfg.NoCgroups.Error()}
	}
	return api.Cgroups{}
}

// budgets says how descriptors and memory are divided.
func (d *Daemon) budgets() api.Budgets {
	b := d.shared.Budgets()
	limit := debug.SetMemoryLimit(-1) // reads it
	if limit == math.MaxInt64 {
		limit = 0
	}
	return api.Budgets{
		Descriptors:        b.Descriptors,
		DescriptorsReserve: b.DescriptorsReserve,
		DescriptorsUsed:    b.DescriptorsUsed,
		Memory:             b.Memory,
		MemoryPerContainer: b.MemoryPerContainer,
		MemoryUsed:         b.MemoryUsed,
		GoMemoryLimit:      limit,
	}
}

// networkDetails is the verbose part of a network's inspect.
type networkDetails struct {
	Ports    []portDetails
	Counters map[string]uint64 // of the forwarder
	// Fabric is what was dropped on the way to and from other hosts, by reason.
	Fabric map[string]uint64 `json:",omitempty"`
	// Flannel is the node whose network it is.
	Flannel *flannel.Status `json:",omitempty"`
}

// portDetails is a switch port with its counters and drops by reason. MAC addresses are texts: package json would write
// base64.
type portDetails struct {
	vswitch.PortInfo
	MAC     string
	Learned []string `json:",omitempty"`
	Static  []string
}

func newPortDetails(ports []vswitch.PortInfo) []portDetails {
	list := make([]portDetails, len(ports))
	for i, p := range ports {
		list[i] = portDetails{PortInfo: p, MAC: p.MAC.String()}
		for _, m := range p.Learned {
			list[i].Learned = append(list[i].Learned, m.String())
		}
		for _, m := range p.Static {
			list[i].Static = append(list[i].Static, m.String())
		}
	}
	return list
}

// NetworkDetails returns what runs behind a network; nil where nothing does.
func (d *Daemon) NetworkDetails(ref string) (any, error) {
	n, err := d.model.Network(ref)
	if err != nil {
		return nil, err
	}
	b := d.bridge(n.ID)
	if b == nil {
		return nil, nil
	}
	stats := b.Stats()
	details := networkDetails{Ports: newPortDetails(stats.Ports), Counters: stats.Counters}
	if details.Fabric = d.static.Drops(n.ID); d.member != nil && details.Fabric == nil {
		details.Fabric = d.member.LinkDrops(n.ID)
	}
	if d.flannel != nil && details.Fabric == nil {
		details.Fabric, details.Flannel = d.flannel.Drops(n.ID), d.flannel.Status(n.ID)
	}
	return details, nil
}

// Flows lists the connections and associations through the gateways, of one container or ("") of all.
func (d *Daemon) Flows(ref string) ([]api.Flow, error) {
	id := ""
	if ref != "" {
		c, err := d.model.Container(ref)
		if err != nil {
			return nil, err
		}
		id = c.ID
	}
	var out []api.Flow
	for _, b := range d.bridgeList() {
		for _, f := range b.Flows() {
			if id != "" && f.ID != id {
				continue
			}
			out = append(out, api.Flow{
				Container:   f.Name,
				Network:     b.record.Name,
				Proto:       f.Proto,
				Direction:   f.Direction,
				Inside:      f.Inside,
				Outside:     f.Outside,
				HostSide:    f.HostSide,
				State:       f.State,
				Path:        f.Path,
				BytesIn:     f.BytesIn,
				BytesOut:    f.BytesOut,
				PacketsIn:   f.PacketsIn,
				PacketsOut:  f.PacketsOut,
				PacketsLost: f.PacketsLost,
				Created:     f.Created,
			})
		}
	}
	return out, nil
}

// QueryDNS answers as the embedded server would answer that container.
func (d *Daemon) QueryDNS(ctx context.Context, container, name, qtype string) (api.DNSAnswer, error) {
	client := d.hostClient()
	if container != "" {
		c, err := d.model.Container(container)
		if err != nil {
			return api.DNSAnswer{}, err
		}
		client = d.dnsClient(c.ID)
	}
	if name == "" {
		return api.DNSAnswer{}, errdefs.Invalid("no name to look up")
	}
	if qtype == "" {
		qtype = "A"
	}
	t, ok := dns.StringToType[strings.ToUpper(qtype)]
	if !ok {
		return api.DNSAnswer{}, errdefs.Invalid("unknown record type %q: give one such as A, AAAA, PTR, SRV, MX or TXT",
			qtype)
	}
	r, err := d.dns.Query(ctx, client, name, t)
	if err != nil {
		return api.DNSAnswer{}, err
	}
	a := api.DNSAnswer{Rcode: dns.RcodeToString[r.Rcode], Source: r.Source, Duration: r.Duration}
	for _, rr := range r.Answer {
		a.Records = append(a.Records, rr.String())
	}
	return a, nil
}
