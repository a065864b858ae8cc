package engine

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/usernet/usernet/autoconf"
)

// TestLeasesAreRenewedAtTheGateway: a client that has an address sends its renewals to the server's own.
func TestLeasesAreRenewedAtTheGateway(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 9}
	srv, err := autoconf.New(autoconf.Config{
		Router:  net.HardwareAddr{2, 0, 0, 0, 0, 1},
		Subnet4: netip.MustParsePrefix("127.0.0.0/8"),
		Router4: netip.MustParseAddr("127.0.0.1"),
		First4:  netip.MustParseAddr("127.0.0.7"),
		Last4:   netip.MustParseAddr("127.0.0.7"),
	})
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { renewLeases(srv, pc); close(done) }()
	client, err := net.Dial("udp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(mac),
		dhcpv4.WithClientIP(net.IPv4(127, 0, 0, 7)))
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range [][]byte{{1, 2, 3}, request.ToBytes()} { // the first makes no sense and is not answered
		if _, err := client.Write(message); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, maxDHCP)
	size, err := client.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := dhcpv4.FromBytes(buf[:size])
	if err != nil || reply.MessageType() != dhcpv4.MessageTypeAck || !reply.YourIPAddr.Equal(net.IPv4(127, 0, 0, 7)) ||
		!bytes.Equal(reply.ClientHWAddr, mac) {
		t.Errorf("%v, %v", reply, err)
	}
	_ = pc.Close()
	<-done
}
