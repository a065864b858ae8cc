package engine_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/usernet/usernet/engine"
)

// A network without a daemon, a store or a namespace: two pipes on a switch, and a frame that goes from one to the
// other.
func Example() {
	n, err := engine.New(engine.Config{
		Name:     "lab",
		Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	macs := []net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
	pipes := []*engine.Pipe{engine.NewPipe(8), engine.NewPipe(8)}
	for i, p := range pipes {
		_, err := n.Attach(engine.AttachConfig{
			ID:    fmt.Sprint("machine ", i),
			MAC:   macs[i],
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 2)})},
		}, p)
		if err != nil {
			log.Fatal(err)
		}
	}

	// An ARP request (RFC 826): who has 10.1.0.3? tell 10.1.0.2.
	request := []byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06,
		0, 1, 0x08, 0x00, 6, 4, 0, 1,
		2, 0, 0, 0, 0, 1, 10, 1, 0, 2,
		0, 0, 0, 0, 0, 0, 10, 1, 0, 3,
	}
	if err := pipes[0].Send(context.Background(), request); err != nil {
		log.Fatal(err)
	}
	frame, err := pipes[1].Receive(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("from %v to %v: who has %v?\n", net.HardwareAddr(frame[6:12]), net.HardwareAddr(frame[0:6]),
		net.IP(frame[38:42]))
	// Output: from 02:00:00:00:00:01 to ff:ff:ff:ff:ff:ff: who has 10.1.0.3?
}
