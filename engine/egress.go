package engine

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/policy"
)

// maxRefusals is how many refusals each network logs in a second; others are only counted.
const maxRefusals = 10

// ErrNotAttached is for names that are asked for before the asking attachment is on the network.
var ErrNotAttached = errors.New("the container's network is not there yet")

// SetPolicy changes where an attachment may connect to, and with "" where senders may that belong to none. Connections
// that there are go on; datagrams and pings are decided about one by one.
func (n *Network) SetPolicy(id string, p *policy.Policy) {
	if id == "" {
		n.policy.Store(p)
		return
	}
	if a := n.byID(id); a != nil {
		p.Inherit(a.policy.Swap(p)) // what is answered meanwhile is noted in p
	}
}

// Pin tells the policy of an attachment the addresses that a name was answered with, for ttl.
func (n *Network) Pin(id, name string, addrs []netip.Addr, ttl time.Duration) {
	if a := n.byID(id); a != nil {
		a.policy.Load().Pin(name, addrs, ttl)
	}
}

// AllowQuery says why an attachment may not ask outside for a name, or for the name of an address; nil where it may.
func (n *Network) AllowQuery(id, name string, addr netip.Addr) error {
	a := n.byID(id)
	if a == nil {
		return ErrNotAttached
	}
	return a.policy.Load().AllowQuery(name, addr)
}

// AllowAnswer says why an attachment may not be answered an address for a name; nil where it may.
func (n *Network) AllowAnswer(id, name string, addr netip.Addr) error {
	a := n.byID(id)
	if a == nil {
		return ErrNotAttached
	}
	err := a.policy.Load().AllowAnswer(name, addr, n.shared.OwnsAddr)
	if err == nil {
		return nil
	}
	n.refusals.add(id, Refusal{Container: a.Name(), Destination: netip.AddrPortFrom(addr, 0), Name: name, Why: err})
	if n.refusalLog.next() {
		n.log.Info("egress refused", "container", a.Name(), "name", name, "answer", addr, "rule", err)
	}
	return err
}

// RefusedQuery notes that an attachment was refused a name.
func (n *Network) RefusedQuery(id, name string, rule error) {
	a := n.byID(id)
	if a == nil {
		return
	}
	n.refusals.add(id, Refusal{Container: a.Name(), Name: name, Why: rule})
	if n.refusalLog.next() {
		n.log.Info("egress refused", "container", a.Name(), "name", name, "rule", rule)
	}
}

// refusalLog bounds what is logged about refused flows, so that a container cannot fill the disk.
type refusalLog struct {
	mu    sync.Mutex // guards the rest
	since time.Time
	count int
}

// next says whether one more refusal may be logged now.
func (l *refusalLog) next() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.since) > time.Second {
		l.since, l.count = now, 0
	}
	l.count++
	return l.count <= maxRefusals
}
