// Package seal encrypts what goes between hosts with WireGuard (golang.zx2c4.com/wireguard), inside the process: no
// interface, no kernel module, no privilege.
//
// Each host has a key, drawn at its first start (NewKey) and kept by package cluster, and from its public part follows
// its address inside the tunnel ([Addr]). WireGuard lets a peer send from that address alone (AllowedIPs), so a host
// speaks only as itself: the receiver of a datagram knows by its source address whose key has sealed it.
//
//	fabric -> Tunnel.Send -> IPv6, UDP -> WireGuard -> Config.Bind, which is the fabric's socket
//	the fabric's socket -> Config.Bind -> WireGuard -> Config.Receive -> fabric
//
// Inside the tunnel is IPv6 with UDP, as the kernel's VXLAN device over a WireGuard interface sends it: that is a peer
// as well.
//
// [Pins] remembers the key that a host had when it was first seen. Another one for the same host is refused until a
// user says otherwise: who may write the cluster's table must not be able to take a host's place.
package seal
