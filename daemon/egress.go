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
	m, err := egressMode(n, mode)
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
		if n == nil || n.Internal {
			continue
		}
		mode, err := egressMode(n, c.Egress)
		switch {
		case err != nil || mode.Denies():
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
			g, o := d.ownerOf(c, e)
			if g == nil {
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

// answerName makes the DNS server's question whether a container may be answered an address for a name; nil where it may be
// answered all. Each of its networks may refuse, as the address is reached over any of them. The names in search are the
// user's own and no public ones.
func (d *Daemon) answerName(c *network.Container, nets map[string]*network.Network, search []string) func(string, netip.Addr) error {
	var strict []*network.Endpoint
	for _, e := range c.Endpoints {
		if n := nets[e.NetworkID]; n != nil {
			if mode, err := egressMode(n, c.Egress); err != nil || mode.NoRebind() {
				strict = append(strict, e)
			}
		}
	}
	if len(strict) == 0 {
		return nil
	}
	return func(name string, addr netip.Addr) error {
		for _, domain := range search {
			if policy.Within(name, strings.ToLower(strings.Trim(domain, "."))) {
				return nil
			}
		}
		for _, e := range strict {
			g, who := d.ownerOf(c, e)
			if g == nil {
				return errNotPlugged
			}
			if err := who.egress.Answer(name, addr, d.shared.OwnsAddr); err != nil {
				if g.refusals.next() {
					g.log.Info("egress refused", "container", who.name, "name", name, "answer", addr, "rule", err)
				}
				return err
			}
		}
		return nil
	}
}

// ownerOf returns the segment of an endpoint, and what it knows of the container there; nil: it is not plugged in.
func (d *Daemon) ownerOf(c *network.Container, e *network.Endpoint) (*segment, owner) {
	g, addrs := d.segment(e.NetworkID), endpointAddrs(e)
	if g == nil || len(addrs) == 0 {
		return nil, owner{}
	}
	o := g.owner(addrs[0])
	if o.id != c.ID {
		return nil, owner{}
	}
	return g, o
}

// errNotPlugged is for names asked for while the container's interfaces are being made.
var errNotPlugged = errors.New("the container's network is not there yet")

// egressMode is a container's mode on a network, made of its own and the network's.
func egressMode(n *network.Network, own string) (policy.Mode, error) {
	ofNetwork, err := policy.ParseMode(n.Options[optEgress])
	if err != nil {
		return "", err
	}
	m, err := policy.ParseMode(own)
	if err != nil {
		return "", err
	}
	return m.Over(ofNetwork), nil
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
