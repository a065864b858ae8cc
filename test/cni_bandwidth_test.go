package test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// superFrame is how much a limit can be exceeded by: a frame goes as a whole.
const superFrame = 66 << 10

// TestCNIBandwidth moves bytes from and to a container with limits, also out to the host's side of the gateway, and
// compares with what the rates let go in that time.
func TestCNIBandwidth(t *testing.T) {
	d := startDaemon(t)
	c := newCNI(d, "1.1.0", `, "capabilities": {"portMappings": true, "bandwidth": true}`)
	slow, other := startForeign(d), startForeign(d)
	port := freePort()
	const egress, ingress, burst = 1 << 20, 2 << 20, 64 << 10 // bytes, and bytes a second
	c.add(c.attachment(slow, "slow", "eth0", map[string]any{
		"bandwidth": map[string]int{"ingressRate": 8 * ingress, "ingressBurst": 8 * burst, "egressRate": 8 * egress,
			"egressBurst": 8 * burst},
		"portMappings": []map[string]any{{"hostPort": port, "containerPort": 80, "protocol": "tcp"}},
	}))
	there := c.add(c.attachment(other, "other", "eth0", nil)).IPs[0].Address.IP.String()
	serveDigest(slow, ":80")
	serveDigest(other, ":80")
	here := strings.Fields(slow.run("ip", "-o", "-4", "addr", "show", "eth0").stdout)[3]
	here, _, _ = strings.Cut(here, "/")
	send := func(bytes int, to string) []string {
		host, port, _ := strings.Cut(to, ":")
		return []string{"sh", "-c", fmt.Sprintf("head -c %d /dev/zero | busybox nc %s %s", bytes, host, port)}
	}
	for name, x := range map[string]struct {
		bytes, rate int
		run         func(bytes int) result
	}{
		"to a neighbour":   {3 << 20, egress, func(n int) result { return slow.run(send(n, there+":80")...) }},
		"from a neighbour": {5 << 20, ingress, func(n int) result { return other.run(send(n, here+":80")...) }},
		"from the host": {5 << 20, ingress,
			func(n int) result { return d.command("sh", send(n, "127.0.0.1:"+strconv.Itoa(port))[1:]...) }},
	} {
		begin := time.Now()
		r := x.run(x.bytes)
		took := time.Since(begin)
		if !strings.HasPrefix(r.stdout, strconv.Itoa(x.bytes)+" ") {
			t.Errorf("%s: %v", name, r)
		}
		if most := float64(x.rate)*took.Seconds() + burst + superFrame; float64(x.bytes) > most {
			t.Errorf("%s: %d bytes in %s, at most %.0f", name, x.bytes, took, most)
		}
	}
	for _, bad := range []map[string]int{{"ingressRate": 8}, {"egressBurst": 8},
		{"egressRate": 8, "egressBurst": 1 << 40}} {
		_, err := c.AddNetworkList(t.Context(), c.list,
			c.attachment(other, "bad", "eth1", map[string]any{"bandwidth": bad}))
		wantCode(t, err, types.ErrInvalidNetworkConfig, "bandwidth")
	}
}

// serveDigest has a server in f's namespace that says how much it was sent.
func serveDigest(f foreign, address string) {
	f.d.t.Helper()
	startServer(f, address, "digest")
	eventually(f.d.t, func() error {
		if r := f.run("sh", "-c", "busybox nc 127.0.0.1 "+strings.TrimPrefix(address, ":")+" </dev/null"); r.code != 0 {
			return fmt.Errorf("no server yet: %v", r)
		}
		return nil
	})
}
