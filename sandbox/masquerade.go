package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// errMasqueraded is for namespaces in which a connection's packets may not change their way: the kernel drops those that it has
// masqueraded for another interface (nf_nat_oif_changed, net/netfilter/nf_nat_core.c), without a word to anybody.
var errMasqueraded = errors.New("the container has rules of its own for source addresses (nat, postrouting)")

// masqueraded says whether there may be such rules.
func masqueraded(c *nftables.Conn) (bool, error) {
	for _, names := range []string{"ip_tables_names", "ip6_tables_names"} { // those of the tables of old, iptables-legacy(8)
		text, err := os.ReadFile("/proc/net/" + names)
		if err == nil && slices.Contains(strings.Fields(string(text)), "nat") {
			return true, nil
		}
	}
	chains, err := c.ListChains()
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	for _, base := range chains {
		if base.Type != nftables.ChainTypeNAT || base.Hooknum == nil || *base.Hooknum != *nftables.ChainHookPostrouting {
			continue
		}
		for _, chain := range chains { // it may jump to others of its table
			if chain.Table.Name != base.Table.Name || chain.Table.Family != base.Table.Family {
				continue
			}
			rules, err := c.GetRules(chain.Table, chain)
			if err != nil {
				return false, fmt.Errorf("nftables: %w", err)
			}
			if slices.ContainsFunc(rules, masquerades) {
				return true, nil
			}
		}
	}
	return false, nil
}

// masquerades says whether a rule may change the source addresses of the container's own packets: those that are for certain
// sources are for networks behind it.
func masquerades(r *nftables.Rule) bool {
	changes := false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Payload:
			if e.Base == expr.PayloadBaseNetworkHeader && (e.Offset == divertFamilies[0].src || e.Offset == divertFamilies[1].src) {
				return false
			}
		case *expr.Masq, *expr.NAT:
			changes = true
		case *expr.Target: // of iptables-nft(8)
			changes = changes || slices.Contains([]string{"MASQUERADE", "SNAT", "NETMAP"}, e.Name)
		}
	}
	return changes
}
