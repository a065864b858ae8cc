package daemon

import (
	"slices"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// A container that usernet runs is of the same user as the daemon, so that SO_PEERCRED does not tell it from the user. Its user
// namespace does: what is started in it cannot leave it.

// AllowPeer says why the process pid gets no answers from the API: it is in a container that this daemon runs, and that was not
// started with ShareAPI. Attached ones are another runtime's, in namespaces that its own tools are in too.
func (d *Daemon) AllowPeer(pid int) error {
	closed := map[network.NamespaceID]string{} // a container's name
	for _, c := range d.model.Containers() {
		if c.Status != network.Exited && !c.ShareAPI && c.UserNSID != (network.NamespaceID{}) {
			closed[c.UserNSID] = c.Name
		}
	}
	if len(closed) == 0 {
		return nil
	}
	peer, err := d.inside.UserNamespaces(pid)
	if err != nil {
		d.log.Warn("an API client is refused: whether it is in a container cannot be told", "pid", pid, "error", err)
		return errdefs.Forbidden("whether process %d is in a container cannot be told: %w", pid, err)
	}
	for _, ns := range peer {
		if name, is := closed[network.NamespaceID(ns)]; is {
			d.log.Warn("an API client is refused: it is in a container", "pid", pid, "container", name)
			return errdefs.Forbidden("requests from within container %s are refused; start it with --share-api if it is to change networks", name)
		}
	}
	return nil
}

// userNamespaceFor is userNamespaceOf the first process of c. One that joins another's network is in that one's user namespace,
// and cannot be looked at before its command runs: what enters a sandbox shows nothing of itself.
func (d *Daemon) userNamespaceFor(c *network.Container, pid int) (network.NamespaceID, error) {
	if ref, shared := strings.CutPrefix(c.NetworkMode, "container:"); shared {
		owner, err := d.model.Container(ref)
		if err == nil && owner.NetworkMode != network.HostName {
			return owner.UserNSID, nil
		}
	}
	return d.userNamespaceOf(pid)
}

// userNamespaceOf is what tells the user namespace of a sandbox's first process from all others; zero: it is the daemon's own.
func (d *Daemon) userNamespaceOf(pid int) (network.NamespaceID, error) {
	list, err := d.inside.UserNamespaces(pid)
	if err != nil {
		return network.NamespaceID{}, err
	}
	// Above the daemon's own there are none for it, which ends the list; the daemon's may not be among those it sees.
	dev, ino, err := (*sandbox.Helper)(nil).Namespace("/proc/self/ns/user")
	if own := (sandbox.NamespaceID{Dev: dev, Ino: ino}); err != nil || slices.Index(list, own) == 0 {
		return network.NamespaceID{}, err
	}
	return network.NamespaceID(list[0]), nil
}
