package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Advice is what is to be said of a device.
type Advice struct {
	State  string // what it is
	Usable bool   // nothing has to be done
	Ways   []Way  // what the administrator can do, one of them
	Notes  []string
}

// Way are commands for root, in order.
type Way struct {
	Title    string
	Commands []string
}

// Advise says what the administrator has to do, so that user can use the device called name.
func Advise(name, user string) Advice {
	info, err := Find(name)
	switch {
	case errors.Is(err, ErrNoDevice):
		return Advice{State: ErrNoDevice.Error(), Ways: waysToMake(name, onWhich(), user)}
	case errors.Is(err, ErrOtherKind):
		made := "uplink0"
		return Advice{State: err.Error(), Ways: waysToMake(made, name, user)[:1],
			Notes: []string{"then give " + made + " in the place of " + name}}
	case err != nil:
		return Advice{State: err.Error()}
	}
	a := Advice{State: info.String(), Notes: info.notes()}
	var todo []string
	use := info.Usable()
	switch {
	case use == nil, IsBusy(use):
	case info.Kind == Macvtap:
		a.State += "; " + use.Error()
		todo = append(todo, fmt.Sprintf("chown %s %s", user, info.Node()))
	case errors.Is(use, unix.EPERM):
		a.State += "; it is another user's"
		todo = append(todo, "ip tuntap del dev "+name+" mode tap", "ip tuntap add dev "+name+" mode tap user "+user)
		if info.Other != "" {
			todo = append(todo, "ip link set "+name+" master "+info.Other)
		}
		for _, p := range info.Addrs {
			todo = append(todo, fmt.Sprintf("ip addr add %s dev %s", p, name))
		}
		info.Up = false
	default:
		a.State += "; " + use.Error()
		a.Notes = append(a.Notes, use.Error())
		return a
	}
	if !info.Up {
		todo = append(todo, "ip link set "+name+" up")
	}
	if a.Usable = len(todo) == 0; !a.Usable {
		a.Ways = []Way{{"the administrator has to run", todo}}
	}
	if !info.Groups {
		a.Ways = append(a.Ways, Way{"for IPv6 the administrator has to run", []string{info.GroupsCommand()}})
	}
	if todo := info.forwarding(); info.Routed() && len(todo) > 0 {
		a.Ways = append(a.Ways, Way{"so that other hosts reach containers on it the administrator has to run", todo})
	}
	if info.Kind == TAP && info.Other == "" && len(info.Addrs) == 0 {
		a.Usable = false
		a.Ways = append(a.Ways, Way{"to have it in a bridge", []string{"ip link set " + name + " master BRIDGE"}},
			Way{"or to have the host route to it", routed(name)})
	}
	return a
}

// String says what a device is.
func (i *Info) String() string {
	var b strings.Builder
	switch {
	case i.Kind == Macvtap:
		fmt.Fprintf(&b, "a macvtap in mode %s", i.Mode)
		if i.Other != "" {
			fmt.Fprintf(&b, " on %s", i.Other)
		}
	case i.Other != "":
		fmt.Fprintf(&b, "a TAP in the bridge %s", i.Other)
	case len(i.Addrs) > 0:
		b.WriteString("a TAP that the host routes to, with the address ")
		for n, a := range i.Addrs {
			if n > 0 {
				b.WriteString(" and ")
			}
			b.WriteString(a.String())
		}
	default:
		b.WriteString("a TAP in no bridge, and without an address of the host's")
	}
	if !i.Up {
		b.WriteString(", down")
	}
	return b.String()
}

func (i *Info) notes() []string {
	var list []string
	if !i.ManyMACs() {
		list = append(list, fmt.Sprintf("it takes one MAC address (%s), and so one container at a time; mode passthru, "+
			"which takes the whole interface, or a TAP in a bridge takes many", i.MAC))
	}
	if i.Routed() {
		for _, a := range i.Addrs {
			list = append(list, fmt.Sprintf(
				"other hosts reach containers on it by one route: ip route add %s via THIS-HOST", a.Masked()))
		}
	}
	return list
}

// forwarding are the commands that have the kernel route to the addresses of the device, as far as it does not.
func (i *Info) forwarding() (list []string) {
	for _, f := range []struct {
		v6            bool
		file, command string
	}{
		{false, "/proc/sys/net/ipv4/ip_forward", "sysctl -w net.ipv4.ip_forward=1"},
		{true, "/proc/sys/net/ipv6/conf/all/forwarding", "sysctl -w net.ipv6.conf.all.forwarding=1"},
	} {
		has := slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() == f.v6 })
		if state, err := os.ReadFile(f.file); has && err == nil && strings.TrimSpace(string(state)) == "0" {
			list = append(list, f.command)
		}
	}
	return list
}

// waysToMake are those to make a device; on is the interface that leads outside.
func waysToMake(name, on, user string) []Way {
	return []Way{
		{"a macvtap on " + on + ", for one container at a time", []string{
			fmt.Sprintf("ip link add link %s name %s type macvtap mode bridge", on, name),
			"ip link set " + name + " up allmulticast on",
			fmt.Sprintf("chown %s /dev/tap$(cat /sys/class/net/%s/ifindex)", user, name),
		}},
		{"or a TAP in a bridge, for any number of containers", []string{
			fmt.Sprintf("ip tuntap add dev %s mode tap user %s", name, user),
			"ip link set " + name + " master BRIDGE up",
		}},
		{"or a TAP that the host routes to, for containers with addresses of a subnet of their own",
			append([]string{fmt.Sprintf("ip tuntap add dev %s mode tap user %s", name, user)}, routed(name)...)},
	}
}

func routed(name string) []string {
	return []string{
		"ip addr add ADDRESS/LENGTH dev " + name,
		"ip link set " + name + " up",
		"sysctl -w net.ipv4.ip_forward=1",
	}
}

// onWhich is the interface of the default route, or a word for one.
func onWhich() string {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return "INTERFACE"
	}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			return link.Attrs().Name
		}
	}
	return "INTERFACE"
}

// Nodes are the files that this user's devices are opened by.
func Nodes() []string {
	list := []string{"/dev/net/tun"}
	all, _ := All() // without them there are none
	for _, i := range all {
		if i.Kind == Macvtap && i.Usable() == nil {
			list = append(list, i.Node())
		}
	}
	return list
}
