package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/policy"
	vswitch "github.com/usernet/usernet/switch"
)

// TestDeniedPacketsDoNotPassInDisguise has stations behind a port without guard send what a kernel takes for a SYN to a
// port that a policy closes, in forms that do not look like one.
func TestDeniedPacketsDoNotPassInDisguise(t *testing.T) {
	n := newNetwork(t, nil)
	rules, err := policy.ParseNeighbourRules("deny * -> name=pipe:22/tcp")
	if err != nil {
		t.Fatal(err)
	}
	p := policy.NewNeighbours(rules)
	p.SetMembers(map[netip.Addr][]string{bAddr: {"name=pipe"}})
	n.SetNeighbours(p)
	station := NewPipe(16)
	cAddr := netip.MustParseAddr("10.9.0.4")
	from, _ := attachPipe(t, n, cAddr)
	uplink := vswitch.PortConfig{Name: "uplink", MAC: macOf(aAddr), Role: vswitch.Uplink}
	if _, err := n.AttachTrunk(uplink, station); err != nil {
		t.Fatal(err)
	}
	to, b := attachPipe(t, n, bAddr)
	for port, passes := range map[uint16]bool{22: false, 80: true} { // and trace says so
		d := from.Deliver(macOf(bAddr), cAddr, 6, netip.AddrPortFrom(bAddr, port))
		if d.Passes != passes || passes && d.To != to || !passes && (d.Reason != "policy" || d.Rule != rules.String()) {
			t.Errorf("to port %d: %+v", port, d)
		}
	}

	syn := func(port uint16) []byte {
		s := make([]byte, 20)
		binary.BigEndian.PutUint16(s, 4000)
		binary.BigEndian.PutUint16(s[2:], port)
		s[12], s[13] = 5<<4, 2
		return ipv4Frame(macOf(aAddr), macOf(bAddr), aAddr, bAddr, 6, s)
	}
	// first is the first fragment of a packet, with n bytes of its payload (RFC 1858).
	first := func(frame []byte, n int) []byte {
		f := append([]byte(nil), frame[:14+20+n]...)
		ip := f[14:34]
		binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
		ip[6] = 0x20
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
		return f
	}
	tag := func(etherType, vlan uint16, frame []byte) []byte {
		f := append([]byte(nil), frame[:12]...)
		f = binary.BigEndian.AppendUint16(f, etherType)
		f = binary.BigEndian.AppendUint16(f, vlan)
		return append(f, frame[12:]...)
	}
	for name, f := range map[string][]byte{
		"plain":               syn(22),
		"tiny fragment":       first(syn(22), 8),
		"priority tag":        tag(0x8100, 0, syn(22)),
		"tag of a provider's": tag(0x88a8, 0, syn(22)),
		"two tags":            tag(0x88a8, 0, tag(0x8100, 0, syn(22))),
		"three tags":          tag(0x8100, 0, tag(0x8100, 0, tag(0x8100, 0, syn(22)))),
		"tag and fragment":    tag(0x8100, 0, first(syn(22), 16)),
		"tag cut short":       tag(0x8100, 0, syn(22))[:16],
	} {
		send(t, station, f)
		send(t, station, syn(80)) // which passes, and is behind it
		got := receive(t, b, vswitch.EtherTypeIPv4)
		if port := binary.BigEndian.Uint16(got[36:]); port != 80 || len(got) != len(syn(80)) {
			t.Errorf("%s: the container got %x", name, got)
		}
	}
	// What is behind a tag passes where the policy lets it.
	send(t, station, tag(0x8100, 7, syn(80)))
	receive(t, b, 0x8100)
	for _, p := range n.sw.Ports() {
		if p.Name == "uplink" && p.Stats.Drops[vswitch.DropPolicy] != 8 {
			t.Errorf("of 8 frames that the policy does not let pass these were dropped: %v", p.Stats.Drops)
		}
	}
}
