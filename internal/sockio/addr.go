package sockio

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Family is the socket family (socket(2)) of an address.
func Family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Sockaddr is an address and port for package unix.
func Sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// AddrPort is an address and port of package unix. An IPv4-mapped address becomes the IPv4 address; what is of another
// family the zero AddrPort.
func AddrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// RawAddr is a socket address as the kernel takes it, kept where the sender is, so that sending allocates nothing.
type RawAddr struct {
	space unix.RawSockaddrInet6 // struct sockaddr_in (ip(7)) fits as well
	size  uint32
}

// Set stores an address and port.
func (r *RawAddr) Set(a netip.AddrPort) {
	port := (*[2]byte)(unsafe.Pointer(&r.space.Port)) // of both structures at the same place
	if a.Addr().Is4() {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.space))
		*in = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
		r.size = unix.SizeofSockaddrInet4
	} else {
		r.space = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16()}
		r.size = unix.SizeofSockaddrInet6
	}
	binary.BigEndian.PutUint16(port[:], a.Port())
}

// AddrPort is what was stored, by Set or by the kernel. An IPv4-mapped address becomes the IPv4 address.
func (r *RawAddr) AddrPort() netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&r.space.Port))
	n := binary.BigEndian.Uint16(port[:])
	switch r.space.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.space))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), n)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(r.space.Addr).Unmap(), n)
	}
	return netip.AddrPort{}
}
