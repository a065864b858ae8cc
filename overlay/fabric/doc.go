// Package fabric carries Ethernet frames of a network between hosts: VXLAN (RFC 7348) in UDP, from one socket per
// address family for the whole host.
//
// A [Fabric] owns the sockets and knows the peers: other hosts (SetPeers), and VXLAN devices of others, which a network
// names itself (NetworkConfig.Foreign). A [Link] is one network's part of it: the device of a switch port with the role
// Fabric.
//
//	container -> TAP -> switch -> Link.WriteFrame -> cut for that peer's path MTU -> one sendmsg with UDP_SEGMENT
//	recvmmsg with UDP_GRO -> checked against the entries -> put together to super-frames -> switch -> TAP -> container
//
// The one idea: nothing is learned from the wire that the cluster's table knows. SetEntries says which MAC and
// addresses are on which host; from that follow where a frame goes, the answers to ARP and neighbour discovery, and
// which frames of a peer count. Only behind foreign peers, of which no table knows anything, are MACs learned.
//
// A network is plain or sealed. Frames of a sealed one go through WireGuard ([Config].Key, package seal), and a plain
// one that claims to be of it is dropped, always.
//
// TCP between containers of two hosts may go past the frames, where a network asks for it: sockets.go has how.
//
// The gateway is on each host with the same MAC and addresses. So nothing from it or to it crosses: not its ARP, not
// its router advertisements, no DHCP.
//
// The package never fragments an outer packet: sockets set DF, and what does not fit a peer's path is cut (TCP),
// fragmented inside (IPv4 without DF), or answered with the ICMP error that a router would send.
package fabric
