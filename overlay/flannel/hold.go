package flannel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/kv"
)

// mostFree is how many free subnets are looked at, of which one is drawn, so that nodes that start together seldom want
// the same (flannel: allocateSubnet).
const mostFree = 100

// mostLooked bounds how many subnets are looked at for that: what nodes of other lengths cover may be large.
const mostLooked = 4 * (maxNodes + mostFree)

// hold takes a lease, keeps it, and takes it again when it is lost.
func (n *Node) hold() {
	var held kv.Lease // nil: none
	delay := retryFirst
	for n.ctx.Err() == nil {
		wait := lookAround
		if !n.isHeld(held) && n.isReady() {
			next, err := n.acquire()
			if n.leaseOutcome(err); err != nil {
				wait = min(delay, retryMost)
				delay *= 2
			} else {
				n.revoke(held)
				held, delay = next, retryFirst
			}
		}
		held = n.await(held, wait)
	}
}

// await waits for a reason to look at the lease, and returns it, or nil where it was lost.
func (n *Node) await(held kv.Lease, wait time.Duration) kv.Lease {
	var lost <-chan struct{}
	if held != nil {
		lost = held.Lost()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-n.ctx.Done():
	case <-n.woken:
	case <-timer.C:
	case <-lost:
		n.mu.Lock()
		defer n.mu.Unlock()
		n.mu.held = false
		if n.ctx.Err() == nil {
			n.log.Warn("flannel's lease was lost: it is taken again", "subnet", n.mu.own.subnet)
		}
		return nil
	}
	return held
}

// isReady says whether the store has told what leases there are, and can be asked.
func (n *Node) isReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.listed && n.mu.storeErr == nil && n.mu.text != nil
}

// isHeld says whether the store has this host's lease as it should be.
func (n *Node) isHeld(held kv.Lease) bool {
	public, err := n.public()
	n.mu.Lock()
	defer n.mu.Unlock()
	l, there := n.mu.leases[subnetKey(n.mu.own.subnet)]
	n.mu.held = held != nil && n.mu.own.subnet.IsValid() && there && l.sameNode(n.mu.own) &&
		(err != nil || public == n.mu.own.public)
	return n.mu.held
}

// public is the address at which other nodes reach this one.
func (n *Node) public() (netip.Addr, error) {
	addrs, err := n.opts.Advertise.Resolve(n.opts.Towards)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w (--flannel-advertise)", err)
	}
	for _, a := range addrs {
		if a.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("other nodes reach %v by IPv4 only: give an IPv4 address with --flannel-advertise",
		addrs[0])
}

// acquire writes this host's lease, with one of the store's that is kept alive.
func (n *Node) acquire() (kv.Lease, error) {
	public, err := n.public()
	if err != nil {
		return nil, err
	}
	want, is, err := n.choose(public)
	if err != nil {
		return nil, err
	}
	value, err := want.encode()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	held, err := n.store.Lease(ctx, n.opts.TTL)
	if err != nil {
		return nil, err
	}
	if err := n.store.Put(ctx, subnetKey(want.subnet), value, is, held); err != nil {
		n.revoke(held)
		if errors.Is(err, kv.ErrConflict) {
			return nil, fmt.Errorf("subnet %v: another node was faster", want.subnet)
		}
		return nil, err
	}
	n.took(want)
	return held, nil
}

// took notes that the store has this host's lease.
func (n *Node) took(l lease) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.mu.own.subnet; old != l.subnet || !n.mu.held {
		n.log.Info("this host is a flannel node", "subnet", l.subnet, "address", l.public, "backend", l.backend)
	}
	n.mu.own, n.mu.held = l, true
	n.mu.leases[subnetKey(l.subnet)] = l // until the store tells of it, with its revision
	n.apply()
	n.tell()
}

// leaseOutcome notes how a try went.
func (n *Node) leaseOutcome(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && n.ctx.Err() == nil && (n.mu.leaseErr == nil || n.mu.leaseErr.Error() != err.Error()) {
		n.log.Warn("no lease of flannel's yet", "error", err)
	}
	n.mu.leaseErr = err
}

// revoke ends a lease of the store's; nil is none. Where that fails it ends by itself.
func (n *Node) revoke(held kv.Lease) {
	if held == nil {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	if err := held.Revoke(ctx); err != nil {
		n.log.Debug("a lease of the store ends by itself", "error", err)
	}
}

// choose returns the lease to write, and the revision that its key has to have: that of the subnet that this host had,
// else the one that the store has for its address, else a free one.
func (n *Node) choose(public netip.Addr) (lease, kv.Revision, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if own := n.mu.own; own.subnet.IsValid() {
		have, there := n.mu.leases[subnetKey(own.subnet)]
		switch {
		case !there:
			return n.mine(own.subnet, public), kv.Absent, nil
		case have.public == own.public || have.public == public || have.mac == n.mu.mac && have.mac != overlay.MAC{}:
			return n.mine(own.subnet, public), have.revision, nil
		case n.mu.member != nil:
			return lease{}, 0, fmt.Errorf("subnet %v, which containers here have addresses of, is now that of node %v: "+
				"end one of the two", own.subnet, have.public)
		}
	}
	for _, l := range n.mu.leases {
		if l.public == public && n.mu.config.fits(l.subnet) {
			return n.mine(l.subnet, public), l.revision, nil
		}
	}
	free := n.free()
	if len(free) == 0 {
		return lease{}, 0, fmt.Errorf("all subnets of flannel's network %v are leased", n.mu.config.Network)
	}
	return n.mine(free[rand.IntN(len(free))], public), kv.Absent, nil
}

// free are the first subnets that no node has. The caller holds mu.
func (n *Node) free() []netip.Prefix {
	taken := map[netip.Prefix]bool{}
	var odd []netip.Prefix // of another length
	for _, l := range n.mu.leases {
		if taken[l.subnet] = true; l.subnet.Bits() != n.mu.config.SubnetLen {
			odd = append(odd, l.subnet)
		}
	}
	var list []netip.Prefix
next:
	for i := range min(n.mu.config.subnets(), mostLooked) {
		p := n.mu.config.subnet(i)
		if taken[p] {
			continue
		}
		for _, o := range odd {
			if o.Overlaps(p) {
				continue next
			}
		}
		if list = append(list, p); len(list) == mostFree {
			break
		}
	}
	return list
}
