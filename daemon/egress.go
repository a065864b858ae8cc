package daemon

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/policy"
)

// egress makes the policy of a container on a network: its own mode or else the network's, and the rules of both. The
// zero container has the network's alone.
func egress(n *network.Network, mode string, allow []string) (*policy.Policy, error) {
	m, err := egressMode(n, mode)
	if err != nil {
		return nil, errdefs.Invalid("%w", err)
	}
	texts := append(n.Settings().AllowEgress, allow...)
	var rules []policy.Rule
	for _, s := range texts {
		r, err := policy.ParseRule(s)
		if err != nil {
			return nil, errdefs.Invalid("%w", err)
		}
		rules = append(rules, r)
	}
	p, err := policy.New(m, rules)
	if err != nil {
		return nil, errdefs.Invalid("%w", err)
	}
	return p, nil
}

// checkEgress refuses a container's policy that makes no sense before anything is stored.
func checkEgress(mode string, allow []string) error {
	_, err := egress(&network.Network{}, mode, allow)
	return err
}

// pinAnswer tells the policies of a container the addresses that a name was answered with.
func (d *Daemon) pinAnswer(container, name string, addrs []netip.Addr, ttl time.Duration) {
	for _, b := range d.bridgeList() {
		b.Pin(container, name, addrs, ttl)
	}
}

// allowQuery makes the DNS server's question whether a container may ask outside for a name; nil where it may for
// all. Each of its networks that leads outside may let it, as each lets it connect.
func (d *Daemon) allowQuery(c *network.Container, nets map[string]*network.Network) func(string, netip.Addr) error {
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
			open = open || n.Settings().Masquerade
		}
	}
	if open || len(denied) == 0 {
		return nil
	}
	return func(name string, addr netip.Addr) error {
		err := engine.ErrNotAttached
		var refuses *bridge
		for _, e := range denied {
			b := d.bridge(e.NetworkID)
			if b == nil {
				continue
			}
			switch why := b.AllowQuery(c.ID, name, addr); {
			case why == nil:
				return nil
			case !errors.Is(why, engine.ErrNotAttached):
				err, refuses = why, b
			}
		}
		if refuses != nil {
			refuses.RefusedQuery(c.ID, name, err)
		}
		return err
	}
}

// allowAnswer makes the DNS server's question whether a container may be answered an address for a name; nil where it
// may be answered all. Each of its networks may refuse, as the address is reached over any of them. The names in its
// search domains are the user's own and no public ones.
func (d *Daemon) allowAnswer(c *network.Container, nets map[string]*network.Network) func(string, netip.Addr) error {
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
		for _, domain := range d.searchDomains(c) {
			if policy.Within(name, strings.ToLower(strings.Trim(domain, "."))) {
				return nil
			}
		}
		for _, e := range strict {
			b := d.bridge(e.NetworkID)
			if b == nil {
				return engine.ErrNotAttached
			}
			if err := b.AllowAnswer(c.ID, name, addr); err != nil {
				return err
			}
		}
		return nil
	}
}

// egressMode is a container's mode on a network, made of its own and the network's.
func egressMode(n *network.Network, own string) (policy.Mode, error) {
	ofNetwork, err := policy.ParseMode(n.Settings().Egress)
	if err != nil {
		return "", err
	}
	m, err := policy.ParseMode(own)
	if err != nil {
		return "", err
	}
	return m.Over(ofNetwork), nil
}
