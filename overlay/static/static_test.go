package static

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/overlay/fabric"
)

// freePorts are UDP ports of which nobody has any in either family.
func freePorts(t *testing.T, n int) []uint16 {
	t.Helper()
	var list []uint16
	for range n {
		c, err := net.ListenUDP("udp", nil) // both families
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		list = append(list, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	}
	return list
}

// newNetwork is a network with a pipe at an address, whose MAC ends as the address does.
func newNetwork(t *testing.T, host byte) (*engine.Network, *engine.Pipe) {
	t.Helper()
	n, err := engine.New(engine.Config{Name: "far", Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() }) // again, where the test has
	p := engine.NewPipe(8)
	_, err = n.Attach(engine.AttachConfig{
		ID:    "box",
		MAC:   net.HardwareAddr{2, 0, 0, 0, 0, host},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, host})},
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	return n, p
}

// request is an ARP request of one address for another (RFC 826).
func request(from, to byte) []byte {
	return []byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, from, 0x08, 0x06,
		0, 1, 0x08, 0x00, 6, 4, 0, 1,
		2, 0, 0, 0, 0, from, 10, 1, 0, from,
		0, 0, 0, 0, 0, 0, 10, 1, 0, to,
	}
}

// TestTwoNetworksFindEachOther by a question to all, in each encapsulation.
func TestTwoNetworksFindEachOther(t *testing.T) {
	for _, encap := range []fabric.Encap{fabric.VXLAN, fabric.Geneve, fabric.GREInUDP} {
		t.Run(encap.String(), func(t *testing.T) {
			ports := freePorts(t, 2)
			var pipes []*engine.Pipe
			for i, own := range ports {
				n, p := newNetwork(t, byte(2+i))
				pipes = append(pipes, p)
				peer := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ports[1-i])
				cfg := Config{ID: "id", Name: "far", Encap: encap, Port: own, VNI: 7, Peers: []netip.AddrPort{peer}}
				if err := New(slog.Default()).Join(cfg, n); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() { // what comes before the other end is ready is lost
				for again := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; {
					_ = pipes[0].Send(ctx, request(2, 3))
					select {
					case <-again.C:
					case <-ctx.Done():
					}
				}
			}()
			frame, err := pipes[1].Receive(ctx)
			cancel()
			if err != nil || string(frame) != string(request(2, 3)) {
				t.Errorf("% x, %v", frame, err)
			}
		})
	}
}

// TestPortsAreShared among networks, are open as long as one of them is, and are told from those that others have.
func TestPortsAreShared(t *testing.T) {
	s, number := New(slog.Default()), freePorts(t, 1)[0]
	cfg := func(id string, vni uint32) Config {
		return Config{
			ID: id, Name: id, Port: number, VNI: vni,
			Peers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)},
		}
	}
	taken := func() bool {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(number)})
		if err == nil {
			err = c.Close()
		}
		return err != nil
	}
	one, _ := newNetwork(t, 2)
	two, _ := newNetwork(t, 3)
	three, _ := newNetwork(t, 4)
	for id, n := range map[string]*engine.Network{"one": one, "two": two} {
		if err := s.Join(cfg(id, uint32(len(id)+int(id[0]))), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Join(cfg("three", uint32(len("one")+'o')), three); err == nil || !strings.Contains(err.Error(),
		"in use by network one") {
		t.Errorf("one number for two networks: %v", err)
	}
	if s.Drops("one") == nil || s.Drops("three") != nil {
		t.Errorf("drops of one %v, of three, which has not joined, %v", s.Drops("one"), s.Drops("three"))
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if !taken() || s.Drops("one") != nil || s.Drops("two") == nil {
		t.Error("the port is gone with the first network, or the first network is not")
	}
	if err := s.Probe(fabric.VXLAN, number); err != nil {
		t.Errorf("a port of the set's: %v", err)
	}
	if err := New(slog.Default()).Probe(fabric.VXLAN, number); err == nil || !strings.Contains(err.Error(),
		"-o usernet.port=") {
		t.Errorf("a port that others have: %v", err)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	if taken() {
		t.Error("the port is open with no network")
	}
	if err := s.Probe(fabric.VXLAN, number); err != nil || taken() {
		t.Errorf("asking leaves the port open, or fails: %v", err)
	}
}

func TestMTULeavesRoom(t *testing.T) {
	peers := func(list ...string) (all []netip.AddrPort) {
		for _, s := range list {
			all = append(all, netip.AddrPortFrom(netip.MustParseAddr(s), 0))
		}
		return all
	}
	if got := MTU(peers("192.0.2.1", "192.0.2.2")...); got != 1450 {
		t.Errorf("over IPv4 %d", got)
	}
	if got := MTU(peers("192.0.2.1", "2001:db8::1")...); got != 1430 {
		t.Errorf("over IPv6 %d", got)
	}
}
