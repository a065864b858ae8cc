package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// Containers with limits have a cgroup, which is made before each run and removed behind it. Their first process is
// started by cfg.Starter, also the first time: it is in the cgroup that was delegated to the daemon, from where alone
// the kernel lets a process be started in the container's. What `usernet run` starts itself is elsewhere, as in a
// login's.

// cgroupPatience bounds how long the removal of a container's cgroup waits for the end of its last processes.
const cgroupPatience = 5 * time.Second

// limitsOf are a container's limits as its cgroup has them.
func limitsOf(r network.Resources) cgroup.Limits {
	return cgroup.Limits{Memory: r.Memory, Swap: r.Swap(), NanoCPUs: r.NanoCPUs, Pids: r.PidsLimit}
}

// checkResources refuses limits that make no sense, or that nothing here could keep. Docker's daemon warns of those and
// runs the container without them; who asks for a limit relies on it.
func (d *Daemon) checkResources(r network.Resources) error {
	if err := r.Check(); err != nil || r.WithDefaults().IsZero() {
		return err
	}
	refuse := func(err error) error { return errdefs.About(errdefs.TopicCgroups, errdefs.Unavailable("%w", err)) }
	switch {
	case d.cfg.Cgroups == nil && d.cfg.NoCgroups != nil:
		return refuse(errors.Join(errors.New("containers cannot be limited here"), d.cfg.NoCgroups))
	case d.cfg.Cgroups == nil || d.cfg.Starter == nil:
		return refuse(errors.New("this daemon limits no containers"))
	}
	if missing := d.cfg.Cgroups.Missing(limitsOf(r)); len(missing) > 0 {
		return refuse(&cgroup.Unavailable{
			Reason: "the daemon's cgroup has no controller " + strings.Join(missing, ", "),
			Fix:    "have it delegated as well: Delegate=memory cpu pids in user@.service, or cgroup.subtree_control",
		})
	}
	return nil
}

// makeCgroup makes the cgroup of a container that is about to run, where it has limits, and stores which one it is.
func (d *Daemon) makeCgroup(c *network.Container) error {
	dir := ""
	if !c.Resources.IsZero() {
		if err := d.checkResources(c.Resources); err != nil {
			return err
		}
		g, err := d.cfg.Cgroups.Make(c.ID, limitsOf(c.Resources))
		if err != nil {
			return errdefs.About(errdefs.TopicCgroups, err)
		}
		dir = g.Dir()
		d.runtime(c.ID).oomKills.Store(0)
		d.watchMemory(g)
	}
	_, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Cgroup, c.OOMKilled = dir, false
		return nil
	})
	return err
}

// removeCgroup notes how the container has ended, and removes its cgroup, where there is one. The record names it until
// recordEnd. The caller holds the runtime's mu.
func (d *Daemon) removeCgroup(c *network.Container) {
	g := d.cgroupOf(c)
	if g == nil {
		return
	}
	d.noteOOM(c.ID)
	if d.oom != nil {
		_ = d.oom.Remove(g.EventsFile()) // or it was never watched
	}
	ctx, cancel := context.WithTimeout(d.ctx, cgroupPatience)
	defer cancel()
	if err := g.Remove(ctx); err != nil {
		d.log.Warn("cgroup of container left behind", "container", c.Name, "error", err)
	}
}

// cgroupOf is the container's cgroup; nil: it has none, or that is gone.
func (d *Daemon) cgroupOf(c *network.Container) *cgroup.Group {
	if c.Cgroup == "" {
		return nil
	}
	g, err := cgroup.Open(c.Cgroup)
	if err != nil {
		return nil
	}
	return g
}

// Usage is what a running container uses by its cgroup; nil where it has none.
func (d *Daemon) Usage(ref string) (*cgroup.Usage, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return nil, err
	}
	g := d.cgroupOf(c)
	if g == nil {
		return nil, nil
	}
	u, err := g.Usage()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it has just ended
	}
	return &u, err
}

// UpdateContainer changes limits, restart policy, labels and egress rules. Limits of a running container count at once,
// or it stays as it is. Labels count at once for the policies of its networks, on all hosts.
func (d *Daemon) UpdateContainer(_ context.Context, ref string, q api.UpdateRequest) error {
	s, c, err := d.lockContainer(ref)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := d.updateResources(c, q.Resources); err != nil {
		return err
	}
	if q.Restart != nil {
		if err := q.Restart.Check(); err != nil {
			return err
		}
		if c.AutoRemove && !q.Restart.IsNone() {
			return errdefs.Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		c, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
			c.Restart = *q.Restart
			return nil
		})
		if err != nil {
			return err
		}
	}
	if q.Egress != nil || q.AllowEgress != nil {
		if c, err = d.changeEgress(c, q); err != nil {
			return err
		}
	}
	if len(q.Labels)+len(q.RemoveLabels) > 0 {
		c, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
			labels := maps.Clone(c.Labels)
			if labels == nil {
				labels = map[string]string{}
			}
			for _, key := range q.RemoveLabels {
				delete(labels, key)
			}
			maps.Copy(labels, q.Labels)
			c.Labels = labels
			return nil
		})
		if err != nil {
			return err
		}
		d.updateNames(c.ID)
	}
	d.containerEvent("update", c, nil)
	return nil
}

// updateResources changes the limits of c that change has. The caller holds the runtime's mu.
func (d *Daemon) updateResources(c *network.Container, change network.Resources) error {
	if change.IsZero() {
		return nil
	}
	if c.Attached {
		return errdefs.Forbidden("container %s was attached: usernet limits nothing in it", c.Name)
	}
	now, err := c.Resources.Changed(change)
	if err != nil {
		return err
	}
	if err := d.checkResources(now); err != nil {
		return err
	}
	if c.InLife() {
		g := d.cgroupOf(c)
		if g == nil {
			return errdefs.Conflict(
				"container %s was started without a limit, and gets none while it runs: stop it, update it and start it",
				c.Name)
		}
		if err := g.Set(limitsOf(now)); err != nil {
			return errdefs.About(errdefs.TopicCgroups, err)
		}
	}
	_, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Resources = now
		return nil
	})
	return err
}

// cgroupRoots are the directories below which this daemon makes, changes and removes cgroups: what was delegated to it,
// and to the daemon that has started a container which runs.
func (d *Daemon) cgroupRoots() []string {
	var roots []string
	if d.cfg.Cgroups != nil {
		roots = append(roots, d.cfg.Cgroups.Root())
	}
	for _, c := range d.model.Containers() {
		if g := d.cgroupOf(c); g != nil && !slices.Contains(roots, filepath.Dir(g.Dir())) {
			roots = append(roots, filepath.Dir(g.Dir()))
		}
	}
	return roots
}
