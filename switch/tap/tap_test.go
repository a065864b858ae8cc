package tap

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

var kinds = map[string]Options{
	"offloaded": {Offload: true, Persist: true},
	"plain":     {},
	"veth":      {Veth: true, Persist: true},
}

func newSwitch(t testing.TB) *vswitch.Switch {
	sw := vswitch.New(vswitch.Config{MTU: 1500})
	t.Cleanup(func() { _ = sw.Close() })
	return sw
}

func TestPingBetweenTwoTAPs(t *testing.T) {
	sw := newSwitch(t)
	a, b := newStation(t, sw, 1, 1500, kinds["offloaded"]), newStation(t, sw, 2, 1500, kinds["offloaded"])
	c := a.packet("ip4:icmp", "10.0.0.1")
	echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("usernet")}}
	packet, err := echo.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(packet, &net.IPAddr{IP: b.addrs[0].AsSlice()}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, from, err := c.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := icmp.ParseMessage(1, buf[:n])
	if err != nil || reply.Type != ipv4.ICMPTypeEchoReply || from.String() != "10.0.0.2" {
		t.Fatalf("got %+v from %v (%v), want an echo reply from 10.0.0.2", reply, from, err)
	}
	if drops := a.port.Stats().Drops; drops[vswitch.DropARP] != 0 || drops[vswitch.DropIPv4] != 0 {
		t.Errorf("the guard dropped honest frames: %v", drops)
	}
}

func TestStreamsArriveWholeBetweenAllKindsOfTAPs(t *testing.T) {
	for from, fromOpts := range kinds {
		for to, toOpts := range kinds {
			for family, i := range map[string]int{"IPv4": 0, "IPv6": 1} {
				t.Run(from+" to "+to+" over "+family, func(t *testing.T) {
					sw := newSwitch(t)
					a, b := newStation(t, sw, 1, 1500, fromOpts), newStation(t, sw, 2, 1500, toOpts)
					const size = 8 << 20
					got, want := transfer(t, a, b, i, size)
					if got != want {
						t.Fatal("the bytes that arrived are not those that were sent")
					}
					s := a.port.Stats()
					if mean := s.BytesIn / s.FramesIn; from == "offloaded" && mean < 4000 {
						t.Errorf("frames of %d bytes on average: the TAP hands over no super-frames", mean)
					}
					if s.BytesIn < size {
						t.Errorf("counted %d bytes in, fewer than the %d sent", s.BytesIn, size)
					}
				})
			}
		}
	}
}

// transfer sends n random bytes from a to b and returns the digests of both ends.
func transfer(t *testing.T, a, b *station, family, n int) (got, want [32]byte) {
	t.Helper()
	l := b.listen(b.addrs[family])
	sent := sha256.New()
	failed := make(chan error, 1)
	c := a.dial(l.Addr().String())
	go func() {
		src := io.LimitReader(rand.NewChaCha8([32]byte{byte(n)}), int64(n))
		_, err := io.Copy(c, io.TeeReader(src, sent))
		failed <- errors.Join(err, c.Close())
	}()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	received := sha256.New()
	if _, err := io.Copy(received, peer); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	return sum(received), sum(sent)
}

func sum(h hash.Hash) [32]byte { return [32]byte(h.Sum(nil)) }

func TestDatagramSuperFramesAreCutForPlainTAPs(t *testing.T) {
	for to, opts := range kinds {
		t.Run(to, func(t *testing.T) {
			sw := newSwitch(t)
			a, b := newStation(t, sw, 1, 1500, kinds["offloaded"]), newStation(t, sw, 2, 1500, opts)
			sink := b.packet("udp4", "10.0.0.2:0")
			src := a.packet("udp4", "10.0.0.1:0").(*net.UDPConn)
			raw, err := src.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			const size, count = 1000, 20
			var failed error
			if err := raw.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size)
			}); err != nil || failed != nil {
				t.Fatal(err, failed)
			}
			data := make([]byte, size*count)
			for i := range data {
				data[i] = byte(i / size)
			}
			to := sink.LocalAddr().(*net.UDPAddr).AddrPort()
			if _, err := src.WriteToUDPAddrPort(data, to); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 64<<10)
			for i := range count {
				n, _, err := sink.ReadFrom(buf)
				if err != nil {
					t.Fatalf("datagram %d: %v", i, err)
				}
				if n != size || !bytes.Equal(buf[:n], data[i*size:(i+1)*size]) {
					t.Fatalf("datagram %d has %d bytes, or others than were sent", i, n)
				}
			}
		})
	}
}

func TestPersistentTAPIsOpenedAgainWithItsAddresses(t *testing.T) {
	for _, kind := range []string{"offloaded", "veth"} {
		t.Run(kind, func(t *testing.T) { openAgain(t, kinds[kind]) })
	}
}

func openAgain(t *testing.T, opts Options) {
	sw := newSwitch(t)
	a, b := newStation(t, sw, 1, 1500, opts), newStation(t, sw, 2, 1500, opts)
	if err := errors.Join(b.port.Close(), b.dev.Close()); err != nil {
		t.Fatal(err)
	}
	b.in(func() error {
		f, err := Create("eth0", b.mac, 1500, opts)
		if err == nil {
			b.plug(sw, f, opts)
		}
		return err
	})
	if got, want := transfer(t, a, b, 0, 1<<20); got != want {
		t.Fatal("the bytes that arrived are not those that were sent")
	}
}

func TestServeEndsWhenTheTAPIsRemovedInside(t *testing.T) {
	for _, kind := range []string{"offloaded", "veth"} {
		t.Run(kind, func(t *testing.T) { removeInside(t, kinds[kind]) })
	}
}

func removeInside(t *testing.T, opts Options) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	f, err := Create("gone0", mac, 1500, opts)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := Open(f, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	port, err := newSwitch(t).Connect(vswitch.PortConfig{MAC: mac, Role: vswitch.Learning}, dev)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- dev.Serve(port) }()
	link, err := netlink.LinkByName("gone0")
	if err != nil {
		t.Fatal(err)
	}
	if link.Attrs().HardwareAddr.String() != mac.String() || link.Attrs().MTU != 1500 {
		t.Errorf("made %v with MTU %d, want %v and 1500", link.Attrs().HardwareAddr, link.Attrs().MTU, mac)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, ErrGone) {
		t.Errorf("Serve returned %v, want ErrGone", err)
	}
	if err := dev.WriteFrame(&vswitch.Frame{Payload: [][]byte{make([]byte, 46)}}); !errors.Is(err, ErrGone) {
		t.Errorf("WriteFrame returned %v, want ErrGone", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	f, err := Create("busy0", mac, 0, Options{Offload: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	for name, want := range map[string]string{
		"busy0":                 "another process has it open",
		strings.Repeat("x", 16): "at most 15 characters",
		"lo":                    "is no TAP",
	} {
		for _, kind := range []string{"offloaded", "plain"} {
			opts := kinds[kind]
			if _, err := Create(name, mac, 0, opts); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Create(%q) of a %s TAP returned %v, want it to say %q", name, kind, err, want)
			}
		}
	}
}

func TestForwardingBetweenDescriptorsAllocatesNothing(t *testing.T) {
	pair := func() (*Device, int) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		dev := &Device{file: newFile(fds[0])}
		if dev.raw, err = dev.file.SyscallConn(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dev.Close(); _ = unix.Close(fds[1]) })
		return dev, fds[1]
	}
	sw := newSwitch(t)
	var ports [2]*vswitch.Port
	var devs [2]*Device
	var ends [2]int
	var err error
	for i := range ports {
		devs[i], ends[i] = pair()
		mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}
		if ports[i], err = sw.Connect(
			vswitch.PortConfig{MAC: mac, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}},
			devs[i]); err != nil {
			t.Fatal(err)
		}
	}
	frame := make([]byte, vswitch.HeaderLen+100)
	copy(frame[10:], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb5})
	buf := make([]byte, 2000)
	r := &reader{dev: devs[0], port: ports[0], pace: ports[0].Pacer()}
	raw, err := devs[0].file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drain := func(fd uintptr) { r.drain(fd) }
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := syscall.Write(ends[0], frame); err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(drain); err != nil {
			t.Fatal(err)
		}
		if n, err := syscall.Read(ends[1], buf); err != nil || n != len(frame) {
			t.Fatalf("read %d bytes (%v), want %d", n, err, len(frame))
		}
	}); n != 0 && !underRace {
		t.Errorf("%v allocations for a frame, want none", n)
	}
}

// flood is a device that has a frame more for the reader as long as it gets one, and counts how many it may keep at a
// time.
type flood struct {
	more       func()
	left       int
	kept, most int
}

func (f *flood) WriteFrame(frame *vswitch.Frame) error {
	if !frame.MorePending {
		return errors.New("a frame that nobody is told the end of")
	}
	f.kept++
	f.most = max(f.most, f.kept)
	if f.left--; f.left > 0 {
		f.more()
	}
	return nil
}

func (f *flood) Flush() { f.kept = 0 }

// TestFloodDoesNotKeepOthersWaiting reads frames that never end: who gathers has to let go now and then all the same.
func TestFloodDoesNotKeepOthersWaiting(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	dev := &Device{file: newFile(fds[0])}
	defer dev.Close()
	frame := make([]byte, vswitch.HeaderLen+100)
	copy(frame[10:], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb5})
	send := func() {
		if _, err := syscall.Write(fds[1], frame); err != nil {
			t.Error(err)
		}
	}
	sw, f := newSwitch(t), &flood{more: send, left: 1000}
	port, err := sw.Connect(vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0}}, dev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sw.Connect(vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Role: vswitch.Gateway},
		f); err != nil {
		t.Fatal(err)
	}
	send()
	r := &reader{dev: dev, port: port, pace: port.Pacer()}
	raw, err := dev.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { r.drain(fd) }); err != nil {
		t.Fatal(err)
	}
	if f.left != 0 || f.kept != 0 || f.most < 2 || f.most > quota {
		t.Errorf("%d frames did not come, %d are still kept, %d were at a time", f.left, f.kept, f.most)
	}
}

// TestVethPairsOfOthersAreLeftAlone: only a pair whose other end has usernet's name for it, here, is opened again.
func TestVethPairsOfOthersAreLeftAlone(t *testing.T) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "their0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "their1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"their0", "ours0"} {
			if link, err := netlink.LinkByName(name); err == nil {
				_ = netlink.LinkDel(link)
			}
		}
	})
	for _, name := range []string{"their0", "lo", strings.Repeat("x", 16)} {
		if f, err := Create(name, nil, 0, kinds["veth"]); err == nil {
			t.Errorf("%s was opened: %v", name, f.Close())
		}
	}
	link, err := netlink.LinkByName("their0")
	if err != nil || IsLink(link) {
		t.Errorf("their0 is taken for one of usernet's (%v)", err)
	}
	f, err := Create("ours0", net.HardwareAddr{2, 0, 0, 0, 0, 9}, 1400, kinds["veth"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	link, err = netlink.LinkByName("ours0")
	if err != nil || !IsLink(link) || link.Attrs().MTU != 1400 || link.Attrs().HardwareAddr.String() !=
		"02:00:00:00:00:09" {
		t.Errorf("made %+v (%v)", link.Attrs(), err)
	}
}
