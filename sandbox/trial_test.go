package sandbox

import (
	"bytes"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
)

// patience is how long a test waits for what happens at once on a machine with nothing else to do.
const patience = 30 * time.Second

// TestTrialsSayWhatCame tries ways on the machine's loopback, where the kernel answers for what nobody listens at.
func TestTrialsSayWhatCame(t *testing.T) {
	pc, ln := listenAnywhere(t)
	answered := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	t.Cleanup(func() { _ = pc.Close(); _ = ln.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteToUDPAddrPort(bytes.ToUpper(buf[:n]), from)
		}
	}()
	silent, other := listenAnywhere(t)
	t.Cleanup(func() { _ = silent.Close() })
	_ = other.Close()
	unanswered := silent.LocalAddr().(*net.UDPAddr).AddrPort()
	gone, lost := listenAnywhere(t)
	closed := gone.LocalAddr().(*net.UDPAddr).AddrPort()
	_, _ = gone.Close(), lost.Close()

	ways := []Trial{
		{Network: "tcp", Dst: answered, Wait: patience},
		{Network: "udp", Dst: answered, Payload: []byte("ping"), Wait: patience},
		{Network: "tcp", Dst: closed, Wait: patience},
		{Network: "udp", Dst: closed, Payload: []byte("ping"), Wait: patience}, // ICMP says so (RFC 1122, 4.1.3.1)
		{Network: "udp", Dst: unanswered, Payload: []byte("ping"), Wait: time.Millisecond},
		{Dst: answered},
	}
	wants := []struct {
		errno  syscall.Errno
		answer string
	}{{0, ""}, {0, "PING"}, {unix.ECONNREFUSED, ""}, {unix.ECONNREFUSED, ""}, {unix.ETIMEDOUT, ""}, {0, ""}}
	for i, r := range tryAll(ways) {
		w, want := ways[i], wants[i]
		if r.Errno != want.errno || (r.Error != "") != (want.errno != 0) || string(r.Answer) != want.answer {
			t.Errorf("%s to %v: %q (%v), %q; want %v, %q", w.Network, w.Dst, r.Error, r.Errno, r.Answer, want.errno,
				want.answer)
		}
		if r.Route == nil || !r.Route.Local || r.Route.Interface != "lo" || r.Route.Via.IsValid() ||
			r.Route.Source != w.Dst.Addr() {
			t.Errorf("%s to %v: the route is %+v", w.Network, w.Dst, r.Route)
		}
		connected := want.errno == 0 && w.Network != ""
		if connected && (r.Local.Addr() != w.Dst.Addr() || r.Local.Port() == 0) {
			t.Errorf("%s to %v: from %v", w.Network, w.Dst, r.Local)
		}
		if (r.Took > 0) != (w.Network != "") {
			t.Errorf("%s to %v: it took %v", w.Network, w.Dst, r.Took)
		}
	}
}

// TestEchoRequestsAreTheirProtocols looks at what is sent, and at what counts as its answer.
func TestEchoRequestsAreTheirProtocols(t *testing.T) {
	request4, request6 := echoRequest(8), echoRequest(128)
	if sum := packet.Sum(request4, 0); sum != 0xffff {
		t.Errorf("the checksum is wrong: the sum is %#x (RFC 1071)", sum)
	}
	if request6[2] != 0 || request6[3] != 0 {
		t.Errorf("the checksum of ICMPv6, which the kernel writes, is %x", request6[2:4])
	}
	as := func(kind byte, request []byte) []byte { return append([]byte{kind}, request[1:]...) }
	others := as(0, request4)
	others[4]++
	for name, test := range map[string]struct {
		message []byte
		ipv6    bool
		want    bool
	}{
		"a reply":                       {as(0, request4), false, true},
		"a reply by IPv6":               {as(129, request6), true, true},
		"the request, as on a loopback": {request4, false, false},
		"the request by IPv6":           {request6, true, false},
		"a reply of the other protocol": {as(129, request4), false, false},
		"an answer to another process":  {others, false, false},
		"an error":                      {as(3, request4), false, false},
		"its beginning":                 {as(0, request4)[:7], false, false},
		"nothing":                       {nil, false, false},
	} {
		if got := isEchoReply(test.message, test.ipv6); got != test.want {
			t.Errorf("%s is an answer: %v", name, got)
		}
	}
}

func TestRoutesAreSaid(t *testing.T) {
	source, via := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")
	for want, r := range map[string]TriedRoute{
		`the container itself, by "lo"`:                                {Interface: "lo", Source: source, Local: true},
		"by eth0 to the gateway 10.0.0.1, from 10.0.0.2":               {Interface: "eth0", Via: via, Source: source},
		"by eth0, where the destination is on the link, from 10.0.0.2": {Interface: "eth0", Source: source},
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v is %q, want %q", r, got, want)
		}
	}
}
