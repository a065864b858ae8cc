package daemon

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/policy"
)

// Options of a network for its egress policy: what happens to destinations, and which are allowed, with commas between.
const (
	optEgress      = "usernet.egress"
	optAllowEgress = "usernet.allow_egress"
)

// egress makes the policy of a container on a network: its own mode or else the network's, and the rules of both. The
// zero container has the network's alone.
func egress(n *network.Network, mode string, allow []string) (*policy.Policy, error) {
	if mode == "" {
		mode = n.Options[optEgress]
	}
	m, err := policy.ParseMode(mode)
	if err != nil {
		return nil, network.Errorf(network.Invalid, "%w", err)
	}
	texts := allow
	if s := n.Options[optAllowEgress]; s != "" {
		texts = append(strings.Split(s, ","), allow...)
	}
	var rules []policy.Rule
	for _, s := range texts {
		r, err := policy.ParseRule(s)
		if err != nil {
			return nil, network.Errorf(network.Invalid, "%w", err)
		}
		rules = append(rules, r)
	}
	p, err := policy.New(m, rules)
	if err != nil {
		return nil, network.Errorf(network.Invalid, "%w", err)
	}
	return p, nil
}

// checkEgress refuses a policy that makes no sense before anything is stored.
func checkEgress(mode string, allow []string, options map[string]string) error {
	_, err := egress(&network.Network{Options: options}, mode, allow)
	return err
}

// allow is the forwarder's question whether a container may send to dst.
func (g *segment) allow(container netip.Addr, proto uint8, dst netip.AddrPort) error {
	o := g.owner(container)
	p := o.egress
	if p == nil {
		p = g.egress
	}
	err := p.Decide(proto, dst)
	if err != nil && g.refusals.next() {
		g.log.Info("egress refused", "container", o.name, "inside", container, "protocol", proto, "destination", dst, "rule", err)
	}
	return err
}

// learn tells the policies of a container on this network what it was answered.
func (g *segment) learn(container, name string, addrs []netip.Addr, ttl time.Duration) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, o := range g.owners {
		if o.id == container {
			o.egress.Learn(name, addrs, ttl)
		}
	}
}

// learnEgress is what the DNS server tells.
func (d *Daemon) learnEgress(container, name string, addrs []netip.Addr, ttl time.Duration) {
	for _, g := range d.segmentList() {
		g.learn(container, name, addrs, ttl)
	}
}

// refusalLog bounds what is logged about refused flows, so that a container cannot fill the disk.
type refusalLog struct {
	mu    sync.Mutex
	since time.Time
	count int
}

// maxRefusals is how many refusals each network logs in a second; others are only counted.
const maxRefusals = 10

func (l *refusalLog) next() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.since) > time.Second {
		l.since, l.count = now, 0
	}
	l.count++
	return l.count <= maxRefusals
}
