package cluster

import (
	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// follow takes over what changed, until the table is closed.
func (c *Cluster) follow(t *table.Table) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.Changed():
		}
		if t != c.Table() {
			return // the host has another identity
		}
		changes := t.TakeChanges()
		if changes.Duplicate != nil {
			c.becomeAnother(*changes.Duplicate)
			return // another goroutine follows
		}
		_ = isolate.Call(c.log, "the cluster's changes", func() error { c.changed(changes); return nil })
	}
}

// changed brings fabric and addresses in line with the table, and tells the daemon.
func (c *Cluster) changed(changes table.Changes) {
	t := c.Table()
	if changes.Usurped != nil {
		c.event("duplicate-host", map[string]string{"host": string(changes.Usurped.Owner)})
		c.log.Error(
			"another daemon has started with this host's id, from a copy of its state directory; it will draw another one",
		)
		c.putHost()
	}
	for _, conflict := range changes.Lost {
		c.event("conflict", map[string]string{"key": conflict.Own.Key, "host": string(conflict.Other.Owner)})
	}
	if changes.Hosts || changes.Synced {
		c.setPeers(t.Hosts())
	}
	if changes.Hosts {
		for id := range c.joinedNetworks() {
			changes.Endpoints[id] = true // which of them are down
		}
	}
	for id := range changes.Endpoints {
		c.setEntries(id)
	}
	if changes.Routes || changes.Hosts || changes.Synced || len(changes.Networks) > 0 {
		c.applyRoutes()
		c.tellOverlaps()
	}
	if changes.Synced {
		c.ended.Go(func() { c.exposeAgain(t) })
	}
	for id := range changes.Networks {
		if _, is := t.Network(id); !is {
			c.networkGone(t, id)
		}
	}
	if changes.Synced || len(changes.Networks) > 0 {
		c.ended.Go(func() { c.claimAhead(t) })
	}
	if c.cfg.Changed != nil {
		c.cfg.Changed(changes)
	}
}

// networkGone takes this host's blocks of a network away that was removed, and puts the network again where containers
// of this host are still on it: they were started while somebody removed it.
func (c *Cluster) networkGone(t *table.Table, id string) {
	if c.inUse(id) {
		return // the daemon still has its record, and puts it again
	}
	for _, b := range t.Blocks(id) {
		t.Drop(overlay.BlockKey(id, b.Prefix))
	}
	c.mu.Lock()
	delete(c.mu.leases, id)
	c.mu.Unlock()
}
