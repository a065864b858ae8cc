package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/policy"
	vswitch "github.com/usernet/usernet/switch"
)

// frame puts Ethernet and IPv4 headers before a payload (RFC 791).
func ipv4Frame(srcMAC, dstMAC net.HardwareAddr, src, dst netip.Addr, proto byte, payload []byte) []byte {
	f := append(append(append([]byte{}, dstMAC...), srcMAC...), 0x08, 0x00)
	ip := make([]byte, 20, 20+len(payload))
	ip[0], ip[8], ip[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
	return append(f, append(ip, payload...)...)
}

// echoRequest is an ICMP echo request (RFC 792).
func echoRequest(text string) []byte {
	b := append([]byte{8, 0, 0, 0, 0, 7, 0, 1}, text...)
	binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, 0))
	return b
}

// receive returns the next frame with an EtherType.
func receive(t testing.TB, p *Pipe, etherType uint16) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		f, err := p.Receive(ctx)
		if err != nil {
			t.Fatalf("no frame with type %#x: %v", etherType, err)
		}
		if binary.BigEndian.Uint16(f[12:]) == etherType {
			return f
		}
	}
}

func send(t testing.TB, p *Pipe, frame []byte) {
	t.Helper()
	if err := p.Send(t.Context(), frame); err != nil {
		t.Fatal(err)
	}
}

// attachPipe attaches a bare pipe at addr.
func attachPipe(t testing.TB, n *Network, addr netip.Addr) (*Attachment, *Pipe) {
	t.Helper()
	p := NewPipe(16)
	a, err := n.Attach(AttachConfig{ID: addr.String(), Name: "pipe", MAC: macOf(addr), Addrs: []netip.Addr{addr}}, p)
	if err != nil {
		t.Fatal(err)
	}
	return a, p
}

func TestAFrameInIsAFrameOut(t *testing.T) {
	n := newNetwork(t, nil)
	_, a := attachPipe(t, n, aAddr)
	_, b := attachPipe(t, n, bAddr)
	sent := ipv4Frame(macOf(aAddr), macOf(bAddr), aAddr, bAddr, 253, []byte("hello"))
	send(t, a, sent)
	if got := receive(t, b, vswitch.EtherTypeIPv4); !slices.Equal(got, sent) {
		t.Errorf("sent\n%x, and what came is\n%x", sent, got)
	}
}

func TestTheGatewayAnswersPings(t *testing.T) {
	n := newNetwork(t, nil)
	_, p := attachPipe(t, n, aAddr)
	send(t, p, ipv4Frame(macOf(aAddr), GatewayMAC(n.cfg.Gateways), aAddr, gateway.Addr(), 1,
		echoRequest("are you there")))
	for {
		f := receive(t, p, vswitch.EtherTypeARP) // the gateway asks who has the address before it answers
		if binary.BigEndian.Uint16(f[20:]) == 1 {
			break
		}
	}
	reply := append(append(append([]byte{}, GatewayMAC(n.cfg.Gateways)...), macOf(aAddr)...), 0x08, 0x06, 0, 1, 8, 0, 6,
		4, 0, 2)
	reply = append(append(reply, macOf(aAddr)...), aAddr.AsSlice()...)
	reply = append(append(reply, GatewayMAC(n.cfg.Gateways)...), gateway.Addr().AsSlice()...)
	send(t, p, reply)
	f := receive(t, p, vswitch.EtherTypeIPv4)
	if icmp := f[34:]; f[23] != 1 || icmp[0] != 0 || string(icmp[8:]) != "are you there" {
		t.Errorf("the gateway's answer is %x", f)
	}
}

// echo answers with what it gets, until the test ends.
func echo(t testing.TB, l net.Listener) {
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
}

// talk says something to an echo and waits for the answer.
func talk(t testing.TB, c net.Conn) {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

// hostEcho is an echo on the host's loopback, which guests reach at the gateway's address.
func hostEcho(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	return netip.AddrPortFrom(gateway.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
}

func TestConnectionsGoOutThroughTheGateway(t *testing.T) {
	n := newNetwork(t, nil)
	g := attachGuest(t, n, aAddr, nil)
	c, err := g.dial(t, hostEcho(t))
	if err != nil {
		t.Fatal(err)
	}
	flows := n.Flows()
	if len(flows) != 1 || flows[0].ID != g.at.ID() || flows[0].Name != g.at.Name() || flows[0].Proto != "tcp" {
		t.Errorf("flows: %+v", flows)
	}
	talk(t, c)
	g.at.Rename("another")
	if id, name := n.Owner(aAddr); id != g.at.ID() || name != "another" {
		t.Errorf("%s is %s, %s", aAddr, id, name)
	}
	if n.Stats().Counters["tcp_connections"] != 1 || len(n.Stats().Ports) != 2 {
		t.Errorf("%+v", n.Stats())
	}
}

func TestPublishedPortsLeadIn(t *testing.T) {
	n := newNetwork(t, nil)
	g := attachGuest(t, n, aAddr, nil)
	echo(t, g.listen(t, 80))
	bound, err := n.Publish(t.Context(), g.at, Publication{
		Ports: []publish.Binding{{HostIP: netip.MustParseAddr("127.0.0.1"), Port: 80, Proto: "tcp"}},
	})
	if err != nil || len(bound) != 1 {
		t.Fatal(bound, err)
	}
	c, err := net.Dial("tcp", bound[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c)
	if err := n.Unpublish(bound); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", bound[0].Host.String()); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
}

func TestEachAttachmentHasItsPolicy(t *testing.T) {
	deny, err := policy.New(policy.Deny, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, nil)
	free := attachGuest(t, n, aAddr, nil)
	bound := attachGuest(t, n, bAddr, func(c *AttachConfig) { c.Policy = deny })
	to := hostEcho(t)
	c, err := free.dial(t, to)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c)
	outside := netip.MustParseAddrPort("192.0.2.77:80")
	if err := n.allow(aAddr, 6, outside); err != nil {
		t.Errorf("the one without a policy is refused: %v", err)
	}
	if err := n.allow(bAddr, 6, outside); err == nil {
		t.Error("the one whose policy denies all is not refused")
	}
	if err := n.AllowQuery(bound.at.ID(), "example.com", netip.Addr{}); err == nil {
		t.Error("it may ask outside for a name")
	}
	if err := n.AllowQuery(free.at.ID(), "example.com", netip.Addr{}); err != nil {
		t.Error(err)
	}
	if err := n.AllowQuery("nobody", "example.com", netip.Addr{}); !errors.Is(err, ErrNotAttached) {
		t.Errorf("who is not there: %v", err)
	}
}

// names answers each query with the id of who asks, over TCP.
type names struct{}

func (names) ServePacket(pc net.PacketConn, _ func(net.Addr) dns.Client) error {
	_, _, err := pc.ReadFrom(make([]byte, 1))
	return err
}

func (names) ServeListener(l net.Listener, client func(net.Addr) dns.Client) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = io.WriteString(c, client(c.RemoteAddr()).ID)
		_ = c.Close()
	}
}

func TestNamesAreServedAtTheGateway(t *testing.T) {
	extra := netip.MustParseAddr("10.0.2.3")
	n := newNetwork(t, func(c *Config) {
		c.Names, c.NameServers = names{}, []netip.Addr{extra}
		c.Client = func(id string) dns.Client { return dns.Client{ID: id} }
	})
	g := attachGuest(t, n, aAddr, nil)
	for _, at := range []netip.Addr{gateway.Addr(), extra} {
		c, err := g.dial(t, netip.AddrPortFrom(at, 53))
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if who, err := io.ReadAll(c); err != nil || string(who) != aAddr.String() {
			t.Errorf("%s takes the guest for %q, %v", at, who, err)
		}
		_ = c.Close()
	}
}

func TestIsolatedOnesReachWhatLinksOpen(t *testing.T) {
	n := newNetwork(t, func(c *Config) { c.Isolated = true })
	a, b := attachGuest(t, n, aAddr, nil), attachGuest(t, n, bAddr, nil)
	echo(t, b.listen(t, 80))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := dialContext(ctx, a, netip.AddrPortFrom(bAddr, 80)); err == nil {
		_ = c.Close()
		t.Fatal("isolated attachments reach each other")
	}
	rules := []LinkRule{{From: aAddr.String(), To: bAddr.String(),
		Ports: []vswitch.PortRange{{Proto: 6, First: 80, Last: 80}}}, {From: "nobody", To: aAddr.String()}}
	n.SetLinks(rules)
	c, err := a.dial(t, netip.AddrPortFrom(bAddr, 80))
	if err != nil {
		t.Fatal(err)
	}
	talk(t, c)
}

func TestAttachRefuses(t *testing.T) {
	n := newNetwork(t, nil)
	_, first := attachPipe(t, n, aAddr)
	for name, test := range map[string]struct {
		cfg  AttachConfig
		want error
		says string
	}{
		"the same id":  {cfg: AttachConfig{ID: aAddr.String(), MAC: macOf(bAddr)}, want: ErrAttached},
		"no id":        {cfg: AttachConfig{MAC: macOf(bAddr)}, says: "no id"},
		"the same MAC": {cfg: AttachConfig{ID: "b", MAC: macOf(aAddr)}, want: vswitch.ErrMACInUse},
		"a group MAC":  {cfg: AttachConfig{ID: "b", MAC: net.HardwareAddr{1, 0, 0, 0, 0, 1}}, says: "MAC"},
	} {
		link := NewPipe(1)
		_, err := n.Attach(test.cfg, link)
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err := link.Send(t.Context(), make([]byte, 60)); err != nil {
			t.Errorf("%s: the link is not left to its owner: %v", name, err)
		}
	}
	send(t, first, make([]byte, 60)) // the first one is none the worse
}

func TestDetachedOnesAreGone(t *testing.T) {
	n := newNetwork(t, nil)
	g := attachGuest(t, n, aAddr, nil)
	c, err := g.dial(t, hostEcho(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if err := g.at.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	if id, _ := n.Owner(aAddr); id != "" {
		t.Errorf("%s is still %s's", aAddr, id)
	}
	eventually(t, "the flow ends", func() bool { return len(n.Flows()) == 0 })
	if _, again := attachPipe(t, n, aAddr); again == nil {
		t.Error("the address cannot be had again")
	}
}

func TestPausedOnesAreReadLater(t *testing.T) {
	n := newNetwork(t, nil)
	_, b := attachPipe(t, n, bAddr)
	link := NewPipe(1)
	a, err := n.Attach(AttachConfig{ID: "a", MAC: macOf(aAddr), Addrs: []netip.Addr{aAddr}, Paused: true}, link)
	if err != nil {
		t.Fatal(err)
	}
	sent := ipv4Frame(macOf(aAddr), macOf(bAddr), aAddr, bAddr, 253, []byte("later"))
	send(t, link, sent)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if f, err := b.Receive(ctx); err == nil {
		t.Errorf("a frame came through a paused link: %x", f)
	}
	a.Start()
	a.Start()
	if got := receive(t, b, vswitch.EtherTypeIPv4); !slices.Equal(got, sent) {
		t.Errorf("%x", got)
	}
	a.Quiesce()
	if err := link.Send(t.Context(), sent); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a quiesced link takes frames: %v", err)
	}
}

// sources counts what it is asked for, and has no sockets.
type sources struct{ asked, prefilled chan string }

func (s sources) Socket(_ context.Context, _ netip.AddrPort, outbound, _ bool) (int, error) {
	way := "in"
	if outbound {
		way = "out"
	}
	select {
	case s.asked <- way:
	default:
	}
	return -1, forwarder.ErrNoBypass
}

func (s sources) PrefillInbound(bool, bool) { s.prefilled <- "" }
func (s sources) Answered(netip.AddrPort)   {}
func (s sources) Unanswered(netip.AddrPort) {}

func TestBypassSocketsAreAskedForWhereTheyMayBe(t *testing.T) {
	for name, test := range map[string]struct {
		no   bool
		want []string
	}{"both ways": {false, []string{"in", "out"}}, "none": {true, nil}} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, func(c *Config) { c.NoInboundBypass, c.NoOutboundBypass = test.no, test.no })
			s := sources{make(chan string, 9), make(chan string, 9)}
			g := attachGuest(t, n, aAddr, func(c *AttachConfig) { c.Sockets = s })
			c, err := g.dial(t, hostEcho(t))
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c) // all the same: the gateway carries it
			echo(t, g.listen(t, 80))
			bound, err := n.Publish(t.Context(), g.at, Publication{Ports: []publish.Binding{{Port: 80, Proto: "tcp"}}})
			if err != nil {
				t.Fatal(err)
			}
			if c, err = net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"),
				bound[0].Host.Port()).String()); err != nil {
				t.Fatal(err)
			}
			talk(t, c)
			var asked []string
			for len(s.asked) > 0 {
				asked = append(asked, <-s.asked)
			}
			slices.Sort(asked)
			if asked = slices.Compact(asked); !slices.Equal(asked, test.want) || len(s.prefilled) != len(test.want)/2 {
				t.Errorf("asked for %v, %d times ahead", asked, len(s.prefilled))
			}
		})
	}
}

// TestNothingIsLeft makes and closes networks with attachments, flows and ports, and looks for goroutines and
// descriptors.
func TestNothingIsLeft(t *testing.T) {
	before, open := leak.Goroutines(), leak.Descriptors(t)
	for range 5 {
		t.Run("", func(t *testing.T) {
			n := newNetwork(t, nil)
			g := attachGuest(t, n, aAddr, nil)
			c, err := g.dial(t, hostEcho(t))
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c)
			if _, err := n.Publish(t.Context(), g.at, Publication{Ports: []publish.Binding{{Port: 80,
				Proto: "udp"}}}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := n.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := n.Attach(AttachConfig{ID: "late", MAC: macOf(bAddr)}, NewPipe(1)); !errors.Is(err, ErrClosed) {
				t.Errorf("attached to a closed network: %v", err)
			}
		})
	}
	before.NoneLeft(t)
	open.NoneLeft(t)
}

func TestGatewayMACs(t *testing.T) {
	four, six := netip.MustParsePrefix("172.17.0.1/16"), netip.MustParsePrefix("fd00::1:2:3/64")
	for _, test := range []struct {
		gateways []netip.Prefix
		want     string
	}{
		{[]netip.Prefix{four, six}, "02:42:ac:11:00:01"},
		{[]netip.Prefix{six, four}, "02:42:ac:11:00:01"},
		{[]netip.Prefix{six}, "02:43:00:02:00:03"},
		{nil, "02:43:00:00:00:00"},
	} {
		if got := GatewayMAC(test.gateways).String(); got != test.want {
			t.Errorf("%v: %s, want %s", test.gateways, got, test.want)
		}
	}
}

func TestBeyondTheGateway(t *testing.T) {
	n := newNetwork(t, nil)
	for addr, want := range map[string]bool{
		"10.9.0.1": true, "10.9.0.2": false, "10.9.1.2": true, "192.0.2.1": true, "2001:db8::1": true, "fe80::1": false,
		"169.254.1.1": false,
	} {
		if got := n.BeyondGateway(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

func TestRefusalsInTheLogAreBounded(t *testing.T) {
	var l refusalLog
	logged := 0
	for range 100 * maxRefusals {
		if l.next() {
			logged++
		}
	}
	if logged < maxRefusals || logged > 50*maxRefusals {
		t.Errorf("%d of %d", logged, 100*maxRefusals)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%s does not come true\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

func dialContext(ctx context.Context, g *guest, to netip.AddrPort) (net.Conn, error) {
	return gonet.DialContextTCP(ctx, g.Stack, fullAddress(to), header.IPv4ProtocolNumber)
}
