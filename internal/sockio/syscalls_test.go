package sockio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRawSystemCalls: the system calls that the scheduler is not told of do what those of package unix do.
func TestRawSystemCalls(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			loopback := netip.MustParseAddr("127.0.0.1")
			if network == "tcp6" {
				loopback = netip.IPv6Loopback()
			}
			ln, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			to := ln.Addr().(*net.TCPAddr).AddrPort()
			fd, err := unix.Socket(Family(loopback), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if IsConnected(fd) {
				t.Error("a new socket is connected")
			}
			if err := Bind(fd, netip.AddrPortFrom(loopback, 0)); err != nil {
				t.Fatal(err)
			}
			if err := Bind(fd, netip.AddrPortFrom(loopback, 0)); !errors.Is(err, unix.EINVAL) {
				t.Errorf("binding again: %v, want EINVAL", err)
			}
			if err := Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				t.Fatal(err)
			}
			other, err := ln.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if !IsConnected(fd) {
				t.Error("a connected socket is not")
			}
			if got, want := LocalAddr(fd), other.RemoteAddr().(*net.TCPAddr).AddrPort(); got != want {
				t.Errorf("the socket is at %v, its peer sees %v", got, want)
			}
			exchange(t, fd, other)
		})
	}
	if at := LocalAddr(-1); at.IsValid() {
		t.Errorf("no socket is at %v", at)
	}
	if err := CloseSocket(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("closing no socket: %v", err)
	}
}

// exchange reads and writes on a connection, and ends one half.
func exchange(t *testing.T, fd int, other *net.TCPConn) {
	buf := make([]byte, 8)
	if n, err := Read(fd, buf); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("before anything was sent: %d, %v", n, err)
	}
	if err := SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		t.Error(err)
	}
	if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
		t.Errorf("TCP_NODELAY is %d, %v", v, err)
	}
	if n, err := Write(fd, []byte("there")); n != 5 || err != nil {
		t.Errorf("writing: %d, %v", n, err)
	}
	if err := CloseWrite(fd); err != nil {
		t.Error(err)
	}
	_ = other.SetDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(other); string(got) != "there" || err != nil {
		t.Errorf("the peer reads %q, %v", got, err)
	}
	if _, err := other.Write([]byte("back")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30000); err != nil {
		t.Fatal(err)
	}
	if n, err := Read(fd, buf); !bytes.Equal(buf[:n], []byte("back")) || err != nil {
		t.Errorf("reading: %q, %v", buf[:n], err)
	}
}
