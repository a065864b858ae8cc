package splice

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// to dials where l listens.
func to(l net.Listener) DialTCP {
	return func(ctx context.Context, _ netip.AddrPort) (*net.TCPConn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
}

func dial(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// connection is one through a group: its two ends, and what was made for it.
type connection struct {
	group           *Group
	front           net.Listener // where the client has connected
	stop            func() error // of AcceptTCP
	client, service *net.TCPConn
}

func connected(t *testing.T) *connection {
	t.Helper()
	service := listen(t)
	c := &connection{group: NewGroup(), front: listen(t)}
	t.Cleanup(c.group.Close)
	c.stop = c.group.AcceptTCP(c.front, to(service))
	t.Cleanup(func() { _ = c.stop() })
	c.client = dial(t, c.front)
	c.service = accept(t, service)
	return c
}

// accept is the service's end of the next connection.
func accept(t *testing.T, service net.Listener) *net.TCPConn {
	t.Helper()
	c, err := service.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// meets is the error that a client of l meets: as it connects, where the reset is there by then, or as it reads.
func meets(l net.Listener) error {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestStreamsArriveWhole: half-closed as well, with the client's address told to who dials.
func TestStreamsArriveWhole(t *testing.T) {
	service, front, g := listen(t), listen(t), NewGroup()
	defer g.Close()
	var client atomic.Value
	stop := g.AcceptTCP(front, func(ctx context.Context, from netip.AddrPort) (*net.TCPConn, error) {
		client.Store(from)
		return to(service)(ctx, from)
	})
	defer stop()
	go func() {
		c, err := service.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c) // up to the client's FIN
		_, _ = c.Write(b)
		_ = c.Close()
	}()
	c := dial(t, front)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
	if got := client.Load(); got != c.LocalAddr().(*net.TCPAddr).AddrPort() {
		t.Errorf("the client is %v, told was %v", c.LocalAddr(), got)
	}
}

// TestResetsArePassedOn in both directions, and where nobody can be reached.
func TestResetsArePassedOn(t *testing.T) {
	service, front, g := listen(t), listen(t), NewGroup()
	defer g.Close()
	stop := g.AcceptTCP(front, to(service))
	defer stop()
	for _, fromService := range []bool{true, false} {
		a, b := dial(t, front), accept(t, service)
		if fromService {
			a, b = b, a
		}
		reset(a)
		_ = b.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("from the service %v: the other end sees %v", fromService, err)
		}
	}
	service.Close()
	if err := meets(front); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody is there: %v", err)
	}
}

// TestCloseEndsAllConnections, and stop ends none.
func TestCloseEndsAllConnections(t *testing.T) {
	c := connected(t)
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", c.front.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after stop: %v", err)
	}
	_, _ = c.service.Write([]byte("x"))
	if _, err := io.ReadFull(c.client, make([]byte, 1)); err != nil {
		t.Errorf("a connection has ended with the port: %v", err)
	}
	c.group.Close()
	if _, err := c.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Close: %v", err)
	}
}

// TestDrainLetsConnectionsEnd: what a service sends last arrives, and then the end, not a reset. What does not end is
// reset when the time is over.
func TestDrainLetsConnectionsEnd(t *testing.T) {
	for name, atMost := range map[string]time.Duration{"ends": 30 * time.Second, "does not end": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			c := connected(t)
			if err := c.stop(); err != nil {
				t.Fatal(err)
			}
			drained := make(chan struct{})
			go func() {
				c.group.Drain(atMost)
				close(drained)
			}()
			if name == "does not end" {
				<-drained
				if _, err := c.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("when the time is over: %v", err)
				}
				return
			}
			_, _ = c.service.Write([]byte("last"))
			_ = c.service.Close()
			_ = c.client.CloseWrite()
			if b, err := io.ReadAll(c.client); string(b) != "last" || err != nil {
				t.Errorf("the end of a stream: %q, %v", b, err)
			}
			<-drained
		})
	}
}

// TestConnectionsAreBounded: those beyond are reset, and there is room again when one ends.
func TestConnectionsAreBounded(t *testing.T) {
	service, front, g := listen(t), listen(t), NewGroup()
	defer g.Close()
	g.slots = make(chan struct{}, 1)
	stop := g.AcceptTCP(front, to(service))
	defer stop()
	first, accepted := dial(t, front), accept(t, service)
	if err := meets(front); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one too many: %v", err)
	}
	first.Close()
	accepted.Close()
	deadline := time.Now().Add(30 * time.Second)
	for len(g.slots) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the room is not given back")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestDatagramsAndAnswers: each client has its own, by the address that it asked, and nobody there is no end.
func TestDatagramsAndAnswers(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			pc, err := net.ListenPacket("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			service, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer service.Close()
			go func() {
				b := make([]byte, 100)
				for {
					n, from, err := service.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = service.WriteTo(append(b[:n:n], '!'), from)
				}
			}()
			g := NewGroup()
			stop := g.ReceiveUDP(pc.(*net.UDPConn), func(netip.AddrPort) (*net.UDPConn, error) {
				return net.DialUDP("udp", nil, service.LocalAddr().(*net.UDPAddr))
			})
			port := pc.LocalAddr().(*net.UDPAddr).Port
			for _, text := range []string{"one", "two"} {
				// who takes answers from there alone
				c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				b := make([]byte, 100)
				for range 2 {
					_, _ = c.Write([]byte(text))
					if n, err := c.Read(b); err != nil || string(b[:n]) != text+"!" {
						t.Errorf("%s: %q, %v", text, b[:n], err)
					}
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			g.Close()
		})
	}
}

// TestUDPClientsAreBounded and one that cannot be had is none.
func TestUDPClientsAreBounded(t *testing.T) {
	p := &udpPort{g: NewGroup()}
	p.clients.by = map[udpClient]*net.UDPConn{}
	p.dial = func(netip.AddrPort) (*net.UDPConn, error) { return nil, errors.New("no") }
	if p.client(udpClient{}) != nil || len(p.clients.by) != 0 {
		t.Error("a client without a socket")
	}
	for i := range maxClients {
		p.clients.by[udpClient{from: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i))}] = nil
	}
	p.dial = func(netip.AddrPort) (*net.UDPConn, error) { t.Error("one too many is dialled for"); return nil, nil }
	if p.client(udpClient{from: netip.AddrPortFrom(netip.IPv6Loopback(), 60000)}) != nil {
		t.Error("one too many")
	}
}
