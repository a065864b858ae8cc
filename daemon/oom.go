package daemon

import (
	"path/filepath"
	"time"

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
	d.wg.Go(func() {
		for err := range d.oom.Errors {
			d.log.Debug("watching the memory of containers", "error", err)
		}
	})
	noteWrites(d.oom.Events, oomEvery, d.noteOOM)
}

// oomEvery is how often what is killed in a container is noted: a container may have 100 processes killed in a second,
// and each time is a record of the store, a line of the log and an event.
const oomEvery = time.Second

// noteWrites calls note with the id of a container whose file of events was written to, until events is closed: at once
// until note says that there was something to note, and then again after every where it was written to meanwhile. The
// kernel also writes what comes before a kill.
func noteWrites(events <-chan fsnotify.Event, every time.Duration, note func(id string) bool) {
	again := map[string]bool{} // those that were noted lately: whether there was more
	var over <-chan time.Time  // nil: there are none
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			id, ok := cgroup.ContainerOf(filepath.Dir(e.Name))
			if !ok || !e.Has(fsnotify.Write) {
				continue
			}
			if _, lately := again[id]; lately {
				again[id] = true
				continue
			}
			if !note(id) {
				continue
			}
			again[id] = false
			if over == nil {
				over = time.After(every)
			}
		case <-over:
			over = nil
			for id, more := range again {
				if !more || !note(id) {
					delete(again, id)
					continue
				}
				again[id] = false
				over = time.After(every)
			}
		}
	}
}

// noteOOM stores that processes of a container were killed for lack of memory, and tells of it, once for each time that
// it is found. It says whether there were any.
func (d *Daemon) noteOOM(id string) bool {
	c, err := d.model.Container(id)
	if err != nil {
		return false
	}
	g := d.cgroupOf(c)
	if g == nil {
		return false
	}
	n, err := g.OOMKills()
	if err != nil {
		return false // it is gone
	}
	kills := &d.runtime(c.ID).oomKills
	for {
		seen := kills.Load()
		if n <= seen {
			return false
		}
		if kills.CompareAndSwap(seen, n) {
			break
		}
	}
	if !c.OOMKilled {
		c, err = d.model.UpdateContainer(id, func(c *network.Container) error {
			c.OOMKilled = true
			return nil
		})
		if err != nil {
			return false
		}
	}
	d.containerEvent("oom", c, nil)
	d.log.Warn("the kernel has killed processes of a container that had no memory left", "container", c.Name,
		"id", c.ID[:12], "killed", n)
	return true
}
