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
	lower             bool   // less is better
	per               string // what the tool's processor time is counted for: a key of costs, or nothing
	measure           measure
}

// measure measures a cell once.
type measure func(w *world, s *sandbox, servers hostServers) (measured, error)

// measured is what a cell came to.
type measured struct {
	value float64 // in the cell's unit; 0 where the tool cannot do it
	work  float64 // how many of what the cell counts processor time for were done; 0: that is not counted
}

// costs are the units of processor time by what it is for, and how many of them are a second.
var costs = map[string]struct {
	unit   string
	second float64
}{
	"GiB":        {"s per GiB", 1},
	"request":    {"µs per request", 1e6},
	"connection": {"µs per connection", 1e6},
	"datagram":   {"µs per datagram", 1e6},
}

// cost is the cell of the processor time beside c.
func (c cell) cost() cell {
	return cell{group: groupCPU, name: c.name, unit: costs[c.per].unit, mtu: c.mtu, lower: true}
}

// calls is the cell of the system calls beside c.
func (c cell) calls() cell {
	return cell{group: groupCalls, name: c.name, unit: "per " + c.per, mtu: c.mtu, lower: true}
}

func (c cell) key() string { return fmt.Sprintf("%s: %s, MTU %d", c.group, c.name, c.mtu) }

// hostServers are the ports of the servers on the host.
type hostServers struct{ iperf, generator int }

const (
	groupTCP   = "TCP"
	groupOther = "Requests, connections, datagrams, pings"
	groupCPU   = "Processor time of the tool's own processes, user and system"
	groupCalls = "System calls of the tool's own processes"
)

// cells are all that every tool is measured in.
func cells() []cell {
	var list []cell
	for _, mtu := range []int{1500, 65520} {
		for _, streams := range []int{1, 8} {
			list = append(list, tcpCells(mtu, streams)...)
		}
	}
	return append(list, otherCells()...)
}

func tcpCells(mtu, streams int) []cell {
	tcp := func(name string, f measure) cell {
		return cell{group: groupTCP, name: name + plural(streams), unit: "Gbit/s", mtu: mtu, per: "GiB", measure: f}
	}
	both := func(address func(s *sandbox) string, reverse bool) measure {
		return func(w *world, s *sandbox, h hostServers) (measured, error) {
			if address(s) == "" {
				return measured{}, nil
			}
			return w.transfer(s.prefix, address(s), h.iperf, streams, reverse)
		}
	}
	published := func(reverse bool) measure {
		return func(w *world, s *sandbox, _ hostServers) (measured, error) {
			return w.transfer(nil, "127.0.0.1", s.published, streams, reverse)
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
		tcp("container → container", func(w *world, s *sandbox, _ hostServers) (measured, error) {
			if s.sibling == "" {
				return measured{}, nil
			}
			return w.transfer(s.prefix, s.sibling, iperfPort, streams, false)
		}),
		tcp(
			"published port, to the container",
			published(false),
		), tcp("published port, from the container", published(true)),
	}
}

func plural(streams int) string {
	if streams == 1 {
		return ""
	}
	return fmt.Sprintf(", %d streams", streams)
}

// transfer is iperf with the GiB that it has moved.
func (w *world) transfer(prefix []string, address string, port, streams int, reverse bool) (measured, error) {
	rate, err := w.iperf(prefix, address, port, streams, reverse)
	return measured{value: rate, work: rate * 1e9 / 8 * float64(w.options.seconds) / (1 << 30)}, err
}

// otherCells are what iperf3 does not measure, at MTU 1500.
func otherCells() []cell {
	var list []cell
	add := func(name, unit, per string, lower bool, f measure) {
		list = append(
			list,
			cell{group: groupOther, name: name, unit: unit, mtu: 1500, lower: lower, per: per, measure: f},
		)
	}
	type where struct {
		name string
		at   func(s *sandbox, h hostServers) (prefix []string, address string)
	}
	outbound := where{
		"container → host",
		func(s *sandbox, h hostServers) ([]string, string) { return s.prefix, at(host, h.generator) },
	}
	published := where{
		"published port",
		func(s *sandbox, _ hostServers) ([]string, string) { return nil, at("127.0.0.1", s.publishedGenerator) },
	}
	between := where{"container → container", func(s *sandbox, _ hostServers) ([]string, string) {
		if s.sibling == "" {
			return nil, ""
		}
		return s.prefix, at(s.sibling, generatorPort)
	}}
	pick := func(p where, kind string, size int, value func(generated) float64) measure {
		return func(w *world, s *sandbox, h hostServers) (measured, error) {
			prefix, address := p.at(s, h)
			if address == "" {
				return measured{}, nil
			}
			g, err := w.generator(prefix, kind, address, size)
			work := g.Rate * float64(w.options.seconds)
			if kind == "udpgso" { // a rate in Gbit/s
				work *= 1e9 / 8 / (1 << 30)
			}
			return measured{value(g), work}, err
		}
	}
	rate := func(g generated) float64 { return g.Rate }
	p50 := func(g generated) float64 { return g.P50 }
	p99 := func(g generated) float64 { return g.P99 }
	for _, p := range []where{outbound, published, between} {
		add("requests of one byte, "+p.name, "per second", "request", false, pick(p, "rr", 0, rate))
		add("their time, median, "+p.name, "µs", "", true, pick(p, "rr", 0, p50))
		add("their time, 99 %, "+p.name, "µs", "", true, pick(p, "rr", 0, p99))
		add("connections opened and closed, "+p.name, "per second", "connection", false, pick(p, "connect", 0, rate))
	}
	for _, size := range []int{64, 1400} {
		text := fmt.Sprintf("datagrams of %d bytes that arrive, ", size)
		add(text+"container → host", "per second", "datagram", false, pick(outbound, "udp", size, rate))
		add(text+"host → container", "per second", "datagram", false, pick(outbound, "udpback", size, rate))
		add(text+"container → container", "per second", "datagram", false, pick(between, "udp", size, rate))
	}
	for _, p := range []where{outbound, between} {
		add("datagrams of 1400 bytes sent 46 at a time, "+p.name, "Gbit/s", "GiB", false, pick(p, "udpgso", 1400, rate))
	}
	ping := func(address func(s *sandbox) string) measure {
		return func(w *world, s *sandbox, _ hostServers) (measured, error) {
			if address(s) == "" {
				return measured{}, nil
			}
			value, err := w.ping(s.prefix, address(s))
			return measured{value: value}, err
		}
	}
	add("ping to the gateway, median", "µs", "", true, ping(func(s *sandbox) string { return s.gateway }))
	add("ping to a neighbour, median", "µs", "", true, ping(func(s *sandbox) string { return s.sibling }))
	return list
}

func at(address string, port int) string { return net.JoinHostPort(address, strconv.Itoa(port)) }

// generator runs a client of the load generator.
func (w *world) generator(prefix []string, kind, address string, size int) (g generated, err error) {
	args := append(
		append([]string{}, prefix...),
		self(),
		generatorCommand,
		kind,
		address,
		strconv.Itoa(w.options.seconds),
	)
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
