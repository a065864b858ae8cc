package test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// fragileServer starts a DNS server on the host, by UDP alone, that has one address for all names and does odd with
// queries that are more than a plain one: with EDNS, or with letters in another case than small. odd returns nil for no
// answer.
func fragileServer(t *testing.T, odd func(*dns.Msg) *dns.Msg) (address string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", net.JoinHostPort(host4, "0"))
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }}
	server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := q.Question[0].Name
		r := new(dns.Msg).SetReply(q)
		if q.IsEdns0() != nil || strings.ToLower(name) != name {
			if r = odd(q); r == nil {
				return
			}
		} else if q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
				A: net.IPv4(203, 0, 113, 7)}}
		}
		w.WriteMsg(r)
	})
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		server.Shutdown()
		<-ended
	})
	return pc.LocalAddr().String()
}

// TestFragileServersServeContainers asks servers that serve programs on the host, which send plain questions.
func TestFragileServersServeContainers(t *testing.T) {
	t.Parallel()
	for name, odd := range map[string]func(*dns.Msg) *dns.Msg{
		"drops what it does not know": func(*dns.Msg) *dns.Msg { return nil },
		"format error": func(
			q *dns.Msg) *dns.Msg {
			return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
		},
		"refuses what it does not know": func(
			q *dns.Msg) *dns.Msg {
			return new(dns.Msg).SetRcode(q, dns.RcodeRefused)
		},
		"knows small letters only": func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeNameError) },
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, "--dns", fragileServer(t, odd), "--dns-cache", "0")
			d.idle("box")
			for i := range 4 {
				d.says("203.0.113.7", "box", "getent", "ahostsv4",
					fmt.Sprintf("a-name-of-many-letters-%d.example.test", i))
			}
		})
	}
}
