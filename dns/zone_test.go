package dns

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestWhatIsKnownHere(t *testing.T) {
	up, asked := server(t, answerWith("192.0.2.9", 60))
	s := newServer(t, Config{Upstreams: upstreams(t, up)})
	alice, bob, inner := Client{ID: "alice", Forward: true}, Client{ID: "bob", Forward: true, NoShort: true},
		Client{ID: "alice"}
	for _, test := range []struct {
		who   Client
		name  string
		qtype uint16
		want  string
	}{
		{alice, "web", dns.TypeA, "NOERROR 172.18.0.2"},
		{alice, "WEB", dns.TypeA, "NOERROR 172.18.0.2"},
		{alice, "web", dns.TypeAAAA, "NOERROR fd00::2"},
		{alice, "web", dns.TypeMX, "NOERROR"},  // the name is there, the record is not
		{alice, "db", dns.TypeAAAA, "NOERROR"}, // nor is it asked for outside
		{alice, "_80._tcp.web", dns.TypeSRV, "NOERROR 0 0 80 web.mynet."},
		{alice, "_80._tcp.web", dns.TypeA, "NOERROR"},
		{alice, "2.0.18.172.in-addr.arpa", dns.TypePTR, "NOERROR web.mynet."},
		{alice, "9.0.18.172.in-addr.arpa", dns.TypePTR, "NXDOMAIN"}, // a network's, but nobody's
		{bob, "2.0.18.172.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{bob, "web", dns.TypeA, "NXDOMAIN"}, // another network's, and of one label
		{bob, "unknown", dns.TypeTXT, "NXDOMAIN"},
		{bob, "localhost", dns.TypeA, "NOERROR 127.0.0.1"},
		{bob, "a.b.localhost", dns.TypeAAAA, "NOERROR ::1"},
		{inner, "example.com", dns.TypeA, "NXDOMAIN"}, // on internal networks only
		{inner, "web", dns.TypeA, "NOERROR 172.18.0.2"},
	} {
		if got := resolved(t, s, test.who, test.name, test.qtype); got != test.want {
			t.Errorf("%s asks for %s %s: %q, want %q", test.who.ID, test.name, dns.TypeToString[test.qtype], got,
				test.want)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d queries went outside", n)
	}
	for n, test := range []struct {
		who   Client
		name  string
		qtype uint16
		want  string
	}{
		{bob, "example.com", dns.TypeA, "NOERROR 192.0.2.9"},
		{alice, "printer", dns.TypeA, "NOERROR 192.0.2.9"}, // of one label
		{bob, "com", dns.TypeNS, "NOERROR 192.0.2.9"},      // no host's
	} {
		before := asked.Load()
		if got := resolved(t, s, test.who, test.name, test.qtype); got != test.want || asked.Load() == before {
			t.Errorf("%d: a name from outside: %q", n, got)
		}
	}
}

func TestAddressesRotate(t *testing.T) {
	s := newServer(t, Config{})
	seen := map[string]bool{}
	for range 200 {
		seen[resolved(t, s, Client{ID: "alice"}, "db", dns.TypeA)] = true
	}
	if !seen["NOERROR 172.18.0.3 172.18.0.4"] || !seen["NOERROR 172.18.0.4 172.18.0.3"] || len(seen) != 2 {
		t.Errorf("%v", seen)
	}
}

func TestBothTransports(t *testing.T) {
	long := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { // 60,000 bytes of text
		r := new(dns.Msg)
		r.SetReply(m)
		for range 300 {
			r.Answer = append(r.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT,
				Class: dns.ClassINET, Ttl: 1}, Txt: []string{strings.Repeat("x", 190)}})
		}
		if w.RemoteAddr().Network() == "udp" {
			r.Truncate(dns.MinMsgSize)
		}
		w.WriteMsg(r)
	})
	up, _ := server(t, long)
	s := newServer(t, Config{Upstreams: upstreams(t, up)})
	at := served(t, s, Client{ID: "alice", Forward: true})
	if r := ask(t, "tcp", at, question("long.example", dns.TypeTXT)); len(r.Answer) != 300 || r.Truncated {
		t.Errorf("over TCP: %d records", len(r.Answer))
	}
	if r := ask(t, "udp", at, question("long.example", dns.TypeTXT)); !r.Truncated || r.Len() > dns.MinMsgSize {
		t.Errorf("over UDP: %d bytes, truncated %v", r.Len(), r.Truncated)
	}
	for _, network := range []string{"udp", "tcp"} {
		if r := ask(t, network, at, question("web", dns.TypeA)); len(r.Answer) != 1 || !r.RecursionAvailable ||
			r.IsEdns0() != nil {
			t.Errorf("%s: %v", network, r)
		}
		m := question("web", dns.TypeA)
		m.SetEdns0(4096, true)
		if r := ask(t, network, at, m); r.IsEdns0() == nil || !r.IsEdns0().Do() {
			t.Errorf("%s: EDNS is not answered: %v", network, r)
		}
	}
}

func TestOddQueries(t *testing.T) {
	s := newServer(t, Config{})
	c := Client{ID: "alice", Forward: true}
	two := question("web", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	none := new(dns.Msg)
	notify := question("web", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	version := question("web", dns.TypeA)
	version.SetEdns0(4096, false)
	version.IsEdns0().SetVersion(1)
	for name, test := range map[string]struct {
		m     *dns.Msg
		rcode int
	}{
		"two questions": {two, dns.RcodeFormatError}, "no question": {none, dns.RcodeFormatError},
		"notify":                  {notify, dns.RcodeNotImplemented},
		"a zone":                  {question("web", dns.TypeAXFR), dns.RcodeRefused},
		"EDNS of another version": {version, dns.RcodeBadVers},
	} {
		if r := s.answerLocal(c, test.m); r == nil || r.Rcode != test.rcode {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func BenchmarkContainersName(b *testing.B) {
	s := newServer(b, Config{})
	wire, err := question("web", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	c := Client{ID: "alice"}
	b.ReportAllocs()
	for b.Loop() {
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			b.Fatal(err)
		}
		s.answer(c, m, func(r *dns.Msg) { _, _ = r.Pack() })
	}
}

// FuzzMessage gives the server anything that a container may send, over a real socket's path but for the socket.
func FuzzMessage(f *testing.F) {
	for _, m := range []*dns.Msg{question("web", dns.TypeA), question("2.0.18.172.in-addr.arpa", dns.TypePTR),
		question("_80._tcp.web", dns.TypeSRV), question(".", dns.TypeNS)} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
		m.SetEdns0(512, true)
		wire, _ = m.Pack()
		f.Add(wire)
	}
	s := newServer(f, Config{})
	refusing := restricted()
	refusing.AllowQuery = func(string, netip.Addr) error { return errors.New("nothing goes outside") }
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil {
			return
		}
		for _, c := range []Client{{ID: "alice"}, {ID: "bob"}, refusing} {
			s.answer(c, m, func(r *dns.Msg) {
				if !r.Response || r.Id != m.Id {
					t.Errorf("%v is no answer to %v", r, m)
				}
				r.Truncate(dns.MinMsgSize)
				if _, err := r.Pack(); err != nil {
					t.Errorf("%v cannot be sent: %v", r, err)
				}
			})
		}
		if q, _ := forwardedQuery(first(m)); q != nil {
			if _, err := q.Pack(); err != nil && len(m.Question) == 1 && m.IsEdns0() == nil {
				t.Errorf("%v cannot be forwarded: %v", q, err)
			}
		}
	})
}

// first is m, with a question if it has none.
func first(m *dns.Msg) *dns.Msg {
	if len(m.Question) == 0 {
		m.SetQuestion(".", dns.TypeA)
	}
	return m
}

// TestTheLastAddressesStayBehind: each part of an answer turns, and the last ones come last.
func TestTheLastAddressesStayBehind(t *testing.T) {
	s := newServer(t, Config{})
	seen := map[string]bool{}
	for range 200 {
		seen[resolved(t, s, Client{ID: "alice"}, "gone", dns.TypeA)] = true
	}
	for _, front := range []string{"172.18.0.5 172.18.0.6", "172.18.0.6 172.18.0.5"} {
		for _, back := range []string{"172.18.0.7 172.18.0.8", "172.18.0.8 172.18.0.7"} {
			if !seen["NOERROR "+front+" "+back] {
				t.Errorf("%s %s was never answered: %v", front, back, seen)
			}
		}
	}
	if len(seen) != 4 {
		t.Errorf("%v", seen)
	}
}
