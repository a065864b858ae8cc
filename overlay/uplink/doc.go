// Package uplink connects networks to physical ones, by a device that an administrator has given to this user: a
// macvtap, whose character device is the user's, or a TAP of the user's in a bridge, or one that the host routes to.
//
// # The central idea
//
// A device is opened once for all networks on it, which are told apart by their VLAN (IEEE 802.1Q, tagged here and not
// by the kernel). Each network has the device as one more port of its switch: containers have addresses and MACs of
// their own there, and what is outside is learned, bounded and aged. The network's gateway stays on this side: it
// neither answers to the outside nor lets anybody there go through it.
//
//	set := uplink.NewSet(log, nil)
//	info, err := uplink.Find("macvtap0")                     // what it is, and whether this user may open it
//	leave, err := set.Join(uplink.Config{Device: "macvtap0", VLAN: 20}, engine)
//	lease, err := set.Lease(ctx, endpointID, uplink.Config{Device: "macvtap0", VLAN: 20}, dhcp.Config{MAC: mac})
//
// An address is probed before it is used, announced, and defended (conflict.go). DHCP's messages and router
// advertisements are read here in passing (packages dhcp and routers).
//
// A device that goes is opened again when it comes back. The package changes nothing of the host: what an administrator
// has to do, Advise says.
package uplink
