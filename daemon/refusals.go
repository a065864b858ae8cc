package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/policy"
)

// sampledRefusals is how many refusals a sample has.
const sampledRefusals = 256

// recentRefusals are the latest ones of all networks. Destinations have names where the container was told of them in
// the answer to a question.
func (d *Daemon) recentRefusals(questions []api.DNSQuestion) []api.Refusal {
	type told struct {
		container string
		addr      netip.Addr
	}
	names := map[told]string{}
	for _, q := range questions {
		for _, a := range q.Addrs {
			names[told{q.Container, a}] = strings.TrimSuffix(q.Name, ".")
		}
	}
	list := []api.Refusal{}
	for _, b := range d.bridgeList() {
		for _, r := range b.Refusals() {
			name := cmp.Or(r.Name, names[told{r.Container, r.Destination.Addr().Unmap()}])
			list = append(list, api.Refusal{
				Time:        r.Time,
				Count:       r.Count,
				Container:   r.Container,
				Network:     b.record.Name,
				Proto:       protocolName(r.Proto),
				Destination: r.Destination,
				Name:        name,
				Rule:        r.Why.Error(),
				Flag:        allowingFlag(r, name),
			})
		}
	}
	slices.SortFunc(list, func(a, b api.Refusal) int { return a.Time.Compare(b.Time) })
	return list[max(0, len(list)-sampledRefusals):]
}

// protocolName is as in rules of the egress policy; dns for a question.
func protocolName(proto uint8) string {
	switch proto {
	case 0:
		return "dns"
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	}
	return "icmp"
}

// allowingFlag is what would have allowed what was refused. name is what the destination is called, where it has one.
func allowingFlag(r engine.Refusal, name string) string {
	switch {
	case errors.Is(r.Why, forwarder.ErrLoopbackClosed):
		return "--host-loopback"
	case errors.Is(r.Why, forwarder.ErrOtherNetwork):
		return "usernet network connect NETWORK " + r.Container
	case errors.Is(r.Why, forwarder.ErrInternal):
		return "--network of one that is not --internal"
	case r.Proto == 0:
		if !isName(name) {
			return ""
		}
		return allow(name)
	}
	addr := r.Destination.Addr().Unmap()
	host := addr.String()
	switch {
	case isName(name) && !policy.Special(addr): // which no name opens
		host = name
	case addr.Is6():
		host = "[" + host + "]"
	}
	port := fmt.Sprint(r.Destination.Port())
	if protocolName(r.Proto) == "icmp" {
		port = "*"
	}
	return allow(fmt.Sprintf("%s:%s/%s", host, port, protocolName(r.Proto)))
}

// isName says whether a rule that is written so is for one host's name. Containers choose what they ask for, and may
// ask for what would open more where a user pastes it: subnets, wildcards, the word dns.
func isName(name string) bool {
	const usual = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if name == "" || strings.EqualFold(name, "dns") || strings.Trim(strings.ToLower(name), usual) != "" {
		return false
	}
	_, err := netip.ParseAddr(name)
	return err != nil
}

// allow is the flag for a rule; "" where it is none, as for some names.
func allow(rule string) string {
	if _, err := policy.ParseRule(rule); err != nil {
		return ""
	}
	if strings.ContainsAny(rule, "*[") { // which shells expand
		rule = "'" + rule + "'"
	}
	return "--allow-egress " + rule
}
