package dns

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var outsider = Client{ID: "bob", Forward: true}

func TestDeadServersAreAskedLast(t *testing.T) {
	dead, tries := server(t, silent)
	alive, _ := server(t, answerWith("192.0.2.1", 0))
	s := newServer(t, Config{Upstreams: upstreams(t, dead, alive)})
	for i := range 5 {
		if got := resolved(t, s, outsider, fmt.Sprintf("n%d.example", i), dns.TypeA); got != "NOERROR 192.0.2.1" {
			t.Errorf("query %d: %s", i, got)
		}
	}
	if n := tries.Load(); n > maxForms { // one exchange
		t.Errorf("the dead server was asked %d times", n)
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := newServer(t, Config{})
	if got := resolved(t, s, outsider, "example.com", dns.TypeA); got != "SERVFAIL" {
		t.Errorf("without servers: %s", got)
	}
	refusing, _ := server(t, func(w dns.ResponseWriter,
		m *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeRefused))
	})
	s = newServer(t, Config{Upstreams: upstreams(t, refusing)})
	if got := resolved(t, s, outsider, "example.com", dns.TypeA); got != "REFUSED" {
		t.Errorf("a server that refuses: %s", got)
	}
	good, _ := server(t, answerWith("192.0.2.2", 0))
	s = newServer(t, Config{Upstreams: upstreams(t, refusing, good)})
	if got := resolved(t, s, outsider, "example.com", dns.TypeA); got != "NOERROR 192.0.2.2" {
		t.Errorf("one that refuses, and another: %s", got)
	}
}

func TestLiesArePassedOver(t *testing.T) {
	lie := func(change func(r *dns.Msg)) dns.HandlerFunc {
		return func(w dns.ResponseWriter, m *dns.Msg) {
			r := new(dns.Msg)
			r.SetReply(m)
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA,
				Class: dns.ClassINET}, A: net.ParseIP("6.6.6.6")}}
			change(r)
			w.WriteMsg(r)
			answerWith("192.0.2.3", 0)(w, m) // the truth comes later
		}
	}
	for name, change := range map[string]func(r *dns.Msg){
		"another id":        func(r *dns.Msg) { r.Id++ },
		"another name":      func(r *dns.Msg) { r.Question[0].Name = "evil.example." },
		"another type":      func(r *dns.Msg) { r.Question[0].Qtype = dns.TypeAAAA },
		"no question":       func(r *dns.Msg) { r.Question = nil },
		"not an answer":     func(r *dns.Msg) { r.Response = false },
		"the wrong case":    func(r *dns.Msg) { r.Question[0].Name = strings.ToUpper(r.Question[0].Name) },
		"cut in the middle": func(r *dns.Msg) { r.Truncated = true; r.Answer = nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := lie(change)
			if name == "the wrong case" || name == "cut in the middle" { // over TCP the truth alone
				h = func(w dns.ResponseWriter, m *dns.Msg) {
					if w.RemoteAddr().Network() == "tcp" {
						answerWith("192.0.2.3", 0)(w, m)
						return
					}
					lie(change)(w, m)
				}
			}
			up, _ := server(t, h)
			s := newServer(t, Config{Upstreams: upstreams(t, up)})
			name := "a-rather-long-name-with-many-letters.example"
			if got := resolved(t, s, outsider, name, dns.TypeA); got != "NOERROR 192.0.2.3" {
				t.Errorf("%s", got)
			}
		})
	}
}

func TestLoopsEnd(t *testing.T) {
	u := upstreams(t)
	s := newServer(t, Config{Upstreams: u})
	at := served(t, s, outsider)
	u.mu.Lock()
	u.servers = []string{at} // it forwards to itself
	u.mu.Unlock()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if got := resolved(t, s, outsider, fmt.Sprintf("n%d.example", i), dns.TypeA); got != "SERVFAIL" {
				t.Errorf("%s", got)
			}
		})
	}
	wg.Wait()
	if n := s.counters.forwarded.Load(); n > 80 { // each is sent in some forms, with EDNS and without
		t.Errorf("ten questions became %d in %v", n, time.Since(began))
	}
	if got := resolved(t, s, Client{ID: "alice"}, "web", dns.TypeA); got != "NOERROR 172.18.0.2" {
		t.Errorf("a container's name meanwhile: %s", got)
	}
}

func TestSplit(t *testing.T) {
	host, _ := server(t, answerWith("192.0.2.1", 0))
	corp, _ := server(t, answerWith("10.0.0.1", 0))
	lab, _ := server(t, answerWith("10.0.0.2", 0))
	own, _ := server(t, answerWith("10.0.0.3", 0))
	s := newServer(t, Config{Upstreams: upstreams(t, host),
		Split: []Split{{"corp.example", []string{corp}}, {"lab.corp.example", []string{lab}}}})
	c := outsider
	withOwn := c
	withOwn.Upstreams = []string{own}
	for _, test := range []struct {
		who        Client
		name, want string
	}{
		{c, "example.com", "192.0.2.1"}, {c, "a.corp.example", "10.0.0.1"}, {c, "corp.example", "10.0.0.1"},
		{c, "notcorp.example", "192.0.2.1"},
		{c, "x.Lab.Corp.Example", "10.0.0.2"},
		{withOwn, "example.com", "10.0.0.3"}, {withOwn, "a.corp.example", "10.0.0.1"},
	} {
		if got := resolved(t, s, test.who, test.name, dns.TypeA); got != "NOERROR "+test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"1.1.1.1": "1.1.1.1:53", "1.1.1.1:54": "1.1.1.1:54", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]:54": "[2001:db8::1]:54", "[2001:db8::1]": "[2001:db8::1]:53",
		"tls://1.1.1.1":                  "tls://1.1.1.1:853#1.1.1.1",
		"tls://1.1.1.1:8853#one.example": "tls://1.1.1.1:8853#one.example", "fe80::1%eth0": "[fe80::1%eth0]:53",
		"[fe80::1%eth0]:53": "[fe80::1%eth0]:53", "[fe80::1%eth0]": "[fe80::1%eth0]:53",
		"": "", "example.com": "", "1.1.1.1#name": "", "1.1.1.1:0": "", "tls://": "", "udp://1.1.1.1": "",
	} {
		got, err := ParseUpstream(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, ok := range map[string]bool{"corp.example=10.0.0.1": true, "Corp.Example.=10.0.0.1,tls://10.0.0.2": true,
		"corp.example": false, "=1.1.1.1": false, "a=": false, "a..b=1.1.1.1": false} {
		if _, err := ParseSplit(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCacheServesUntilTheTimeIsOver(t *testing.T) {
	up, asked := server(t, answerWith("192.0.2.1", 100))
	s := newServer(t, Config{Upstreams: upstreams(t, up), CacheSize: 10})
	now := time.Now()
	s.cache.now = func() time.Time { return now }
	get := func() (dns.RR, string) {
		r, err := s.Query(context.Background(), outsider, "Example.com", dns.TypeA)
		if err != nil || len(r.Answer) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Answer[0], r.Source
	}
	if rr, source := get(); rr.Header().Ttl != 100 || !strings.HasPrefix(source, "upstream ") {
		t.Errorf("%v from %s", rr, source)
	}
	now = now.Add(40 * time.Second)
	if rr, source := get(); rr.Header().Ttl != 60 || source != "cache" || rr.Header().Name != "Example.com." &&
		rr.Header().Name != "example.com." {
		t.Errorf("%v from %s", rr, source)
	}
	now = now.Add(61 * time.Second)
	if _, source := get(); source == "cache" || asked.Load() != 2 {
		t.Errorf("from %s after its time", source)
	}
	other := outsider
	other.Upstreams = []string{up, up}
	if r, _ := s.Query(context.Background(), other, "example.com", dns.TypeA); r.Source == "cache" {
		t.Error("an answer of other servers is shared")
	}
}

func TestWhatIsKept(t *testing.T) {
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1000},
		Ns: "ns.", Mbox: "m.", Minttl: 30}
	a := &dns.A{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1 << 30},
		A: net.IPv4(192, 0, 2, 1)}
	alias := &dns.CNAME{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 50},
		Target: "b."}
	zero := dns.Copy(a)
	zero.Header().Ttl = 0
	for name, test := range map[string]struct {
		rcode      int
		answer, ns []dns.RR
		want       time.Duration
	}{
		"bounded": {0, []dns.RR{a}, nil, cacheTTL}, "shortest": {0, []dns.RR{alias, a}, nil, 50 * time.Second},
		"zero":                   {0, []dns.RR{zero}, nil, 0},
		"NXDOMAIN":               {dns.RcodeNameError, nil, []dns.RR{soa}, 30 * time.Second},
		"NXDOMAIN without SOA":   {dns.RcodeNameError, nil, nil, 0},
		"NODATA":                 {0, nil, []dns.RR{soa}, 30 * time.Second},
		"NODATA behind an alias": {0, []dns.RR{alias}, []dns.RR{soa}, 30 * time.Second},
		"a referral":             {0, nil, nil, 0}, "SERVFAIL": {dns.RcodeServerFailure, nil, []dns.RR{soa}, 0},
	} {
		m := question("example", dns.TypeA)
		m.Rcode, m.Answer, m.Ns = test.rcode, test.answer, test.ns
		if got := lifetime(m); got != test.want {
			t.Errorf("%s is kept for %v, want %v", name, got, test.want)
		}
	}
}

// counted checks what a cache counts against what it has.
func counted(t *testing.T, c *cache) {
	t.Helper()
	total, answers := 0, 0
	for name, one := range c.clients {
		own := 0
		for e := one.used.Front(); e != nil; e = e.Next() {
			own += len(e.Value.(*cached).wire)
			answers++
		}
		if own != one.held || own == 0 {
			t.Fatalf("%s has %d bytes, counted as %d", name, own, one.held)
		}
		total += own
	}
	if total != c.held || total > c.bytes || answers != len(c.byKey) || answers > c.size {
		t.Fatalf("%d bytes counted as %d, %d answers, %d keys", total, c.held, answers, len(c.byKey))
	}
}

// store puts an answer of some size into a cache.
func store(c *cache, client, name string, size int) {
	m := question(name, dns.TypeTXT)
	text := &dns.TXT{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
	for ; size > 0; size -= 255 {
		text.Txt = append(text.Txt, strings.Repeat("x", min(size, 255)))
	}
	m.Answer = []dns.RR{text}
	c.put(client, cacheKey{name: name}, m)
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(100)
	for i := range 1000 {
		store(c, "one", fmt.Sprintf("n%d.example", i), 1+i%1500)
		counted(t, c)
	}
	if c.get(cacheKey{name: "n999.example"}) == nil || c.get(cacheKey{name: "n0.example"}) != nil {
		t.Error("the last is not there, or the first is")
	}
	c.clear()
	if c.len() != 0 || c.held != 0 {
		t.Error("not empty")
	}
	if none := newCache(0); none.get(cacheKey{}) != nil || none.len() != 0 {
		t.Error("no cache has something")
	}
}

// TestCacheIsShared is about clients that ask for ever more names: they lose their own answers, by number and by size.
func TestCacheIsShared(t *testing.T) {
	for _, size := range []int{10, 3000} {
		c := newCache(300)
		for i := range 20 {
			store(c, "quiet", fmt.Sprintf("q%d.example", i), 10)
		}
		for i := range 3000 {
			store(c, fmt.Sprint("greedy", i%3), fmt.Sprintf("g%d.example", i), size)
			counted(t, c)
		}
		for i := range 20 {
			if c.get(cacheKey{name: fmt.Sprintf("q%d.example", i)}) == nil {
				t.Errorf("answers of %d bytes drove out a quiet client's number %d", size, i)
			}
		}
		least, most := 1<<30, 0
		for name, one := range c.clients {
			if name != "quiet" {
				least, most = min(least, one.used.Len()), max(most, one.used.Len())
			}
		}
		if most > least+2 {
			t.Errorf("three alike have from %d to %d answers of %d bytes", least, most, size)
		}
	}
}

func TestOneQueryForMany(t *testing.T) {
	release := make(chan struct{})
	up, asked := server(t, func(w dns.ResponseWriter, m *dns.Msg) {
		<-release
		answerWith("192.0.2.1", 0)(w, m)
	})
	s := newServer(t, Config{Upstreams: upstreams(t, up)})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if got := resolved(t, s, outsider, "example.com", dns.TypeA); got != "NOERROR 192.0.2.1" {
				t.Errorf("%s", got)
			}
		})
	}
	eventually(t, func() bool { return s.counters.forwarded.Load() == 100 }, "not all have asked")
	close(release)
	wg.Wait()
	if n := asked.Load(); n > 2 { // a second, if one asked just after the first was answered
		t.Errorf("the server was asked %d times", n)
	}
}

func TestEDNSAndDNSSECBits(t *testing.T) {
	var seen atomic.Pointer[dns.Msg]
	up, _ := server(t, func(w dns.ResponseWriter, m *dns.Msg) {
		seen.Store(m.Copy())
		r := new(dns.Msg)
		r.SetReply(m)
		r.AuthenticatedData = true
		if o := m.IsEdns0(); o != nil {
			r.SetEdns0(4096, o.Do())
		}
		w.WriteMsg(r)
	})
	s := newServer(t, Config{Upstreams: upstreams(t, up), CacheSize: 10})
	m := question("example.com", dns.TypeA)
	m.CheckingDisabled, m.AuthenticatedData = true, true
	m.SetEdns0(4096, true)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 0, 2, 0)}}
	r, _ := s.resolve(context.Background(), outsider, m)
	q := seen.Load()
	if !q.CheckingDisabled || !q.AuthenticatedData || !q.IsEdns0().Do() || q.IsEdns0().UDPSize() != ednsSize {
		t.Errorf("asked: %v", q)
	}
	if o := q.IsEdns0().Option; len(o) != 1 || o[0].Option() != dns.EDNS0SUBNET {
		t.Errorf("options passed on: %v", o)
	}
	if !r.AuthenticatedData || !r.IsEdns0().Do() || r.Id != m.Id {
		t.Errorf("answered: %v", r)
	}
	plain, _ := s.resolve(context.Background(), outsider, question("example.com", dns.TypeA))
	if o := seen.Load().IsEdns0(); plain.IsEdns0() != nil || o != nil && o.Do() {
		t.Errorf("who has no EDNS gets some: %v", plain)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"dns.example"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	connections := &countingListener{Listener: l}
	srv := &dns.Server{Listener: connections, Handler: answerWith("192.0.2.1", 0)}
	go srv.ActivateAndServe()
	t.Cleanup(func() { srv.Shutdown() })
	s := newServer(t, Config{})
	s.transport.roots.RootCAs = x509.NewCertPool()
	s.transport.roots.RootCAs.AddCert(cert)
	c := outsider
	c.Upstreams = []string{"tls://" + l.Addr().String() + "#dns.example"}
	for i := range 5 {
		if got := resolved(t, s, c, fmt.Sprintf("n%d.example", i), dns.TypeA); got != "NOERROR 192.0.2.1" {
			t.Fatalf("%s", got)
		}
	}
	if n := connections.n.Load(); n != 1 {
		t.Errorf("five queries took %d connections", n)
	}
	c.Upstreams = []string{"tls://" + l.Addr().String() + "#other.example"}
	if got := resolved(t, s, c, "example.com", dns.TypeA); got != "SERVFAIL" {
		t.Errorf("a certificate of another name: %s", got)
	}
}

type countingListener struct {
	net.Listener
	n atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func TestResolvConfIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "etc", "resolv.conf")
	for _, d := range []string{"etc", "run1", "run2"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, path, "nameserver 192.0.2.1\nsearch one.example\n")
	u := NewUpstreams(path, slog.New(slog.DiscardHandler))
	defer u.Close()
	var changes atomic.Int64
	u.OnChange(func() { changes.Add(1) })
	is := func(what string, servers ...string) {
		t.Helper()
		eventually(t, func() bool { return slices.Equal(u.Servers(), servers) },
			what+": the servers are not "+strings.Join(servers, ","))
	}
	is("at first", "192.0.2.1:53")
	writeFile(t, path, "nameserver 192.0.2.2\nnameserver 2001:db8::2\n")
	is("rewritten", "192.0.2.2:53", "[2001:db8::2]:53")
	writeFile(t, path+".new", "nameserver 192.0.2.3\n")
	rename(t, path+".new", path)
	is("replaced", "192.0.2.3:53")
	writeFile(t, path, "")
	is("emptied")
	os.Remove(path)
	writeFile(t, filepath.Join(dir, "run1", "resolv.conf"), "nameserver 192.0.2.4\n")
	writeFile(t, filepath.Join(dir, "run2", "resolv.conf"), "nameserver 192.0.2.5\n")
	link := func(to string) {
		if err := os.Symlink(to, path+".new"); err != nil {
			t.Fatal(err)
		}
		rename(t, path+".new", path)
	}
	link("../run1/resolv.conf")
	is("a link", "192.0.2.4:53")
	writeFile(t, filepath.Join(dir, "run1", "new"), "nameserver 192.0.2.6\n")
	rename(t, filepath.Join(dir, "run1", "new"), filepath.Join(dir, "run1", "resolv.conf"))
	is("what a link leads to, replaced", "192.0.2.6:53")
	link("../run2/resolv.conf")
	is("a link elsewhere", "192.0.2.5:53")
	os.Remove(path)
	is("removed")
	if n := changes.Load(); n < 7 {
		t.Errorf("%d changes were told", n)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
