package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/forwarder"
)

// Stub is name service on two sockets that were made inside a network namespace, and are read here. All its methods do
// nothing on a nil Stub.
type Stub struct {
	packet   net.PacketConn
	listener net.Listener
	serves   sync.WaitGroup // the two goroutines that read them
}

// NewStub makes a stub of two sockets, which it owns.
func NewStub(packet net.PacketConn, listener net.Listener) *Stub {
	return &Stub{packet: packet, listener: listener}
}

// OpenStub makes a stub of two descriptors of sockets at an address, which it owns, also when it fails.
func OpenStub(packet, listener int, at netip.AddrPort) (*Stub, error) {
	pf, lf := os.NewFile(uintptr(packet), "dns-udp"), os.NewFile(uintptr(listener), "dns-tcp")
	defer pf.Close()
	defer lf.Close()
	if on, err := unix.GetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, errors.Join(errors.New("the DNS stub's TCP socket does not listen"), err)
	}
	pc, err := net.FilePacketConn(pf)
	if err != nil {
		return nil, fmt.Errorf("the DNS stub's UDP socket: %w", err)
	}
	ln, err := net.FileListener(lf)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the DNS stub's TCP socket: %w", err), pc.Close())
	}
	s := NewStub(pc, ln)
	for _, is := range []net.Addr{pc.LocalAddr(), ln.Addr()} {
		if is.String() != at.String() {
			s.Close()
			return nil, fmt.Errorf("the DNS stub's sockets are at %s instead of %s", is, at)
		}
	}
	return s, nil
}

// Serve answers in the background until Pause or Close. It is called once.
func (s *Stub) Serve(names Names, client func() dns.Client, log *slog.Logger) {
	serve(&s.serves, log, names, s.packet, s.listener, func(net.Addr) dns.Client { return client() })
}

// Pause ends reading for good, and returns when what was read is answered or being asked outside. What comes from then on
// waits in the sockets, for a process that has copies of them.
func (s *Stub) Pause() {
	if s == nil {
		return
	}
	past := time.Unix(1, 0)            // ends all reading at once
	_ = s.packet.SetReadDeadline(past) // the errors of a socket that is closed, which is as good
	if l, ok := s.listener.(*net.TCPListener); ok {
		_ = l.SetDeadline(past)
	}
	s.serves.Wait()
}

// Close closes the sockets and waits for those who read them. Closing again is no error.
func (s *Stub) Close() {
	if s == nil {
		return
	}
	_ = s.packet.Close() // once more is no harm, and there is nobody to tell
	_ = s.listener.Close()
	s.serves.Wait()
}

// Copies returns other descriptors of both sockets, which are the caller's.
func (s *Stub) Copies() (packet, listener int, err error) {
	if packet, err = copyOf(s.packet); err != nil {
		return -1, -1, err
	}
	if listener, err = copyOf(s.listener); err != nil {
		return -1, -1, errors.Join(err, unix.Close(packet))
	}
	return packet, listener, nil
}

func copyOf(socket any) (fd int, err error) {
	c, ok := socket.(syscall.Conn)
	if !ok {
		return -1, errors.New("a socket without a descriptor")
	}
	return forwarder.CopyOf(c)
}
