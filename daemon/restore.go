package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// restore brings the daemon in step with the model after a start. Containers whose sandbox still exists get their
// networks back, at the same addresses; the others are recorded as ended. Containers that were created but never
// started are removed, since the command that was about to start them failed with the last daemon. TAPs and stubs that
// were received are attached first, so that frames flow as early as possible.
func (d *Daemon) restore(r *received) {
	all := d.model.Containers()
	d.takeNamespaces(all, r)
	d.findNamespaces(all)
	lives := map[string]bool{}
	var living []*network.Container
	for _, c := range all {
		if c.Status == network.Running && d.alive(c) {
			lives[c.ID] = true
			living = append(living, c)
		}
	}
	d.attachReceived(living, r)
	var group sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // each waits for an agent process half of the time
	for _, c := range all {
		switch {
		case c.Status == network.Created && !(c.Monitor != 0 && sandbox.Alive(c.Monitor, c.MonitorStart)):
			if err := d.model.RemoveContainer(c.ID); err != nil {
				d.log.Warn("container not forgotten", "container", c.Name, "error", err)
			}
		case c.Status == network.Running && !lives[c.ID]:
			if err := d.ProcessExited(d.ctx, c.ID, c.Pid, d.exitStatus(c)); err != nil {
				d.log.Warn("container's end not recorded", "container", c.Name, "error", err)
			}
		case c.Status == network.Running:
			slots <- struct{}{}
			group.Go(func() {
				d.restoreContainer(c)
				<-slots
			})
		}
	}
	group.Wait()
	d.wg.Go(func() { d.resetAllOrphans(living) })
	d.updateAllNames()
	d.removeOrphanFiles()
	d.updateIdleTimer()
}

// alive says whether the sandbox of c is still there.
func (d *Daemon) alive(c *network.Container) bool {
	if c.Pid != 0 {
		return sandbox.Alive(c.Pid, c.PidStart)
	}
	if c.Holder != 0 {
		return sandbox.Alive(c.Holder, c.HolderStart)
	}
	if c.IsVM() {
		return vmAwaited(c.VM)
	}
	dev, ino, err := d.sandboxes.Namespace(c.NetNS)
	if c.NetNSID != (network.NamespaceID{}) {
		return d.target(c).File != nil || err == nil && network.NamespaceID{Dev: dev, Ino: ino} == c.NetNSID
	}
	return !errors.Is(err, os.ErrNotExist)
}

// restoreContainer sets up a container that went on running while no daemon ran.
func (d *Daemon) restoreContainer(c *network.Container) {
	ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
	defer cancel()
	s := d.runtime(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Moves {
		defer s.dropNamespace() // held, it would outlive the container
	}
	if c.Pid == 0 && c.Holder != 0 && !c.IsVM() && s.netns.Load() == nil {
		d.log.Info("container has no network until the process that has attached it asks again", "container", c.Name)
	} else if err := d.attachMissing(ctx, s, c); err != nil {
		d.teardown(s)
		d.log.Error("container has lost its network", "container", c.Name, "error", err)
	} else {
		// A port that another program has bound meanwhile must not cost the container its network too.
		if err := d.publishAll(ctx, s, c); err != nil {
			d.log.Error("ports of container are not published any more; publish them again with `usernet port`",
				"container", c.Name, "error", err)
		}
		d.storeHostPorts(s, c)
		d.log.Info("container has its network again", "container", c.Name)
	}
	d.watch(s, c)
	d.wg.Go(func() { d.updateFiles(c.ID) }) // the host's search domains may be others now
}

// removeOrphanFiles deletes files of containers that no longer exist.
func (d *Daemon) removeOrphanFiles() {
	if d.cfg.Starter != nil {
		d.removeOrphanJobs()
	}
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

// removeOrphanJobs deletes what was written down about how containers run that no longer exist. It is called before the
// daemon confines itself.
func (d *Daemon) removeOrphanJobs() {
	jobs, err := os.ReadDir(JobsDir(d.cfg.StateDir))
	if err != nil {
		return // none yet
	}
	for _, e := range jobs {
		id, _, _ := strings.Cut(e.Name(), ".") // a socket's name has a suffix
		if c, err := d.model.Container(id); err != nil || c.ID != id {
			if err := os.Remove(filepath.Join(JobsDir(d.cfg.StateDir), e.Name())); err != nil {
				d.log.Warn("file left behind", "path", e.Name(), "error", err)
			}
		}
	}
}
