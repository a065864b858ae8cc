package vswitch

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/usernet/usernet/internal/packet"
)

func TestFramesReachThePortsTheyAreFor(t *testing.T) {
	sw := New(Config{Name: "shop"})
	gw, gwDev := connect(t, sw, PortConfig{Name: "gateway", MAC: mac(1), Role: Gateway})
	a, aDev := connect(t, sw, guarded(2))
	_, bDev := connect(t, sw, guarded(3))
	isolated := guarded(4)
	isolated.Isolated = true
	c, cDev := connect(t, sw, isolated)
	devs := []*recorder{gwDev, aDev, bDev, cDev}
	for _, tc := range []struct {
		name string
		from *Port
		dst  net.HardwareAddr
		src  byte
		want [4]int // at gateway, a, b, isolated c
	}{
		{"unicast", a, mac(3), 2, [4]int{0, 0, 1, 0}},
		{"unicast to the gateway", a, mac(1), 2, [4]int{1, 0, 0, 0}},
		{"unicast from the gateway", gw, mac(2), 1, [4]int{0, 1, 0, 0}},
		{"unicast to itself", a, mac(2), 2, [4]int{}},
		{"unicast to nobody", a, mac(9), 2, [4]int{}},
		{"broadcast", a, broadcast, 2, [4]int{1, 0, 1, 0}},
		{"multicast", a, allNodesMAC, 2, [4]int{1, 0, 1, 0}},
		{"broadcast from the gateway", gw, broadcast, 1, [4]int{0, 1, 1, 1}},
		{"to an isolated port", a, mac(4), 2, [4]int{}},
		{"from an isolated port", c, mac(2), 4, [4]int{}},
		{"broadcast from an isolated port", c, broadcast, 4, [4]int{1, 0, 0, 0}},
		{"from an isolated port to the gateway", c, mac(1), 4, [4]int{1, 0, 0, 0}},
		{"from the gateway to an isolated port", gw, mac(4), 1, [4]int{0, 0, 0, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, d := range devs {
				d.reset()
			}
			tc.from.Receive(frame(tc.dst, mac(tc.src), 0x88b5, []byte(tc.name)))
			for i, d := range devs {
				if got := d.got(); got != tc.want[i] {
					t.Errorf("device %d got %d frames, want %d", i, got, tc.want[i])
				} else if got == 1 && !bytes.Equal(d.frames[0][EthernetHeaderLen:], []byte(tc.name)) {
					t.Errorf("device %d got %q", i, d.frames[0])
				}
			}
		})
	}
	other := guarded(5)
	other.VLAN = 20
	connect(t, sw, other)
	a.Receive(frame(mac(5), mac(2), 0x88b5, nil))
	if n := a.Stats().Drops[DropOtherVLAN]; n != 1 {
		t.Errorf("%d frames to another VLAN are counted, want one", n)
	}
	if drops := a.Stats().Drops; drops[DropUnknown] != 1 || drops[DropIsolated] != 1 {
		t.Errorf("counted %v, want one unknown and one isolated", drops)
	}
}

func TestLargeFloodedFrameIsWholeAtEveryDevice(t *testing.T) {
	sw := New(Config{})
	from, _ := connect(t, sw, PortConfig{MAC: mac(1), Role: Learning})
	payload := bytes.Repeat([]byte("usernet "), 8000)
	var devs []*recorder
	for n := byte(2); n < 6; n++ {
		_, d := connect(t, sw, PortConfig{MAC: mac(n)})
		d.take = true
		devs = append(devs, d)
	}
	f := frame(broadcast, mac(1), 0x88b5, payload)
	before := f.block
	from.Receive(f)
	if f.block != before {
		t.Error("a device that is one of many took the frame's buffer")
	}
	for i, d := range devs {
		if d.got() != 1 || !bytes.Equal(d.frames[0][EthernetHeaderLen:], payload) {
			t.Errorf("device %d got %d frames, or other bytes", i, d.got())
		}
	}
}

func TestLargePayloadIsGivenAwayAndSmallIsCopied(t *testing.T) {
	for _, tc := range []struct {
		size  int
		given bool
	}{{0, false}, {1, false}, {1500, false}, {giveAwayLen - 1, false}, {giveAwayLen, true}, {MaxPayload - 1, true}} {
		f := frame(broadcast, mac(1), 0x88b5, bytes.Repeat([]byte{7}, tc.size))
		v := f.StealPayload().View()
		if v.Size() != tc.size || bytes.Count(v.AsSlice(), []byte{7}) != tc.size {
			t.Errorf("%d bytes: took %d, or other bytes", tc.size, v.Size())
		}
		if given := f.block.IsZero(); given != tc.given {
			t.Errorf("%d bytes: given away is %v, want %v", tc.size, given, tc.given)
		}
		if n := len(f.Buffer()); n != MaxPayload { // the next frame must not land in what was given away
			t.Errorf("buffer of %d bytes, want %d", n, MaxPayload)
		}
		f.Fill(copy(f.Buffer(), bytes.Repeat([]byte{9}, tc.size)))
		if bytes.Count(v.AsSlice(), []byte{7}) != tc.size {
			t.Errorf("%d bytes: changed after they were taken", tc.size)
		}
		v.Release()
		f.Release()
	}
}

func TestPortsLearnOnlyWithoutGuard(t *testing.T) {
	sw := New(Config{})
	gw, _ := connect(t, sw, PortConfig{Name: "gateway", MAC: mac(1), Role: Gateway})
	vm, vmDev := connect(t, sw, PortConfig{Name: "vm", MAC: mac(2), Role: Learning})
	other, otherDev := connect(t, sw, PortConfig{Name: "other", MAC: mac(3), Role: Learning})
	_, guardedDev := connect(t, sw, guarded(4))

	gw.Receive(frame(mac(77), mac(1), 0x88b5, nil))
	if vmDev.got() != 1 || otherDev.got() != 1 || guardedDev.got() != 0 {
		t.Error("a frame to an unknown MAC goes to the ports without guard, and to these alone")
	}
	vm.Receive(frame(mac(1), mac(77), 0x88b5, nil))
	gw.Receive(frame(mac(77), mac(1), 0x88b5, nil))
	if vmDev.got() != 2 || otherDev.got() != 1 {
		t.Error("a learnt MAC gets its frames at its port alone")
	}
	other.Receive(frame(mac(1), mac(77), 0x88b5, nil)) // it moved
	gw.Receive(frame(mac(77), mac(1), 0x88b5, nil))
	if vmDev.got() != 2 || otherDev.got() != 2 {
		t.Error("a MAC that moved gets its frames at its new port alone")
	}
	vm.Receive(frame(mac(1), mac(4), 0x88b5, nil))
	if n := vm.Stats().Drops[DropMAC]; n != 1 {
		t.Errorf("%d drops for taking over a guarded port's MAC, want 1", n)
	}
	for i := range 10 * learningLimit {
		vm.Receive(frame(mac(1), net.HardwareAddr{2, 1, 0, 0, byte(i >> 8), byte(i)}, 0x88b5, nil))
	}
	if n := len(sw.Ports()[1].Learned); n != learningLimit {
		t.Errorf("learnt %d MACs, want the bound of %d", n, learningLimit)
	}
	if err := vm.Update(PortConfig{Name: "vm", MAC: mac(2)}); err != nil {
		t.Fatal(err)
	}
	if n := len(sw.Ports()[1].Learned); n != 0 {
		t.Errorf("%d MACs are left behind a port that is guarded now", n)
	}
}

func TestUpdateChangesAddressesAtOnce(t *testing.T) {
	sw := New(Config{})
	p, _ := connect(t, sw, guarded(2))
	_, dev := connect(t, sw, guarded(3))
	send := func() bool {
		before := dev.got()
		p.Receive(frame(mac(3), mac(2), EtherTypeIPv4, ipPacket(ip4(20), ip4(3), packet.ProtoICMP, make([]byte, 8))))
		return dev.got() > before
	}
	if send() {
		t.Error("an address passed before it was the port's")
	}
	cfg := guarded(2)
	cfg.Addrs = append(cfg.Addrs, ip4(20))
	if err := p.Update(cfg); err != nil {
		t.Fatal(err)
	}
	if !send() {
		t.Error("an address was dropped after it became the port's")
	}
	cfg.MAC = mac(3)
	if err := p.Update(cfg); !errors.Is(err, ErrMACInUse) {
		t.Errorf("Update to another port's MAC returned %v, want ErrMACInUse", err)
	}
}

func TestConnectRefusesWhatCannotWork(t *testing.T) {
	sw := New(Config{Name: "shop"})
	connect(t, sw, guarded(2))
	if _, err := sw.Connect(guarded(2), new(recorder)); !errors.Is(err, ErrMACInUse) || !strings.Contains(err.Error(),
		"shop") {
		t.Errorf("a second port of the same MAC: %v, want ErrMACInUse that names the network", err)
	}
	for _, bad := range []net.HardwareAddr{nil, {1, 2, 3}, make([]byte, 6), broadcast, {1, 0, 0, 0, 0, 0},
		make([]byte, 8)} {
		if _, err := sw.Connect(PortConfig{MAC: bad}, new(recorder)); err == nil {
			t.Errorf("MAC %v was accepted", bad)
		}
	}
}

func TestClosedPortsAndSwitchesMoveNothing(t *testing.T) {
	sw := New(Config{})
	a, aDev := connect(t, sw, guarded(2))
	b, bDev := connect(t, sw, guarded(3))
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a.Receive(frame(mac(3), mac(2), 0x88b5, nil))
	a.Receive(frame(broadcast, mac(2), 0x88b5, nil))
	b.Receive(frame(mac(2), mac(3), 0x88b5, nil))
	if aDev.got()+bDev.got() != 0 {
		t.Error("a closed port got or sent a frame")
	}
	if err := b.Update(guarded(3)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Update of a closed port returned %v", err)
	}
	connect(t, sw, guarded(3)) // its MAC is free again
	if err := sw.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sw.Connect(guarded(5), new(recorder)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Connect to a closed switch returned %v", err)
	}
	if n := len(sw.Ports()); n != 0 {
		t.Errorf("a closed switch has %d ports", n)
	}
}

func TestStatsCountBothWaysAndEveryDrop(t *testing.T) {
	sw := New(Config{Name: "shop"})
	a, _ := connect(t, sw, guarded(2))
	b, bDev := connect(t, sw, guarded(3))
	a.Receive(frame(mac(3), mac(2), 0x88b5, make([]byte, 100)))
	bDev.err = errBroken
	a.Receive(frame(mac(3), mac(2), 0x88b5, make([]byte, 100)))
	a.Receive(frame(mac(3), mac(9), 0x88b5, make([]byte, 100)))
	a.CountDrop(DropShort)
	in, out := a.Stats(), b.Stats()
	if in.FramesIn != 3 || in.BytesIn != 3*114 || out.FramesOut != 1 || out.BytesOut != 114 {
		t.Errorf("counted %+v in and %+v out", in, out)
	}
	if in.Drops[DropMAC] != 1 || in.Drops[DropShort] != 1 || out.Drops[DropDevice] != 1 {
		t.Errorf("counted drops %v and %v", in.Drops, out.Drops)
	}
	if got := sw.Drops(); len(got) != 3 || got[1] !=
		(DropCount{Network: "shop", Container: guarded(2).Name, Reason: "mac", Frames: 1}) {
		t.Errorf("with labels: %+v", got)
	}
	text, err := json.Marshal(in.Drops)
	if err != nil || string(text) != `{"mac":1,"short":1}` {
		t.Errorf("drops in JSON: %s (%v)", text, err)
	}
}

func TestMTUBoundsPacketsAndSegments(t *testing.T) {
	sw := New(Config{MTU: 1500})
	p, _ := connect(t, sw, guarded(2))
	_, dev := connect(t, sw, guarded(3))
	super := func(size uint16) *Frame {
		f := frame(mac(3), mac(2), EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 9000))))
		f.PutVirtio(Virtio{NeedsChecksum: true, GSO: GSOTCPv4, GSOSize: size, ChecksumStart: 34, ChecksumOffset: 16})
		return f
	}
	for _, tc := range []struct {
		name string
		f    *Frame
		want bool
	}{
		{"as large as the MTU", frame(mac(3), mac(2), 0x88b5, make([]byte, 1500)), true},
		{"one byte larger", frame(mac(3), mac(2), 0x88b5, make([]byte, 1501)), false},
		{"super-frame of segments as large", super(1460), true},
		{"super-frame of larger segments", super(1461), false},
	} {
		before := dev.got()
		p.Receive(tc.f)
		if got := dev.got() > before; got != tc.want {
			t.Errorf("%s: passed is %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestForwardingAllocatesNothing(t *testing.T) {
	sw := New(Config{})
	p, _ := connect(t, sw, guarded(2))
	open, _ := connect(t, sw, PortConfig{MAC: mac(5), Role: Learning})
	for range 3 {
		if _, err := sw.Connect(PortConfig{MAC: mac(byte(10 + len(sw.Ports())))}, sink{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sw.Connect(guarded(3), sink{}); err != nil {
		t.Fatal(err)
	}
	super := frame(mac(3), mac(2), EtherTypeIPv6,
		ipPacket(ip6(2), ip6(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 60000))))
	super.PutVirtio(Virtio{NeedsChecksum: true, GSO: GSOTCPv6, GSOSize: 1440, ChecksumStart: 54, ChecksumOffset: 16})
	for name, tc := range map[string]struct {
		p *Port
		f *Frame
	}{
		"unicast": {p, frame(mac(3), mac(2), EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoUDP, udp(1, 2, nil)))},
		"super-frame": {p, super},
		"broadcast":   {p, frame(mac(3), mac(2), EtherTypeARP, arp(1, mac(2), ip4(2), ip4(3)))},
		"dropped":     {p, frame(mac(3), mac(9), 0x88b5, nil)},
		"no guard":    {open, frame(mac(3), mac(50), 0x88b5, nil)},
		"fragment": {p, frame(mac(3), mac(2), EtherTypeIPv4,
			fragment4(ipPacket(ip4(2), ip4(3), packet.ProtoUDP, make([]byte, 64)), 0, true))},
	} {
		tc.p.Receive(tc.f) // learn, and make the table of fragments
		if n := testing.AllocsPerRun(100, func() { tc.p.Receive(tc.f) }); n != 0 {
			t.Errorf("%s: %v allocations for a frame, want none", name, n)
		}
	}
}

// sink is a device that takes everything.
type sink struct{}

func (sink) WriteFrame(*Frame) error { return nil }

func TestPortsComeAndGoWhileFramesFlow(t *testing.T) {
	sw := New(Config{})
	a, _ := connect(t, sw, guarded(2))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			f := frame(broadcast, mac(2), 0x88b5, make([]byte, 100))
			for {
				select {
				case <-stop:
					return
				default:
					a.Receive(f)
				}
			}
		})
	}
	for i := range 200 {
		p, err := sw.Connect(PortConfig{MAC: mac(byte(10 + i%20)), Role: Role(i % 2)}, sink{})
		if err != nil {
			t.Fatal(err)
		}
		sw.Ports()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if n := len(sw.Ports()); n != 1 {
		t.Errorf("%d ports are left, want 1", n)
	}
}
