package main

import (
	"fmt"
	"net"
	"strings"
	"time"

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

// dnsMany: SERVER NAME. It prints "ok", asks for the A record of NAME over UDP, one query at a time and none twice,
// until a line comes on standard input; then how many were asked, how many were not answered with an address, how long
// the longest took, and what was wrong with the last of those.
func dnsMany(args []string) error {
	c := dns.Client{Timeout: 20 * time.Second}
	conn, err := c.Dial(args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Println("ok")
	stop := lineOnStdin()
	asked, failed, longest, wrong := 0, 0, time.Duration(0), ""
	for ; !stop.Load(); asked++ {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(args[1]), dns.TypeA)
		r, took, err := c.ExchangeWithConn(q, conn)
		if err != nil || len(r.Answer) == 0 {
			failed++
			wrong = strings.Join(strings.Fields(fmt.Sprint(err, r)), " ")
		}
		longest = max(longest, took)
		time.Sleep(time.Millisecond) // leaves the machine to what is measured
	}
	fmt.Printf("count %d failed %d longest %v %s\n", asked, failed, longest.Round(time.Millisecond), wrong)
	return nil
}

// dnsFlood: SERVER DOMAIN. It asks for ever more names in DOMAIN over UDP and reads no answer, some 200 in a second,
// until it is killed. It prints "ok" once it has begun.
func dnsFlood(args []string) error {
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		q, err := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.%s", i, dns.Fqdn(args[1])), dns.TypeA).Pack()
		if err != nil {
			return err
		}
		_, _ = c.Write(q) // the way may be full
		if i == 100 {
			fmt.Println("ok")
		}
		if i%20 == 0 {
			time.Sleep(100 * time.Millisecond)
		}
	}
}
