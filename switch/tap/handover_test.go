package tap

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

// TestTAPIsHandedOver has one device after the other serve a TAP that is never closed: what is sent while none reads
// waits.
func TestTAPIsHandedOver(t *testing.T) {
	for kind, opts := range kinds {
		t.Run(kind, func(t *testing.T) {
			sw := newSwitch(t)
			a, b := newStation(t, sw, 1, 1500, opts), newStation(t, sw, 2, 1500, opts)
			from, to := a.packet("udp4", "10.0.0.1:0"), b.packet("udp4", "10.0.0.2:0")
			send := func(text string) {
				t.Helper()
				if _, err := from.WriteTo([]byte(text), to.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			receive := func(want string) {
				t.Helper()
				buf := make([]byte, 100)
				n, _, err := to.ReadFrom(buf)
				if err != nil || string(buf[:n]) != want {
					t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
				}
			}
			send("before")
			receive("before")
			for range 3 {
				fd, err := a.dev.Copy()
				if err != nil {
					t.Fatal(err)
				}
				a.dev.Stop()
				a.dev.Stop() // once more is no harm
				send("in between")
				if err := errors.Join(a.port.Close(), a.dev.Close()); err != nil {
					t.Fatal(err)
				}
				if !a.hasCarrier() {
					t.Error("the interface has no carrier while a copy is open")
				}
				if err := Check(fd, "eth0"); err != nil {
					t.Error(err)
				}
				a.plug(sw, newFile(fd), opts)
				receive("in between")
				send("after")
				receive("after")
			}
		})
	}
}

func (s *station) hasCarrier() (yes bool) {
	s.t.Helper()
	s.in(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			yes = link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
		}
		return err
	})
	return yes
}

// TestStopEndsAFlood stops a device whose TAP has always one frame more.
func TestStopEndsAFlood(t *testing.T) {
	for name, end := range map[string]func(*Device){"Stop": (*Device).Stop,
		"Close": func(d *Device) { _ = d.Close() }} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[1])
			dev, err := Open(newFile(fds[0]), false)
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			frame := make([]byte, vswitch.HeaderLen+100)
			copy(frame[10:], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb5})
			began := make(chan struct{}, 1)
			more := func() {
				_, _ = unix.Write(fds[1], frame)
				select {
				case began <- struct{}{}:
				default:
				}
			}
			sw := newSwitch(t)
			port, err := sw.Connect(vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0}}, dev)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sw.Connect(vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Role: vswitch.Gateway},
				&flood{more: more, left: 1 << 30}); err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- dev.Serve(port) }()
			more()
			<-began
			end(dev)
			select {
			case err := <-served:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Serve returned %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("Serve goes on")
			}
		})
	}
}

// TestStopBeforeServe may happen: a daemon ends while it begins.
func TestStopBeforeServe(t *testing.T) {
	f, err := Create("early0", net.HardwareAddr{2, 0, 0, 0, 0, 1}, 0, Options{Offload: true})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := Open(f, false)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	port, err := newSwitch(t).Connect(
		vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Role: vswitch.Learning}, dev)
	if err != nil {
		t.Fatal(err)
	}
	dev.Stop()
	if err := dev.Serve(port); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestCheckRefusesWhatIsNoTAPOfOurs(t *testing.T) {
	create := func(name string, flags uint16) int {
		t.Helper()
		fd, err := openClone()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		ifr.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	const ours = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	plain, gone := create("check0", unix.IFF_TAP|unix.IFF_NO_PI), create("check1", ours)
	link, err := netlink.LinkByName("check1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	clone, err := openClone()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(clone)
	longer := create("check5", ours)
	if err := unix.IoctlSetPointerInt(longer, unix.TUNSETVNETHDRSZ, 12); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		fd      int
		as      string
		refused string // "": it is taken
	}{
		"plain":             {plain, "check0", ""},
		"of another name":   {plain, "eth0", "it is called check0"},
		"removed inside":    {gone, "check1", ErrGone.Error()},
		"a TUN":             {create("check2", unix.IFF_TUN|unix.IFF_NO_PI), "check2", "flags"},
		"several queues":    {create("check4", ours|unix.IFF_MULTI_QUEUE), "check4", "flags"},
		"with a header":     {create("check3", ours), "check3", ""},
		"a longer header":   {longer, "check5", "a virtio header of 12 bytes"},
		"no TAP":            {int(null.Fd()), "check6", "descriptor of TAP check6"},
		"not connected":     {clone, "check7", ErrGone.Error()},
		"not open any more": {1 << 20, "check8", "descriptor of TAP check8"},
	} {
		err := Check(test.fd, test.as)
		if test.refused == "" && err != nil || test.refused != "" &&
			(err == nil || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
	}
}
