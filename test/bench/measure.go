package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// measure does it all: each run goes through all tools in turn, so that what else the machine does meets all of them.
func (w *world) measure() (*report, error) {
	only, err := regexp.Compile(w.options.only)
	if err != nil {
		return nil, fmt.Errorf("--only: %w", err)
	}
	r := &report{Machine: machine(), Date: time.Now().UTC().Format("2006-01-02"), Seconds: w.options.seconds,
		Runs: w.options.runs, Tools: map[string]string{}, samples: map[key][]float64{}}
	r.Tools["iperf3"] = firstLine(w.run("iperf3", "--version"))
	var wanted []cell
	for _, c := range cells() {
		if only.MatchString(c.key()) {
			wanted = append(wanted, c)
		}
	}
	all, err := tools(w.options.tools)
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		r.Tools[t.name] = t.version(w)
	}
	if len(wanted) > 0 {
		if err := w.compare(r, wanted, all); err != nil {
			return nil, err
		}
	}
	if only.MatchString(groupStart) {
		if err := w.measureStarts(r, all); err != nil {
			return nil, err
		}
	}
	return r, w.own(r, only.MatchString)
}

// compare measures cells for all tools.
func (w *world) compare(r *report, wanted []cell, all []tool) error {
	servers := hostServers{w.freePort(), w.freePort()}
	if _, err := w.start("iperf3", "-s", "-p", strconv.Itoa(servers.iperf)); err != nil {
		return err
	}
	if _, err := w.start(self(), generatorCommand, "serve", ":"+strconv.Itoa(servers.generator)); err != nil {
		return err
	}
	err := wait(
		"the servers on the host",
		func() bool { return listening(os.Getpid(), servers.iperf) && listening(os.Getpid(), servers.generator) },
	)
	if err != nil {
		return err
	}
	for run := range w.options.runs {
		if !w.options.syscalls {
			if err := w.kernel(r, servers, wanted); err != nil {
				return err
			}
		}
		for _, mtu := range []int{1500, 65520} {
			for _, t := range all {
				fmt.Fprintf(os.Stderr, "bench: run %d of %d: %s, MTU %d\n", run+1, w.options.runs, t.name, mtu)
				if err := w.tool(r, t, mtu, servers, wanted); err != nil {
					return fmt.Errorf("%s at MTU %d: %w", t.name, mtu, err)
				}
			}
		}
	}
	return nil
}

// tool measures one tool's cells of an MTU once.
func (w *world) tool(r *report, t tool, mtu int, servers hostServers, wanted []cell) error {
	if !slices.ContainsFunc(wanted, func(c cell) bool { return c.mtu == mtu && t.can(c) }) {
		return nil
	}
	if !w.options.syscalls { // which others do not change
		r.noteOthers()
	}
	s, err := t.connect(w, mtu)
	if err != nil {
		return err
	}
	defer s.close()
	err = wait("the published ports", func() bool {
		return listening(os.Getpid(), s.published) && listening(os.Getpid(), s.publishedGenerator)
	})
	if err != nil {
		return err
	}
	for _, c := range wanted {
		if c.mtu != mtu || !t.can(c) {
			continue
		}
		if w.options.syscalls {
			if err := w.countCalls(r, t, c, s, servers); err != nil {
				return err
			}
			continue
		}
		before := ownTicks(s.process)
		m, err := c.measure(w, s, servers)
		used := ownTicks(s.process) - before
		if err != nil && !t.own { // a peer that fails has no value
			fmt.Fprintf(os.Stderr, "bench: %s: %s: %v\n", t.name, c.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if m.value > 0 {
			r.add(t.name, c, m.value)
		}
		if m.work > 0 && c.per != "" {
			r.add(t.name, c.cost(), float64(used)/ticksPerSecond/m.work*costs[c.per].second)
		}
	}
	return nil
}

// bridgeScript connects two network namespaces with veth pairs and a kernel bridge, and measures.
const bridgeScript = `
set -e
unshare -n sleep 1000 & a=$!
unshare -n iperf3 -s >/dev/null & b=$!
trap 'kill $a $b' EXIT
ip link add br0 type bridge
ip link set br0 up
for p in $a $b; do
	until [ "$(readlink /proc/$p/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
	ip link add veth$p mtu $MTU type veth peer name eth0 mtu $MTU netns $p
	ip link set veth$p master br0 up
done
nsenter -n -t $a sh -c 'ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up'
nsenter -n -t $b sh -c 'ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up'
nsenter -n -t $a "$@"
`

// Names of what the kernel does alone, beside the tools.
const (
	kernel         = "kernel"
	kernelLoopback = "loopback"
)

// kernel measures what the kernel does alone: its loopback, which no tool can pass, and a bridge with veth pairs beside
// the cells between containers.
func (w *world) kernel(r *report, servers hostServers, wanted []cell) error {
	for _, c := range wanted {
		if c.group != groupTCP {
			continue
		}
		streams := 1
		if _, err := fmt.Sscanf(c.name[max(0, len(c.name)-len("8 streams")):], "%d streams", &streams); err != nil {
			streams = 1
		}
		var rate float64
		var err error
		switch c.name {
		case "container → container", "container → container" + plural(streams):
			rate, err = w.iperf(
				[]string{"unshare", "-Urn", "env", "MTU=" + strconv.Itoa(c.mtu), "sh", "-c", bridgeScript, "sh"},
				"10.0.0.2",
				iperfPort,
				streams,
				false,
			)
			if err != nil {
				fmt.Fprintln(os.Stderr, "bench: no kernel bridge on this machine:", err)
				continue
			}
		case "container → host", "container → host" + plural(streams):
			rate, err = w.iperf(nil, "127.0.0.1", servers.iperf, streams, false)
			c.name = kernelLoopback + plural(streams)
		default:
			continue
		}
		if err != nil {
			return err
		}
		r.add(kernel, c, rate)
	}
	return nil
}

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
