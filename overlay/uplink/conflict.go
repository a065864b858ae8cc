package uplink

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/rate"
)

// An address is probed before it is used, announced when it is, and defended from then on, as RFC 5227 has it for IPv4
// and RFC 4862 for IPv6.

// How often an address is probed, and how long an answer is waited for each time. RFC 5227 section 1.1 waits for
// seconds, for bridges that begin to forward; here the device has been up for a while, and a container's start waits.
const (
	probes       = 3
	probeWait    = 250 * time.Millisecond
	defendEvery  = 10 * time.Second // DEFEND_INTERVAL, RFC 5227 section 1.1
	maxWatches   = 1024             // addresses that are probed at a time
	maxSaidAtOne = 8                // conflicts that are logged or answered at once, on one device
)

// watchKey is an address on a VLAN.
type watchKey struct {
	vlan uint16
	addr netip.Addr
}

// watch is who waits for a claim on an address.
type watch struct {
	mac   [6]byte // whose own claims do not count
	found chan net.HardwareAddr
}

// watches are the addresses that are probed.
type watches struct {
	sync.Mutex
	by map[watchKey][]*watch
}

func (w *watches) add(k watchKey, x *watch) bool {
	w.Lock()
	defer w.Unlock()
	if len(w.by) >= maxWatches {
		return false
	}
	if w.by == nil {
		w.by = map[watchKey][]*watch{}
	}
	w.by[k] = append(w.by[k], x)
	return true
}

func (w *watches) remove(k watchKey, x *watch) {
	w.Lock()
	defer w.Unlock()
	list := w.by[k]
	for i, y := range list {
		if x == y {
			w.by[k] = append(list[:i:i], list[i+1:]...)
		}
	}
	if len(w.by[k]) == 0 {
		delete(w.by, k)
	}
}

// tell tells who waits for a claim.
func (w *watches) tell(vlan uint16, c claim) {
	w.Lock()
	defer w.Unlock()
	for _, x := range w.by[watchKey{vlan, c.addr}] {
		if x.mac != c.mac {
			select {
			case x.found <- append(net.HardwareAddr(nil), c.mac[:]...):
			default: // one is enough
			}
		}
	}
}

// taken asks the stations of a VLAN, in the name of mac, who has an address; nil: nobody has.
func (d *device) taken(ctx context.Context, vlan uint16, mac net.HardwareAddr, a netip.Addr) (net.HardwareAddr, error) {
	x := &watch{mac: [6]byte(mac), found: make(chan net.HardwareAddr, 1)}
	k := watchKey{vlan, a}
	if !d.watches.add(k, x) {
		return nil, nil // as where nobody answers
	}
	defer d.watches.remove(k, x)
	tick := time.NewTicker(probeWait)
	defer tick.Stop()
	for range probes {
		_ = d.transmit(vlan, mac, probe(mac, a)) // a device that is gone may come back, and is no reason to wait
		select {
		case other := <-x.found:
			return other, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	return nil, nil
}

// Taken asks who has an address on a device; nil: nobody has.
func (s *Set) Taken(
	ctx context.Context, at Config, mac net.HardwareAddr, a netip.Addr,
) (net.HardwareAddr, error) {
	d, err := s.use(at.Device)
	if err != nil {
		return nil, err
	}
	defer s.release(d)
	return d.taken(ctx, at.VLAN, mac, a)
}

// Announce tells all on a device's VLAN who has addresses: their caches may have another station's.
func (s *Set) Announce(at Config, mac net.HardwareAddr, addrs []netip.Addr) {
	s.mu.Lock()
	d := s.devices[at.Device]
	s.mu.Unlock()
	if d == nil {
		return
	}
	for _, a := range addrs {
		_ = d.transmit(at.VLAN, mac, announcement(mac, a)) // nobody hears it where the device is gone
	}
}

// defence is which claims on a container's addresses were answered.
type defence struct {
	sync.Mutex
	last  map[netip.Addr]time.Time
	bound rate.Bucket
}

// due says whether a claim is to be answered and logged now.
func (d *defence) due(a netip.Addr, now time.Time) bool {
	d.Lock()
	defer d.Unlock()
	if d.last == nil {
		d.last, d.bound = map[netip.Addr]time.Time{}, rate.Bucket{PerSecond: 1, Burst: maxSaidAtOne}
	}
	if at, ok := d.last[a]; ok && now.Sub(at) < defendEvery || !d.bound.Allow(now, 1) {
		return false
	}
	for b, at := range d.last {
		if now.Sub(at) >= defendEvery {
			delete(d.last, b)
		}
	}
	d.last[a] = now
	return true
}

// heard takes note of a claim: who probes the address is told, and an address of a container is defended, once in
// defendEvery.
func (d *device) heard(vlan uint16, l *Link, c claim) {
	d.watches.tell(vlan, c)
	if l == nil {
		return
	}
	mac, ok := l.engine.Find(c.addr)
	if !ok || mac == c.mac || c.probe { // the container's kernel answers probes
		return
	}
	if !d.defence.due(c.addr, time.Now()) {
		return
	}
	d.log.Warn("another station has a container's address: it is defended", "address", c.addr, "vlan", vlan,
		"station", net.HardwareAddr(c.mac[:]).String(), "container", net.HardwareAddr(mac[:]).String())
	_ = d.transmit(vlan, mac[:], announcement(mac[:], c.addr)) // as above
}
