package cluster

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/seal"
	"github.com/usernet/usernet/overlay/table"
)

// codecSockets is how a host says that it takes connections of containers; hosts of older versions do not.
const codecSockets = "sockets"

// codecChecksums is how a host says that it takes frames whose checksum was left to be done; those of older versions do
// as well, and do not say so.
const codecChecksums = "partial-checksums"

// putHost has others know where this host is.
func (c *Cluster) putHost() {
	c.mu.Lock()
	if c.mu.left {
		c.mu.Unlock()
		return
	}
	h := overlay.Host{
		ID:          c.mu.id.ID,
		Name:        c.cfg.Name,
		Incarnation: c.mu.id.Incarnation,
		Key:         c.mu.id.PublicKey(),
		Codecs:      []string{"vxlan", codecSockets, codecChecksums},
		Version:     c.cfg.Version,
	}
	h.Seen = maps.Clone(c.mu.seen)
	for _, a := range c.mu.addrs {
		h.Addrs = append(h.Addrs, netip.AddrPortFrom(a, c.mu.id.Port))
		for _, at := range c.mu.fabric.TCPAddrs() {
			if at.Addr().Is4() == a.Is4() {
				h.TCP = append(h.TCP, netip.AddrPortFrom(a, at.Port()))
			}
		}
	}
	t := c.mu.table
	c.mu.Unlock()
	value, err := overlay.Encode(h)
	if err == nil {
		err = t.Put(overlay.HostKey(h.ID), value)
	}
	if err != nil {
		c.log.Error("other hosts are not told of this one", "error", err)
	}
}

// setPeers tells the fabric of the hosts.
func (c *Cluster) setPeers(hosts []table.HostView) {
	c.mu.Lock()
	f, own := c.mu.fabric, c.mu.id.ID
	c.mu.Unlock()
	var peers []fabric.Peer
	for _, h := range hosts {
		if h.ID == own {
			continue
		}
		p := fabric.Peer{Host: h.ID, Addrs: h.Addrs, TCP: h.TCP, Key: h.Key,
			Sockets:          slices.Contains(h.Codecs, codecSockets),
			PartialChecksums: slices.Contains(h.Codecs, codecChecksums)}
		for _, o := range hosts {
			if a, is := o.Seen[h.ID]; is && o.ID != own {
				p.Seen = append(p.Seen, a)
			}
		}
		peers = append(peers, p)
	}
	if err := f.SetPeers(peers); err != nil {
		c.log.Warn("other hosts are not reached", "error", err)
	}
}

// keyRefused is told by the fabric of a host whose key does not count. A writer of the store could else take a host's
// place in sealed networks.
func (c *Cluster) keyRefused(err error) {
	c.log.Error("the key of a host is refused; if that host was made anew: usernet cluster leave HOST", "error", err)
	var changed *seal.ChangedKeyError
	if errors.As(err, &changed) {
		c.mu.Lock()
		c.mu.refused[changed.Host] = true
		c.mu.Unlock()
		c.event("key-refused", map[string]string{"host": string(changed.Host)})
	}
}
