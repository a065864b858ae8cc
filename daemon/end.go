package daemon

import (
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// reportGrace is how long after its process a container's monitor may take to report the exit status.
const reportGrace = 10 * time.Second

// ContainerExited records that a container ended, releases what it held, and removes it where that was asked for, or
// has it run again where its policy says so. Of several reports the first counts.
func (d *Daemon) ContainerExited(ctx context.Context, ref string, code int) error {
	return d.ProcessExited(ctx, ref, 0, code)
}

// ProcessExited is ContainerExited where the container's first process is pid. A report about an earlier process counts
// for nothing.
func (d *Daemon) ProcessExited(_ context.Context, ref string, pid, code int) error {
	s, c, err := d.lockContainer(ref)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c.Status == network.Exited || c.Status == network.Restarting || pid != 0 && c.Pid != 0 && pid != c.Pid {
		return nil
	}
	if s.stop != nil {
		s.stop()
	}
	s.discardMoving(c)
	d.teardown(s)
	if c.Attached {
		d.removeInterfaces(c, interfacesOf(c))
		defer s.dropNamespace()
	}
	d.removeCgroup(c)
	endpoints := c.Endpoints
	goes := c.Attached || c.AutoRemove && !s.again.byUser
	c, runsAgain, err := d.recordEnd(s, c, code, goes)
	if err != nil {
		d.log.Error("end of container not stored", "container", ref, "error", err)
		return err
	}
	ended := s.life.Swap(newLife())
	ended.code = code
	close(ended.ended)
	d.updateNames(c.ID)
	d.removeSharedInterfaces(c.ID, endpoints)
	d.refreshLinkedHosts(c.Name)
	d.containerEvent(
		"die",
		c,
		map[string]string{
			"exitCode":     strconv.Itoa(code),
			"execDuration": strconv.Itoa(int(c.Finished.Sub(c.Started).Seconds())),
		},
	)
	for _, e := range endpoints {
		d.endpointEvent("disconnect", c, e)
	}
	d.log.Info("container ended", "container", c.Name, "id", c.ID[:12], "code", code)
	switch {
	case runsAgain:
		d.runLater(s, c)
	case goes:
		d.removed(s, c)
	}
	d.updateIdleTimer()
	return nil
}

// recordEnd stores that c has ended, or removes its record where it goes with its end: each is one change, since the
// caller waits for the disk. One that runs again keeps its addresses until then: by its policy, of which runsAgain
// tells, or since a user restarts it. The caller holds s.mu.
func (d *Daemon) recordEnd(
	s *containerRuntime, c *network.Container, code int, goes bool,
) (ended *network.Container, runsAgain bool, err error) {
	end := func(c *network.Container) error {
		// Here, so that it is known who has noted meanwhile that a user stops it.
		runsAgain = !goes && c.RunsAgain(code) && !s.again.byUser && d.cfg.Starter != nil
		status := network.Exited
		if runsAgain || !goes && s.again.byUser {
			status = network.Restarting
		}
		c.Status, c.ExitCode, c.Finished, c.Pid, c.Monitor, c.Holder = status, code, time.Now(), 0, 0, 0
		c.Cgroup = ""
		if status == network.Restarting {
			c.UserNSID = network.NamespaceID{} // it is gone, and its number may be another's soon
		}
		return nil
	}
	if goes {
		return c, false, errors.Join(end(c), d.model.RemoveContainer(c.ID))
	}
	ended, err = d.model.EndContainer(c.ID, end)
	return ended, runsAgain, err
}

// removeSharedInterfaces removes the interfaces of an ended container from its network namespace where other containers
// that share the namespace go on. They keep the loopback interface.
func (d *Daemon) removeSharedInterfaces(owner string, endpoints []*network.Endpoint) {
	var names []string
	for _, e := range endpoints {
		if e.Interface != "" {
			names = append(names, e.Interface)
		}
	}
	if len(names) == 0 {
		return
	}
	for _, c := range d.model.Find(network.SharingWith(owner)) {
		if c.Status != network.Running {
			continue
		}
		ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
		_, err := d.sandboxes.Configure(ctx, d.target(c), sandbox.Request{Remove: names, NoDNSStub: true})
		cancel()
		if err == nil {
			return // all containers that share it are in the same namespace
		}
		d.log.Debug("interfaces left with a container that shares them", "container", c.Name, "error", err)
	}
}

// remove deletes the record and the files of an ended container. The caller holds s.mu.
func (d *Daemon) remove(s *containerRuntime, c *network.Container) error {
	err := d.model.RemoveContainer(c.ID)
	if err == nil {
		d.removed(s, c)
	}
	return err
}

// removed does what comes after the removal of a container's record. The caller holds s.mu.
func (d *Daemon) removed(s *containerRuntime, c *network.Container) {
	s.dropNamespace()
	d.forget(s)
	if s.again.cancel != nil {
		s.again.cancel()
	}
	d.containerEvent("destroy", c, nil)
	if d.cfg.Starter != nil {
		d.cfg.Starter.Forget(c.ID)
	}
	d.removeVMFiles(c)
	if err := os.RemoveAll(d.containerDir(c.ID)); err != nil {
		d.log.Warn("files of container left behind", "container", c.Name, "error", err)
	}
}

// RemoveContainer forgets a container. For a running one it is an error unless force is set: then it is killed first,
// or where it is attached detached, so that its interfaces go and its processes stay.
func (d *Daemon) RemoveContainer(ctx context.Context, ref string, force bool) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	if c.Status == network.Restarting && !force {
		return errdefs.Conflict("cannot remove container %q: container is restarting: stop the container before "+
			"removing or force remove", "/"+c.Name)
	}
	if c, err = d.stopRestarting(ctx, c); err != nil {
		return err
	}
	switch {
	case c.Status == network.Running && c.Attached && force:
		return d.detach(ctx, c.ID)
	case c.Status == network.Running && c.Attached:
		return errdefs.Conflict(
			"cannot remove container %q: it is attached and running: take usernet out of it with "+
				"`usernet detach %s`, or force remove",
			"/"+c.Name, c.Name)
	case c.Status == network.Running && !force:
		return errdefs.Conflict(
			"cannot remove container %q: container is running: stop the container before removing or force remove",
			"/"+c.Name)
	case c.Status == network.Running:
		if err := d.killAndWait(ctx, c); err != nil {
			if c.AutoRemove && errors.Is(err, errdefs.ErrNotFound) {
				return nil // it was removed at its end, in the meantime
			}
			return err
		}
		if c, err = d.model.Container(c.ID); err != nil {
			return nil // it was to be removed at its end
		}
	}
	s, now, err := d.lockContainer(c.ID)
	if err != nil {
		if c.AutoRemove && errors.Is(err, errdefs.ErrNotFound) {
			return nil // it was removed at its end, in the meantime
		}
		return err
	}
	if now.Status == network.Running || now.Status == network.Restarting && !force { // it was started meanwhile
		s.mu.Unlock()
		return d.RemoveContainer(ctx, c.ID, force)
	}
	defer s.mu.Unlock()
	d.teardown(s)
	defer func() { d.updateNames(c.ID); d.updateIdleTimer() }()
	return d.remove(s, now)
}

// killAndWait kills a running container, and returns when it has ended.
func (d *Daemon) killAndWait(ctx context.Context, c *network.Container) error {
	c, err := d.noteStopped(c)
	if err != nil {
		return err
	}
	if err := d.kill(c, syscall.SIGKILL); err != nil {
		return err
	}
	_, err = d.WaitContainer(ctx, c.ID, api.WaitNotRunning)
	return err
}

// detach takes usernet's interfaces out of a sandbox that something else owns.
func (d *Daemon) detach(ctx context.Context, ref string) error {
	s, c, err := d.running(ref)
	if err != nil {
		return err
	}
	if c.IsVM() || c.Moves { // its interface goes with the descriptor
		s.mu.Unlock()
		return d.ContainerExited(ctx, c.ID, 0)
	}
	var names []string
	for _, e := range c.Endpoints {
		names = append(names, e.Interface)
	}
	s.closeStub() // the kernel removes the rules that lead to the stub when their socket is closed
	d.awaitStore()
	if _, err := d.sandboxes.Configure(ctx, d.target(c), sandbox.Request{
		Remove:      names,
		RemoveLocal: localAddrs(c),
		NoDNSStub:   true,
	}); err != nil {
		d.log.Debug("interfaces left in a sandbox that is gone", "container", c.Name, "error", err)
	}
	s.mu.Unlock()
	return d.ContainerExited(ctx, c.ID, 0)
}
