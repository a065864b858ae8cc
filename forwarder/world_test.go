package forwarder

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/stack"
	vswitch "github.com/usernet/usernet/switch"
)

// The network of the tests: a gateway with the forwarder under test, and a second netstack in a container's place.
var (
	gatewayAddr   = netip.MustParseAddr("172.30.0.1")
	containerAddr = netip.MustParseAddr("172.30.0.2")
)

type world struct {
	*Forwarder
	gateway, container *stack.Gateway
	// a port of the host's loopback that direct connections go to, instead of the container's
	direct atomic.Int32
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	sw := vswitch.New(vswitch.Config{Name: "test", MTU: 1500})
	w := &world{}
	station := func(a netip.Addr, mac byte) *stack.Gateway {
		g, err := stack.New(stack.Config{
			MAC: net.HardwareAddr{2, 0x42, 0, 0, 0, mac}, MTU: 1500, Switch: sw,
			Addresses: []netip.Prefix{netip.PrefixFrom(a, 24)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	w.gateway, w.container = station(gatewayAddr, 1), station(containerAddr, 2)
	w.gateway.SetNeighbor(containerAddr, net.HardwareAddr{2, 0x42, 0, 0, 0, 2})
	cfg := Config{Inside: insideGateway{w.gateway}, Gateway4: gatewayAddr,
		HostLoopback: func(netip.Addr) bool { return true }}
	cfg.Socket = func(context.Context, netip.Addr, netip.AddrPort, bool) (int, error) {
		if w.direct.Load() == 0 {
			return -1, ErrNoBypass
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return fd, errors.Join(err, sockio.SetTCP(fd, sockio.KeepAlive(DefaultPeerTimeout)))
	}
	cfg.connect = func(fd int) error { // on the reactor's goroutine, which must not wait: the context has ended
		return w.Forwarder.connect(noWait, fd,
			netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(w.direct.Load())), 0)
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.Forwarder, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	w.gateway.SetHandler(outsideHandler{w.Forwarder})
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{w.Forwarder, w.gateway, w.container, sw} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// listen listens on the host's loopback; the container reaches it at the gateway's address and the port returned.
func listen(t testing.TB, serve func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// dial connects the container to a port at the gateway's address.
func (w *world) dial(t testing.TB, port uint16) *stack.Conn {
	t.Helper()
	c, err := w.container.DialTCP(t.Context(), netip.AddrPortFrom(containerAddr, 0),
		netip.AddrPortFrom(gatewayAddr, port))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// publish publishes a container's port on a free one of the host's loopback.
func (w *world) publish(t testing.TB, port uint16, proto string) publish.Bound {
	t.Helper()
	bound, err := w.Publish(t.Context(), containerAddr, netip.Addr{},
		[]publish.Binding{{HostIP: netip.MustParseAddr("127.0.0.1"), Port: port, Proto: publish.Protocol(proto)}})
	if err != nil {
		t.Fatal(err)
	}
	return bound[0]
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// resources are what must be back where it was.
type resources struct {
	goroutines  leak.Running
	descriptors leak.Open
}

func measure(t testing.TB) resources {
	t.Helper()
	return resources{leak.Goroutines(), leak.Descriptors(t)}
}

// noIdlePipes leaves no pipe for the next flow, so that each is counted.
func noIdlePipes(t testing.TB) func(*Config) {
	t.Helper()
	shared := NewShared(Limits{}, Limits{})
	shared.pipes = relay.NewPipes(0, nil)
	t.Cleanup(func() { _ = shared.Close() })
	return func(c *Config) { c.Shared = shared }
}

// back waits until nothing is in use that was not before. A test that makes connections has called noIdlePipes.
func (r resources) back(t testing.TB) {
	t.Helper()
	r.goroutines.NoneLeft(t)
	r.descriptors.NoneLeft(t)
}

// What package engine puts between a forwarder and netstack.
type (
	insideGateway  struct{ *stack.Gateway }
	outsideHandler struct{ *Forwarder }
	insideSYN      struct{ *stack.TCPRequest }
)

func (g insideGateway) DialTCP(ctx context.Context, src, dst netip.AddrPort) (Conn, error) {
	if c, err := g.Gateway.DialTCP(ctx, src, dst); err == nil {
		return c, nil
	} else {
		return nil, err
	}
}

func (h outsideHandler) HandleTCP(r *stack.TCPRequest) { h.Forwarder.HandleTCP(insideSYN{r}) }

func (s insideSYN) Accept() (Conn, error) {
	if c, err := s.TCPRequest.Accept(); err == nil {
		return c, nil
	} else {
		return nil, err
	}
}
