package tap

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// This file makes a substitute for a TAP where /dev/net/tun cannot be opened, as in a container of another engine: a
// veth pair in the sandbox. One end is the interface, and a packet socket (packet(7)) is bound to the other end. With
// PACKET_VNET_HDR the socket carries the same virtio header as a TAP, super-frames included, so the code behind the
// descriptor is the same. A pair is slower, since the kernel queues each frame twice, and the sandbox sees its other
// end.

// peerPrefix begins the name of the pair's other end.
const peerPrefix = "un-"

// peerName is the other end of the pair whose one end is name: a function of it, so that the pair is found again.
func peerName(name string) string {
	peer := peerPrefix + name
	if len(peer) >= unix.IFNAMSIZ {
		peer = peer[:unix.IFNAMSIZ-1]
	}
	return peer
}

// IsLink says whether an interface may be one that Create made: a TAP, or a veth pair with its other end in the same
// network namespace, which is the caller's.
func IsLink(link netlink.Link) bool {
	switch link.Type() {
	case "tuntap", "tun":
		return true
	case "veth":
		peer, err := netlink.LinkByName(peerName(link.Attrs().Name))
		return err == nil && peer.Attrs().Index == link.Attrs().ParentIndex
	}
	return false
}

// unusableTUN says whether an error of openClone means that there are no TAPs here at all.
func unusableTUN(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EACCES, unix.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// createVeth makes a pair, or opens one that exists, and returns the packet socket on its other end.
func createVeth(name string, mac net.HardwareAddr, mtu int) (*os.File, error) {
	made, err := addVeth(name, mac, mtu)
	if err != nil {
		return nil, fmt.Errorf("veth pair %s: %w", name, err)
	}
	f, err := openPeer(peerName(name))
	if err == nil {
		return f, nil
	}
	if made {
		if link, e := netlink.LinkByName(name); e == nil {
			_ = netlink.LinkDel(link) // the first error says more
		}
	}
	return nil, fmt.Errorf("veth pair %s: %w", name, err)
}

// addVeth makes the pair name and peerName(name), with the peer up and without addresses of its own.
func addVeth(name string, mac net.HardwareAddr, mtu int) (made bool, err error) {
	if link, err := netlink.LinkByName(name); err == nil {
		if link.Type() != "veth" || !IsLink(link) {
			return false, fmt.Errorf("%w: an interface of that name exists and is none of usernet's", unix.EINVAL)
		}
		return false, errors.Join(setAttrs(link, mac, mtu), setMTU(peerName(name), mtu))
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = mtu
	attrs.HardwareAddr = mac
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName(name), PeerMTU: uint32(max(mtu, 0))}
	if err := netlink.LinkAdd(pair); err != nil {
		return false, fmt.Errorf("add: %w", err)
	}
	peer, err := netlink.LinkByName(peerName(name))
	if err == nil {
		// The kernel of the sandbox must neither answer nor announce anything on this end.
		err = errors.Join(netlink.LinkSetARPOff(peer), netlink.LinkSetIP6AddrGenMode(peer, nl.IN6_ADDR_GEN_MODE_NONE))
	}
	if err == nil {
		err = netlink.LinkSetUp(peer)
	}
	if err != nil {
		return true, errors.Join(fmt.Errorf("other end: %w", err), netlink.LinkDel(pair))
	}
	return true, nil
}

func setAttrs(link netlink.Link, mac net.HardwareAddr, mtu int) error {
	var errs []error
	if len(mac) == 6 && link.Attrs().HardwareAddr.String() != mac.String() {
		errs = append(errs, netlink.LinkSetHardwareAddr(link, mac))
	}
	if mtu > 0 {
		errs = append(errs, netlink.LinkSetMTU(link, mtu))
	}
	return errors.Join(errs...)
}

func setMTU(name string, mtu int) error {
	if mtu <= 0 {
		return nil
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(link, mtu)
}

// openPeer binds a packet socket to an interface. It receives what the pair's other end sends and nothing else.
func openPeer(name string) (f *os.File, err error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // the first error says more
		}
	}()
	for _, option := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} { // Linux 2.6.27, 4.20
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			return nil, os.NewSyscallError("setsockopt(SOL_PACKET)", err)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, packetBuffer) // as much of it as rmem_max allows
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, packetBuffer)
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8) // in network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifc.Index}); err != nil {
		return nil, os.NewSyscallError("bind(AF_PACKET)", err)
	}
	return os.NewFile(uintptr(fd), "packet socket on "+name), nil
}

// packetBuffer is what a packet socket asks for each way, in bytes: some dozens of super-frames, as a TAP's queue has.
const packetBuffer = 4 << 20

// isPacketSocket says whether fd is a packet socket with virtio headers.
func isPacketSocket(fd int) (virtio, yes bool) {
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_PACKET {
		return false, false
	}
	on, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR)
	return err == nil && on != 0, true
}
