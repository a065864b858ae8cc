package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// startGrace is how long a created container may wait for its start. Commands start what they create within
// milliseconds; one that died in between must not hold a name and addresses forever.
const startGrace = time.Minute

func (d *Daemon) removeUnstarted(id string) {
	if d.ctx.Err() != nil {
		return
	}
	if c, err := d.model.Container(id); err == nil && c.Status == network.Created {
		if err := d.RemoveContainer(d.ctx, id, false); err != nil {
			d.log.Warn("container that was never started is kept", "container", c.Name, "error", err)
		}
	}
}

// StartContainer sets up the sandbox of a container that was created, or runs again. On an error it stays what it is.
func (d *Daemon) StartContainer(ctx context.Context, ref string, p api.Started) (api.StartReply, error) {
	began := time.Now()
	s, c, err := d.lockContainer(ref)
	if err != nil {
		return api.StartReply{}, err
	}
	defer s.mu.Unlock()
	if c, err = d.identify(c, p); err != nil {
		return api.StartReply{}, err
	}
	userns := d.findUserNamespace(c, p.Pid)
	s.health.Store(nil)
	// What the container's last end has left there would be taken for the next one.
	if err := os.Remove(d.exitFile(c.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return api.StartReply{}, err
	}
	if err := d.setup(ctx, s, c); err != nil {
		if _, why := userns(); why != nil { // of a process that cannot be looked at, it says more
			err = why
		}
		return api.StartReply{}, err
	}
	in, err := userns()
	if err == nil {
		c, err = d.model.UpdateBound(c.ID, s.bound.All(), func(c *network.Container) error {
			c.Status, c.Started, c.Error = network.Running, time.Now(), ""
			c.ExitCode, c.UserNSID = 0, in
			return nil
		})
	}
	if err != nil {
		d.teardown(s)
		return api.StartReply{}, err
	}
	d.updateNames(c.ID)
	d.watch(s, c)
	d.refreshLinkedHosts(c.Name)
	for _, e := range c.Endpoints {
		d.endpointEvent("connect", c, e)
	}
	d.containerEvent("start", c, nil)
	d.starts.Observe(time.Since(began))
	d.log.Info("container started", "container", c.Name, "id", c.ID[:12], "pid", c.Pid)
	return d.startReply(c), nil
}

// startReply has the texts for the sandbox: none where it uses the host's network, the owner's where it shares the
// network of another container.
func (d *Daemon) startReply(c *network.Container) api.StartReply {
	owner := c
	switch ref, shared := strings.CutPrefix(c.NetworkMode, "container:"); {
	case c.NetworkMode == network.HostName:
		return api.StartReply{Hostname: c.Hostname}
	case shared:
		o, err := d.model.Container(ref)
		if err == nil && o.NetworkMode == network.HostName {
			return api.StartReply{}
		}
		if err == nil {
			owner = o
		}
	}
	files := d.filesOf(owner)
	return api.StartReply{ResolvConf: files.ResolvConf, Hosts: files.Hosts, Hostname: owner.Hostname}
}

// identify stores which processes a created container consists of, before anything is done in its namespaces.
func (d *Daemon) identify(c *network.Container, p api.Started) (*network.Container, error) {
	if p.Pid == 0 && c.NetNS == "" && !c.IsVM() && c.NetNSID == (network.NamespaceID{}) {
		return nil, errdefs.Invalid("container %s: neither a pid nor a network namespace was given", c.Name)
	}
	var start, monitorStart, holderStart uint64
	var err error
	if p.Pid != 0 {
		if start, err = sandbox.StartTime(p.Pid); err != nil {
			return nil, processError(c, p.Pid, err)
		}
	}
	if p.Monitor != 0 {
		if monitorStart, err = sandbox.StartTime(p.Monitor); err != nil {
			return nil, processError(c, p.Monitor, err)
		}
	}
	if p.Holder != 0 {
		if holderStart, err = sandbox.StartTime(p.Holder); err != nil {
			return nil, processError(c, p.Holder, err)
		}
	}
	return d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		if c.Status != network.Created && c.Status != network.Restarting {
			return errdefs.Conflict("container %s was started before", c.Name)
		}
		c.Pid, c.PidStart = p.Pid, start
		c.Monitor, c.MonitorStart = p.Monitor, monitorStart
		c.Holder, c.HolderStart = p.Holder, holderStart
		if !c.Attached {
			c.UserNSID = network.NamespaceID{} // of an earlier run
		}
		return nil
	})
}

// processError says what is wrong with a process of a container that is about to start.
func processError(c *network.Container, pid int, err error) error {
	if !c.Attached { // run has made it: either it has just ended, or its number is nobody's or another's here
		err = fmt.Errorf(
			"%w; where usernet is called in a container, or in another pid namespace than the daemon's, it needs "+
				"a daemon there: "+
				"unset USERNET_HOST, and set XDG_RUNTIME_DIR and XDG_STATE_HOME to directories of the "+
				"container's own",
			err,
		)
	}
	return errdefs.Invalid("process %d of container %s: %w", pid, c.Name, err)
}

// findUserNamespace looks for the user namespace of a container's first process, by which the API knows its processes,
// while its network is made. Nothing of the command runs before both are done.
func (d *Daemon) findUserNamespace(c *network.Container, pid int) (wait func() (network.NamespaceID, error)) {
	if pid == 0 || c.Attached {
		return func() (network.NamespaceID, error) { return c.UserNSID, nil }
	}
	type answer struct {
		id  network.NamespaceID
		err error
	}
	found := make(chan answer, 1)
	d.wg.Go(func() {
		id, err := d.userNamespaceFor(c, pid)
		if err != nil && !errors.Is(err, errdefs.ErrConflict) {
			err = processError(c, pid, err)
		}
		found <- answer{id, err}
	})
	return func() (network.NamespaceID, error) {
		a := <-found
		return a.id, a.err
	}
}
