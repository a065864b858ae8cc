package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestAnswersArePinned(t *testing.T) {
	var got []string
	s := &Server{cfg: Config{Pin: func(client, name string, addrs []netip.Addr, ttl time.Duration) {
		got = append(got, fmt.Sprint(client, " ", name, " ", addrs, " ", ttl))
	}}}
	answer := func(rcode int, records ...string) *dns.Msg {
		m := new(dns.Msg)
		m.SetQuestion("www.example.test.", dns.TypeA)
		m.Response, m.Rcode = true, rcode
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		return m
	}
	for _, test := range []struct {
		r    *dns.Msg
		want string
	}{
		{answer(dns.RcodeSuccess, "www.example.test. 60 IN A 192.0.2.1", "www.example.test. 30 IN A 192.0.2.2"),
			"c www.example.test. [192.0.2.1 192.0.2.2] 30s"},
		{answer(dns.RcodeSuccess, "www.example.test. 10 IN CNAME cdn.test.", "cdn.test. 300 IN AAAA 2001:db8::1"),
			"c www.example.test. [2001:db8::1] 10s"},
		{answer(dns.RcodeSuccess, "www.example.test. 10 IN MX 5 mail.test."), ""},
		{answer(dns.RcodeSuccess), ""},
		{answer(dns.RcodeNameError, "www.example.test. 60 IN A 192.0.2.1"), ""},
		{nil, ""},
	} {
		got = nil
		s.pin(Client{ID: "c"}, test.r)
		if fmt.Sprint(got) != fmt.Sprintf("[%s]", test.want) {
			t.Errorf("%v: learned %v, wanted %q", test.r, got, test.want)
		}
	}
}

// restricted is alice, who may ask for allowed.test and for names of addresses in 192.0.2.0/24.
func restricted() Client {
	return Client{ID: "alice", Forward: true, AllowQuery: func(name string, addr netip.Addr) error {
		if name == "allowed.test" || addr.IsValid() && netip.MustParsePrefix("192.0.2.0/24").Contains(addr) {
			return nil
		}
		return errors.New("give --allow-egress")
	}}
}

func TestWhatMayNotBeAskedForStaysHere(t *testing.T) {
	up, asked := server(t, answerWith("192.0.2.9", 60))
	s := newServer(t, Config{Upstreams: upstreams(t, up), CacheSize: 10})
	c := restricted()
	resolved(t, s, outsider, "kept.test", dns.TypeA) // is in the cache now
	before := asked.Load()
	for _, test := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web", dns.TypeA, "NOERROR 172.18.0.2"}, // a container's name, as ever
		{"2.0.18.172.in-addr.arpa", dns.TypePTR, "NOERROR web.mynet."},
		{"localhost", dns.TypeA, "NOERROR 127.0.0.1"},
		{"other.test", dns.TypeA, "NXDOMAIN"},
		{"other.test", dns.TypeTXT, "NXDOMAIN"},
		{"secret.allowed.test", dns.TypeA, "NXDOMAIN"},
		{"kept.test", dns.TypeA, "NXDOMAIN"},
		{"com", dns.TypeNS, "NXDOMAIN"},
		{".", dns.TypeNS, "NXDOMAIN"},
		{"1.100.51.198.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{"1.2.0.192.in-addr.arpa", dns.TypeTXT, "NXDOMAIN"}, // not the name of the address
		{"x.1.2.0.192.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
	} {
		if got := resolved(t, s, c, test.name, test.qtype); got != test.want {
			t.Errorf("%s %s: %q, want %q", test.name, dns.TypeToString[test.qtype], got, test.want)
		}
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("%d queries went outside", n)
	}
	for _, name := range []string{"allowed.test", "Allowed.Test.", "1.2.0.192.in-addr.arpa"} {
		qtype := dns.TypeA
		if strings.HasSuffix(name, ".arpa") {
			qtype = dns.TypePTR
		}
		if got := resolved(t, s, c, name, qtype); !strings.HasPrefix(got, "NOERROR") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if asked.Load() == before {
		t.Error("what is allowed did not go outside")
	}
	if r, err := s.Query(context.Background(), c, "other.test", dns.TypeA); err != nil || r.Source != "egress policy" {
		t.Errorf("the source of a refusal is %q, %v", r.Source, err)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	s := newServer(t, Config{})
	at := served(t, s, restricted())
	for i, network := range []string{"udp", "tcp"} {
		m := question("other.test", dns.TypeA)
		if r := ask(t, network, at, m); r.Rcode != dns.RcodeNameError || r.IsEdns0() != nil || !r.RecursionAvailable {
			t.Errorf("%s, without EDNS: %v", network, r)
		}
		m.SetEdns0(512, true)
		r := ask(t, network, at, m)
		if o := r.IsEdns0(); r.Rcode != dns.RcodeNameError || len(r.Ns) != 0 || o == nil || !o.Do() || len(o.Option) !=
			1 {
			t.Fatalf("%s: %v", network, r)
		}
		why, ok := r.IsEdns0().Option[0].(*dns.EDNS0_EDE)
		if !ok || why.InfoCode != dns.ExtendedErrorCodeBlocked || why.ExtraText !=
			"egress policy: give --allow-egress" {
			t.Errorf("%s: %v", network, why)
		}
		if n := s.Counters()["refused"]; n != uint64(2*(i+1)) {
			t.Errorf("%d were counted", n)
		}
	}
}

// TestAConnectionDoesNotKeepWhatWasAllowed keeps a TCP connection open while what its client may ask for changes.
func TestAConnectionDoesNotKeepWhatWasAllowed(t *testing.T) {
	up, _ := server(t, answerWith("192.0.2.9", 0))
	s := newServer(t, Config{Upstreams: upstreams(t, up)})
	pc, l := bothSockets(t)
	pc.Close()
	now := make(chan Client, 3) // one is asked for as the connection comes
	now <- outsider
	now <- outsider
	now <- restricted()
	go s.ServeListener(l, func(net.Addr) Client { return <-now })
	c, err := dns.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, want := range []int{dns.RcodeSuccess, dns.RcodeNameError} {
		if err := c.WriteMsg(question("other.test", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if r, err := c.ReadMsg(); err != nil || r.Rcode != want {
			t.Errorf("%v, %v, want %s", r, err, dns.RcodeToString[want])
		}
	}
}
