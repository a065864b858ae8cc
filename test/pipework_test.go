package test

import (
	"strconv"
	"strings"
	"testing"
)

// TestConnectGivesWhatPipeworkGives connects running containers, and processes that usernet did not start, with an
// address, a MAC, an interface's name and routes of their own, and disconnects them.
func TestConnectGivesWhatPipeworkGives(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.ok("network", "create", "--subnet", "10.61.0.0/24", "--gateway", "10.61.0.254", "office")
	f := startForeign(d)
	d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "ext", "--network", "mynet")
	d.idle("web", "--network", "mynet")
	d.idle("far", "--network", "office")
	inside := map[string]func(command ...string) result{
		"web": func(command ...string) result { return d.exec("web", command...) },
		"ext": f.run,
	}
	for name, run := range inside {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			before := run("ip", "route").stdout
			d.ok("network", "connect", "--ip", "10.61.0.77", "--mac-address", "02:00:5e:10:00:77", "--interface",
				"lan0", "--route", "10.99.0.0/16=10.61.0.9", "--route", "10.98.0.1/32", "--gw-priority", "5",
				"office", name)
			shown := run("ip", "addr", "show", "lan0").stdout + run("ip", "route").stdout
			for _, want := range []string{
				"inet 10.61.0.77/24", "02:00:5e:10:00:77", "10.99.0.0/16 via 10.61.0.9 dev lan0", "10.98.0.1 dev lan0",
				"default via 10.61.0.254 dev lan0",
			} {
				if !strings.Contains(shown, want) {
					t.Errorf("no %q: %s", want, shown)
				}
			}
			if r := run("ping", "-c1", "-W5", d.address("far")); r.code != 0 {
				t.Errorf("the network is not reached: %v", r)
			}
			d.ok("network", "disconnect", "office", name)
			if after := run("ip", "route").stdout; after != before {
				t.Errorf("routes before:\n%s\nand after:\n%s", before, after)
			}
			if r := run("ip", "addr", "show", "lan0"); r.code == 0 {
				t.Errorf("the interface is still there: %v", r)
			}
		})
	}
	d.ok("run", "--rm", "--network", "name=office,interface=wan0,route=10.97.0.0/16=10.61.0.9", "--", "sh", "-c",
		"ip route | grep -q '10.97.0.0/16 via 10.61.0.9 dev wan0'")
	if d.knows("--driver-opt", "network", "connect") {
		d.dockerOK("network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=lan1", "office", "web")
		d.says("lan1", "web", "ip", "link")
	}
	d.fails("of two address families", "network", "connect", "--route", "10.1.0.0/16=fd00::1", "office", "ext")
	d.fails("--gw-priority", "network", "connect", "--route", "0.0.0.0/0=10.61.0.9", "office", "ext")
	d.fails("it should be to 10.1.0.0/16", "network", "connect", "--route", "10.1.2.3/16", "office", "ext")
	d.fails("no DHCP server", "network", "connect", "--dhcp", "office", "ext")
	d.fails("from 0 to 4094", "network", "connect", "--vlan", "4095", "office", "ext")
}

// TestVLANsOfANetwork: containers in a VLAN reach each other and the gateway, and no others.
func TestVLANsOfANetwork(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	for name, vlan := range map[string]string{"a20": "20", "b20": "20", "c30": "30"} {
		d.idle(name, "--network", "name=mynet,vlan="+vlan)
	}
	d.idle("plain")
	d.ok("network", "connect", "mynet", "plain")
	d.says(" 0% packet loss", "a20", "ping", "-c1", "-W5", "b20")
	if got := d.trace("a20", "b20").says(); !strings.Contains(got, "an answer of 16 bytes, to ") {
		t.Errorf("trace within a VLAN: %s", got)
	}
	for _, test := range []struct{ from, to, says string }{
		{"a20", "c30.mynet", "this container is in 20, and that one in 30 | `usernet network disconnect mynet a20`, and " +
			"`usernet network connect --vlan 30 mynet a20`"},
		{"a20", "plain.mynet", "in 20, and that one in none | `usernet network disconnect mynet a20`, and " +
			"`usernet network connect mynet a20`"},
		{"plain", "a20.mynet", "in none, and that one in 20"},
	} {
		got := d.trace("--timeout", "1s", test.from, test.to).says()
		if !strings.Contains(got, test.says) || !strings.Contains(got, "agrees yes") {
			t.Errorf("trace from %s to %s: %s", test.from, test.to, got)
		}
	}
	d.says(" 0% packet loss", "a20", "ping", "-c1", "-W5", d.gateway("a20"))
	d.says(" 0% packet loss", "a20", "ping", "-c1", "-W5", peer4)
	for _, other := range []string{"c30", "plain"} {
		for from, to := range map[string]string{"a20": other, other: "a20"} {
			r := d.exec(from, "ping", "-c1", "-W1", to+".mynet")
			if r.code == 0 || !strings.Contains(r.stdout, " 100% packet loss") {
				t.Errorf("%s reaches %s, which is in another VLAN: %v", from, to, r)
			}
		}
	}
	d.ok("network", "disconnect", "mynet", "plain")
	d.ok("network", "connect", "--vlan", "20", "mynet", "plain")
	d.says(" 0% packet loss", "plain", "ping", "-c1", "-W5", "b20.mynet")
}
