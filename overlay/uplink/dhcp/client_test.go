package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

var stationMAC, serverMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 0xfe}

// fakeServer is a DHCP server at the other end of Config.Send.
type fakeServer struct {
	t      *testing.T
	client *Client

	mu       sync.Mutex
	gives    net.IP
	renew    time.Duration
	silent   bool
	refuse   bool
	messages []*dhcpv4.DHCPv4
	to       []net.HardwareAddr
}

func newFake(t *testing.T, cfg Config) *fakeServer {
	t.Helper()
	s := &fakeServer{t: t, gives: net.IP{192, 0, 2, 50}, renew: time.Hour}
	cfg.MAC, cfg.Send, cfg.Logger = stationMAC, s.take, slog.New(slog.DiscardHandler)
	s.client = New(cfg)
	return s
}

// take answers a packet of the client's.
func (s *fakeServer) take(dst net.HardwareAddr, p []byte) error {
	h, ok := packet.Parse(false, p)
	if !ok || h.Proto != packet.ProtoUDP || packet.Sum(append([]byte(nil), p[:packet.IPv4HeaderLen]...), 0) != 0xffff {
		s.t.Errorf("no IP packet in order: % x", p)
	}
	m, err := dhcpv4.FromBytes(p[h.Payload:])
	if err != nil {
		s.t.Error(err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages, s.to = append(s.messages, m), append(s.to, dst)
	if s.silent {
		return nil
	}
	kind := dhcpv4.MessageTypeOffer
	switch {
	case m.MessageType() == dhcpv4.MessageTypeRelease:
		return nil
	case m.MessageType() == dhcpv4.MessageTypeRequest && s.refuse:
		s.refuse, kind = false, dhcpv4.MessageTypeNak
	case m.MessageType() == dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
	}
	reply, err := dhcpv4.New(dhcpv4.WithReply(m), dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(s.gives),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IP{192, 0, 2, 1}), dhcpv4.WithLeaseTime(7200),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{192, 0, 2, 1})),
		dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(s.renew)))
	if err != nil {
		s.t.Error(err)
		return nil
	}
	if got := Parse(inFrame(reply.ToBytes())); got == nil || got.MAC != [6]byte(stationMAC) {
		s.t.Errorf("the answer is not understood: %v", reply)
	} else {
		s.client.Take(got)
	}
	return nil
}

// inFrame is a server's message on the wire.
func inFrame(body []byte) *vswitch.Frame {
	f := new(vswitch.Frame)
	copy(f.Ethernet(), stationMAC)
	copy(f.Ethernet()[6:], serverMAC)
	f.Ethernet()[12], f.Ethernet()[13] = 8, 0
	b := make([]byte, packet.MaxUDPHeaders+len(body))
	n := packet.PutUDP(b, netip.MustParseAddrPort("192.0.2.1:67"), netip.MustParseAddrPort("192.0.2.50:68"), len(body))
	f.Payload = [][]byte{b[:n+copy(b[n:], body)]}
	return f
}

// kinds are the types of what the client sent.
func (s *fakeServer) kinds() (list []dhcpv4.MessageType) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		list = append(list, m.MessageType())
	}
	return list
}

// sent waits until the client has sent n messages.
func (s *fakeServer) sent(n int) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); len(s.kinds()) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d messages, wanted %d: %v", len(s.kinds()), n, s.kinds())
		}
	}
}

func TestALeaseIsTakenRenewedAndGivenBack(t *testing.T) {
	s := newFake(t, Config{Hostname: "web", Want: netip.MustParseAddr("192.0.2.50")})
	s.renew = time.Second // the shortest that a server can say
	lease, err := s.client.Acquire(t.Context())
	if err != nil || lease.Addr.String() != "192.0.2.50/24" || lease.Router.String() != "192.0.2.1" {
		t.Fatalf("%+v, %v", lease, err)
	}
	s.sent(3)
	s.client.Close(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, want := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest,
		dhcpv4.MessageTypeRequest} {
		if m := s.messages[i]; m.MessageType() != want || m.HostName() != "web" {
			t.Errorf("message %d: %v", i, m.Summary())
		}
	}
	if got := s.messages[0].RequestedIPAddress(); !got.Equal(net.IP{192, 0, 2, 50}) {
		t.Errorf("asked for %v", got)
	}
	if s.to[2].String() != serverMAC.String() || !s.messages[2].ClientIPAddr.Equal(s.gives) {
		t.Errorf("renewed at %v: %v", s.to[2], s.messages[2].Summary())
	}
	last := s.messages[len(s.messages)-1]
	if last.MessageType() != dhcpv4.MessageTypeRelease || !last.ClientIPAddr.Equal(s.gives) {
		t.Errorf("at the end: %v", last.Summary())
	}
}

func TestANewAddressIsSaid(t *testing.T) {
	changed := make(chan Lease, 1)
	s := newFake(t, Config{Want: netip.MustParseAddr("192.0.2.9"), Changed: func(l Lease) { changed <- l }})
	s.refuse = true // the address that the client had
	s.client.Resume()
	if l := <-changed; l.Addr.Addr() != netip.MustParseAddr("192.0.2.50") {
		t.Errorf("another address: %+v", l)
	}
	s.client.Close(false)
	for _, kind := range s.kinds() {
		if kind == dhcpv4.MessageTypeRelease {
			t.Error("an address is given back that is still in use")
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := newFake(t, Config{})
	s.silent = true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.client.Acquire(ctx); !errors.Is(err, ErrNoAnswer) || err.Error() != ErrNoAnswer.Error() {
		t.Errorf("%v", err)
	}
	s.client.Close(true)
	if kinds := s.kinds(); len(kinds) != 1 {
		t.Errorf("sent %v", kinds)
	}
}

// TestWhatNoLeaseIs: an answer without an address of a host, or of no use, is none.
func TestWhatNoLeaseIs(t *testing.T) {
	id := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{192, 0, 2, 1}))
	mask, addr := dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithYourIP(net.IP{192, 0, 2, 50})
	for name, test := range map[string]struct {
		mods []dhcpv4.Modifier
		ok   bool
	}{
		"whole":           {[]dhcpv4.Modifier{id, mask, addr}, true},
		"no address":      {[]dhcpv4.Modifier{id, mask}, false},
		"no server":       {[]dhcpv4.Modifier{mask, addr}, false},
		"no mask":         {[]dhcpv4.Modifier{id, addr}, false},
		"a group":         {[]dhcpv4.Modifier{id, mask, dhcpv4.WithYourIP(net.IP{224, 0, 0, 1})}, false},
		"a mask of one":   {[]dhcpv4.Modifier{id, addr, dhcpv4.WithNetmask(net.CIDRMask(32, 32))}, false},
		"a mask of holes": {[]dhcpv4.Modifier{id, addr, dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})}, false},
	} {
		m, err := dhcpv4.New(test.mods...)
		if err != nil {
			t.Fatal(err)
		}
		l, ok := leaseOf(m, time.Now())
		if ok != test.ok || ok && !(l.Renew.Before(l.Rebind) && l.Rebind.Before(l.Until)) {
			t.Errorf("%s: %+v, %v", name, l, ok)
		}
	}
	short, _ := dhcpv4.New(id, mask, addr, dhcpv4.WithLeaseTime(0))
	if l, ok := leaseOf(short, time.Now()); !ok || time.Until(l.Renew) < minLease/2-time.Second {
		t.Errorf("a lease of nothing: %+v, %v", l, ok)
	}
}

// FuzzParse: no frame makes the client panic.
func FuzzParse(f *testing.F) {
	m, _ := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithHwAddr(stationMAC))
	m.OpCode = dhcpv4.OpcodeBootReply
	f.Add(inFrame(m.ToBytes()).Payload[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr vswitch.Frame
		fr.Ethernet()[12], fr.Ethernet()[13] = 8, 0
		fr.Payload = [][]byte{b}
		if got := Parse(&fr); got != nil {
			_, _ = leaseOf(got.v4, time.Now())
		}
	})
}
