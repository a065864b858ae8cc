package daemon

import (
	"cmp"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/isolate"
	om "github.com/usernet/usernet/internal/openmetrics"
	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
)

// maxLabelled is how many containers have samples of their own; those of all others together are labelled others. So
// who reads the metrics keeps a bounded number of series of them, however many containers there are.
const (
	maxLabelled = 500
	others      = "(others)"
)

// Metrics are the daemon's, as they are now.
func (d *Daemon) Metrics() []om.Family {
	g := &gathering{d: d, labels: d.containerLabels()}
	return slices.Concat(g.daemon(), g.interfaces(), g.flows(), g.counters(), g.dns(), g.budgets(), g.histograms(),
		processMetrics())
}

// gathering is one answer to who asks for metrics.
type gathering struct {
	d      *Daemon
	labels map[string]bool // the containers that have a label of their own
}

// containerLabels chooses the containers that have a label of their own: the oldest.
func (d *Daemon) containerLabels() map[string]bool {
	list := d.model.Containers()
	slices.SortFunc(list, func(a, b *network.Container) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	labels := map[string]bool{}
	for _, c := range list {
		if len(labels) < maxLabelled && c.Status == network.Running {
			labels[c.Name] = true
		}
	}
	return labels
}

// label is a container's label.
func (g *gathering) label(name string) string {
	if name == "" || g.labels[name] {
		return name
	}
	return others
}

// sums adds numbers with the same labels up.
type sums struct {
	byKey map[string]int // index in family.Samples
	om.Family
}

func newSums(f om.Family) *sums { return &sums{byKey: map[string]int{}, Family: f} }

func (s *sums) add(value float64, labels ...string) {
	key := strings.Join(labels, "\x00")
	i, ok := s.byKey[key]
	if !ok {
		i = len(s.Samples)
		s.byKey[key] = i
		s.Add(0, labels...)
	}
	s.Samples[i].Value += value
}

// plain is a family of one number.
func plain(kind om.Type, name, help, unit string, value float64) om.Family {
	f := om.Family{Name: name, Help: help, Type: kind, Unit: unit}
	f.Add(value)
	return f
}

func (g *gathering) daemon() []om.Family {
	d := g.d
	build := om.Family{Name: "usernet_build_info", Help: "Constant 1, with the daemon's version.", Type: om.Gauge}
	build.Add(1, "version", d.cfg.Version)
	containers := newSums(om.Family{Name: "usernet_containers", Help: "Containers, by their state.", Type: om.Gauge})
	for _, s := range []network.Status{network.Created, network.Running, network.Exited} {
		containers.add(0, "state", string(s))
	}
	for _, c := range d.model.Containers() {
		containers.add(1, "state", string(c.Status))
	}
	captures := d.Captures()
	return []om.Family{
		build,
		containers.Family,
		plain(om.Gauge, "usernet_networks", "Networks.", "", float64(len(d.model.Networks()))),
		plain(om.Gauge, "usernet_captures", "Packet captures that run.", "", float64(len(captures))),
		plain(om.Counter, "usernet_panics", "Faults of the daemon that ended only what they happened in.", "",
			float64(isolate.Count())),
	}
}

// interfaces are the switch ports of containers. Directions are as the container sees them.
func (g *gathering) interfaces() []om.Family {
	bytes := newSums(om.Family{Name: "usernet_interface_traffic_bytes",
		Help: "Bytes of frames through containers' interfaces.", Type: om.Counter, Unit: "bytes"})
	frames := newSums(om.Family{Name: "usernet_interface_frames",
		Help: "Frames through containers' interfaces, super-frames as one.", Type: om.Counter})
	drops := newSums(om.Family{Name: "usernet_interface_dropped_frames",
		Help: "Frames that were dropped, by the switch port that they came from, or that did not take them.",
		Type: om.Counter})
	for _, b := range g.d.bridgeList() {
		net := b.record.Name
		for _, p := range b.Stats().Ports {
			name := g.label(p.Name)
			if p.Role == vswitch.Gateway || p.Role == vswitch.Fabric || p.Role == vswitch.Uplink {
				name = "(" + p.Role.String() + ")"
			}
			for reason, n := range p.Stats.Drops {
				drops.add(float64(n), "network", net, "container", name, "reason", reason.String())
			}
			bytes.add(float64(p.Stats.BytesOut), "network", net, "container", name, "direction", "in")
			bytes.add(float64(p.Stats.BytesIn), "network", net, "container", name, "direction", "out")
			frames.add(float64(p.Stats.FramesOut), "network", net, "container", name, "direction", "in")
			frames.add(float64(p.Stats.FramesIn), "network", net, "container", name, "direction", "out")
		}
		fabric := g.d.static.Drops(b.record.ID)
		if g.d.cluster != nil && fabric == nil {
			fabric = g.d.cluster.LinkDrops(b.record.ID)
		}
		for reason, n := range fabric {
			drops.add(float64(n), "network", net, "container", "(fabric)", "reason", reason)
		}
	}
	return []om.Family{bytes.Family, frames.Family, drops.Family}
}

// flows are those that are there now.
func (g *gathering) flows() []om.Family {
	now := newSums(om.Family{Name: "usernet_flows", Help: "Connections and associations that are there now.",
		Type: om.Gauge})
	list, _ := g.d.Flows("") // of all: there is no container that could be missing
	for _, f := range list {
		now.add(1, "network", f.Network, "container", g.label(f.Container), "proto", f.Proto, "direction", f.Direction,
			"path", f.Path)
	}
	return []om.Family{now.Family}
}

// begun says which counters of a network are flows that began, and how they are labelled.
var begun = map[string][3]string{ // proto, direction, path
	"tcp_connections":       {"tcp", "out", "any"},
	"tcp_bypass_outbound":   {"tcp", "out", "bypass"},
	"published_connections": {"tcp", "in", "any"},
	"tcp_bypass_inbound":    {"tcp", "in", "bypass"},
	"tcp_sockets_outbound":  {"tcp", "out", "sockets"},
	"tcp_sockets_inbound":   {"tcp", "in", "sockets"},
	"udp_associations":      {"udp", "out", "any"},
	"ping_sessions":         {"icmp", "out", "any"},
}

// refused says which are flows that did not begin, and why.
var refused = map[string][2]string{ // proto, reason
	"tcp_refused":         {"tcp", "destination"},
	"tcp_limit":           {"tcp", "limit"},
	"tcp_dial_limit":      {"tcp", "dial-limit"},
	"tcp_attempt_limit":   {"tcp", "attempt-limit"},
	"udp_limit":           {"udp", "limit"},
	"published_udp_limit": {"udp", "published-limit"},
	"ping_limit":          {"icmp", "limit"},
	"egress_prohibited":   {"any", "egress-policy"},
	"descriptor_limit":    {"any", "descriptors"},
	"memory_limit":        {"tcp", "memory"},
}

// lost are counters of datagrams that a full queue of a socket lost, by who began: the container, or a client of its
// published port.
var lost = map[string]string{"udp_lost": "out", "published_udp_lost": "in"}

func (g *gathering) counters() []om.Family {
	began := newSums(om.Family{Name: "usernet_flows_begun", Help: "Flows that began; path any counts each of them, " +
		"path bypass those of them that bypass the gateway; path sockets, which are not among them, are with other hosts.",
		Type: om.Counter})
	not := newSums(om.Family{Name: "usernet_flows_refused", Help: "Flows that did not begin, by reason.",
		Type: om.Counter})
	gone := newSums(om.Family{Name: "usernet_datagrams_lost", Help: "Datagrams, at least, for which the queue of a " +
		"socket of the daemon's had no room, by who began the flow.", Type: om.Counter})
	for _, b := range g.d.bridgeList() {
		for name, n := range b.Stats().Counters {
			if l, ok := begun[name]; ok {
				began.add(float64(n), "network", b.record.Name, "proto", l[0], "direction", l[1], "path", l[2])
			} else if l, ok := refused[name]; ok {
				not.add(float64(n), "network", b.record.Name, "proto", l[0], "reason", l[1])
			} else if direction, ok := lost[name]; ok {
				gone.add(float64(n), "network", b.record.Name, "direction", direction)
			}
		}
	}
	return []om.Family{began.Family, not.Family, gone.Family}
}

func (g *gathering) dns() []om.Family {
	n := g.d.dns.Counters()
	answers := om.Family{Name: "usernet_dns_answers", Help: "Questions, by where the answer came from.",
		Type: om.Counter}
	for _, l := range [][2]string{{"names", "local"}, {"cache", "cache_hits"}, {"outside", "forwarded"}} {
		answers.Add(float64(n[l[1]]), "source", l[0])
	}
	failures := om.Family{Name: "usernet_dns_failures", Help: "Questions without a full answer, by reason.",
		Type: om.Counter}
	for _, l := range [][2]string{{"no-server", "failed"}, {"malformed", "malformed"}, {"limit", "limited"},
		{"egress-policy", "refused"}, {"filtered", "filtered"}, {"unsent", "unsent"}} {
		failures.Add(float64(n[l[1]]), "reason", l[0])
	}
	return []om.Family{
		plain(om.Counter, "usernet_dns_questions", "Questions of containers.", "", float64(n["queries"])),
		answers, failures,
		plain(om.Gauge, "usernet_dns_cache_entries", "Answers in the cache.", "", float64(n["cached"])),
		plain(om.Gauge, "usernet_dns_pending_questions", "Questions that are being asked outside.", "",
			float64(n["asking"])),
	}
}

// budgets are what containers share; a limit of 0 is none.
func (g *gathering) budgets() []om.Family {
	b := g.d.budgets()
	return []om.Family{
		plain(om.Gauge, "usernet_descriptors_used", "File descriptors of containers' traffic.", "",
			float64(b.DescriptorsUsed)),
		plain(om.Gauge, "usernet_descriptors_limit", "How many of them there may be; 0: no limit.", "",
			float64(b.Descriptors)),
		plain(om.Gauge, "usernet_buffers_used_bytes", "Memory for buffers of connections through the gateways.",
			"bytes", float64(b.MemoryUsed)),
		plain(om.Gauge, "usernet_buffers_limit_bytes", "How much of it there may be; 0: no limit.", "bytes",
			float64(b.Memory)),
	}
}

func (g *gathering) histograms() []om.Family {
	dials := om.Family{Name: "usernet_dial_duration_seconds",
		Help: "How long destinations outside took to answer connections of containers.", Type: om.Histograms,
		Unit: "seconds"}
	for _, b := range g.d.bridgeList() {
		for result, h := range b.Dials() {
			n := h.Load()
			dials.Samples = append(dials.Samples, om.Sample{
				Labels: []string{"network", b.record.Name, "proto", "tcp", "result", result}, Durations: &n,
			})
		}
	}
	slices.SortFunc(dials.Samples, func(a, b om.Sample) int { return slices.Compare(a.Labels, b.Labels) })
	asked, started := g.d.dns.Durations(), g.d.starts.Load()
	return []om.Family{
		dials,
		{Name: "usernet_dns_forward_duration_seconds", Help: "How long questions took that were asked outside.",
			Type: om.Histograms, Unit: "seconds", Samples: []om.Sample{{Durations: &asked}}},
		{Name: "usernet_container_start_duration_seconds",
			Help: "How long the daemon took to give containers their network at their start.", Type: om.Histograms,
			Unit: "seconds", Samples: []om.Sample{{Durations: &started}}},
	}
}

// processMetrics are those that all programs have under these names.
func processMetrics() []om.Family {
	list := []om.Family{
		plain(om.Gauge, "go_goroutines", "Goroutines.", "", float64(runtime.NumGoroutine())),
	}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		list = append(list, plain(om.Counter, "process_cpu_seconds", "Processor time.", "seconds",
			float64(u.Utime.Sec+u.Stime.Sec)+float64(u.Utime.Usec+u.Stime.Usec)/1e6))
	}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil { // proc_pid_statm(5): the second is resident
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if pages, err := strconv.ParseFloat(fields[1], 64); err == nil {
				list = append(list, plain(om.Gauge, "process_resident_memory_bytes", "Resident memory.", "bytes",
					pages*float64(os.Getpagesize())))
			}
		}
	}
	return list
}
