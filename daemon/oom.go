package daemon

import (
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/network"
)

// openCgroups takes up the cgroups of containers that run, and removes those of others. It is called by New, once the
// containers are restored.
func (d *Daemon) openCgroups() {
	if d.cfg.Cgroups == nil {
		return
	}
	var err error
	if d.oom, err = fsnotify.NewWatcher(); err != nil {
		d.log.Warn("processes that are killed for lack of memory are noticed at their container's end", "error", err)
	} else {
		d.wg.Go(d.followMemory)
	}
	living := map[string]bool{}
	for _, c := range d.model.Containers() {
		g := d.cgroupOf(c)
		if g == nil {
			continue
		}
		living[c.ID] = true
		if n, err := g.OOMKills(); err == nil && c.OOMKilled {
			d.runtime(c.ID).oomKills.Store(n) // the last daemon has told of them
		}
		d.watchMemory(g)
		d.noteOOM(c.ID)
	}
	if err := d.cfg.Cgroups.Sweep(d.ctx, func(id string) bool { return living[id] }); err != nil {
		d.log.Warn("cgroups of ended containers left behind", "error", err)
	}
}

// watchMemory has followMemory told of what happens to a group's memory.
func (d *Daemon) watchMemory(g *cgroup.Group) {
	if d.oom == nil {
		return
	}
	if err := d.oom.Add(g.EventsFile()); err != nil {
		d.log.Debug("memory of a container is not watched", "cgroup", g.Dir(), "error", err)
	}
}

// followMemory notes the processes that the kernel kills for lack of memory, when it does, until the watcher is closed.
func (d *Daemon) followMemory() {
	errs := d.oom.Errors
	for {
		select {
		case e, ok := <-d.oom.Events:
			if !ok {
				return
			}
			if id, ok := cgroup.ContainerOf(filepath.Dir(e.Name)); ok && e.Has(fsnotify.Write) {
				d.noteOOM(id)
			}
		case err, ok := <-errs:
			if !ok {
				errs = nil // Events is closed as well
				continue
			}
			d.log.Debug("watching the memory of containers", "error", err)
		}
	}
}

// noteOOM stores that processes of a container were killed for lack of memory, and tells of it, once for each time that
// it is found.
func (d *Daemon) noteOOM(id string) {
	c, err := d.model.Container(id)
	if err != nil {
		return
	}
	g := d.cgroupOf(c)
	if g == nil {
		return
	}
	n, err := g.OOMKills()
	if err != nil {
		return // it is gone
	}
	kills := &d.runtime(c.ID).oomKills
	for {
		seen := kills.Load()
		if n <= seen {
			return
		}
		if kills.CompareAndSwap(seen, n) {
			break
		}
	}
	c, err = d.model.UpdateContainer(id, func(c *network.Container) error {
		c.OOMKilled = true
		return nil
	})
	if err != nil {
		return
	}
	d.containerEvent("oom", c, nil)
	d.log.Warn("the kernel has killed processes of a container that had no memory left", "container", c.Name,
		"id", c.ID[:12], "killed", n)
}
