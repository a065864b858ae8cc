package daemon

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/ndp"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/network"
)

// vmWorld is a daemon with a network and a virtual machine's socket on it.
type vmWorld struct {
	t    *testing.T
	d    *Daemon
	cfg  Config
	path string // where the machine's program looks
	c    *network.Container
}

func newVMWorld(t *testing.T, change func(*network.NetworkSpec, *api.AttachRequest)) *vmWorld {
	t.Helper()
	dir := t.TempDir()
	w := &vmWorld{t: t, path: filepath.Join(dir, "vm1.sock"),
		cfg: Config{StateDir: filepath.Join(dir, "s"), Logger: slog.New(slog.DiscardHandler)}}
	w.start()
	yes := true
	n := network.NetworkSpec{Name: "lan", EnableIPv6: &yes}
	q := api.AttachRequest{Spec: network.ContainerSpec{
		Name: "vm1", NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: w.path},
		Networks: []network.NamedEndpointSpec{{Network: "lan"}},
	}}
	if change != nil {
		change(&n, &q)
	}
	if _, _, err := w.d.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.c, err = w.d.Attach(t.Context(), q, nil); err != nil {
		t.Fatal(err)
	}
	if !q.Spec.VM.Connect {
		if err := os.Symlink(w.c.VM.Socket, w.path); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *vmWorld) start() {
	w.t.Helper()
	var err error
	if w.d, err = New(w.cfg); err != nil {
		w.t.Fatal(err)
	}
}

func (w *vmWorld) stop() {
	w.t.Helper()
	if err := w.d.Close(); err != nil {
		w.t.Error(err)
	}
}

// machine starts the virtual machine and has it take its address by DHCP.
func (w *vmWorld) machine() *vmGuest {
	w.t.Helper()
	e := w.c.Endpoints[0]
	g := startGuest(w.t, w.path, e.MAC[:])
	lease := g.dhcp()
	if !lease.YourIPAddr.Equal(e.IPv4.Addr().AsSlice()) || !lease.Router()[0].Equal(e.Gateway4.AsSlice()) ||
		!lease.DNS()[0].Equal(e.Gateway4.AsSlice()) || lease.HostName() != "vm1" {
		w.t.Errorf("the lease is\n%s", lease.Summary())
	}
	g.configure(e.IPv4, e.Gateway4)
	return g
}

// fetch reads what a service says; "" where it is not there yet.
func fetch(address string) string {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return ""
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	return string(b)
}

// TestAVirtualMachineIsAContainer: address, name, published port, flows, and all of them again after its program and
// the daemon have been started again.
func TestAVirtualMachineIsAContainer(t *testing.T) {
	running := leak.Goroutines()
	t.Cleanup(func() { running.NoneLeft(t) })
	w := newVMWorld(t, func(_ *network.NetworkSpec, q *api.AttachRequest) {
		q.Spec.Ports = []network.PortBinding{{Proto: network.TCP, Port: 80, End: 80,
			HostIP: netip.MustParseAddr("127.0.0.1")}}
	})
	e := w.c.Endpoints[0]
	for round := range 3 {
		if round == 2 { // the daemon
			w.stop()
			w.start()
		}
		g := w.machine()
		g.serve(netip.AddrPortFrom(e.IPv4.Addr(), 80))
		ports, err := w.d.Published(w.c.ID)
		if err != nil || len(ports) != 1 {
			t.Fatalf("ports are %v, %v", ports, err)
		}
		at := ports[0].Host.String()
		eventually(t, "the service answers", func() bool { return strings.HasPrefix(fetch(at), "from the guest") })
		if got, _, _ := w.d.names.LookupName(w.c.ID, "vm1"); !slices.Contains(got, e.IPv4.Addr()) {
			t.Errorf("its name stands for %v", got)
		}
		_ = g.conn.Close()
	}
}

func TestAGuestLearnsItsIPv6Address(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*network.NetworkSpec, *api.AttachRequest)
		auto   bool
		router bool
	}{
		"by itself": {nil, true, true},
		"by itself, from a MAC of its own": {func(_ *network.NetworkSpec, q *api.AttachRequest) {
			q.Spec.Networks[0].MAC = network.MAC{0x52, 0x54, 0, 1, 2, 3}
		}, true, true},
		"an address that was asked for, by DHCPv6": {func(n *network.NetworkSpec, q *api.AttachRequest) {
			n.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("fd00:7::/64")}}
			q.Spec.Networks[0].IPv6 = netip.MustParseAddr("fd00:7::77")
		}, false, true},
		"on an internal network, with no way out": {func(n *network.NetworkSpec, _ *api.AttachRequest) {
			n.Internal = true
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newVMWorld(t, test.change)
			e := w.c.Endpoints[0]
			g := startGuest(t, w.path, e.MAC[:])
			ra := routerAdvertisement(t, g)
			if (ra.RouterLifetime > 0) != test.router {
				t.Errorf("router for %v", ra.RouterLifetime)
			}
			for _, o := range ra.Options {
				p, ok := o.(*ndp.PrefixInformation)
				if ok && (p.AutonomousAddressConfiguration != test.auto || p.Prefix != e.IPv6.Masked().Addr()) {
					t.Errorf("prefix %+v, want autonomous %v and %v", p, test.auto, e.IPv6)
				}
			}
			if (selfMade(e) == e.IPv6.Addr()) != test.auto {
				t.Errorf("the address is %v with MAC %v", e.IPv6, e.MAC)
			}
		})
	}
}

// routerAdvertisement solicits one.
func routerAdvertisement(t *testing.T, g *vmGuest) *ndp.RouterAdvertisement {
	t.Helper()
	from, to := netip.MustParseAddr("::"), netip.MustParseAddr("ff02::2")
	body, err := ndp.MarshalMessageChecksum(&ndp.RouterSolicitation{}, from, to)
	if err != nil {
		t.Fatal(err)
	}
	frame := append(append([]byte{0x33, 0x33, 0, 0, 0, 2}, g.mac...), 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), 58,
		255)
	frame = append(append(append(frame, from.AsSlice()...), to.AsSlice()...), body...)
	if err := g.send(frame); err != nil {
		t.Fatal(err)
	}
	packet := g.next("router advertisement", func(f []byte) bool {
		return len(f) > 54 && f[12] == 0x86 && f[20] == 58 && f[54] == 134
	})
	m, err := ndp.ParseMessage(packet[40:])
	if err != nil {
		t.Fatal(err)
	}
	return m.(*ndp.RouterAdvertisement)
}

// TestAVirtualMachinesEnd: what is detached leaves nothing, and one whose link is gone is not taken up again.
func TestAVirtualMachinesEnd(t *testing.T) {
	w := newVMWorld(t, nil)
	if err := w.d.RemoveContainer(t.Context(), w.c.ID, true); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.StateDir, "vm", "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	_ = os.Remove(w.path)
	q := api.AttachRequest{Key: "k", Spec: network.ContainerSpec{Name: "vm1", NetworkMode: "lan",
		VM: network.VMSocket{Kind: "datagram", Path: w.path}}}
	first, err := w.d.Attach(t.Context(), q, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.d.Attach(t.Context(), q, nil); err != nil || again.ID != first.ID {
		t.Errorf("attached again with the same key: %v", err)
	}
	w.stop()
	w.start() // nobody has made the link
	if _, err := w.d.Container("vm1"); err == nil {
		t.Error("a virtual machine that nobody can start was taken up again")
	}
}

func TestWhatNoVirtualMachineCanHave(t *testing.T) {
	w := newVMWorld(t, nil)
	if err := w.d.Connect(t.Context(), "bridge", w.c.ID, network.EndpointSpec{}); err == nil {
		t.Error("its one socket is on two networks")
	}
	good := network.ContainerSpec{Name: "vm2", NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: "/x/y"}}
	for name, change := range map[string]func(*network.ContainerSpec){
		"a kind that is not known": func(s *network.ContainerSpec) { s.VM.Kind = "tcp" },
		"a relative path":          func(s *network.ContainerSpec) { s.VM.Path = "x" },
		"a path that goes back":    func(s *network.ContainerSpec) { s.VM.Path = "/x/../y" },
		"datagrams connected to":   func(s *network.ContainerSpec) { s.VM.Kind, s.VM.Connect = "datagram", true },
		"a network namespace":      func(s *network.ContainerSpec) { s.NetNS = "/proc/self/ns/net" },
		"the API":                  func(s *network.ContainerSpec) { s.ShareAPI = true },
		"the host's network":       func(s *network.ContainerSpec) { s.NetworkMode = "host" },
		"no network":               func(s *network.ContainerSpec) { s.NetworkMode = "none" },
		"two networks": func(s *network.ContainerSpec) {
			s.Networks = []network.NamedEndpointSpec{{Network: "lan"}, {Network: "bridge"}}
		},
	} {
		spec := good
		change(&spec)
		if c, err := w.d.Attach(t.Context(), api.AttachRequest{Spec: spec}, nil); err == nil {
			t.Errorf("%s: attached as %v", name, c.VM)
		}
	}
	if got := len(w.d.Containers()); got != 1 {
		t.Errorf("%d containers are there, want 1", got)
	}
}

// TestAVirtualMachinesPathIsItsOwn: another one does not get it before the first is detached, or the process that
// holds it has ended.
func TestAVirtualMachinesPathIsItsOwn(t *testing.T) {
	w := newVMWorld(t, nil)
	attach := func(name, key string, connect bool, holder int) error {
		_, err := w.d.Attach(t.Context(), api.AttachRequest{Key: key, Holder: holder, Spec: network.ContainerSpec{
			Name: name, NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: w.path, Connect: connect},
			Networks: []network.NamedEndpointSpec{{Network: "lan"}},
		}}, nil)
		return err
	}
	for _, connect := range []bool{false, true} {
		if err := attach("vm2", "", connect, 0); err == nil || !strings.Contains(err.Error(), "vm1") {
			t.Errorf("a path that vm1 has was given to vm2 (connect: %v): %v", connect, err)
		}
	}
	if err := w.d.RemoveContainer(t.Context(), w.c.ID, true); err != nil {
		t.Fatal(err)
	}
	sleeping := exec.Command("sleep", "1000")
	if err := sleeping.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeping.Process.Kill() })
	if err := attach("held", "k", true, sleeping.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := attach("next", "k", true, os.Getpid()); err == nil {
		t.Error("a process took the place of one that lives")
	}
	_ = sleeping.Process.Kill()
	_ = sleeping.Wait()
	if err := attach("next", "k", true, os.Getpid()); err != nil {
		t.Errorf("a process does not get the place of one that has ended: %v", err)
	}
}
