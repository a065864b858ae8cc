package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// noTens is bob, who may not be answered addresses of 10.0.0.0/8 and fd00::/8.
func noTens() Client {
	c := outsider
	c.AllowAnswer = func(name string, addr netip.Addr) error {
		if a := addr.Unmap(); a.Is4() && a.As4()[0] == 10 || a.Is6() && a.As16()[0] == 0xfd {
			return errors.New(name + " has a private address")
		}
		return nil
	}
	return c
}

func TestAddressesThatMayNotBeAnsweredAreLeftOut(t *testing.T) {
	zone := map[uint16][]string{
		dns.TypeA: {"www.example. 60 IN CNAME x.example.", "x.example. 60 IN A 10.0.0.1",
			"x.example. 60 IN A 192.0.2.1"},
		dns.TypeAAAA: {"www.example. 60 IN AAAA fd00::1"},
		dns.TypeHTTPS: {
			"www.example. 60 IN HTTPS 1 . ipv4hint=192.0.2.1,10.0.0.1", "www.example. 60 IN HTTPS 2 . ipv4hint=192.0.2.1 ipv6hint=2001:db8::1",
		},
		dns.TypeSRV: {"www.example. 60 IN SRV 0 0 80 x.example."},
		dns.TypeTXT: {`www.example. 60 IN TXT "10.0.0.1"`},
	}
	up, _ := server(t, func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		for _, text := range zone[m.Question[0].Qtype] {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			r.Answer = append(r.Answer, rr)
		}
		if m.Question[0].Qtype == dns.TypeSRV {
			rr, _ := dns.NewRR("x.example. 60 IN A 10.0.0.1")
			r.Extra = append(r.Extra, rr)
		}
		w.WriteMsg(r)
	})
	s := newServer(t, Config{Upstreams: upstreams(t, up), CacheSize: 100})
	for _, test := range []struct {
		qtype    uint16
		want     []string // in the answers and behind them
		filtered bool
	}{
		{dns.TypeA, []string{"x.example.", "192.0.2.1"}, true},
		{dns.TypeAAAA, nil, true},
		{dns.TypeHTTPS, []string{`2 . ipv4hint="192.0.2.1" ipv6hint="2001:db8::1"`}, true},
		{dns.TypeSRV, []string{"0 0 80 x.example."}, true},
		{dns.TypeTXT, []string{`"10.0.0.1"`}, false},
	} {
		for range 2 { // from the server, and from the cache
			m := question("www.example", test.qtype)
			m.SetEdns0(1232, false)
			replies := make(chan *dns.Msg, 1)
			s.answer(noTens(), m, func(r *dns.Msg) { replies <- r })
			r := <-replies
			var got []string
			for _, rr := range append(r.Answer, r.Extra...) {
				if rr.Header().Rrtype != dns.TypeOPT {
					got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
				}
			}
			if r.Rcode != dns.RcodeSuccess || strings.Join(got, "|") != strings.Join(test.want, "|") {
				t.Errorf("%s: %s %v, want %v", dns.TypeToString[test.qtype], dns.RcodeToString[r.Rcode], got, test.want)
			}
			if told := strings.Contains(r.String(), "Filtered"); told != test.filtered {
				t.Errorf("%s: told why %v: %v", dns.TypeToString[test.qtype], told, r)
			}
		}
	}
	if r, _ := s.resolve(context.Background(), outsider, question("www.example", dns.TypeA)); len(r.Answer) != 3 {
		t.Errorf("a neighbour's answer lacks something: %v", r)
	}
	split := newServer(t, Config{Upstreams: upstreams(t, up), Split: []Split{{"example", []string{up}}}})
	if got := resolved(t, split, noTens(), "www.example", dns.TypeAAAA); got != "NOERROR fd00::1" {
		t.Errorf("from a server for this domain: %s", got)
	}
}
