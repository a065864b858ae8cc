package test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// records is what the world's resolver knows; everything else is NXDOMAIN. An alias stands before its target.
var records = []string{
	"alias.example.test. 60 IN CNAME www.example.test.",
	"www.example.test. 60 IN A 192.0.2.1",
	"www.example.test. 60 IN AAAA 2001:db8::1",
	"peer.example.test. 60 IN A 192.0.2.100",
	"example.test. 60 IN MX 10 www.example.test.",
	"printer. 60 IN A 192.0.2.77",
	"rebind.example.com. 60 IN A 192.168.77.7",
	"rebind.example.com. 60 IN A 192.0.2.100",
	"own.example.com. 60 IN A 192.0.2.1",
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
		name := request.Question[0].Name
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil || !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			known = true
			alias, isAlias := rr.(*dns.CNAME)
			if isAlias || rr.Header().Rrtype == request.Question[0].Qtype {
				reply.Answer = append(reply.Answer, rr)
			}
			if isAlias {
				name = alias.Target
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
