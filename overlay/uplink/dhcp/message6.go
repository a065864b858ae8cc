package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// parse6 reads a server's message; nil: it is none. Who it is for is said by the frame, and then by the DUID.
func parse6(b, to, from []byte) *Message {
	m, err := dhcpv6.MessageFromBytes(b)
	if err != nil {
		return nil
	}
	switch m.MessageType {
	case dhcpv6.MessageTypeAdvertise, dhcpv6.MessageTypeReply:
		return &Message{MAC: [6]byte(to), From: append(net.HardwareAddr(nil), from...), v6: m}
	}
	return nil // a client that does not accept Reconfigure is sent no other
}

// errNoAddress is for an answer without an address that can be used.
var errNoAddress = errors.New("the answer has no address")

// leaseOf6 reads the first address of an identity association in an answer.
func leaseOf6(m *dhcpv6.Message, iaid [4]byte, now time.Time) (Lease, error) {
	if err := statusOf(m.Options.Status()); err != nil {
		return Lease{}, err
	}
	for _, ia := range m.Options.IANA() {
		if ia.IaId != iaid {
			continue
		}
		if err := statusOf(ia.Options.Status()); err != nil {
			return Lease{}, err
		}
		for _, given := range ia.Options.Addresses() {
			a, ok := netip.AddrFromSlice(given.IPv6Addr)
			if !ok || a.Is4In6() || !a.IsGlobalUnicast() || given.ValidLifetime == 0 ||
				given.PreferredLifetime > given.ValidLifetime || statusOf(given.Options.Status()) != nil {
				continue // RFC 8415 section 21.6: it is not to be used
			}
			// RFC 8415 section 21.4: where the server leaves it to the client, half of the preferred lifetime, and 4/5.
			length := min(max(given.ValidLifetime, minLease), maxLease)
			l := Lease{Addr: netip.PrefixFrom(a, a.BitLen()), duid: m.Options.ServerID(),
				DNS: nameServers(m.Options.DNS())}
			preferred := min(max(given.PreferredLifetime, minLease), length)
			renew, rebind := ia.T1, ia.T2
			if renew == 0 {
				renew = preferred / 2
			}
			if rebind == 0 {
				rebind = preferred * 4 / 5
			}
			l.times(now, renew, rebind, length, length*4/5)
			return l, nil
		}
	}
	return Lease{}, errNoAddress
}

// statusOf is the error of a status; nil: it is a success, or there is none, which is one too (RFC 8415 section 21.13).
func statusOf(s *dhcpv6.OptStatusCode) error {
	if s == nil || s.StatusCode == iana.StatusSuccess {
		return nil
	}
	return fmt.Errorf("%w: %s: %.100q", errRefused, s.StatusCode, s.StatusMessage)
}
