package uplink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/switch/tap"
)

// Kind is what a device is.
type Kind string

// The kinds of devices that frames can be exchanged with.
const (
	Macvtap Kind = "macvtap"
	TAP     Kind = "TAP"
)

// MaxVLAN is the highest VLAN id: 4095 is reserved (IEEE 802.1Q, table 9-2).
const MaxVLAN = 4094

// Errors of Find and of opening a device.
var (
	ErrNoDevice  = errors.New("there is no such interface")
	ErrOtherKind = errors.New("it is neither a macvtap nor a TAP")
)

// Info is a device as the kernel describes it.
type Info struct {
	Name  string
	Index int
	Kind  Kind
	// Mode is that of a macvtap: bridge, vepa, private, passthru or source.
	Mode string
	// Other is the interface that a macvtap is on, or the bridge that a TAP is in; "": none, or one of another network
	// namespace.
	Other string
	MAC   net.HardwareAddr
	MTU   int
	// Addrs are the host's own on the device: a TAP that the host routes to has some.
	Addrs []netip.Prefix
	Up    bool
	// Groups: frames to all groups come in. A macvtap takes those of groups alone that its own interface is in, unless
	// it is told to take all (drivers/net/macvlan.c, macvlan_compute_filter), and IPv6 asks a group who has an address.
	Groups bool
}

// Parse takes DEVICE[.VLAN] apart: the VLAN is 0 where there is none. An interface whose own name ends in such a number
// is meant itself.
func Parse(parent string) (device string, vlan uint16, err error) {
	if i := strings.LastIndexByte(parent, '.'); i > 0 {
		if _, missing := netlink.LinkByName(parent); missing != nil {
			n, err := strconv.ParseUint(parent[i+1:], 10, 16)
			if err != nil || n == 0 || n > MaxVLAN {
				return "", 0, fmt.Errorf("%q is no VLAN: give DEVICE.VLAN with a number from 1 to %d", parent[i+1:],
					MaxVLAN)
			}
			return parent[:i], uint16(n), nil
		}
	}
	if len(parent) >= unix.IFNAMSIZ {
		return "", 0, fmt.Errorf("%q is no interface: a name has at most %d characters", parent, unix.IFNAMSIZ-1)
	}
	return parent, 0, nil
}

// Find returns a device of this network namespace.
func Find(name string) (Info, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return Info{Name: name}, ErrNoDevice
	}
	if err != nil {
		return Info{Name: name}, err
	}
	info, ok := describe(link)
	if !ok {
		return info, fmt.Errorf("%w, but a device of type %s", ErrOtherKind, link.Type())
	}
	return info, nil
}

// All are the devices of this network namespace that could be uplinks.
func All() ([]Info, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var list []Info
	for _, link := range links {
		if info, ok := describe(link); ok {
			list = append(list, info)
		}
	}
	return list, nil
}

// describe is false where frames cannot be exchanged with a link.
func describe(link netlink.Link) (Info, bool) {
	a := link.Attrs()
	info := Info{Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0}
	other := 0
	switch l := link.(type) {
	case *netlink.Macvtap:
		info.Kind, info.Mode, other = Macvtap, modes[l.Mode], a.ParentIndex
		info.Groups = a.RawFlags&(unix.IFF_ALLMULTI|unix.IFF_PROMISC) != 0
	case *netlink.Tuntap:
		if l.Mode != netlink.TUNTAP_MODE_TAP {
			return info, false
		}
		info.Kind, other, info.Groups = TAP, a.MasterIndex, true
	default:
		return info, false
	}
	if o, err := netlink.LinkByIndex(other); other != 0 && err == nil && o.Attrs().Index != a.Index {
		info.Other = o.Attrs().Name
	}
	addrs, _ := netlink.AddrList(link, netlink.FAMILY_ALL) // without them it is one that is not routed
	for _, x := range addrs {
		if p, err := netip.ParsePrefix(x.IPNet.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			info.Addrs = append(info.Addrs, p)
		}
	}
	return info, true
}

var modes = map[netlink.MacvlanMode]string{
	netlink.MACVLAN_MODE_PRIVATE:  "private",
	netlink.MACVLAN_MODE_VEPA:     "vepa",
	netlink.MACVLAN_MODE_BRIDGE:   "bridge",
	netlink.MACVLAN_MODE_PASSTHRU: "passthru",
	netlink.MACVLAN_MODE_SOURCE:   "source",
}

// Node is the file that is opened for frames.
func (i *Info) Node() string {
	if i.Kind == Macvtap {
		return "/dev/tap" + strconv.Itoa(i.Index)
	}
	return "/dev/net/tun"
}

// ManyMACs says whether frames to other MACs than the device's own come in. A macvtap gets those to its own MAC and to
// groups, unless it is the only one on its interface (mode passthru; macvlan_handle_frame in drivers/net/macvlan.c).
func (i *Info) ManyMACs() bool { return i.Kind == TAP || i.Mode == "passthru" }

// Routed says whether the host's kernel routes to what is on the device.
func (i *Info) Routed() bool { return i.Kind == TAP && i.Other == "" && len(i.Addrs) > 0 }

// GroupsCommand is what the administrator has to run where Groups is false.
func (i *Info) GroupsCommand() string { return "ip link set " + i.Name + " allmulticast on" }

// open opens the device.
func (i *Info) open() (*os.File, error) {
	if i.Kind == Macvtap {
		return tap.OpenMacvtap(i.Node(), i.Name)
	}
	return tap.OpenExisting(i.Name)
}

// OpenMacvtap opens a macvtap of this network namespace for frames. It opens no other files.
func OpenMacvtap(name string) (*os.File, error) {
	info, err := Find(name)
	switch {
	case err != nil:
		return nil, err
	case info.Kind != Macvtap:
		return nil, fmt.Errorf("%s is a %s", name, info.Kind)
	}
	return info.open()
}

// Usable says whether this user may open the device; a TAP that is open already is (ErrBusy).
func (i *Info) Usable() error {
	if i.Kind == Macvtap { // a second descriptor would take frames away from the one that is in use
		if err := unix.Access(i.Node(), unix.R_OK|unix.W_OK); err != nil {
			return &os.PathError{Op: "open", Path: i.Node(), Err: err}
		}
		return nil
	}
	f, err := i.open()
	if err != nil {
		return err
	}
	return f.Close()
}

// IsBusy says whether an error is that of a TAP which a process has open.
func IsBusy(err error) bool { return errors.Is(err, unix.EBUSY) }
