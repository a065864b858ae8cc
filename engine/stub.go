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
	"github.com/usernet/usernet/internal/sockio"
)

// Stub is name service on two sockets that were made inside a network namespace, and are read here. All its methods do
// nothing on a nil Stub.
type Stub struct {
	packet   net.PacketConn
	listener net.Listener
	rules    *os.File       // keeps the rules in place that lead to the sockets; nil: there are none
	serves   sync.WaitGroup // the two goroutines that read them
}

// StubFiles are the descriptors of a stub; -1: it has none.
type StubFiles struct{ Packet, Listener, Rules int }

// NewStub makes a stub of two sockets, and of what keeps the rules in place that lead to them (nil: there are none). It
// owns all.
func NewStub(packet net.PacketConn, listener net.Listener, rules *os.File) *Stub {
	return &Stub{packet: packet, listener: listener, rules: rules}
}

// ErrPartOfStub is OpenStub's error where one of the sockets is missing.
var ErrPartOfStub = errors.New("one of the DNS stub's sockets is missing")

// OpenStub makes a stub of descriptors of sockets at one port of an address. It owns them, also when it fails.
func OpenStub(f StubFiles, at netip.Addr) (s *Stub, err error) {
	if f.Rules >= 0 {
		rules := os.NewFile(uintptr(f.Rules), "dns-rules")
		defer func() {
			if err != nil {
				_ = rules.Close()
				return
			}
			s.rules = rules
		}()
	}
	if f.Packet < 0 || f.Listener < 0 {
		for _, fd := range []int{f.Packet, f.Listener} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
		return nil, ErrPartOfStub
	}
	return openSockets(f.Packet, f.Listener, at)
}

func openSockets(packet, listener int, at netip.Addr) (*Stub, error) {
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
	s := NewStub(pc, ln, nil)
	is, err := netip.ParseAddrPort(pc.LocalAddr().String())
	if err != nil || is.Addr() != at || ln.Addr().String() != is.String() {
		s.Close()
		return nil, fmt.Errorf(
			"the DNS stub's sockets are at %s and %s instead of one port of %s",
			pc.LocalAddr(),
			ln.Addr(),
			at,
		)
	}
	return s, nil
}

// Serve answers in the background until Pause or Close. It is called once.
func (s *Stub) Serve(names Names, client func() dns.Client, log *slog.Logger) {
	serve(&s.serves, log, names, s.packet, s.listener, func(net.Addr) dns.Client { return client() })
}

// Pause ends reading for good, and returns when what was read is answered or being asked outside. What comes from then
// on waits in the sockets, for a process that has copies of them.
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
	if s.rules != nil {
		_ = s.rules.Close()
	}
	s.serves.Wait()
}

// Copies returns other descriptors of all that the stub has, which are the caller's.
func (s *Stub) Copies() (f StubFiles, err error) {
	f = StubFiles{-1, -1, -1}
	defer func() {
		if err != nil {
			for _, fd := range []int{f.Packet, f.Listener, f.Rules} {
				if fd >= 0 {
					_ = unix.Close(fd)
				}
			}
		}
	}()
	if f.Packet, err = copyOf(s.packet); err != nil {
		return f, err
	}
	if f.Listener, err = copyOf(s.listener); err != nil {
		return f, err
	}
	if s.rules != nil {
		f.Rules, err = copyOf(s.rules)
	}
	return f, err
}

func copyOf(socket any) (fd int, err error) {
	c, ok := socket.(syscall.Conn)
	if !ok {
		return -1, errors.New("a socket without a descriptor")
	}
	return sockio.Dup(c)
}
