package tap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

const insideEnv = "USERNET_TAP_TEST_INSIDE"

// TestMain runs the tests in a user and network namespace of their own, where an ordinary user may make TAPs.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "these tests need unprivileged user namespaces:", err)
		os.Exit(1)
	}
}

// station is a network namespace with one TAP on a switch.
type station struct {
	t     testing.TB
	calls chan func()
	dev   *Device
	port  *vswitch.Port
	mac   net.HardwareAddr
	addrs []netip.Addr
}

// newStation makes the namespace of station n, with addresses 10.0.0.n and fd00::n, and plugs it into sw.
func newStation(t testing.TB, sw *vswitch.Switch, n byte, mtu int, opts Options) *station {
	t.Helper()
	s := &station{
		t: t, calls: make(chan func()), mac: net.HardwareAddr{2, 0x42, 10, 0, 0, n},
		addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, n}), netip.AddrFrom16([16]byte{0: 0xfd, 15: n})},
	}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		for f := range s.calls {
			f()
		}
	}()
	t.Cleanup(func() { close(s.calls) })
	s.in(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
	var f *os.File
	s.in(func() (err error) {
		f, err = Create("eth0", s.mac, mtu, opts)
		return err
	})
	s.in(func() error { return s.configure("eth0") })
	s.plug(sw, f, opts)
	return s
}

// in runs f in the station's namespace.
func (s *station) in(f func() error) {
	s.t.Helper()
	done := make(chan error)
	s.calls <- func() { done <- f() }
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

func (s *station) configure(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for i, bits := range []int{24, 64} {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: s.addrs[i].AsSlice(), Mask: net.CIDRMask(bits, s.addrs[i].BitLen())},
			Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %v: %w", a, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// plug connects the TAP's descriptor to the switch and reads it until the test ends.
func (s *station) plug(sw *vswitch.Switch, f *os.File, opts Options) {
	s.t.Helper()
	var err error
	if s.dev, err = Open(f, !opts.Offload); err != nil {
		s.t.Fatal(err)
	}
	if s.port, err = sw.Connect(vswitch.PortConfig{Name: s.addrs[0].String(), MAC: s.mac, Addrs: s.addrs},
		s.dev); err != nil {
		s.t.Fatal(err)
	}
	served := make(chan error, 1)
	dev, port := s.dev, s.port
	go func() { served <- dev.Serve(port) }()
	s.t.Cleanup(func() {
		if err := errors.Join(port.Close(), dev.Close()); err != nil {
			s.t.Error(err)
		}
		select {
		case err := <-served:
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, ErrGone) {
				s.t.Errorf("Serve returned %v", err)
			}
		case <-time.After(5 * time.Second):
			s.t.Error("Serve goes on after Close")
		}
	})
}

// listen and dial make sockets in the station's namespace; they stay there.
func (s *station) listen(addr netip.Addr) net.Listener {
	s.t.Helper()
	var l net.Listener
	s.in(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	s.t.Cleanup(func() { _ = l.Close() })
	return l
}

func (s *station) dial(addr string) net.Conn {
	s.t.Helper()
	var c net.Conn
	s.in(func() (err error) {
		c, err = net.DialTimeout("tcp", addr, 5*time.Second)
		return err
	})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *station) packet(network, addr string) net.PacketConn {
	s.t.Helper()
	var c net.PacketConn
	s.in(func() (err error) {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func newFile(fd int) *os.File { return os.NewFile(uintptr(fd), "test") }
