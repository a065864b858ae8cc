package daemon

import (
	"errors"
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
	m, err := policy.ParseMode(modeOf(n, mode))
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

// allowName makes the DNS server's question whether a container may ask outside for a name; nil where it may for all. Each
// of its networks that leads outside may let it, as each lets it connect.
func (d *Daemon) allowName(c *network.Container, nets map[string]*network.Network) func(string, netip.Addr) error {
	var denied []*network.Endpoint
	open := false
	for _, e := range c.Endpoints {
		n := nets[e.NetworkID]
		switch {
		case n == nil || n.Internal:
		case modeOf(n, c.Egress) == string(policy.Deny):
			denied = append(denied, e)
		default:
			open = open || optionBool(n.Options, optMasquerade, true)
		}
	}
	if open || len(denied) == 0 {
		return nil
	}
	return func(name string, addr netip.Addr) error {
		err := errNotPlugged
		var refuses *segment
		var who owner
		for _, e := range denied {
			g := d.segment(e.NetworkID)
			addrs := endpointAddrs(e)
			if g == nil || len(addrs) == 0 {
				continue
			}
			o := g.owner(addrs[0])
			if o.id != c.ID {
				continue
			}
			if err = o.egress.Asks(name, addr); err == nil {
				return nil
			}
			refuses, who = g, o
		}
		if refuses != nil && refuses.refusals.next() {
			refuses.log.Info("egress refused", "container", who.name, "name", name, "rule", err)
		}
		return err
	}
}

// errNotPlugged is for names asked for while the container's interfaces are being made.
var errNotPlugged = errors.New("the container's network is not there yet")

// modeOf is a container's mode on a network: its own or else the network's.
func modeOf(n *network.Network, own string) string {
	if own != "" {
		return own
	}
	return n.Options[optEgress]
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
