package dns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestAnswersAreLearned(t *testing.T) {
	var got []string
	s := &Server{cfg: Config{Learn: func(client, name string, addrs []netip.Addr, ttl time.Duration) {
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
		{answer(dns.RcodeSuccess, "www.example.test. 60 IN A 192.0.2.1", "www.example.test. 30 IN A 192.0.2.2"), "c www.example.test. [192.0.2.1 192.0.2.2] 30s"},
		{answer(dns.RcodeSuccess, "www.example.test. 10 IN CNAME cdn.test.", "cdn.test. 300 IN AAAA 2001:db8::1"), "c www.example.test. [2001:db8::1] 10s"},
		{answer(dns.RcodeSuccess, "www.example.test. 10 IN MX 5 mail.test."), ""},
		{answer(dns.RcodeSuccess), ""},
		{answer(dns.RcodeNameError, "www.example.test. 60 IN A 192.0.2.1"), ""},
		{nil, ""},
	} {
		got = nil
		s.learn(Client{ID: "c"}, test.r)
		if fmt.Sprint(got) != fmt.Sprintf("[%s]", test.want) {
			t.Errorf("%v: learned %v, wanted %q", test.r, got, test.want)
		}
	}
}
