package main

import (
	"fmt"

	"github.com/miekg/dns"
)

// dnsServe: ADDR NAME TTL ADDRESS. It answers each question for an A record of NAME, and prints "listening".
func dnsServe(args []string) error {
	record, err := dns.NewRR(fmt.Sprintf("%s. %s IN A %s", args[1], args[2], args[3]))
	if err != nil {
		return err
	}
	s := &dns.Server{Addr: args[0], Net: "udp", NotifyStartedFunc: func() { fmt.Println("listening") }}
	s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA && dns.CanonicalName(q.Question[0].Name) == record.Header().Name {
			answer := dns.Copy(record)
			answer.Header().Name = q.Question[0].Name // in its letters, whatever their case
			m.Answer = append(m.Answer, answer)
		}
		w.WriteMsg(m)
	})
	return s.ListenAndServe()
}
