package bypass

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
)

// datagramTable is the table of the rules for UDP. The name begins like those of all of usernet's (ownTables).
const datagramTable = "usernet_udp"

// answerTime is how long a service's datagrams to a client are brought back after the client's last one: for as long as
// package splice keeps the client's socket.
const answerTime = 5 * time.Minute

// datagramSetSize bounds how many clients answers are brought back to.
const datagramSetSize = 1 << 16

// loadDatagramRuleset puts the rules for UDP in place in the network namespace that this process is in. No mark is
// taken over from one datagram to its answer, as tcp_fwmark_accept does for connections: the rules note whom a marked
// socket has sent to in whose name, and mark what goes the other way. For IPv4, as nft(8) lists them, SELF and PEER as
// in the package's comment:
//
//	table ip usernet_udp {
//		set clients {
//			type ipv4_addr . inet_service . ipv4_addr . inet_service
//			size 65536
//			flags dynamic,timeout
//			timeout 5m
//		}
//
//		chain out {
//			type route hook output priority mangle; policy accept;
//			meta l4proto != udp accept
//			meta mark 0x75736e74 update @clients { PEER timeout 5m } accept
//			SELF @clients meta mark set 0x75736e74
//		}
//	}
func loadDatagramRuleset(ipv6 bool) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, f := range families {
		if f.table == nftables.TableFamilyIPv6 && !ipv6 {
			continue
		}
		if err := f.addDatagrams(c); err != nil {
			return err
		}
		if err := c.Flush(); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("nftables: %w", err)
		}
	}
	return nil
}

func (f family) addDatagrams(c *nftables.Conn) error {
	t := c.CreateTable(&nftables.Table{Name: datagramTable, Family: f.table})
	key, err := nftables.ConcatSetType(f.addr, nftables.TypeInetService, f.addr, nftables.TypeInetService)
	if err != nil {
		return err
	}
	clients := &nftables.Set{
		Table:         t,
		Name:          "clients",
		KeyType:       key,
		Concatenation: true,
		Dynamic:       true,
		Size:          datagramSetSize,
		HasTimeout:    true,
		Timeout:       answerTime,
	}
	if err := c.AddSet(clients, nil); err != nil {
		return err
	}
	out := c.AddChain(&nftables.Chain{
		Table:    t,
		Name:     "out",
		Type:     nftables.ChainTypeRoute,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityMangle,
	})
	rule := func(parts ...[]expr.Any) {
		r := &nftables.Rule{Table: t, Chain: out}
		for _, p := range parts {
			r.Exprs = append(r.Exprs, p...)
		}
		c.AddRule(r)
	}
	rule(protocolIsNot(unix.IPPROTO_UDP), verdict(expr.VerdictAccept, ""))
	rule(markIs(fwmark.Inbound), f.key(true), put(clients), verdict(expr.VerdictAccept, ""))
	rule(f.key(false), in(clients), setMark(fwmark.Inbound))
	return nil
}
