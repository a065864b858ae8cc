// Package faults injects faults into a daemon that was built for tests (go build -tags faults), to show that a panic or
// a hang stays where it happens. Without the tag [Enabled] is a false constant, and the calls are compiled away:
//
//	if faults.Enabled {
//		faults.Check(faults.Frame, payload)
//	}
//
// Which faults there are is in the variable USERNET_FAULTS when the process starts: POINT=TEXT=panic or
// POINT=TEXT=hang, separated by commas. A point fails where the bytes that it is given contain the text. What hangs
// goes on once the process gets SIGUSR2.
package faults

// Point is a place in the code that can fail.
type Point string

// The points.
const (
	Frame   Point = "frame"   // a switch port takes a frame of its device
	Gateway Point = "gateway" // the gateway takes a frame from the switch
	Locked  Point = "locked"  // the forwarder holds its lock, for a datagram of a container
	SYN     Point = "syn"     // the forwarder decides about a connection; its text is ADDRESS:PORT
	Reply   Point = "reply"   // a socket handler has a datagram from outside for a container
	Relay   Point = "relay"   // a socket handler has bytes of a connection
	Copy    Point = "copy"    // a goroutine has bytes of a connection through the gateway
	Query   Point = "query"   // the DNS server has a question; its text is the name
	Forward Point = "forward" // the DNS server asks outside
)
