package overlay

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestOverlayNetwork is what people do with it: a network is made on one host by the docker client, is seen on all, and
// containers on three hosts reach each other by name, and are reached through ports published on each host.
func TestOverlayNetwork(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		id := w.hosts[1].docker("network", "create", "-d", "overlay", "--attachable", "ov_net1")
		w.each(func(h *host) { h.seesNetwork("ov_net1", id) })
		for i, h := range w.hosts {
			name := fmt.Sprintf("t%d", i+1)
			h.serve(name, []string{"--network", "ov_net1", "-p", "8080:80", "-p", "8080:80/udp", "--network-alias",
				"all"},
				"sh", "-c", helper+" udpserve :80 addr & exec "+helper+" tcpserve :80 addr")
		}
		for i, h := range w.hosts {
			for j := range w.hosts {
				if i != j {
					h.pings(fmt.Sprintf("t%d", i+1), fmt.Sprintf("t%d", j+1))
				}
			}
		}
		t.Run("inspect shows the containers of all hosts", func(t *testing.T) {
			w.each(func(h *host) { h.in(t).seesContainers("ov_net1", "t1", "t2", "t3") })
		})
		t.Run("published ports", func(t *testing.T) {
			for i, h := range w.hosts {
				client := w.hosts[(i+1)%3]
				for _, dial := range []string{"tcpdial", "udpdial"} {
					r := client.in(t).run(helper, dial, h.addr()+":8080")
					if !strings.Contains(r.stdout, client.addr()) {
						t.Errorf("the container of host %d does not see the client %s: %v", h.n, client.addr(), r)
					}
				}
			}
		})
		t.Run("between containers", func(t *testing.T) {
			for i, h := range w.hosts {
				own, other := fmt.Sprintf("t%d", i+1), fmt.Sprintf("t%d", (i+1)%3+1)
				want := h.in(t).address(own, "eth0").String()
				for _, dial := range []string{"tcpdial", "udpdial"} {
					if r := h.in(t).exec(own, helper, dial, other+":80"); !strings.Contains(r.stdout, want) {
						t.Errorf("%s does not see %s: %v", other, want, r)
					}
				}
			}
		})
		t.Run("a network in use is not removed elsewhere", func(t *testing.T) {
			w.hosts[0].in(t).ok("rm", "-f", "t1")
			w.hosts[0].in(t).fails("has active endpoints", "network", "rm", "ov_net1")
		})
		t.Run("a removed network is gone everywhere", func(t *testing.T) {
			w.hosts[1].in(t).ok("rm", "-f", "t2")
			w.hosts[2].in(t).ok("rm", "-f", "t3")
			eventually(t, func() error {
				if r := w.hosts[0].in(t).try("network", "rm", "ov_net1"); r.code != 0 {
					return fmt.Errorf("%v", r)
				}
				return nil
			})
			w.each(func(h *host) {
				eventually(t, func() error {
					if r := h.in(t).run("docker", "network", "ls", "--format", "{{.Name}}"); strings.Contains(r.stdout,
						"ov_net1") {
						return fmt.Errorf("host %d still has it: %v", h.n, r)
					}
					return nil
				})
			})
		})
	})
}

// in is the same host for use in a subtest.
func (h *host) in(t testing.TB) *host {
	sub := *h
	sub.t = t
	return &sub
}

// seesNetwork waits until the host's docker client lists a network.
func (h *host) seesNetwork(name, id string) {
	h.t.Helper()
	eventually(h.t, func() error {
		out := h.docker("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}}")
		if !strings.Contains(out, fmt.Sprintf("%s %s overlay global", id, name)) {
			return fmt.Errorf("host %d does not see %s: %s", h.n, name, out)
		}
		return nil
	})
}

// seesContainers waits until the host's docker client shows these containers on a network, and no others.
func (h *host) seesContainers(network string, want ...string) {
	h.t.Helper()
	eventually(h.t, func() error {
		var list []struct {
			Containers map[string]struct{ Name, IPv4Address, MacAddress string }
		}
		if err := json.Unmarshal([]byte(h.docker("network", "inspect", network)), &list); err != nil {
			return err
		}
		found := map[string]bool{}
		for _, c := range list[0].Containers {
			found[c.Name] = c.IPv4Address != "" && c.MacAddress != ""
		}
		for _, name := range want {
			if !found[name] {
				return fmt.Errorf("host %d does not show %s on %s: %v", h.n, name, network, list)
			}
		}
		if len(found) != len(want) {
			return fmt.Errorf("host %d shows %v on %s, want %v", h.n, found, network, want)
		}
		return nil
	})
}
