package dns

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzParseUpstream holds that what is taken is read the same again.
func FuzzParseUpstream(f *testing.F) {
	for _, s := range []string{"1.1.1.1", "[2001:db8::1]:54", "tls://1.1.1.1:8853#one.example", "tls://",
		"fe80::1%eth0", "1.1.1.1#x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := ParseUpstream(s)
		if err != nil {
			return
		}
		if again, err := ParseUpstream(text); err != nil || again != text {
			t.Errorf("%q is read as %q, and that as %q, %v", s, text, again, err)
		}
	})
}

// FuzzParseSplit holds that a domain that is taken contains itself and what is below it, and nothing that only ends
// like it.
func FuzzParseSplit(f *testing.F) {
	for _, s := range []string{"corp.example=10.0.0.1", "Corp.=10.0.0.1,tls://10.0.0.2", "=", "a..b=1.1.1.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		split, err := ParseSplit(s)
		if err != nil {
			return
		}
		if len(split.Servers) == 0 || split.Domain == "" || split.Domain != strings.ToLower(split.Domain) {
			t.Errorf("%q is read as %+v", s, split)
		}
		if d := split.Domain; !split.contains(d) || !split.contains("x."+d) || split.contains("x"+d) ||
			split.contains("") {
			t.Errorf("%q contains other names than its own", d)
		}
	})
}

// FuzzReverse compares it with the names that package dns of miekg makes of addresses.
func FuzzReverse(f *testing.F) {
	for _, s := range []string{"1.0.0.127.in-addr.arpa", "01.0.0.127.in-addr.arpa", "x.in-addr.arpa",
		strings.Repeat("0.", 32) + "ip6.arpa", "ip6.arpa"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverse(name)
		if !ok {
			return
		}
		if want, err := dns.ReverseAddr(a.String()); err != nil || !strings.EqualFold(want, name+".") {
			// An IPv6 name of a mapped address is that of the IPv4 one in text.
			if !a.Is4In6() {
				t.Errorf("%q is read as %s, whose name is %q, %v", name, a, want, err)
			}
		}
	})
}

// FuzzAnswers gives what a server sends to everything that looks at it.
func FuzzAnswers(f *testing.F) {
	q := question("www.example", dns.TypeA)
	q.Id = 1
	for _, r := range []*dns.Msg{new(dns.Msg).SetReply(q), new(dns.Msg).SetRcode(q, dns.RcodeFormatError)} {
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "www.example.", Rrtype: dns.TypeA, Class: dns.ClassINET,
			Ttl: 1}, A: []byte{10, 0, 0, 1}}}
		b, err := r.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:headerSize])
	}
	c := outsider
	c.AllowAnswer = func(_ string, a netip.Addr) error {
		if a.IsPrivate() {
			return errNoSense
		}
		return nil
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(dns.Msg)
		if r.Unpack(b) != nil || !answers(r, q) {
			return
		}
		s := &Server{cfg: Config{Pin: func(_, _ string, addrs []netip.Addr, _ time.Duration) {
			for _, a := range addrs {
				if a.IsPrivate() {
					t.Errorf("%s is pinned though it is filtered", a)
				}
			}
		}}}
		if len(r.Question) == 0 {
			r.Question = q.Question
		}
		lifetime(r)
		restoreCase(r, "Www.Example.")
		m := answerTo(r, q)
		s.filter(c, q, m)
		s.pin(c, m)
		m.Truncate(dns.MinMsgSize)
		if b, err := m.Pack(); err == nil && len(b) > dns.MinMsgSize {
			t.Errorf("%d bytes for a client that takes %d", len(b), dns.MinMsgSize)
		}
	})
}
