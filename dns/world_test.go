package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// names is a Directory of two containers on a network; "alice" sees them.
type names struct{}

func (names) LookupName(client, name string) ([]netip.Addr, int, bool) {
	addrs := map[string][]netip.Addr{
		"web": {netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd00::2")},
		"db":  {netip.MustParseAddr("172.18.0.3"), netip.MustParseAddr("172.18.0.4")},
		"gone": {
			netip.MustParseAddr("172.18.0.5"), netip.MustParseAddr("172.18.0.6"),
			netip.MustParseAddr("172.18.0.7"), netip.MustParseAddr("172.18.0.8"),
		},
	}[name]
	last := 0
	if name == "gone" {
		last = 2
	}
	return addrs, last, client == "alice" && addrs != nil
}

func (names) LookupAddr(client string, a netip.Addr) (string, bool) {
	if client == "alice" && a == netip.MustParseAddr("172.18.0.2") {
		return "web.mynet", true
	}
	return "", netip.MustParsePrefix("172.18.0.0/16").Contains(a)
}

func (names) LookupService(client, service, proto, name string) ([]Service, bool) {
	if client == "alice" && service == "80" && proto == "tcp" && name == "web" {
		return []Service{{"web.mynet", 80}}, true
	}
	return nil, false
}

// server starts an upstream server on the loopback, UDP and TCP at one port, that says what handle says. It counts
// queries.
func server(t testing.TB, handle dns.HandlerFunc) (string, *atomic.Int64) {
	t.Helper()
	count := new(atomic.Int64)
	counted := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		count.Add(1)
		handle(w, m)
	})
	pc, l := bothSockets(t)
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: counted}, {Listener: l, Handler: counted}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String(), count
}

// bothSockets binds one port of the loopback for UDP and TCP.
func bothSockets(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp4", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// answerWith answers each question for an address with one.
func answerWith(addr string, ttl uint32) dns.HandlerFunc {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(m)
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET,
			Ttl: ttl}, A: net.ParseIP(addr)}}
		if o := m.IsEdns0(); o != nil {
			r.SetEdns0(4096, o.Do())
		}
		w.WriteMsg(r)
	}
}

func silent(dns.ResponseWriter, *dns.Msg) {}

func upstreams(t testing.TB, servers ...string) *Upstreams {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	u := &Upstreams{path: path, log: slog.New(slog.DiscardHandler), servers: servers, done: make(chan struct{})}
	u.checked = time.Now().Add(time.Hour) // the file that is not there does not matter
	return u
}

func newServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	cfg.Directory, cfg.Logger = names{}, slog.New(slog.DiscardHandler)
	if cfg.Upstreams == nil {
		cfg.Upstreams = upstreams(t)
	}
	s := NewServer(cfg)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// served starts s on a UDP and a TCP socket for one client, and returns their address.
func served(t testing.TB, s *Server, c Client) string {
	t.Helper()
	pc, l := bothSockets(t)
	who := func(net.Addr) Client { return c }
	go s.ServePacket(pc, who)
	go s.ServeListener(l, who)
	return pc.LocalAddr().String()
}

func ask(t testing.TB, network, address string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 20 * time.Second, UDPSize: dns.MaxMsgSize}
	r, _, err := c.Exchange(m, address)
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	return r
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	return m.SetQuestion(dns.Fqdn(name), qtype)
}

// resolved is what a question is answered, in one line.
func resolved(t testing.TB, s *Server, c Client, name string, qtype uint16) string {
	t.Helper()
	r, err := s.Query(context.Background(), c, name, qtype)
	if err != nil {
		t.Fatal(err)
	}
	words := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		words = append(words, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(words, " ")
}

func eventually(t testing.TB, check func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
