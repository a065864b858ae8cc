package forwarder

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// TestConnectionsOfTheHostsLoopbackArriveAtTheContainers: at the port that is published, in both directions, and reset
// where nobody listens. The host's loopback is in the place of the container's.
func TestConnectionsOfTheHostsLoopbackArriveAtTheContainers(t *testing.T) {
	asked := make(chan netip.Addr, 10)
	w := newWorld(t, func(c *Config) {
		c.ToLoopback, c.connect = true, nil
		c.Socket = func(_ context.Context, container netip.Addr, _ netip.AddrPort, outbound bool) (int, error) {
			if asked <- container; outbound {
				return -1, ErrNoBypass
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			return fd, errors.Join(err, sockio.SetTCP(fd, sockio.KeepAlive(DefaultPeerTimeout)))
		}
	})
	port := listen(t, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, c)
	})
	bound := w.publish(t, port, "tcp")
	c, err := net.Dial("tcp", bound.Host.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "there and back"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "there and back" {
		t.Errorf("%q, %v", b, err)
	}
	if at := <-asked; !at.IsLoopback() || len(asked) != 0 {
		t.Errorf("a socket was asked for at %v, and %d more", at, len(asked))
	}

	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	c, err = net.Dial("tcp", w.publish(t, nobody, "tcp").Host.String())
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody listens there: %v, want a reset", err)
	}
}

// TestDatagramsOfTheHostsLoopbackArriveAtTheContainers: each client by a socket of its own, with replies from the port
// that it has asked; and none where nobody listens, which is no end of the client.
func TestDatagramsOfTheHostsLoopbackArriveAtTheContainers(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.LoopbackDatagrams = func(bool) (int, error) {
			return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		}
	})
	service, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := service.LocalAddr().(*net.UDPAddr).AddrPort()
	bound := w.publish(t, port.Port(), "udp")
	echo := make(chan netip.AddrPort, 10)
	go func() {
		defer close(echo)
		buf := make([]byte, 2000)
		for {
			n, from, err := service.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			echo <- from
			_, _ = service.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	var clients [2]*net.UDPConn
	say := func(c *net.UDPConn, text string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		if err := errors.Join(c.SetDeadline(deadline), writeText(c, text)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2000)
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != text || from != bound.Host {
			t.Errorf("%q from %v, %v; want %q from %v", buf[:n], from, err, text, bound.Host)
		}
	}
	seen := map[netip.AddrPort]bool{}
	for i := range clients {
		if clients[i], err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(bound.Host)); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
		for _, text := range []string{"one", strings.Repeat("x", 1400)} {
			say(clients[i], text)
			from := <-echo
			own := clients[i].LocalAddr().(*net.UDPAddr).AddrPort()
			if seen[from] = true; !from.Addr().IsLoopback() || from == own {
				t.Errorf("the service sees %v", from)
			}
		}
	}
	if len(seen) != len(clients) {
		t.Errorf("the service sees %v as %d clients", seen, len(clients))
	}

	// The service ends, and comes back.
	service.Close()
	for range echo {
	}
	for range 3 {
		if err := writeText(clients[0], "lost"); err != nil {
			t.Fatal(err)
		}
	}
	if service, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(port)); err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	_ = service.SetDeadline(time.Now().Add(30 * time.Second))
	for buf := make([]byte, 2000); ; { // a datagram may meet the error of one before it
		if err := writeText(clients[0], "again"); err != nil {
			t.Fatal(err)
		}
		n, err := service.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "again" {
			break
		}
	}
}

func writeText(c net.Conn, text string) error {
	_, err := io.WriteString(c, text)
	return err
}
