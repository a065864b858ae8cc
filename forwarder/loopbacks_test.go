package forwarder

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
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
