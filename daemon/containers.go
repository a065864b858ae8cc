package daemon

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
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
	if err := errors.Join(spec.Restart.Check(), spec.Health.Check()); err != nil {
		return nil, nil, err
	}
	if err := d.checkResources(spec.Resources); err != nil {
		return nil, nil, err
	}
	if spec.StopSignal != "" {
		if _, err := parseSignal(spec.StopSignal); err != nil {
			return nil, nil, err
		}
	}
	c, warnings, err := d.model.CreateContainer(spec)
	if err != nil {
		return nil, nil, err
	}
	d.updateIdleTimer()
	d.containerEvent("create", c, nil)
	time.AfterFunc(startGrace, func() { d.removeUnstarted(c.ID) })
	return c, warnings, nil
}

// ContainerFiles implements api.Backend.
func (d *Daemon) ContainerFiles(ref string) (api.StartReply, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return api.StartReply{}, err
	}
	return d.startReply(c), nil
}

// refreshLinkedHosts brings /etc/hosts of the containers up to date that have a link on the default bridge to one of
// targets, after it came, went, moved or got another name.
func (d *Daemon) refreshLinkedHosts(targets ...string) {
	for _, id := range d.names.Linkers(targets...) {
		if d.ctx.Err() == nil {
			d.wg.Go(func() { d.updateFiles(id) }) // not here: the caller holds a container's lock
		}
	}
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
	s := d.runtime(c.ID)
	s.mu.Lock()
	for _, p := range s.attachments { // flows and logs show the new name too
		p.port.Rename(c.Name)
	}
	s.mu.Unlock()
	d.refreshLinkedHosts(old.Name, c.Name)
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
	attributes := maps.Clone(c.Labels)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["name"], attributes["image"] = c.Name, "" // whatever labels are called
	for k, v := range more {
		attributes[k] = v
	}
	d.events.add("container", action, c.ID, attributes)
}
