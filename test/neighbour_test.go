package test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// neighbourVariable says how many rounds TestNeighboursOfFloods measures (make bench-neighbour).
const neighbourVariable = "USERNET_NEIGHBOUR"

// floods are the kinds of frames that one container sends as fast as it can.
var floods = []string{"arp", "udp", "fragment", "syn"}

// beside is what requests are measured beside, besides floods.
var beside = []string{"nothing", "a busy loop", "two of them"}

// flooder starts a flood of a container and returns what ends it, and says how many frames were sent.
func (d *daemon) flooder(name, kind, target string) (end func() int) {
	d.t.Helper()
	gateway := d.field(`lladdr ([0-9a-f:]+)`, name, "sh", "-c", "ping -c1 -W5 "+d.gateway(name)+" >/dev/null; ip neigh show "+d.gateway(name))
	h := d.startTalk("flood "+kind, usernet, "exec", "-i", name, helper, "flood", kind, "eth0", gateway,
		d.address(name), target)
	h.wants("flooding")
	return func() int {
		h.in.Close()
		var n int
		if _, err := fmt.Sscanf(h.next(), "sent %d", &n); err != nil {
			d.t.Error(err)
		}
		return n
	}
}

// busyLoops starts some in a container, which send nothing, and returns what ends them.
func (d *daemon) busyLoops(name string, n int) (end func()) {
	d.t.Helper()
	script := strings.Repeat("while :; do :; done & loops=\"$loops $!\"; ", n) +
		"echo run; read line; kill $loops; echo ended"
	h := d.startTalk("busy loops", usernet, "exec", "-i", name, "sh", "-c", script)
	h.wants("run")
	return func() {
		h.in.Close()
		h.wants("ended")
	}
}

// processorTime is the user and system time of a process.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat := readFile(t, fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	ticks := 0 // of USER_HZ, 100 everywhere
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// A sample is the time that half and 99 of 100 requests of one measurement took at most, in µs, and the daemon's
// processor time for each request of it.
type sample struct{ p50, p99, processor float64 }

// TestNeighboursOfFloods has a container make requests while a neighbour floods: all are answered. How long they take
// is measured, in turns with the same at rest and beside busy loops that send nothing. It is not judged here, since it
// depends on what else the machine does.
func TestNeighboursOfFloods(t *testing.T) { // alone: it measures
	count, rounds := 50, 1
	if s := os.Getenv(neighbourVariable); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v: give a number of rounds", neighbourVariable, err)
		}
		count = 500 // fewer have no 99 of 100 to speak of
	}
	d := startDaemon(t)
	target := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	listen(t, target, echo)
	listenUDP(t, target)
	closed := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	d.ok("network", "create", "shop")
	d.serve("echo", []string{"--network", "shop"}, helper, "udpserve", ":7")
	d.idle("flood", "--network", "shop")
	d.idle("box", "--network", "shop")
	inside := net.JoinHostPort(d.address("echo"), "7")
	kinds := []struct{ name, network, address string }{
		{"connection to the host", "tcp", target},
		{"datagram to the host and back", "udp", target},
		{"datagram to a neighbour and back", "udp", inside},
	}
	results := map[string][]sample{} // by kind and flood, one for each round
	measure := func(flood string) {
		for _, k := range kinds {
			var p50, p99, most, failed int
			before := processorTime(t, d.cmd.Process.Pid)
			out := d.ok("exec", "box", helper, "latency", k.network, k.address, fmt.Sprint(count))
			if _, err := fmt.Sscanf(out, "p50 %d p99 %d max %d failed %d", &p50, &p99, &most, &failed); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if failed > count/10 { // a datagram may be lost
				t.Errorf("%s beside %s: %d of %d failed", k.name, flood, failed, count)
			}
			used := (processorTime(t, d.cmd.Process.Pid) - before).Seconds() * 1e6 / float64(count)
			results[k.name+flood] = append(results[k.name+flood], sample{float64(p50), float64(p99), used})
		}
	}
	// What is beyond a bound is counted under its reason, by the flood's end.
	counted := func(flood string) {
		eventually(t, func() error {
			n, where := 1, ""
			switch flood {
			case "arp":
				n, where = int(d.portDrops("shop", "flood")["flood-rate"]), "drops of the port for flood-rate"
			case "syn":
				n, where = d.counter("tcp_attempt_limit"), "tcp_attempt_limit"
			}
			if n == 0 {
				return fmt.Errorf("%s: 0", where)
			}
			return nil
		})
	}
	measure("") // everything once
	clear(results)
	for range rounds {
		measure(beside[0])
		for n, name := range beside[1:] {
			end := d.busyLoops("flood", n+1)
			measure(name)
			end()
		}
		for _, f := range floods {
			end := d.flooder("flood", f, closed)
			measure(f)
			counted(f)
			if n := end(); n < 1000 {
				t.Errorf("a flood of %d frames (%s)", n, f)
			}
		}
	}
	t.Log(neighbourTable(results, kinds[0].name, kinds[1].name, kinds[2].name))
}

// neighbourTable has medians of the rounds. Ratios are to the same round's measurement at rest.
func neighbourTable(results map[string][]sample, kinds ...string) string {
	median := func(list []sample, of func(i int, s sample) float64) float64 {
		values := make([]float64, len(list))
		for i, s := range list {
			values[i] = of(i, s)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	var table strings.Builder
	for _, k := range kinds {
		rest := results[k+beside[0]]
		fmt.Fprintf(&table, "\n%s (µs):", k)
		for _, f := range append(slices.Clone(beside), floods...) {
			fmt.Fprintf(&table, "\n  %-11s p50 %6.0f (%4.1fx)  p99 %6.0f (%4.1fx)  the daemon's processor %5.0f", f,
				median(results[k+f], func(_ int, s sample) float64 { return s.p50 }),
				median(results[k+f], func(i int, s sample) float64 { return s.p50 / max(rest[i].p50, 1) }),
				median(results[k+f], func(_ int, s sample) float64 { return s.p99 }),
				median(results[k+f], func(i int, s sample) float64 { return s.p99 / max(rest[i].p99, 1) }),
				median(results[k+f], func(_ int, s sample) float64 { return s.processor }))
		}
	}
	return table.String()
}
