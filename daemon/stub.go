package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder"
)

// stub is the DNS stub of a sandbox: sockets that were made inside, read here.
type stub struct {
	packet   net.PacketConn
	listener net.Listener
	serves   sync.WaitGroup // the two loops that read them
	forget   func()         // the service manager keeps them no longer; nil: it does not
}

// past is a deadline that ends all reading at once.
var past = time.Unix(1, 0)

// pause ends reading for good, and returns when what was read is answered or being asked outside. What comes from then on
// waits in the sockets, for a daemon that has copies of them.
func (s *stub) pause() {
	if s == nil {
		return
	}
	_ = s.packet.SetReadDeadline(past) // the errors of a socket that is closed, which is as good
	if l, ok := s.listener.(*net.TCPListener); ok {
		_ = l.SetDeadline(past)
	}
	s.serves.Wait()
}

func (s *stub) close() {
	if s == nil {
		return
	}
	_ = s.packet.Close() // once more is no harm, and there is nobody to tell
	_ = s.listener.Close()
	s.serves.Wait()
	if s.forget != nil {
		s.forget()
	}
}

// copies returns other descriptors of both sockets.
func (s *stub) copies() (packet, listener int, err error) {
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

// openStub makes a stub of the descriptors that another daemon had of one, and takes them over, also when it fails.
func openStub(packet, listener int) (*stub, error) {
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
	s := &stub{packet: pc, listener: ln}
	for _, at := range []net.Addr{pc.LocalAddr(), ln.Addr()} {
		if at.String() != stubAddr.String() {
			s.close()
			return nil, fmt.Errorf("the DNS stub's sockets are at %s instead of %s", at, stubAddr)
		}
	}
	return s, nil
}
