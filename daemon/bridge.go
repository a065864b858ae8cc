package daemon

import (
	"net/netip"
	"sync/atomic"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
)

// bridge is a network while it is in use: its engine.
type bridge struct {
	*engine.Network
	record  *network.Network                // as the network began to run; its options may have changed since
	egress  atomic.Pointer[network.Network] // the record whose egress options hold; stored under policyMu
	unwatch func()                          // its locks are not watched any more
	leave   func()                          // no capture is shown its frames any more
	members members                         // whom the rules about neighbours know; guarded by policyMu
}

// slirpDNS is where slirp4netns answers names, and what the resolv.conf of those who come from there says
// (slirp4netns(1)).
var slirpDNS = netip.AddrFrom4([4]byte{10, 0, 2, 3})

// newBridge makes n run.
func (d *Daemon) newBridge(n *network.Network) (*bridge, error) {
	driver, err := d.driverOf(n.Driver)
	if err != nil {
		return nil, err
	}
	e, err := driver.Open(d.ctx, n, d.env())
	if err == nil && e == nil {
		err = errNothingRuns(n)
	}
	if err != nil {
		return nil, err
	}
	b := &bridge{Network: e, record: n, unwatch: d.watchdog.Watch(e.Locks()...)}
	b.egress.Store(n)
	b.leave = d.captures.join(b)
	d.updatePolicy(b)
	return b, nil
}

func (b *bridge) close() error {
	b.leave()
	err := b.Close()
	b.unwatch()
	return err
}

// bridgeSlot is where a bridge is or will be. What is there is to be read once ready is closed.
type bridgeSlot struct {
	ready  chan struct{}
	bridge *bridge
	err    error
}

// bridgeFor returns the running bridge of n, making it where there is none. It is made without a lock, since that takes
// a gateway, threads and listeners; who asks for the same one meanwhile waits for it.
func (d *Daemon) bridgeFor(n *network.Network) (*bridge, error) {
	d.mu.Lock()
	slot, found := d.bridges[n.ID]
	if !found {
		slot = &bridgeSlot{ready: make(chan struct{})}
		d.bridges[n.ID] = slot
	}
	d.mu.Unlock()
	if found {
		<-slot.ready
		return slot.bridge, slot.err
	}
	if err := d.open(slot, n); err != nil {
		return nil, err
	}
	d.catchUpNetwork(slot.bridge) // changes from now on find the bridge in its place
	return slot.bridge, nil
}

// open makes n run, and has the bridge in its place, or the error.
func (d *Daemon) open(slot *bridgeSlot, n *network.Network) error {
	defer close(slot.ready)
	if slot.bridge, slot.err = d.newBridge(n); slot.err != nil {
		d.mu.Lock()
		if d.bridges[n.ID] == slot { // the next one tries again
			delete(d.bridges, n.ID)
		}
		d.mu.Unlock()
	}
	return slot.err
}

// bridge returns the running bridge of a network; nil: it does not run, or not yet.
func (d *Daemon) bridge(networkID string) *bridge {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bridges[networkID].now()
}

// now is what is there already.
func (s *bridgeSlot) now() *bridge {
	if s == nil {
		return nil
	}
	select {
	case <-s.ready:
		return s.bridge
	default:
		return nil
	}
}

// bridgeList are all running bridges.
func (d *Daemon) bridgeList() []*bridge {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*bridge
	for _, s := range d.bridges {
		if b := s.now(); b != nil {
			list = append(list, b)
		}
	}
	return list
}

// dropBridge ends the bridge of a removed network.
func (d *Daemon) dropBridge(networkID string) {
	d.mu.Lock()
	s := d.bridges[networkID]
	delete(d.bridges, networkID)
	d.mu.Unlock()
	if s == nil {
		return
	}
	<-s.ready
	if s.bridge == nil {
		return
	}
	if d.member != nil {
		d.member.Unjoin(networkID)
	}
	if err := s.bridge.close(); err != nil {
		d.log.Warn("network did not end cleanly", "network", s.bridge.record.Name, "error", err)
	}
}

// closeBridges ends all bridges.
func (d *Daemon) closeBridges() (errs []error) {
	d.mu.Lock()
	all := d.bridges
	d.bridges = map[string]*bridgeSlot{}
	d.mu.Unlock()
	for _, s := range all {
		<-s.ready
		if s.bridge != nil {
			errs = append(errs, s.bridge.close())
		}
	}
	return errs
}
