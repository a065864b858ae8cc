package bypass

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/usernet/usernet/switch/tap"
)

// ownTables is how the names of usernet's own tables begin.
const ownTables = "usernet"

// legacyNames are the tables of iptables-legacy(8) that a namespace has, below /proc/net. A kernel without it has no
// such file.
var legacyNames = [...]string{"ip_tables_names", "ip6_tables_names"}

// checkContainerRules returns ErrContainerRules where this namespace has packet filters, translation of addresses or
// queues that connections by its TAPs meet, and that connections past them would not: what was written to protect a
// container, to redirect or to slow down its traffic has to see all of it.
//
// Rules for what the container forwards do not count, and neither do source translations for certain sources, which are
// for networks behind it.
func checkContainerRules() error {
	for _, name := range legacyNames {
		if text, err := os.ReadFile("/proc/net/" + name); err == nil && len(strings.Fields(string(text))) > 0 {
			return fmt.Errorf("%w: tables of iptables-legacy", ErrContainerRules)
		}
	}
	if err := checkQueues(); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return nil // no nf_tables, and so no rules
	}
	chains, err := c.ListChains()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, chain := range chains {
		if chain.Hooknum == nil || strings.HasPrefix(chain.Table.Name, ownTables) || forwards(chain) {
			continue
		}
		meets, err := meetsTraffic(c, chain, chains)
		if err != nil {
			return err
		}
		if meets {
			return fmt.Errorf("%w: chain %s of table %s", ErrContainerRules, chain.Name, chain.Table.Name)
		}
	}
	return nil
}

// forwards says whether a base chain is for forwarded packets only. Other families number their hooks in other ways:
// their chains count.
func forwards(chain *nftables.Chain) bool {
	switch chain.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet:
		return *chain.Hooknum == *nftables.ChainHookForward
	}
	return false
}

// meetsTraffic says whether a base chain does anything to packets.
func meetsTraffic(c *nftables.Conn, chain *nftables.Chain, all []*nftables.Chain) (bool, error) {
	if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
		return true, nil
	}
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	if chain.Type != nftables.ChainTypeNAT || *chain.Hooknum != *nftables.ChainHookPostrouting {
		return len(rules) > 0, nil
	}
	for _, other := range all { // it may jump to others of its table
		same := other.Table.Name == chain.Table.Name && other.Table.Family == chain.Table.Family
		if !same || other.Hooknum != nil && other != chain {
			continue
		}
		rules, err := c.GetRules(other.Table, other)
		if err != nil {
			return false, fmt.Errorf("nftables: %w", err)
		}
		for _, r := range rules {
			if masquerades(r) {
				return true, nil
			}
		}
	}
	return false, nil
}

// masquerades says whether a rule may change the source addresses of the container's own packets: those that are for
// certain sources are for networks behind it.
func masquerades(r *nftables.Rule) bool {
	changes := false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Payload:
			if e.Base == expr.PayloadBaseNetworkHeader && (e.Offset == families[0].src || e.Offset == families[1].src) {
				return false
			}
		case *expr.Masq, *expr.NAT:
			changes = true
		case *expr.Target: // of iptables-nft(8)
			switch e.Name {
			case "MASQUERADE", "SNAT", "NETMAP":
				changes = true
			}
		}
	}
	return changes
}

// checkQueues looks for queueing disciplines other than the kernel's own, which have no handle.
func checkQueues() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	for _, link := range links {
		if !tap.IsLink(link) {
			continue
		}
		queues, err := netlink.QdiscList(link)
		if err != nil {
			return fmt.Errorf("queues of %s: %w", link.Attrs().Name, err)
		}
		for _, q := range queues {
			if q.Attrs().Handle != 0 {
				return fmt.Errorf("%w: queue %s of %s", ErrContainerRules, q.Type(), link.Attrs().Name)
			}
		}
	}
	return nil
}
