package flannel

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/kv"
)

// errNoConfig is for a prefix where no flannel network is.
var errNoConfig = errors.New("the store has no configuration of flannel's at this prefix: " +
	"put one (etcdctl put PREFIX/config ...), or give another --flannel-prefix")

// follow keeps what is known of the other nodes like the store's.
func (n *Node) follow() {
	delay := retryFirst
	for n.ctx.Err() == nil {
		heard := false
		for event, err := range n.store.Watch(n.ctx) {
			if err != nil {
				n.storeFailed(err)
				break
			}
			n.storeAnswered()
			heard = true
			n.take(event)
		}
		if delay *= 2; heard {
			delay = retryFirst
		}
		kv.Sleep(n.ctx, min(delay, retryMost))
	}
}

func (n *Node) storeFailed(err error) {
	if n.ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.storeErr == nil {
		n.log.Warn("flannel's store cannot be reached: the nodes that are known stay", "store", n.opts.URL, "error", err)
	}
	n.mu.storeErr = err
}

func (n *Node) storeAnswered() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.storeErr != nil {
		n.log.Info("flannel's store is reached again", "store", n.opts.URL)
	}
	n.mu.storeErr = nil
}

// take takes what the store tells.
func (n *Node) take(event kv.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch event.Kind {
	case kv.EventList:
		n.takeList(event.List)
	case kv.EventPut:
		if event.Pair.Key == configKey {
			n.takeConfig(event.Pair.Value)
		} else {
			n.takeLease(event.Pair)
		}
	case kv.EventDelete:
		delete(n.mu.leases, event.Pair.Key)
		if event.Pair.Key == configKey {
			n.missConfig()
		}
	}
	n.apply()
	n.tell()
	signal(n.woken)
}

// takeList takes all that the store has. One without a configuration has lost its data, or never had any: what was
// known stays. The caller holds mu.
func (n *Node) takeList(list []kv.Pair) {
	i := slices.IndexFunc(list, func(p kv.Pair) bool { return p.Key == configKey })
	if i < 0 {
		n.missConfig()
		return
	}
	n.takeConfig(list[i].Value)
	old := n.mu.leases
	n.mu.leases, n.mu.listed = make(map[string]lease, len(list)), true
	for _, p := range list {
		if strings.HasPrefix(p.Key, subnetFolder) {
			n.takeLease(p)
		}
	}
	for key, l := range old {
		if _, is := n.mu.leases[key]; !is && key != subnetKey(n.mu.own.subnet) {
			n.log.Debug("a flannel node is gone", "subnet", l.subnet)
		}
	}
}

// missConfig notes that the store has no configuration: the one that was known goes on to count for a network that is
// there. The caller holds mu.
func (n *Node) missConfig() {
	if n.mu.configErr == nil {
		n.log.Warn(errNoConfig.Error(), "store", n.opts.URL)
	}
	n.mu.configErr = errNoConfig
}

// takeConfig takes a configuration, unless a network runs that is another's. The caller holds mu.
func (n *Node) takeConfig(text []byte) {
	config, err := parseConfig(text)
	if err == nil && n.mu.member != nil && config != n.mu.config {
		err = errors.New("flannel's configuration has changed: remove the network, and make it anew")
	}
	if err != nil {
		if n.mu.configErr == nil || n.mu.configErr.Error() != err.Error() {
			n.log.Error("flannel's configuration is not used", "error", err)
		}
		n.mu.configErr = err
		return
	}
	n.mu.configErr = nil
	if bytes.Equal(text, n.mu.text) {
		return
	}
	n.mu.text, n.mu.config = bytes.Clone(text), config
	if !config.fits(n.mu.own.subnet) {
		n.mu.own, n.mu.held = lease{}, false
	} else {
		n.mu.own = n.mine(n.mu.own.subnet, n.mu.own.public)
	}
	if config.DirectRoute {
		n.log.Warn(directRouting)
	}
}

// directRouting is what does not work with that.
const directRouting = "flannel's configuration has DirectRouting: nodes on this host's own Ethernet send packets without " +
	"a header to its kernel, which no unprivileged process gets; those behind a router are reached"

// takeLease takes a node's lease. The caller holds mu.
func (n *Node) takeLease(p kv.Pair) {
	l, err := parseLease(p)
	if err != nil {
		delete(n.mu.leases, p.Key)
		n.log.Warn("a flannel node cannot be reached", "error", err)
		return
	}
	if _, is := n.mu.leases[p.Key]; !is && len(n.mu.leases) >= maxNodes {
		n.log.Warn("a flannel node is left out: there are too many", "subnet", l.subnet, "limit", maxNodes)
		return
	}
	n.mu.leases[p.Key] = l
}

// others are the nodes that packets go to, by their subnets. The caller holds mu.
func (n *Node) others() []lease {
	own := n.mu.own.subnet
	all := slices.Collect(maps.Values(n.mu.leases))
	slices.SortFunc(all, func(a, b lease) int { return a.subnet.Addr().Compare(b.subnet.Addr()) })
	return slices.DeleteFunc(all, func(l lease) bool {
		mine := own.IsValid() && l.subnet.Overlaps(own) || l.public == n.mu.own.public
		network := n.mu.config.Network
		return mine || l.backend != n.mu.config.Backend || !network.Contains(l.subnet.Addr()) ||
			l.subnet.Bits() < network.Bits()
	})
}

// apply has the network that runs know the other nodes. The caller holds mu.
func (n *Node) apply() {
	if n.mu.member == nil {
		return
	}
	var list []fabric.Route
	for _, l := range n.others() {
		list = append(list, fabric.Route{
			Subnet: l.subnet, Via: netip.AddrPortFrom(l.public, n.mu.config.Port), MAC: l.mac,
		})
	}
	if err := n.mu.member.SetRoutes(list); err != nil && !errors.Is(err, fabric.ErrClosed) {
		n.log.Error("flannel's nodes", "error", err)
	}
}

// Warnings are what people have to know: texts for `usernet info`.
func (n *Node) Warnings() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, err := range []error{n.mu.storeErr, n.mu.configErr, n.mu.leaseErr} {
		if err != nil {
			list = append(list, fmt.Sprintf("flannel (%s): %v", n.opts.URL, err))
		}
	}
	if n.mu.config.DirectRoute {
		list = append(list, directRouting)
	}
	return list
}
