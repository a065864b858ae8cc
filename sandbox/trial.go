package sandbox

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
)

// Trial is a way to be looked up and tried from a sandbox's own network namespace.
type Trial struct {
	// Network is tcp, udp or icmp; "" looks up the route and sends nothing.
	Network string
	Dst     netip.AddrPort
	Payload []byte        // of a datagram
	Wait    time.Duration // for an answer
}

// Tried is what came of a Trial.
type Tried struct {
	Route *TriedRoute // by the sandbox's own kernel; nil: it has none
	Local netip.AddrPort
	// Error is why nothing came back, and Errno its number where it has one: ETIMEDOUT where nobody answered in time.
	Error  string
	Errno  syscall.Errno
	Answer []byte // the datagram that came back
	Took   time.Duration
}

// TriedRoute is the route of a destination.
type TriedRoute struct {
	Interface string
	Via       netip.Addr // the router; invalid: the destination is on the link
	Source    netip.Addr
	Local     bool // the destination is the sandbox itself
}

// tryAll tries ways from the network namespace that this process is in.
func tryAll(ways []Trial) []Tried {
	results := make([]Tried, len(ways))
	for i, w := range ways {
		r := &results[i]
		var err error
		if r.Route, err = lookUpRoute(w.Dst.Addr()); err == nil && w.Network != "" {
			began := time.Now()
			err = r.try(w)
			r.Took = time.Since(began)
		}
		if err != nil {
			r.Error = err.Error()
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				r.Errno = unix.ETIMEDOUT
			}
			_ = errors.As(err, &r.Errno)
		}
	}
	return results
}

// lookUpRoute asks the kernel, as ip route get does.
func lookUpRoute(dst netip.Addr) (*TriedRoute, error) {
	list, err := netlink.RouteGet(dst.AsSlice())
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, unix.ENETUNREACH
	}
	r := &TriedRoute{Local: list[0].Type == unix.RTN_LOCAL}
	if a, ok := netip.AddrFromSlice(list[0].Gw); ok {
		r.Via = a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(list[0].Src); ok {
		r.Source = a.Unmap()
	}
	if link, err := netlink.LinkByIndex(list[0].LinkIndex); err == nil {
		r.Interface = link.Attrs().Name
	}
	return r, nil
}

// try connects, and sends a datagram and waits for the answer.
func (r *Tried) try(w Trial) error {
	d := net.Dialer{Timeout: w.Wait, Control: reportErrors}
	network, address := w.Network, w.Dst.String()
	payload := w.Payload
	if network == "icmp" {
		network, address = "ip4:icmp", w.Dst.Addr().String()
		kind := byte(8) // RFC 792
		if w.Dst.Addr().Is6() {
			network, kind = "ip6:ipv6-icmp", 128 // RFC 4443, 4.1
		}
		payload = echoRequest(kind)
	}
	c, err := d.Dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if a, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		r.Local = a
	} else if a, err := netip.ParseAddr(c.LocalAddr().String()); err == nil {
		r.Local = netip.AddrPortFrom(a, 0)
	}
	if w.Network == "tcp" {
		return nil
	}
	if err := c.SetDeadline(time.Now().Add(w.Wait)); err != nil {
		return err
	}
	if _, err := c.Write(payload); err != nil {
		return err
	}
	buf := make([]byte, maxTried)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		answer := buf[:n]
		if network == "ip4:icmp" && n > 0 { // with the IP header (raw(7)), which IPv6 leaves out (RFC 3542, 3)
			answer = answer[min(n, int(answer[0]&0xf)*4):]
		}
		if w.Network != "icmp" || isEchoReply(answer, w.Dst.Addr().Is6()) {
			r.Answer = append([]byte(nil), answer...)
			return nil
		}
	}
}

// maxTried bounds an answer, in bytes.
const maxTried = 4096

// reportErrors has the kernel report all ICMP errors at once (ip(7), IP_RECVERR), not the final ones only.
func reportErrors(network, _ string, c syscall.RawConn) (err error) {
	level, name := unix.IPPROTO_IP, unix.IP_RECVERR
	if network[len(network)-1] == '6' || network == "ip6:ipv6-icmp" {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	set := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, 1) })
	return errors.Join(set, os.NewSyscallError("setsockopt", err))
}

// echoRequest is an ICMP message of a kind. The kernel computes the checksum of ICMPv6 itself (RFC 3542, 3.1).
func echoRequest(kind byte) []byte {
	b := []byte{kind, 0, 0, 0, 0, 0, 0, 1, 'u', 's', 'e', 'r', 'n', 'e', 't', ' '}
	binary.BigEndian.PutUint16(b[4:], uint16(os.Getpid()))
	if kind == 8 {
		binary.BigEndian.PutUint16(b[2:], ^packet.Sum(b, 0))
	}
	return b
}

// isEchoReply says whether a message is the answer to this process's request.
func isEchoReply(b []byte, ipv6 bool) bool {
	kind := byte(0)
	if ipv6 {
		kind = 129
	}
	return len(b) >= 8 && b[0] == kind && binary.BigEndian.Uint16(b[4:]) == uint16(os.Getpid())
}

func (r TriedRoute) String() string {
	switch {
	case r.Local:
		return "the container itself, by " + strconv.Quote(r.Interface)
	case r.Via.IsValid():
		return "by " + r.Interface + " to the gateway " + r.Via.String() + ", from " + r.Source.String()
	}
	return "by " + r.Interface + ", where the destination is on the link, from " + r.Source.String()
}
