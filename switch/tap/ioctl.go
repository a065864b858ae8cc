package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

// errNoOffload is returned by a kernel whose TAPs carry no virtio header.
var errNoOffload = errors.New("kernel has no TAP offloads")

// The work that the daemon accepts undone from the kernel: <linux/if_tun.h>, since Linux 2.6.27; UDP since 6.2.
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	offloadUDP = 0x20 | 0x40 // TUN_F_USO4, TUN_F_USO6
)

// attach makes fd a TAP with virtio headers, new or persistent.
func attach(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	features, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
	if err != nil || features&unix.IFF_VNET_HDR == 0 {
		return errNoOffload
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// setOffload fixes the virtio header's layout and asks for super-frames.
func setOffload(fd int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vswitch.VirtioHeaderLen); err != nil {
		return errNoOffload
	}
	err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP|offloadUDP)
	if errors.Is(err, unix.EINVAL) {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP)
	}
	if err != nil {
		return errNoOffload
	}
	return nil
}

// noOffload switches super-frames off, which an earlier process may have switched on for a persistent TAP: without the
// virtio header they would look like whole packets.
func noOffload(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, 0) })
	return errors.Join(err, failed)
}

// carriesVirtio says whether frames have a virtio header on this descriptor; known is false for what is no TAP.
func carriesVirtio(fd int) (yes, known bool) {
	var ifr unix.Ifreq
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, &ifr); err != nil {
		return isPacketSocket(fd)
	}
	return ifr.Uint16()&unix.IFF_VNET_HDR != 0, true
}

// Check says whether fd is of a TAP called name, of a kind that Open can take: another process may have had it open,
// and inside the sandbox it may have been removed or given another name. The name "" is any.
func Check(fd int, name string) error {
	if virtio, yes := isPacketSocket(fd); yes {
		if !virtio {
			return fmt.Errorf("descriptor of interface %s: a packet socket without virtio headers", name)
		}
		return nil // this process is not in the sandbox's namespace, and cannot ask for the name
	}
	var ifr unix.Ifreq
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, &ifr); err != nil {
		return fmt.Errorf("descriptor of TAP %s: %w", name, translate(errnoOf(err)))
	}
	flags := ifr.Uint16()
	switch {
	case name != "" && ifr.Name() != name:
		return fmt.Errorf("descriptor of TAP %s: it is called %s", name, ifr.Name())
	case flags&unix.IFF_TAP == 0 || flags&unix.IFF_MULTI_QUEUE != 0:
		return fmt.Errorf("descriptor of TAP %s: flags %#x are not those of a TAP of usernet's", name, flags)
	case flags&unix.IFF_VNET_HDR == 0:
		return nil
	}
	size, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ)
	if err != nil || size != vswitch.VirtioHeaderLen {
		return errors.Join(
			fmt.Errorf(
				"descriptor of TAP %s: a virtio header of %d bytes, want %d",
				name,
				size,
				vswitch.VirtioHeaderLen,
			),
			err,
		)
	}
	return nil
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	_ = errors.As(err, &errno)
	return errno
}

// ifreqAddr is struct ifreq with a hardware address, which x/sys does not let one set.
type ifreqAddr struct {
	name   [unix.IFNAMSIZ]byte
	family uint16
	addr   [14]byte
	_      [8]byte
}

// configure sets MAC and MTU of the TAP behind f.
func configure(f *os.File, mac net.HardwareAddr, mtu int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = configureFD(int(fd), mac, mtu) })
	return errors.Join(err, failed)
}

func configureFD(fd int, mac net.HardwareAddr, mtu int) error {
	var ifr unix.Ifreq
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, &ifr); err != nil {
		return fmt.Errorf("read its name: %w", err)
	}
	if len(mac) == 6 {
		// SIOCSIFHWADDR on the TAP's own descriptor needs no socket.
		req := ifreqAddr{family: unix.ARPHRD_ETHER}
		copy(req.name[:], ifr.Name())
		copy(req.addr[:], mac)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req)))
		if errno != 0 {
			return fmt.Errorf("set MAC %v: %w", mac, errno)
		}
	}
	if mtu <= 0 {
		return nil
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		sock, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("set MTU %d: %w", mtu, err)
	}
	defer func() { _ = unix.Close(sock) }() // nothing was written to it
	req, err := unix.NewIfreq(ifr.Name())
	if err != nil {
		return err
	}
	req.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFMTU, req); err != nil {
		return fmt.Errorf("set MTU %d: %w", mtu, err)
	}
	return nil
}

// HardwareAddr returns the MAC address of the TAP behind f, or a made-up one where f is another kind of descriptor.
func HardwareAddr(f *os.File) (net.HardwareAddr, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var req ifreqAddr
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&req)))
	}); err != nil {
		return nil, err
	}
	if errno != 0 {
		return net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}, nil
	}
	return net.HardwareAddr(req.addr[:6]), nil
}

// Where returns the network namespace that the interface is in now, which is the caller's to close, and its name there.
// It fails with ErrGone where there is no interface any more, and with ENOTTY where it is none that can be asked: that
// of a veth pair. The namespace that the TAP was made in has to be owned by a user namespace of this user.
func (d *Device) Where() (netns *os.File, name string, err error) {
	var ifr unix.Ifreq
	fd := -1
	closed := d.raw.Control(func(own uintptr) {
		if err = unix.IoctlIfreq(int(own), unix.TUNGETIFF, &ifr); err == nil {
			fd, err = unix.IoctlRetInt(int(own), unix.TUNGETDEVNETNS)
		}
	})
	if closed != nil {
		return nil, "", d.failed(closed)
	}
	if err != nil {
		return nil, "", d.failed(translate(errnoOf(err)))
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "netns"), ifr.Name(), nil
}

// Persist lets the TAP of a descriptor outlive it, wherever it is. The socket of a veth pair stays as it is: the pair
// outlives it anyhow.
func Persist(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeSocket != 0 {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
	return errors.Join(err, os.NewSyscallError("ioctl(TUNSETPERSIST)", failed))
}

// Discard has the interface go with its last descriptor, wherever it is. That of a veth pair stays.
func (d *Device) Discard() error {
	var failed error
	err := d.raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 0) })
	return errors.Join(err, failed)
}
