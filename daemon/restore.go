package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// restore makes again what ran when the last daemon ended: containers that still live get their networks back, at the
// same addresses; the others are recorded as ended. Containers that were created but never started are forgotten,
// since the command that was about to start them failed with its daemon. First of all frames flow again where that daemon
// has handed over what it takes.
func (d *Daemon) restore(r *received) {
	all := d.model.Containers()
	d.adoptNamespaces(all, r)
	d.findNamespaces(all)
	lives := map[string]bool{}
	var living []*network.Container
	for _, c := range all {
		if c.Status == network.Running && d.alive(c) {
			lives[c.ID] = true
			living = append(living, c)
		}
	}
	d.adopt(living, r)
	var group sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // each waits for an agent process half of the time
	for _, c := range all {
		switch {
		case c.Status == network.Created && !(c.Monitor != 0 && sandbox.Alive(c.Monitor, c.MonitorStart)):
			if err := d.model.RemoveContainer(c.ID); err != nil {
				d.log.Warn("container not forgotten", "container", c.Name, "error", err)
			}
		case c.Status == network.Running && !lives[c.ID]:
			if err := d.ContainerExited(d.ctx, c.ID, d.exitStatus(c)); err != nil {
				d.log.Warn("container's end not recorded", "container", c.Name, "error", err)
			}
		case c.Status == network.Running:
			slots <- struct{}{}
			group.Go(func() {
				d.revive(c)
				<-slots
			})
		}
	}
	group.Wait()
	d.wg.Go(func() { d.resetAllStale(living) })
	d.updateAllNames()
	d.sweep()
	d.touchIdle()
}

// alive says whether the sandbox of c is still there.
func (d *Daemon) alive(c *network.Container) bool {
	if c.Pid != 0 {
		return sandbox.Alive(c.Pid, c.PidStart)
	}
	if c.Holder != 0 {
		return sandbox.Alive(c.Holder, c.HolderStart)
	}
	dev, ino, err := d.inside.Namespace(c.NetNS)
	if c.NetNSID != (network.NamespaceID{}) {
		return d.target(c).File != nil || err == nil && network.NamespaceID{Dev: dev, Ino: ino} == c.NetNSID
	}
	return !errors.Is(err, os.ErrNotExist)
}

// revive wires a container that lived on without a daemon.
func (d *Daemon) revive(c *network.Container) {
	ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
	defer cancel()
	s := d.box(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Pid == 0 && c.Holder != 0 && s.netns.Load() == nil {
		d.log.Info("container has no network until the process that has attached it asks again", "container", c.Name)
	} else if err := d.plugMissing(ctx, s, c); err != nil {
		d.unwire(s)
		d.log.Error("container has lost its network", "container", c.Name, "error", err)
	} else {
		// What took one of its ports meanwhile must not cost it its network too.
		if err := d.publishAll(ctx, s, c); err != nil {
			d.log.Error("ports of container are not published any more; publish them again with `usernet port`", "container", c.Name, "error", err)
		}
		d.rememberPorts(s, c)
		d.log.Info("container has its network again", "container", c.Name)
	}
	d.watch(s, c)
	d.wg.Go(func() { d.updateFiles(c.ID) }) // the host's search domains may be others now
}

// sweep deletes files of containers that no longer exist.
func (d *Daemon) sweep() {
	dirs, err := os.ReadDir(filepath.Join(d.cfg.StateDir, "containers"))
	if err != nil {
		return // none yet
	}
	for _, e := range dirs {
		if c, err := d.model.Container(e.Name()); err != nil || c.ID != e.Name() {
			if err := os.RemoveAll(d.containerDir(e.Name())); err != nil {
				d.log.Warn("files left behind", "path", d.containerDir(e.Name()), "error", err)
			}
		}
	}
}
