// Package vmlink carries the frames of a switch port over a Unix socket, to a virtual machine or to a program that
// has one. A Link is an engine.Link; it knows no network and no daemon.
//
//	stream      4 bytes of length, big-endian, then the frame: qemu's -netdev stream, gvproxy's -listen-qemu
//	datagram    a frame is a datagram: qemu's -netdev dgram, vfkit and krunkit, gvproxy's -listen-vfkit
//	seqpacket   a frame is a record: User Mode Linux and BESS, gvproxy's -listen-bess
//
// The one idea: a link outlives its guests. Where one goes, the next takes its place; while none is there, frames to
// it are lost, as at the end of a cable that nobody has plugged in. A link listens, or connects where the guest
// listens.
//
// The switch writes on goroutines of other ports, which must not wait for a guest. So a frame to the guest is copied
// to a buffer of bounded size (outbox), and a goroutine of the link sends what is in it.
//
// A guest is not trusted: a length that no frame has ends its connection, what is too short is counted and dropped,
// and the port's pacer bounds the processor time of a flood.
package vmlink
