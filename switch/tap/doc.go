// Package tap makes TAP devices and moves frames between them and a switch port.
//
// A TAP has two lives. Inside the sandbox's network namespace the agent makes it with [Create], configures it and
// sends the descriptor out; the daemon, outside, wraps what it received with [Open] and runs [Device.Serve], which
// reads frames into the switch until the TAP is closed:
//
//	f, err := tap.Create("eth0", mac, 1500, tap.Options{Offload: true, Persist: true}) // inside
//	dev, err := tap.Open(f, false)                                                    // outside
//	port, err := sw.Connect(cfg, dev)
//	err = dev.Serve(port)
//
// The one idea: with IFF_VNET_HDR the kernel hands over super-frames of up to 64 KiB whose checksum and segmentation
// are still to be done, and takes such ones, so one readv and one writev carry what would be 45 frames at an MTU of
// 1500. A plain TAP has no such header: frames to it are cut up and completed here.
//
// Where /dev/net/tun cannot be opened, Create makes a veth pair with a packet socket on its other end (veth.go). The
// descriptor is used as a TAP's is.
//
// A TAP can change hands between processes while it is open: [Device.Copy] gives a descriptor away, [Device.Stop]
// leaves what comes from then on to its reader, and there [Check] says whether it is what it is said to be. The
// interface has a carrier as long as one descriptor is open; without one the kernel drops what the sandbox sends.
//
// Reading is non-blocking, through Go's poller: a TAP that waits holds neither a thread nor a buffer. Frames that are
// there are all read before the reader waits again.
package tap
