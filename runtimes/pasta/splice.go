package pasta

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// How much splices carry at once: connections, each of which needs two descriptors, and UDP clients of each port, which
// are forgotten when there were no datagrams for the time that RFC 4787 REQ-5 recommends.
const (
	maxSpliced    = 1024
	maxUDPClients = 256
	udpTimeout    = 5 * time.Minute
	dialTimeout   = 10 * time.Second
	maxDatagram   = 65535
)

// splices carry connections between sockets of the namespace and the host's loopback: what the manual calls the bypass path.
type splices struct {
	ctx    context.Context // ends all of them
	cancel context.CancelFunc
	slots  chan struct{} // one for each connection
	wg     sync.WaitGroup
}

func newSplices() *splices {
	s := &splices{slots: make(chan struct{}, maxSpliced)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// close ends all connections, once the sockets that they come by are closed.
func (s *splices) close() {
	s.cancel()
	s.wg.Wait()
}

// acceptTCP leads connections to an address of the host, until stop is called, which ends none.
func (s *splices) acceptTCP(l net.Listener, to netip.AddrPort) (stop func() error) {
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no descriptors: those that wait have to
				select {
				case <-s.ctx.Done():
					return
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			select {
			case s.slots <- struct{}{}:
				s.wg.Go(func() {
					defer func() { <-s.slots }()
					s.carry(c.(*net.TCPConn), to)
				})
			default:
				reset(c.(*net.TCPConn))
			}
		}
	})
	return l.Close
}

// carry connects inside with an address of the host, and returns when both directions have ended.
func (s *splices) carry(inside *net.TCPConn, to netip.AddrPort) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(s.ctx, "tcp", to.String())
	if err != nil {
		reset(inside)
		return
	}
	outside := c.(*net.TCPConn)
	stop := context.AfterFunc(s.ctx, func() {
		reset(inside)
		reset(outside)
	})
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { move(outside, inside) })
	move(inside, outside)
	back.Wait()
	_, _ = inside.Close(), outside.Close()
}

// move carries one direction. The end of the stream is passed on; a reset resets both.
func move(from, to *net.TCPConn) {
	_, err := io.Copy(to, from) // splice(2)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		reset(from)
		reset(to)
	}
}

// reset closes a connection so that its peer notices (socket(7), SO_LINGER).
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// receiveUDP leads datagrams to an address of the host and back, until stop is called.
func (s *splices) receiveUDP(pc net.PacketConn, to netip.AddrPort) (stop func() error) {
	u := &udpSplice{s: s, inside: pc.(*net.UDPConn), to: to}
	u.clients.byAddr = map[netip.AddrPort]*net.UDPConn{}
	s.wg.Go(u.receive)
	return pc.Close
}

// udpSplice is one UDP port of the namespace that leads to one of the host.
type udpSplice struct {
	s       *splices
	inside  *net.UDPConn
	to      netip.AddrPort
	clients struct {
		sync.Mutex
		byAddr map[netip.AddrPort]*net.UDPConn // a socket for each, by which answers come
	}
}

// receive carries datagrams from the namespace until its socket is closed, and ends all clients then.
func (u *udpSplice) receive() {
	defer func() {
		u.clients.Lock()
		defer u.clients.Unlock()
		for _, c := range u.clients.byAddr {
			_ = c.Close()
		}
	}()
	b := make([]byte, maxDatagram)
	for {
		n, from, err := u.inside.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // about a client that is gone
		}
		if c := u.client(from); c != nil {
			_ = c.SetReadDeadline(time.Now().Add(udpTimeout))
			_, _ = c.Write(b[:n]) // a datagram may be lost
		}
	}
}

// client is the socket of a client; nil: there are too many.
func (u *udpSplice) client(from netip.AddrPort) *net.UDPConn {
	u.clients.Lock()
	defer u.clients.Unlock()
	if c := u.clients.byAddr[from]; c != nil || len(u.clients.byAddr) >= maxUDPClients {
		return c
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.to))
	if err != nil {
		return nil
	}
	u.clients.byAddr[from] = c
	u.s.wg.Go(func() { u.answer(c, from) })
	return c
}

// answer carries a client's answers back, until there are no datagrams any more.
func (u *udpSplice) answer(c *net.UDPConn, to netip.AddrPort) {
	b := make([]byte, maxDatagram)
	for {
		n, err := c.Read(b)
		switch {
		case err == nil:
			_, _ = u.inside.WriteToUDPAddrPort(b[:n], to)
			_ = c.SetReadDeadline(time.Now().Add(udpTimeout))
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			u.clients.Lock()
			defer u.clients.Unlock()
			if u.clients.byAddr[to] == c {
				delete(u.clients.byAddr, to)
			}
			_ = c.Close()
			return
		} // others are about what was sent: nobody is there
	}
}
