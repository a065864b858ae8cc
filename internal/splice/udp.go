package splice

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// The clients of one UDP port. One is forgotten when there were no datagrams for the time that RFC 4787 REQ-5
// recommends.
const (
	maxClients    = 1024
	clientTimeout = 5 * time.Minute
	maxDatagram   = 65535
	controlBytes  = 128 // of IP_PKTINFO or IPV6_PKTINFO
)

// DialUDP returns a connected socket for a client's datagrams, by which the answers to them come.
type DialUDP func(client netip.AddrPort) (*net.UDPConn, error)

// ReceiveUDP carries the datagrams that come to c and the answers to them, until stop is called, which closes c.
// Answers leave by the address that was asked, where c is at all of the host's.
func (g *Group) ReceiveUDP(c *net.UDPConn, dial DialUDP) (stop func() error) {
	p := &udpPort{g: g, conn: c, dial: dial}
	p.clients.by = map[udpClient]*net.UDPConn{}
	if at := c.LocalAddr().(*net.UDPAddr).AddrPort(); at.Addr().IsUnspecified() {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(
				func(fd uintptr) { _ = sockio.TellLocal(int(fd), at.Addr().Is6()) },
			) // without it, answers leave by any
		}
	}
	g.wg.Go(p.receive)
	return c.Close
}

// udpClient is a client, by its address and the one of ours that it speaks to, which may be unknown.
type udpClient struct {
	from  netip.AddrPort
	local netip.Addr
}

// udpPort is a port whose datagrams are carried on.
type udpPort struct {
	g       *Group
	conn    *net.UDPConn
	dial    DialUDP
	clients struct {
		sync.Mutex
		by map[udpClient]*net.UDPConn
	}
}

// receive carries datagrams on until the port's socket is closed, and ends all clients then.
func (p *udpPort) receive() {
	defer func() {
		p.clients.Lock()
		defer p.clients.Unlock()
		for _, c := range p.clients.by {
			_ = c.Close()
		}
	}()
	b, control := make([]byte, maxDatagram), make([]byte, controlBytes)
	for {
		n, size, _, from, err := p.conn.ReadMsgUDPAddrPort(b, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // about a client that is gone
		}
		if c := p.client(udpClient{from, localOf(control[:size])}); c != nil {
			_ = c.SetReadDeadline(time.Now().Add(clientTimeout))
			_, _ = c.Write(b[:n]) // a datagram may be lost
		}
	}
}

// client is the socket of a client; nil: there are too many, or it cannot be had.
func (p *udpPort) client(k udpClient) *net.UDPConn {
	p.clients.Lock()
	defer p.clients.Unlock()
	if c := p.clients.by[k]; c != nil || len(p.clients.by) >= maxClients {
		return c
	}
	c, err := p.dial(netip.AddrPortFrom(k.from.Addr().Unmap(), k.from.Port()))
	if err != nil {
		return nil
	}
	p.clients.by[k] = c
	p.g.wg.Go(func() { p.answer(c, k) })
	return c
}

// answer carries a client's answers back, until there were no datagrams for a while.
func (p *udpPort) answer(c *net.UDPConn, k udpClient) {
	defer func() {
		p.clients.Lock()
		defer p.clients.Unlock()
		if p.clients.by[k] == c {
			delete(p.clients.by, k)
		}
		_ = c.Close()
	}()
	b, control := make([]byte, maxDatagram), sockio.SourceControl(k.local)
	for {
		n, err := c.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			continue // about what was sent: nobody is there
		}
		_, _, _ = p.conn.WriteMsgUDPAddrPort(b[:n], control, k.from)
		_ = c.SetReadDeadline(time.Now().Add(clientTimeout))
	}
}

// localOf is the address that a datagram was sent to; the zero address where that is not told.
func localOf(control []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO &&
			len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[4:8])) // ipi_spec_dst
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO &&
			len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16])) // mapped for IPv4, as the socket wants it back
		}
	}
	return netip.Addr{}
}
