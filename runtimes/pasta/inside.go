package pasta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/usernet/usernet/internal/splice"
	"github.com/usernet/usernet/sandbox"
)

// loopbacks are where ports of the namespace are that lead to the host's loopback, of the same family.
var loopbacks = [2]netip.Addr{v4: netip.AddrFrom4([4]byte{127, 0, 0, 1}), v6: netip.IPv6Loopback()}

// socketsAtOnce is how many sockets the namespace is asked for at once, of the 253 that one message can bring.
const socketsAtOnce = 200

// listenRanges has ports of the namespace's loopback lead to the host's until the session's end.
func (s *session) listenRanges(ctx context.Context, d direction, ranges []Range) error {
	stops, err := s.listenInside(ctx, d, ranges)
	for _, stop := range stops {
		s.release = append(s.release, stop)
	}
	if err != nil {
		return err
	}
	for _, r := range ranges {
		for p := uint32(r.First); p <= uint32(r.Last); p++ {
			if stops[uint16(p)] == nil && !r.Weak {
				return fmt.Errorf(
					"failed to bind port %d of the namespace (address already in use) for option '%s %d-%d:%d-%d', exiting",
					p,
					d.option,
					r.First,
					r.Last,
					r.To,
					r.To+r.Last-r.First,
				)
			}
		}
	}
	if len(stops) == 0 {
		return fmt.Errorf("failed to bind any port for option '%s'", d.option)
	}
	return nil
}

// listenInside makes sockets at ports of the namespace's loopback that lead to the host's. It returns what ends each
// port that could be had.
func (s *session) listenInside(ctx context.Context, d direction, ranges []Range) (map[uint16]func() error, error) {
	to := map[uint16]uint16{}
	var at []netip.AddrPort
	for _, r := range ranges {
		for p := uint32(r.First); p <= uint32(r.Last); p++ {
			to[uint16(p)] = r.To + uint16(p) - r.First
			for _, a := range loopbacks {
				at = append(at, netip.AddrPortFrom(a, uint16(p)))
			}
		}
	}
	stops := map[uint16]func() error{}
	also := func(port uint16, stop func() error) {
		if other := stops[port]; other != nil {
			stops[port] = func() error { return errors.Join(other(), stop()) }
			return
		}
		stops[port] = stop
	}
	for len(at) > 0 {
		some := at[:min(len(at), socketsAtOnce)]
		at = at[len(some):]
		r := sandbox.Request{Listen: some}
		if d.proto == "udp" {
			r = sandbox.Request{ListenPacket: some}
		}
		var none *sandbox.Helper // the process enters the namespace itself
		reply, err := none.Configure(ctx, s.o.target(), r)
		if err != nil {
			return stops, fmt.Errorf("option '%s': %w", d.option, err)
		}
		for _, l := range reply.Listeners {
			a := l.Addr().(*net.TCPAddr).AddrPort()
			also(a.Port(), s.splices.AcceptTCP(l, dialTCP(netip.AddrPortFrom(a.Addr(), to[a.Port()]))))
		}
		for _, pc := range reply.Packets {
			a := pc.LocalAddr().(*net.UDPAddr).AddrPort()
			also(a.Port(), s.splices.ReceiveUDP(pc.(*net.UDPConn), dialUDP(netip.AddrPortFrom(a.Addr(), to[a.Port()]))))
		}
	}
	return stops, nil
}

// dialTimeout is how long a service on the host's loopback may take to be connected to.
const dialTimeout = 10 * time.Second

// dialTCP connects to an address of the host.
func dialTCP(to netip.AddrPort) splice.DialTCP {
	return func(ctx context.Context, _ netip.AddrPort) (*net.TCPConn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		c, err := d.DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
}

// dialUDP makes sockets that send to an address of the host.
func dialUDP(to netip.AddrPort) splice.DialUDP {
	return func(netip.AddrPort) (*net.UDPConn, error) {
		return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	}
}
