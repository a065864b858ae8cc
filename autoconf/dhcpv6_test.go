package autoconf

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// message6 is a client's message with the addresses that it believes to have.
func message6(kind dhcpv6.MessageType, server dhcpv6.DUID, addrs ...string) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: guestMAC}))
	if server != nil {
		m.AddOption(dhcpv6.OptServerID(server))
	}
	if addrs != nil {
		ia := &dhcpv6.OptIANA{IaId: [4]byte{0, 0, 0, 7}}
		for _, a := range addrs {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a)})
		}
		m.AddOption(ia)
	}
	return m
}

// told6 is what an answer says, in short.
func told6(m *dhcpv6.Message) string {
	if m == nil {
		return "nothing"
	}
	words := []string{m.MessageType.String()}
	if s := m.Options.Status(); s != nil {
		words = append(words, s.StatusCode.String())
	}
	for _, ia := range m.Options.IANA() {
		if s := ia.Options.Status(); s != nil {
			words = append(words, fmt.Sprint(ia.IaId[3], s.StatusCode))
		}
		for _, a := range ia.Options.Addresses() {
			words = append(words, fmt.Sprint(ia.IaId[3], a.IPv6Addr, a.ValidLifetime))
		}
	}
	if len(m.Options.DNS()) > 0 {
		words = append(words, "DNS")
	}
	return strings.Join(words, ", ")
}

// TestDHCPv6Rules has RFC 8415, sections 16 and 18.3: above all, a client that comes from another network with an
// address of there is told that it is not of this one.
func TestDHCPv6Rules(t *testing.T) {
	own := &dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: routerMAC}
	other := &dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: guestMAC}
	rapid := message6(dhcpv6.MessageTypeSolicit, nil, "fd00::100")
	rapid.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	several := message6(dhcpv6.MessageTypeRequest, own, "fd00::100")
	several.AddOption(&dhcpv6.OptIANA{IaId: [4]byte{0, 0, 0, 8}})
	for _, c := range []struct {
		name string
		ask  *dhcpv6.Message
		want string
	}{
		{"confirm", message6(dhcpv6.MessageTypeConfirm, nil, "fd00::100"), "REPLY, Success"},
		{"confirm a foreign address", message6(dhcpv6.MessageTypeConfirm, nil, "2001:db8::9"), "REPLY, NotOnLink"},
		{"confirm nothing", message6(dhcpv6.MessageTypeConfirm, nil), "nothing"},
		{"request", message6(dhcpv6.MessageTypeRequest, own, "fd00::100"), "REPLY, 7 fd00::100 24h0m0s, DNS"},
		{"request a foreign address", message6(dhcpv6.MessageTypeRequest, own, "2001:db8::9"),
			"REPLY, 7 NotOnLink, DNS"},
		{"request of another server", message6(dhcpv6.MessageTypeRequest, other, "fd00::100"), "nothing"},
		{"request of no server", message6(dhcpv6.MessageTypeRequest, nil, "fd00::100"), "nothing"},
		{"two associations", several, "REPLY, 7 fd00::100 24h0m0s, 8 NoAddrsAvail, DNS"},
		{"renew a foreign address", message6(dhcpv6.MessageTypeRenew, own, "2001:db8::9"),
			"REPLY, 7 2001:db8::9 0s, 7 fd00::100 24h0m0s, DNS"},
		{"rebind", message6(dhcpv6.MessageTypeRebind, nil, "fd00::100"), "REPLY, 7 fd00::100 24h0m0s, DNS"},
		{"release", message6(dhcpv6.MessageTypeRelease, own, "fd00::100"), "REPLY, Success"},
		{"decline", message6(dhcpv6.MessageTypeDecline, own, "fd00::100"), "REPLY, Success"},
		{"information", message6(dhcpv6.MessageTypeInformationRequest, nil), "REPLY, DNS"},
		{"information with an address", message6(dhcpv6.MessageTypeInformationRequest, nil, "fd00::100"), "nothing"},
		{"solicit", message6(dhcpv6.MessageTypeSolicit, nil, "2001:db8::9"), "ADVERTISE, 7 fd00::100 24h0m0s, DNS"},
		{"rapid commit", rapid, "REPLY, 7 fd00::100 24h0m0s, DNS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(testConfig())
			if err != nil {
				t.Fatal(err)
			}
			if got := told6(s.reply6(c.ask.ToBytes())); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}
