package test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// neighbourVariable says how many requests TestNeighboursOfFloods measures of each kind (make bench-neighbour).
const neighbourVariable = "USERNET_NEIGHBOUR"

// floods are the kinds of frames that one container sends as fast as it can.
var floods = []string{"arp", "udp", "fragment", "syn"}

// flooder starts a flood of a container and returns what ends it, and says how many frames were sent.
func (d *daemon) flooder(name, kind, target string) (end func() int) {
	d.t.Helper()
	gateway := d.field(`lladdr ([0-9a-f:]+)`, name, "sh", "-c", "ping -c1 -W5 "+d.gateway(name)+" >/dev/null; ip neigh show "+d.gateway(name))
	h := d.startTalk("flood "+kind, usernet, "exec", "-i", name, helper, "flood", kind, "eth0", gateway, d.address(name), target)
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

// TestNeighboursOfFloods has a container make requests while a neighbour floods: all are answered. How long they take is
// measured, and not judged here, since that depends on what else the machine does.
func TestNeighboursOfFloods(t *testing.T) { // alone: it measures
	count, rounds := 50, 1
	if s := os.Getenv(neighbourVariable); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v: give a number of requests", neighbourVariable, err)
		}
		rounds = 2
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
	// p99 of each kind of request, lowest of the rounds: what else the machine does only adds to it.
	measure := func(into map[string][2]int) {
		for _, k := range kinds {
			var p50, p99, most, failed int
			out := d.ok("exec", "box", helper, "latency", k.network, k.address, fmt.Sprint(count))
			if _, err := fmt.Sscanf(out, "p50 %d p99 %d max %d failed %d", &p50, &p99, &most, &failed); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if failed > count/10 { // a datagram may be lost
				t.Errorf("%s: %d of %d failed", k.name, failed, count)
			}
			if old, ok := into[k.name]; !ok || p99 < old[1] {
				into[k.name] = [2]int{p50, p99}
			}
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
	results := map[string]map[string][2]int{"none": {}}
	for _, f := range floods {
		results[f] = map[string][2]int{}
	}
	measure(map[string][2]int{}) // everything once
	for range rounds {
		measure(results["none"])
		for _, f := range floods {
			end := d.flooder("flood", f, closed)
			measure(results[f])
			counted(f)
			if n := end(); n < 1000 {
				t.Errorf("a flood of %d frames (%s)", n, f)
			}
		}
	}
	var table strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&table, "\n%s:", k.name)
		for _, f := range append([]string{"none"}, floods...) {
			r, base := results[f][k.name], results["none"][k.name]
			fmt.Fprintf(&table, "  %s p50 %d p99 %d µs (%.1fx)", f, r[0], r[1], float64(r[1])/float64(max(base[1], 1)))
		}
	}
	t.Log(table.String())
}
