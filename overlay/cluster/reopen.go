package cluster

import (
	"errors"
	"slices"

	"github.com/usernet/usernet/overlay/table"
)

// becomeAnother draws a new identity, since another daemon with this one is there before: the state directory is a
// copy.
func (c *Cluster) becomeAnother(other table.Row) {
	c.log.Error(
		"another daemon has this host's id: the state directory is a copy of another host's. This host draws a new id",
		"id",
		c.Identity().ID,
	)
	id := newIdentity()
	c.mu.Lock()
	id.Incarnation = c.mu.id.Incarnation
	c.mu.Unlock()
	if err := id.save(c.cfg.Dir); err != nil {
		c.log.Error("this host goes on without a cluster", "error", err)
		return
	}
	c.event("duplicate-host", map[string]string{"host": string(other.Owner), "new": string(id.ID)})
	c.reopen(id)
}

// reopen makes table, fabric and backend anew, for another identity or another address.
func (c *Cluster) reopen(id Identity) {
	c.mu.Lock()
	t, f, old := c.mu.table, c.mu.fabric, c.mu.joined
	if id.ID != c.mu.id.ID {
		c.mu.leases = map[string]*leases{} // those blocks are the other's
	}
	c.mu.id, c.mu.joined = id, map[string]*joined{}
	for container, list := range c.mu.own {
		list = slices.Clone(list)
		for i := range list {
			list[i].Host, list[i].Incarnation = id.ID, id.Incarnation
		}
		c.mu.own[container] = list
	}
	c.mu.Unlock()
	for _, j := range old {
		j.trunk.Detach()
	}
	if err := errors.Join(t.Close(), f.Close()); err != nil {
		c.log.Warn("what reached other hosts did not end cleanly", "error", err)
	}
	if err := c.open(); err != nil {
		c.log.Error("this host goes on without a cluster", "error", err)
		return
	}
	for _, j := range old {
		if err := c.Join(j.network, j.engine); err != nil {
			c.log.Error("a network does not reach other hosts any more", "network", j.network.Name, "error", err)
		}
	}
	c.run()
	c.putEndpoints()
}
