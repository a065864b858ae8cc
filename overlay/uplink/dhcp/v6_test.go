package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// fake6 is a DHCPv6 server at the other end of Config.Send.
type fake6 struct {
	t      *testing.T
	client *Client

	mu       sync.Mutex
	gives    []string                               // addresses, one after the other; the last for good
	refuse   map[dhcpv6.MessageType]iana.StatusCode // once each
	messages []*dhcpv6.Message
}

var id6 = &dhcpv6.DUIDEN{EnterpriseNumber: 7, EnterpriseIdentifier: []byte("server")}

func newFake6(t *testing.T, cfg Config) *fake6 {
	t.Helper()
	s := &fake6{t: t, gives: []string{"2001:db8::50"}, refuse: map[dhcpv6.MessageType]iana.StatusCode{}}
	cfg.MAC, cfg.Send, cfg.Logger, cfg.IPv6 = stationMAC, s.take, slog.New(slog.DiscardHandler), true
	s.client = New(cfg)
	return s
}

// take answers a packet of the client's.
func (s *fake6) take(dst net.HardwareAddr, p []byte) error {
	h, ok := packet.Parse(true, p)
	if !ok || h.Proto != packet.ProtoUDP || dst.String() != allServersMAC.String() ||
		netip.AddrFrom16([16]byte(p[8:24])) != vswitch.LinkLocal(stationMAC) {
		s.t.Errorf("to %s: no IP packet in order: % x", dst, p)
	}
	pseudo := append(append([]byte(nil), p[8:40]...), 0, 0, p[4], p[5], 0, 0, 0, packet.ProtoUDP)
	if body := p[40:]; packet.Sum(append(pseudo, append(body, make([]byte, len(body)%2)...)...), 0) != 0xffff {
		s.t.Errorf("the checksum is wrong: % x", p)
	}
	m, err := dhcpv6.MessageFromBytes(p[h.Payload:])
	if err != nil {
		s.t.Error(err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	kind := dhcpv6.MessageTypeReply
	switch m.MessageType {
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if len(s.gives) > 1 {
			s.gives = s.gives[1:]
		}
		return nil
	case dhcpv6.MessageTypeSolicit:
		kind = dhcpv6.MessageTypeAdvertise
	}
	ia := &dhcpv6.OptIANA{IaId: m.Options.OneIANA().IaId, T1: time.Second, T2: 2 * time.Second}
	if code, bad := s.refuse[m.MessageType]; bad {
		delete(s.refuse, m.MessageType)
		ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: "no"})
	} else {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(s.gives[0]), PreferredLifetime: time.Hour,
			ValidLifetime: 2 * time.Hour})
	}
	reply := &dhcpv6.Message{MessageType: kind, TransactionID: m.TransactionID}
	reply.AddOption(dhcpv6.OptClientID(m.Options.ClientID()))
	reply.AddOption(dhcpv6.OptServerID(id6))
	reply.AddOption(ia)
	if got := Parse(inFrame6(reply.ToBytes())); got == nil || got.MAC != [6]byte(stationMAC) || !got.IsIPv6() {
		s.t.Errorf("the answer is not understood: %v", reply)
	} else {
		s.client.Take(got)
	}
	return nil
}

// inFrame6 is a server's message on the wire.
func inFrame6(body []byte) *vswitch.Frame {
	f := new(vswitch.Frame)
	copy(f.Ethernet(), stationMAC)
	copy(f.Ethernet()[6:], serverMAC)
	f.Ethernet()[12], f.Ethernet()[13] = 0x86, 0xdd
	f.Payload = [][]byte{udp(netip.MustParseAddrPort("[fe80::1]:547"),
		netip.AddrPortFrom(vswitch.LinkLocal(stationMAC), clientPort6), body)}
	return f
}

// sent waits until the client has sent messages of these types, and returns them all.
func (s *fake6) sent(want ...dhcpv6.MessageType) []*dhcpv6.Message {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		all := append([]*dhcpv6.Message(nil), s.messages...)
		s.mu.Unlock()
		at := 0
		for _, m := range all {
			if at < len(want) && m.MessageType == want[at] {
				at++
			}
		}
		if at == len(want) {
			return all
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("wanted %v: %v", want, all)
		}
	}
}

const (
	solicit = dhcpv6.MessageTypeSolicit
	request = dhcpv6.MessageTypeRequest
	renew   = dhcpv6.MessageTypeRenew
	rebind  = dhcpv6.MessageTypeRebind
	release = dhcpv6.MessageTypeRelease
	decline = dhcpv6.MessageTypeDecline
)

func TestAnIPv6LeaseIsTakenRenewedAndGivenBack(t *testing.T) {
	s := newFake6(t, Config{Hostname: "web"})
	lease, err := s.client.Acquire(t.Context())
	if err != nil || lease.Addr.String() != "2001:db8::50/128" {
		t.Fatalf("%+v, %v", lease, err)
	}
	s.sent(solicit, request, renew)
	s.client.Close(true)
	all := s.sent(solicit, request, renew, release)
	for _, m := range all {
		if m.Options.ClientID().String() != all[0].Options.ClientID().String() ||
			m.Options.OneIANA().IaId != all[0].Options.OneIANA().IaId {
			t.Errorf("another client: %v", m)
		}
		if f := m.Options.FQDN(); m.MessageType != release && (f == nil || f.DomainName.Labels[0] != "web") {
			t.Errorf("the name is not told: %v", m)
		}
		if m.MessageType != solicit && (m.Options.ServerID() == nil ||
			!m.Options.OneIANA().Options.OneAddress().IPv6Addr.Equal(net.ParseIP("2001:db8::50"))) {
			t.Errorf("not about the address: %v", m)
		}
	}
}

// TestWhatAnIPv6ServerRefuses: an address of another link, and a binding that the server has forgotten.
func TestWhatAnIPv6ServerRefuses(t *testing.T) {
	changed := make(chan Lease, 1)
	s := newFake6(t, Config{Want: netip.MustParseAddr("2001:db8:1::9"), Changed: func(l Lease) { changed <- l }})
	s.refuse[request], s.refuse[rebind] = iana.StatusNotOnLink, iana.StatusNoBinding
	s.client.Resume()
	if l := <-changed; l.Addr.String() != "2001:db8::50/128" {
		t.Errorf("another address: %+v", l)
	}
	s.client.Close(false)
	all := s.sent(rebind, solicit, request, solicit, request)
	if all[1].Options.OneIANA().Options.OneAddress() == nil || all[3].Options.OneIANA().Options.OneAddress() != nil {
		t.Errorf("the address that is not on the link is asked for again, or was not at first: %v", all)
	}
}

// TestTakenAddressesAreDeclined: the next one is taken, and after some the client gives up.
func TestTakenAddressesAreDeclined(t *testing.T) {
	other := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	taken := map[string]bool{"2001:db8::50": true, "2001:db8::51": true}
	look := func(a netip.Addr) (net.HardwareAddr, error) {
		if taken[a.String()] {
			return other, nil
		}
		return nil, nil
	}
	cfg := Config{Taken: func(_ context.Context, a netip.Addr) (net.HardwareAddr, error) { return look(a) }}
	s := newFake6(t, cfg)
	s.gives = []string{"2001:db8::50", "2001:db8::51", "2001:db8::52"}
	lease, err := s.client.Acquire(t.Context())
	if err != nil || lease.Addr.String() != "2001:db8::52/128" {
		t.Errorf("%+v, %v", lease, err)
	}
	s.client.Close(false)
	s.sent(request, decline, request, decline, request)
	s = newFake6(t, cfg)
	if _, err = s.client.Acquire(t.Context()); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "::50") {
		t.Errorf("all are taken: %v", err)
	}
	s.client.Close(true)
	if all := s.sent(decline, decline, decline); all[len(all)-1].MessageType == release {
		t.Error("an address is given back that was declined")
	}
}

// TestWhatNoIPv6LeaseIs: answers of no use.
func TestWhatNoIPv6LeaseIs(t *testing.T) {
	iaid := [4]byte{1}
	for name, test := range map[string]struct {
		iaid             byte
		addr             string
		preferred, valid time.Duration
		t1, t2           time.Duration
		ok               bool
	}{
		"whole":              {1, "2001:db8::5", time.Hour, 2 * time.Hour, time.Minute, time.Hour, true},
		"times left open":    {1, "2001:db8::5", time.Hour, 2 * time.Hour, 0, 0, true},
		"times turned round": {1, "2001:db8::5", time.Hour, 2 * time.Hour, 2 * time.Hour, time.Minute, true},
		"for ever":           {1, "2001:db8::5", 1<<32*time.Second - 1, 1<<32*time.Second - 1, 0, 0, true},
		"another's":          {2, "2001:db8::5", time.Hour, 2 * time.Hour, 0, 0, false},
		"a group":            {1, "ff02::1", time.Hour, 2 * time.Hour, 0, 0, false},
		"link-local":         {1, "fe80::5", time.Hour, 2 * time.Hour, 0, 0, false},
		"over":               {1, "2001:db8::5", 0, 0, 0, 0, false},
		"longer preferred":   {1, "2001:db8::5", 3 * time.Hour, 2 * time.Hour, 0, 0, false},
	} {
		m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
		ia := &dhcpv6.OptIANA{IaId: [4]byte{test.iaid}, T1: test.t1, T2: test.t2}
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(test.addr), PreferredLifetime: test.preferred,
			ValidLifetime: test.valid})
		m.AddOption(ia)
		now := time.Now()
		l, err := leaseOf6(m, iaid, now)
		if ok := err == nil; ok != test.ok ||
			ok && !(l.Renew.After(now) && l.Renew.Before(l.Rebind) && l.Rebind.Before(l.Until)) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

// FuzzParse6: no frame makes the client panic.
func FuzzParse6(f *testing.F) {
	m, _ := dhcpv6.NewMessage(dhcpv6.WithClientID(&dhcpv6.DUIDLL{LinkLayerAddr: stationMAC}))
	m.MessageType = dhcpv6.MessageTypeReply
	f.Add(inFrame6(m.ToBytes()).Payload[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr vswitch.Frame
		fr.Ethernet()[12], fr.Ethernet()[13] = 0x86, 0xdd
		fr.Payload = [][]byte{b}
		if got := Parse(&fr); got != nil {
			_, _ = leaseOf6(got.v6, [4]byte{}, time.Now())
			_ = (&v6{cfg: Config{MAC: stationMAC}}).isMine(got.v6, nil)
		}
	})
}
