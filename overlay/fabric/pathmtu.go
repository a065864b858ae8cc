package fabric

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// refreshMTU takes what the kernel knows of the way to the peer: the route's MTU, or what ICMP said.
func (p *peer) refreshMTU() {
	if d := p.dest.Load(); d != nil {
		p.lowerMTU(d, pathMTU(d.addr), true)
	}
}

// routeMTU is what the kernel knows of the way to the peer; 0: nothing.
func (p *peer) routeMTU() int {
	d := p.dest.Load()
	if d == nil {
		return 0
	}
	return pathMTU(d.addr)
}

// lowerMTU takes a path MTU that the kernel told. raise says whether it may be larger than what is known. What is below
// the smallest that IP allows is somebody's attempt to make packets tiny, and is taken for that smallest (RFC 8085,
// section 3.2).
func (p *peer) lowerMTU(d *destination, mtu int, raise bool) {
	if mtu <= 0 {
		return
	}
	mtu = min(max(mtu, leastMTU(d)), 1<<16-1)
	for {
		old := p.pathMTU.Load()
		if int(old) == mtu || !raise && mtu > int(old) {
			return
		}
		if p.pathMTU.CompareAndSwap(old, int32(mtu)) {
			return
		}
	}
}

// leastMTU is the smallest path MTU that IP allows.
func leastMTU(d *destination) int {
	if d.sock.v6 {
		return minMTU6
	}
	return minMTU4
}

// readErrors takes the ICMP errors that the kernel has for a socket (ip(7), IP_RECVERR).
func (f *Fabric) readErrors(fd int) {
	var oob [512]byte
	var data [64]byte
	const most = 64 // of them at once: a flood of errors does not keep datagrams waiting
	for range most {
		_, n, _, from, err := unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return
		}
		if mtu := toldMTU(oob[:n]); mtu > 0 {
			f.toldMTU(from, mtu)
		}
	}
}

// toldMTU is the MTU in a struct sock_extended_err, or 0.
func toldMTU(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		told := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if told && len(m.Data) >= 16 && binary.NativeEndian.Uint32(m.Data) == uint32(unix.EMSGSIZE) {
			return int(binary.NativeEndian.Uint32(m.Data[8:])) // ee_info
		}
	}
	return 0
}

// toldMTU is for the peer that a datagram went to which was too large.
func (f *Fabric) toldMTU(to unix.Sockaddr, mtu int) {
	var a netip.AddrPort
	switch s := to.(type) {
	case *unix.SockaddrInet4:
		a = netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		a = plainAddr(netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port)))
	default:
		return
	}
	st := f.state.Load()
	p := st.byAddr[a]
	if p == nil {
		p = st.byIP[a.Addr()]
	}
	if p == nil {
		return
	}
	if d := p.dest.Load(); d != nil && d.addr == a {
		p.lowerMTU(d, mtu, false)
	}
}
