package main

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// A cell is one line of a table: something that is measured for each tool that can do it.
type cell struct {
	group, name, unit string
	mtu               int
	lower             bool // less is better
	// measure returns 0 where the tool cannot do it.
	measure func(w *world, s *sandbox, servers hostServers) (float64, error)
}

func (c cell) key() string { return fmt.Sprintf("%s: %s, MTU %d", c.group, c.name, c.mtu) }

// hostServers are the ports of the servers on the host.
type hostServers struct{ iperf, generator int }

const (
	groupTCP   = "TCP"
	groupOther = "Requests, connections, datagrams, pings"
	groupCPU   = "Processor time of the tool"
)

// cells are all that every tool is measured in.
func cells() []cell {
	var list []cell
	for _, mtu := range []int{1500, 65520} {
		for _, streams := range []int{1, 8} {
			list = append(list, tcpCells(mtu, streams)...)
		}
		list = append(list, cpuCells(mtu)...)
	}
	return append(list, otherCells()...)
}

func tcpCells(mtu, streams int) []cell {
	tcp := func(name string, f func(w *world, s *sandbox, h hostServers) (float64, error)) cell {
		return cell{group: groupTCP, name: name + plural(streams), unit: "Gbit/s", mtu: mtu, measure: f}
	}
	both := func(address func(s *sandbox) string, reverse bool) func(w *world, s *sandbox, h hostServers) (float64, error) {
		return func(w *world, s *sandbox, h hostServers) (float64, error) {
			if address(s) == "" {
				return 0, nil
			}
			return w.iperf(s.prefix, address(s), h.iperf, streams, reverse)
		}
	}
	published := func(reverse bool) func(w *world, s *sandbox, h hostServers) (float64, error) {
		return func(w *world, s *sandbox, _ hostServers) (float64, error) {
			return w.iperf(nil, "127.0.0.1", s.published, streams, reverse)
		}
	}
	v4 := func(*sandbox) string { return host }
	v6 := func(s *sandbox) string {
		if s.ipv6 {
			return host6
		}
		return ""
	}
	return []cell{
		tcp("container → host", both(v4, false)), tcp("host → container", both(v4, true)),
		tcp("container → host, IPv6", both(v6, false)), tcp("host → container, IPv6", both(v6, true)),
		tcp("container → container", func(w *world, s *sandbox, _ hostServers) (float64, error) {
			if s.sibling == "" {
				return 0, nil
			}
			return w.iperf(s.prefix, s.sibling, iperfPort, streams, false)
		}),
		tcp("published port, to the container", published(false)), tcp("published port, from the container", published(true)),
	}
}

func plural(streams int) string {
	if streams == 1 {
		return ""
	}
	return fmt.Sprintf(", %d streams", streams)
}

// cpuCells measure what a tool's process takes to move a GiB.
func cpuCells(mtu int) []cell {
	cpu := func(name string, reverse bool) cell {
		return cell{group: groupCPU, name: name, unit: "s per GiB", mtu: mtu, lower: true, measure: func(w *world, s *sandbox, h hostServers) (float64, error) {
			before, err := cpuTicks(s.process)
			if err != nil {
				return 0, err
			}
			rate, err := w.iperf(s.prefix, host, h.iperf, 1, reverse)
			if err != nil {
				return 0, err
			}
			after, err := cpuTicks(s.process)
			gib := rate * 1e9 / 8 * float64(w.options.seconds) / (1 << 30)
			return float64(after-before) / ticksPerSecond / gib, err
		}}
	}
	return []cell{cpu("container → host", false), cpu("host → container", true)}
}

// otherCells are what iperf3 does not measure, at MTU 1500.
func otherCells() []cell {
	var list []cell
	add := func(name, unit string, lower bool, f func(w *world, s *sandbox, h hostServers) (float64, error)) {
		list = append(list, cell{group: groupOther, name: name, unit: unit, mtu: 1500, lower: lower, measure: f})
	}
	type where struct {
		name string
		at   func(s *sandbox, h hostServers) (prefix []string, address string)
	}
	outbound := where{"container → host", func(s *sandbox, h hostServers) ([]string, string) { return s.prefix, at(host, h.generator) }}
	published := where{"published port", func(s *sandbox, _ hostServers) ([]string, string) { return nil, at("127.0.0.1", s.publishedGenerator) }}
	between := where{"container → container", func(s *sandbox, _ hostServers) ([]string, string) {
		if s.sibling == "" {
			return nil, ""
		}
		return s.prefix, at(s.sibling, generatorPort)
	}}
	pick := func(p where, kind string, size int, value func(generated) float64) func(w *world, s *sandbox, h hostServers) (float64, error) {
		return func(w *world, s *sandbox, h hostServers) (float64, error) {
			prefix, address := p.at(s, h)
			if address == "" {
				return 0, nil
			}
			g, err := w.generator(prefix, kind, address, size)
			return value(g), err
		}
	}
	rate, p50, p99 := func(g generated) float64 { return g.Rate }, func(g generated) float64 { return g.P50 }, func(g generated) float64 { return g.P99 }
	for _, p := range []where{outbound, published, between} {
		add("requests of one byte, "+p.name, "per second", false, pick(p, "rr", 0, rate))
		add("their time, median, "+p.name, "µs", true, pick(p, "rr", 0, p50))
		add("their time, 99 %, "+p.name, "µs", true, pick(p, "rr", 0, p99))
		add("connections opened and closed, "+p.name, "per second", false, pick(p, "connect", 0, rate))
	}
	for _, size := range []int{64, 1400} {
		text := fmt.Sprintf("datagrams of %d bytes that arrive, ", size)
		add(text+"container → host", "per second", false, pick(outbound, "udp", size, rate))
		add(text+"host → container", "per second", false, pick(outbound, "udpback", size, rate))
		add(text+"container → container", "per second", false, pick(between, "udp", size, rate))
	}
	for _, p := range []where{outbound, between} {
		add("datagrams of 1400 bytes sent 46 at a time, "+p.name, "Gbit/s", false, pick(p, "udpgso", 1400, rate))
	}
	add("ping to the gateway, median", "µs", true, func(w *world, s *sandbox, _ hostServers) (float64, error) { return w.ping(s.prefix, s.gateway) })
	add("ping to a neighbour, median", "µs", true, func(w *world, s *sandbox, _ hostServers) (float64, error) {
		if s.sibling == "" {
			return 0, nil
		}
		return w.ping(s.prefix, s.sibling)
	})
	return list
}

func at(address string, port int) string { return net.JoinHostPort(address, strconv.Itoa(port)) }

// generator runs a client of the load generator.
func (w *world) generator(prefix []string, kind, address string, size int) (g generated, err error) {
	args := append(append([]string{}, prefix...), self(), generatorCommand, kind, address, strconv.Itoa(w.options.seconds))
	if size > 0 {
		args = append(args, strconv.Itoa(size))
	}
	out, err := w.run(args[0], args[1:]...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &g)
	}
	return g, err
}

var pingTime = regexp.MustCompile(`time=([\d.]+) ms`)

// ping returns the median of many pings' times, or 0 where nobody answers.
func (w *world) ping(prefix []string, address string) (float64, error) {
	args := append(append([]string{}, prefix...), "ping", "-q", "-c", "1", "-W", "2", address)
	if _, err := w.run(args[0], args[1:]...); err != nil {
		return 0, nil // the tool's gateway does not
	}
	args = append(append([]string{}, prefix...), "ping", "-c", "200", "-i", "0.002", "-W", "2", address)
	out, err := w.run(args[0], args[1:]...)
	var times []float64
	for _, match := range pingTime.FindAllStringSubmatch(out, -1) {
		if v, e := strconv.ParseFloat(match[1], 64); e == nil {
			times = append(times, v*1000)
		}
	}
	if len(times) == 0 {
		return 0, fmt.Errorf("ping %s: %w: %s", address, err, strings.TrimSpace(out))
	}
	return median(times), nil
}
