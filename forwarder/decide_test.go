package forwarder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/relay/relaytest"
	"github.com/usernet/usernet/internal/budget"
)

// fakeWorld is a forwarder between the host's loopback and a container in memory.
func fakeWorld(t *testing.T, change func(*Config)) (*Forwarder, *fakeGateway) {
	t.Helper()
	g := &fakeGateway{
		fakeInside: fakeInside{networks: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24")}},
		dialled:    make(chan *relaytest.Conn, 10),
	}
	cfg := Config{Inside: g, Gateway4: gatewayAddr, HostLoopback: func(netip.Addr) bool { return true }}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, g
}

// withDescriptors divides another number of descriptors among containers.
func withDescriptors(t *testing.T, b *budget.Budget) func(*Config) {
	shared := NewShared(Limits{}, Limits{})
	shared.descriptors = b
	t.Cleanup(func() { _ = shared.Close() })
	return func(c *Config) { c.Shared = shared }
}

// TestHowSYNsAreDecided holds what a container is told against what the host was told.
func TestHowSYNsAreDecided(t *testing.T) {
	open := fmt.Sprintf("172.30.0.1:%d", listen(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c); c.Close() }))
	closed := func() string { // a port that nobody has any more
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return fmt.Sprintf("172.30.0.1:%d", l.Addr().(*net.TCPAddr).Port)
	}()
	socket := func(err error) func(*Config) {
		return func(c *Config) {
			c.Socket = func(context.Context, netip.Addr, netip.AddrPort, bool) (int, error) { return -1, err }
		}
	}
	for _, test := range []struct {
		what   string
		dst    string
		change func(*Config)
		prep   func(*Forwarder, *fakeSYN)
		want   string
		flows  int
	}{
		{"somebody listens", open, nil, nil, "accepted", 1},
		{"nobody listens", closed, nil, nil, "refused", 0},
		{"the network is internal", open, func(c *Config) { c.Internal = true }, nil, "network unreachable", 0},
		{"a neighbour, who is not behind the gateway", "172.30.0.9:80", nil, nil, "network unreachable", 0},
		{"the policy refuses it", "192.0.2.7:80", func(c *Config) { c.Allow = refuses() }, nil, "refused", 0},
		{"the configured source reaches nobody outside", "192.0.2.7:80",
			func(c *Config) { c.OutboundAddr4 = netip.MustParseAddr("127.0.0.1") }, nil, "network unreachable", 0},
		{"the configured interface is gone", "192.0.2.7:80",
			func(c *Config) { c.OutboundInterface4 = "nowhere0" }, nil, "network unreachable", 0},
		{"too many are being dialled", open, func(c *Config) { c.Limits = Limits{Dialling: 1} },
			func(f *Forwarder, s *fakeSYN) { f.acquireUse(s.src.Addr(), useDialling) }, "dropped", 0},
		{"too many are there", open, func(c *Config) { c.Limits = Limits{TCP: 1} },
			func(f *Forwarder, s *fakeSYN) { f.acquireUse(s.src.Addr(), useTCP) }, "refused", 0},
		{"its share of descriptors is used up", open, withDescriptors(t, budget.New(1, 1<<20)),
			func(f *Forwarder, s *fakeSYN) { f.cfg.Shared.descriptors.Acquire(f.client(s.src.Addr()), 1) }, "refused",
			0},
		// Nobody holds any, and yet the next one's number is above the total.
		{"the process has no descriptor for the moment", open, withDescriptors(t, budget.New(0, 4)), nil, "dropped", 0},
		{"it was sent again, and has been answered", open, nil,
			func(f *Forwarder, s *fakeSYN) {
				k := flowKey{s.src, s.dst}
				f.ends[k] = []*flow{{f: f, direction: "out", inside: s.src, outside: s.dst}}
			}, "dropped", 0},
		{"another daemon goes on", open, nil, func(f *Forwarder, _ *fakeSYN) { f.DetachFlows() }, "dropped", 0},
		{"the forwarder ends", open, nil, func(f *Forwarder, _ *fakeSYN) { _ = f.Close() }, "dropped", 0},
		{"the handshake fails", open, nil, func(_ *Forwarder, s *fakeSYN) { s.conn = nil }, "accepted", 0},
		{"no socket of the container can answer", open, socket(ErrNoBypass),
			func(_ *Forwarder, s *fakeSYN) { s.bypass = true }, "accepted", 1},
		{"the container does not take part in the answer", open, socket(context.DeadlineExceeded),
			func(_ *Forwarder, s *fakeSYN) { s.bypass = true }, "dropped", 0},
		{"the container has the address in use", open, socket(unix.EADDRNOTAVAIL),
			func(_ *Forwarder, s *fakeSYN) { s.bypass = true }, "dropped", 0},
		{"a SYN that only the gateway can answer", open, socket(errors.New("is not asked")), nil, "accepted", 1},
	} {
		t.Run(test.what, func(t *testing.T) {
			f, _ := fakeWorld(t, test.change)
			s := newFakeSYN(test.dst)
			if test.prep != nil {
				test.prep(f, s)
			}
			done := make(chan struct{})
			go func() { f.HandleTCP(s); close(done) }()
			select {
			case got := <-s.decided:
				if got != test.want {
					t.Errorf("the SYN was %s, want %s", got, test.want)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("nothing was decided")
			}
			if test.flows == 0 {
				<-done
			}
			if test.flows > 0 { // it lives, and carries what it is given
				s.conn.Put("hello", true)
				got := ""
				eventually(t, func() error {
					b, fin := s.conn.Take()
					if got += b; got != "hello" || !fin {
						return fmt.Errorf("the container got %q, and the end: %v", got, fin)
					}
					return nil
				})
				<-done
			}
			eventually(t, func() error { // its relay ends by itself
				if n := len(f.Flows()); n != 0 {
					return fmt.Errorf("%d flows are left", n)
				}
				return nil
			})
			select {
			case again := <-s.decided:
				t.Errorf("it was decided again: %s", again)
			default:
			}
			if s.conn != nil && test.flows > 0 && s.conn.Closed() != 1 {
				t.Errorf("the container's end was closed %d times", s.conn.Closed())
			}
		})
	}
}

// TestFakeContainerHoldsTheHostBack: what a container does not take stays with the host, whatever its size.
func TestFakeContainerHoldsTheHostBack(t *testing.T) {
	text := strings.Repeat("0123456789", 100000)
	port := listen(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, text); c.Close() })
	f, _ := fakeWorld(t, nil)
	s := newFakeSYN(fmt.Sprintf("172.30.0.1:%d", port))
	const room = 1000
	s.conn = relaytest.NewConn(room)
	go f.HandleTCP(s)
	var got strings.Builder
	eventually(t, func() error {
		for {
			b, fin := s.conn.Take()
			if len(b) > room {
				t.Fatalf("%d bytes were queued in a buffer of %d", len(b), room)
			}
			if got.WriteString(b); fin {
				s.conn.Put("", true)
				return nil
			}
			if b == "" {
				return errors.New("it has not ended yet")
			}
		}
	})
	if got.String() != text {
		t.Errorf("%d bytes arrived of %d", got.Len(), len(text))
	}
}

// TestFakeContainerResets: a reset on one side is one on the other, whether data waits or not.
func TestFakeContainerResets(t *testing.T) {
	for _, full := range []bool{false, true} {
		hosts := make(chan *net.TCPConn, 1)
		port := listen(t, func(c *net.TCPConn) { hosts <- c })
		f, _ := fakeWorld(t, nil)
		s := newFakeSYN(fmt.Sprintf("172.30.0.1:%d", port))
		go f.HandleTCP(s)
		host := <-hosts
		if full { // the host does not read
			s.conn.Put(strings.Repeat("x", 64<<20), false)
			eventually(t, func() error {
				if list := f.Flows(); len(list) != 1 || list[0].BytesOut == 0 {
					return fmt.Errorf("nothing has moved: %+v", list)
				}
				return nil
			})
		}
		s.conn.Fail(unix.ECONNRESET)
		_ = host.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.Copy(io.Discard, host); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("full %v: the host reads %v", full, err)
		}
		eventually(t, func() error {
			if n := len(f.Flows()); n > 0 {
				return fmt.Errorf("%d flows are left", n)
			}
			return nil
		})
	}
}
