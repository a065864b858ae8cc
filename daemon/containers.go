package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// Containers returns all containers, ended ones included.
func (d *Daemon) Containers() []*network.Container { return d.model.Containers() }

// Container finds one by id, name or unique id prefix.
func (d *Daemon) Container(ref string) (*network.Container, error) { return d.model.Container(ref) }

// CreateContainer reserves name and addresses for a container that StartContainer will then wire.
func (d *Daemon) CreateContainer(_ context.Context, spec network.ContainerSpec) (*network.Container, []string, error) {
	if err := checkEgress(spec.Egress, spec.AllowEgress); err != nil {
		return nil, nil, err
	}
	if err := checkServers(spec.DNS); err != nil {
		return nil, nil, err
	}
	c, warnings, err := d.model.CreateContainer(spec)
	if err != nil {
		return nil, nil, err
	}
	d.touchIdle()
	d.containerEvent("create", c, nil)
	time.AfterFunc(startGrace, func() { d.forgetUnstarted(c.ID) })
	return c, warnings, nil
}

// startGrace is how long a created container may wait for its start. Commands start what they create within
// milliseconds; one that died in between must not hold a name and addresses forever.
const startGrace = time.Minute

func (d *Daemon) forgetUnstarted(id string) {
	if d.ctx.Err() != nil {
		return
	}
	if c, err := d.model.Container(id); err == nil && c.Status == network.Created {
		if err := d.RemoveContainer(d.ctx, id, false); err != nil {
			d.log.Warn("container that was never started is kept", "container", c.Name, "error", err)
		}
	}
}

// StartContainer wires the sandbox of a created container. On an error the container stays created.
func (d *Daemon) StartContainer(ctx context.Context, ref string, p api.Started) (api.StartReply, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return api.StartReply{}, err
	}
	s := d.box(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, err = d.identify(c, p); err != nil {
		return api.StartReply{}, err
	}
	if err := d.wire(ctx, s, c); err != nil {
		return api.StartReply{}, err
	}
	c, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Status, c.Started, c.Error, c.Bound = network.Running, time.Now(), "", chosenPorts(s)
		return nil
	})
	if err != nil {
		d.unwire(s)
		return api.StartReply{}, err
	}
	d.updateNames(c.ID)
	d.watch(s, c)
	d.updateLinkers(c.Name)
	for _, e := range c.Endpoints {
		d.endpointEvent("connect", c, e)
	}
	d.containerEvent("start", c, nil)
	d.log.Info("container started", "container", c.Name, "id", c.ID[:12], "pid", c.Pid)
	return d.startReply(c), nil
}

// ContainerFiles implements api.Backend.
func (d *Daemon) ContainerFiles(ref string) (api.StartReply, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return api.StartReply{}, err
	}
	return d.startReply(c), nil
}

// startReply has the texts for the sandbox: none where it uses the host's network, the owner's where it shares the network
// of another container.
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
	if p.Pid == 0 && c.NetNS == "" && c.NetNSID == (network.NamespaceID{}) {
		return nil, errdefs.Invalid("container %s: neither a pid nor a network namespace was given", c.Name)
	}
	fail := func(pid int, err error) (*network.Container, error) {
		if !c.Attached { // run has made it: either it has just ended, or its number is nobody's or another's here
			err = fmt.Errorf("%w; where usernet is called in a container, or in another pid namespace than the daemon's, it needs a daemon there: "+
				"unset USERNET_HOST, and set XDG_RUNTIME_DIR and XDG_STATE_HOME to directories of the container's own", err)
		}
		return nil, errdefs.Invalid("process %d of container %s: %w", pid, c.Name, err)
	}
	var start, monitorStart, holderStart uint64
	userns := c.UserNSID
	var err error
	if p.Pid != 0 {
		if start, err = sandbox.StartTime(p.Pid); err != nil {
			return fail(p.Pid, err)
		}
	}
	if p.Pid != 0 && !c.Attached {
		if userns, err = d.userNamespaceFor(c, p.Pid); err != nil {
			return fail(p.Pid, err)
		}
	}
	if p.Monitor != 0 {
		if monitorStart, err = sandbox.StartTime(p.Monitor); err != nil {
			return fail(p.Monitor, err)
		}
	}
	if p.Holder != 0 {
		if holderStart, err = sandbox.StartTime(p.Holder); err != nil {
			return fail(p.Holder, err)
		}
	}
	return d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		if c.Status != network.Created {
			return errdefs.Conflict("container %s was started before", c.Name)
		}
		c.Pid, c.PidStart, c.UserNSID = p.Pid, start, userns
		c.Monitor, c.MonitorStart = p.Monitor, monitorStart
		c.Holder, c.HolderStart = p.Holder, holderStart
		return nil
	})
}

// reportGrace is how long after its process a container's monitor may take to report the exit status.
const reportGrace = 10 * time.Second

// ContainerExited records that a container ended, releases what it held, and removes it where that was asked for.
// Of several reports the first counts.
func (d *Daemon) ContainerExited(_ context.Context, ref string, code int) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	s := d.box(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ended:
		return nil
	default:
	}
	if s.stop != nil {
		s.stop()
	}
	d.unwire(s)
	if c.Attached {
		d.removeInterfaces(c)
		defer s.dropNamespace()
	}
	endpoints := c.Endpoints
	c, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Status, c.ExitCode, c.Finished, c.Pid, c.Monitor, c.Holder = network.Exited, code, time.Now(), 0, 0, 0
		return nil
	})
	if err == nil {
		err = d.model.ReleaseEndpoints(c.ID)
	}
	if err != nil {
		d.log.Error("end of container not stored", "container", ref, "error", err)
		return err
	}
	s.code = code
	close(s.ended)
	d.updateNames(c.ID)
	d.leaveGuests(c.ID, endpoints)
	d.updateLinkers(c.Name)
	d.containerEvent("die", c, map[string]string{"exitCode": strconv.Itoa(code), "execDuration": strconv.Itoa(int(c.Finished.Sub(c.Started).Seconds()))})
	for _, e := range endpoints {
		d.endpointEvent("disconnect", c, e)
	}
	d.log.Info("container ended", "container", c.Name, "id", c.ID[:12], "code", code)
	if c.AutoRemove || c.Attached {
		err = d.remove(s, c)
	}
	d.touchIdle()
	return err
}

// leaveGuests takes the interfaces of an ended container out of its network namespace where others that share it live on:
// loopback is what remains to them.
func (d *Daemon) leaveGuests(owner string, endpoints []*network.Endpoint) {
	var names []string
	for _, e := range endpoints {
		if e.Interface != "" {
			names = append(names, e.Interface)
		}
	}
	for _, c := range d.model.Containers() {
		if c.NetworkMode != "container:"+owner || c.Status != network.Running || len(names) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
		_, err := d.inside.Configure(ctx, d.target(c), sandbox.Request{Remove: names, NoDNSStub: true})
		cancel()
		if err == nil {
			return // all guests are in the same namespace
		}
		d.log.Debug("interfaces left with a container that shares them", "container", c.Name, "error", err)
	}
}

// updateLinkers brings /etc/hosts of the containers up to date that have a link on the default bridge to one of targets,
// after it came, went, moved or got another name.
func (d *Daemon) updateLinkers(targets ...string) {
	for _, id := range d.names.Linkers(targets...) {
		if d.ctx.Err() == nil {
			d.wg.Go(func() { d.updateFiles(id) }) // not here: the caller holds a container's lock
		}
	}
}

// remove forgets an ended container and its files. The caller holds s.mu.
func (d *Daemon) remove(s *sandboxState, c *network.Container) error {
	if err := d.model.RemoveContainer(c.ID); err != nil {
		return err
	}
	s.dropNamespace()
	d.mu.Lock()
	delete(d.sandboxes, s.id)
	s.unwatch()
	d.mu.Unlock()
	close(s.removed)
	d.containerEvent("destroy", c, nil)
	if err := os.RemoveAll(d.containerDir(c.ID)); err != nil {
		d.log.Warn("files of container left behind", "container", c.Name, "error", err)
	}
	return nil
}

// RemoveContainer forgets a container. For a running one it is an error unless force is set: then it is killed first, or where it is
// attached detached, so that its interfaces go and its processes stay.
func (d *Daemon) RemoveContainer(ctx context.Context, ref string, force bool) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	switch {
	case c.Status == network.Running && c.Attached && force:
		return d.detach(ctx, c.ID)
	case c.Status == network.Running && c.Attached:
		return errdefs.Conflict("cannot remove container %q: it is attached and running: take usernet out of it with `usernet detach %s`, or force remove", "/"+c.Name, c.Name)
	case c.Status == network.Running && !force:
		return errdefs.Conflict("cannot remove container %q: container is running: stop the container before removing or force remove", "/"+c.Name)
	case c.Status == network.Running:
		if err := d.kill(c, syscall.SIGKILL); err != nil {
			return err
		}
		if _, err := d.WaitContainer(ctx, c.ID, api.WaitNotRunning); err != nil {
			return err
		}
		if c, err = d.model.Container(c.ID); err != nil {
			return nil // it was to be removed at its end
		}
	}
	s := d.box(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.unwire(s)
	defer func() { d.updateNames(c.ID); d.touchIdle() }()
	return d.remove(s, c)
}

// detach takes usernet's interfaces out of a sandbox that something else owns.
func (d *Daemon) detach(ctx context.Context, ref string) error {
	s, c, err := d.running(ref)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range c.Endpoints {
		names = append(names, e.Interface)
	}
	s.closeStub() // the rules that lead to it belong to whoever has them open
	d.awaitStore()
	if _, err := d.inside.Configure(ctx, d.target(c), sandbox.Request{Remove: names, RemoveLocal: localAddrs(c), NoDNSStub: true}); err != nil {
		d.log.Debug("interfaces left in a sandbox that is gone", "container", c.Name, "error", err)
	}
	s.mu.Unlock()
	return d.ContainerExited(ctx, c.ID, 0)
}

// RenameContainer gives a container another name; its DNS names follow at once.
func (d *Daemon) RenameContainer(_ context.Context, ref, name string) error {
	old, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	c, err := d.model.RenameContainer(old.ID, name)
	if err != nil {
		return err
	}
	d.updateNames(c.ID)
	s := d.box(c.ID)
	s.mu.Lock()
	for _, p := range s.plugs { // flows and logs show the new name too
		p.at.Rename(c.Name)
	}
	s.mu.Unlock()
	d.updateLinkers(old.Name, c.Name)
	d.containerEvent("rename", c, map[string]string{"oldName": "/" + old.Name})
	return nil
}

// LogPath is the file a detached container's output goes to.
func (d *Daemon) LogPath(ref string) (string, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return "", err
	}
	return filepath.Join(d.containerDir(c.ID), "log"), nil
}

func (d *Daemon) containerEvent(action string, c *network.Container, more map[string]string) {
	attributes := map[string]string{"name": c.Name, "image": ""}
	for k, v := range c.Labels {
		attributes[k] = v
	}
	for k, v := range more {
		attributes[k] = v
	}
	d.events.add("container", action, c.ID, attributes)
}
