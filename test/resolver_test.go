package test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// records is what the world's resolver knows; everything else is NXDOMAIN.
var records = []string{
	"www.example.test. 60 IN A 192.0.2.1",
	"www.example.test. 60 IN AAAA 2001:db8::1",
	"peer.example.test. 60 IN A 192.0.2.100",
	"alias.example.test. 60 IN CNAME www.example.test.",
	"example.test. 60 IN MX 10 www.example.test.",
	"100.2.0.192.in-addr.arpa. 60 IN PTR peer.example.test.",
}

// queries counts what reached the resolver.
var queries atomic.Int64

// startResolver serves the world's resolver for as long as the tests run.
func startResolver() error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, request *dns.Msg) {
		queries.Add(1)
		reply := new(dns.Msg).SetReply(request)
		known := false
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil || !strings.EqualFold(rr.Header().Name, request.Question[0].Name) {
				continue
			}
			known = true
			if rr.Header().Rrtype == request.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
		w.WriteMsg(reply)
	})
	address := net.JoinHostPort(resolver, fmt.Sprint(resolverPort))
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go (&dns.Server{PacketConn: pc, Handler: handler}).ActivateAndServe()
	go (&dns.Server{Listener: l, Handler: handler}).ActivateAndServe()
	return nil
}
