// Package vswitch is a network's Ethernet switch in userspace.
//
// A [Switch] has ports; behind each [Port] is a [Device]: a container's TAP (package tap) or the gateway's netstack
// (package stack). The reader of a device hands each frame to its port's Receive, which checks it, finds the ports
// it is for and writes it to their devices, all on the caller's goroutine:
//
//	sw := vswitch.New(vswitch.Config{Name: "shop"})
//	port, err := sw.Connect(vswitch.PortConfig{Name: "web", MAC: mac, Addrs: addrs, Role: vswitch.Guest}, device)
//	...
//	port.Receive(frame) // calls WriteFrame of the devices that the frame is for
//
// The one idea: a [Frame] keeps the virtio header with which the kernel handed it over, so that a super-frame of up
// to 64 KiB crosses from TAP to TAP with neither its checksum computed nor its payload touched. A device that cannot
// carry super-frames cuts them up itself with [Frame.Segments].
//
// Forwarding takes no lock and allocates nothing: the table of ports is copied on each change and swapped in whole.
//
// What a port may do follows from its [Role]. The forwarding table (fdb.go) has the ports' own MACs, then what a
// control plane says ([Switch.SetStatic]), then what was learned; frames can be shown to others ([Switch.Mirror]).
//
// The port guard (guard*.go) lets a guest send only from its own MAC and addresses. It looks at IPv4, IPv6, ARP
// and neighbour discovery, passes all other EtherTypes, and counts what it drops by [Reason].
//
// A reader asks its [Pacer] how long to pause, so that one port's frames leave time to the others'.
//
// Ports that are isolated talk to the gateway only, and to each other as far as links (links.go) say: the exception
// costs isolated ports a look-up, and others nothing.
//
// The switch never starts a goroutine, never keeps a frame beyond the call that brought it, and never answers for
// anyone.
package vswitch
