package bypass

import (
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
// taken over from one datagram to its answer, as tcp_fwmark_accept does for connections: the rules note the addresses
// and ports of what a marked socket sends, and mark what goes the other way. For IPv4, as nft(8) lists them, SELF and
// PEER as in the package's comment:
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
func loadDatagramRuleset(ipv6 bool) error { return loadTables(ipv6, family.addDatagrams) }

func (f family) addDatagrams(c *nftables.Conn) error {
	t := c.CreateTable(&nftables.Table{Name: datagramTable, Family: f.table})
	clients, err := f.addSet(c, t, "clients", datagramSetSize, answerTime)
	if err != nil {
		return err
	}
	out := addRouteChain(c, t)
	addRule(c, out, protocolIsNot(unix.IPPROTO_UDP), verdict(expr.VerdictAccept, ""))
	addRule(c, out, markIs(fwmark.Inbound), f.key(true), put(clients), verdict(expr.VerdictAccept, ""))
	addRule(c, out, f.key(false), in(clients), setMark(fwmark.Inbound))
	return nil
}
