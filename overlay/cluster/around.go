package cluster

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/table"
)

// lookPeriod is how often a host looks whether it has another address, and whom it reaches. There is no announcement of
// routes that would say so.
const lookPeriod = 2 * time.Second

// lookAround tells others when this host has another address, and the daemon when a host is reached or not any more.
func (c *Cluster) lookAround() {
	ticker := time.NewTicker(lookPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
			c.lookAtAddresses()
			c.lookAtPeers()
		}
	}
}

func (c *Cluster) lookAtAddresses() {
	addrs, err := c.cfg.Advertise.Resolve(c.cfg.Towards)
	if err != nil {
		return // a cable is out: the address may come back
	}
	c.mu.Lock()
	same := slices.Equal(addrs, c.mu.addrs)
	c.mu.addrs = addrs
	c.mu.Unlock()
	if same {
		return
	}
	c.log.Info("this host has other addresses", "addresses", addrs)
	if !c.cfg.Scattered {
		c.putHost()
		return
	}
	// The hosts themselves are what spreads records, and know a member by its address.
	id := c.Identity()
	id.Incarnation = max(id.Incarnation+1, uint64(c.cfg.Clock().UnixMilli()))
	if err := id.save(c.cfg.Dir); err != nil {
		c.log.Error("the new life of this host is not stored", "error", err)
	}
	c.reopen(id)
}

// maxSeen bounds the addresses that a host's record has of others.
const maxSeen = 8

// lookAtPeers notes who answers, at which addresses, and how much goes there.
func (c *Cluster) lookAtPeers() {
	c.mu.Lock()
	f := c.mu.fabric
	c.mu.Unlock()
	named := map[overlay.HostID][]netip.AddrPort{}
	for _, h := range c.Table().Hosts() {
		named[h.ID] = h.Addrs
	}
	reached, seen := map[overlay.HostID]bool{}, map[overlay.HostID]netip.AddrPort{}
	now := time.Now()
	c.mu.Lock()
	for _, p := range f.Peers() {
		if p.Host == "" {
			continue
		}
		r := c.mu.rates[p.Host]
		if r == nil {
			r = &rate{}
			c.mu.rates[p.Host] = r
		}
		r.add(now, p.BytesIn, p.BytesOut)
		if !p.Alive {
			continue
		}
		reached[p.Host] = true
		byUDP := p.Path == fabric.Direct || p.Path == fabric.Punched
		if byUDP && p.Addr.IsValid() && !slices.Contains(named[p.Host], p.Addr) &&
			len(seen) < maxSeen {
			seen[p.Host] = p.Addr // it is behind a NAT
		}
	}
	changed, moved := !maps.Equal(reached, c.mu.reached), !maps.Equal(seen, c.mu.seen)
	c.mu.reached, c.mu.seen = reached, seen
	c.mu.Unlock()
	if moved {
		c.putHost()
	}
	if changed && c.cfg.Changed != nil {
		changes := table.Changes{Networks: map[string]bool{}, Endpoints: map[string]bool{}, Hosts: true}
		for id := range c.joinedNetworks() {
			changes.Endpoints[id] = true
		}
		c.cfg.Changed(changes)
	}
}

// Reaches says whether a host answered of late on the path that frames take.
func (c *Cluster) Reaches(id overlay.HostID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.reached[id]
}

// rate is how many bytes a second go to and come from a host, of late.
type rate struct {
	at      time.Time
	in, out uint64
	perIn   float64
	perOut  float64
}

// add takes a new count.
func (r *rate) add(now time.Time, in, out uint64) {
	if passed := now.Sub(r.at).Seconds(); !r.at.IsZero() && passed > 0 && in >= r.in && out >= r.out {
		const weight = 0.5 // of the latest period: the rate of some seconds
		r.perIn += weight * (float64(in-r.in)/passed - r.perIn)
		r.perOut += weight * (float64(out-r.out)/passed - r.perOut)
	}
	r.at, r.in, r.out = now, in, out
}
