package daemon

import (
	"slices"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// A container that usernet runs is of the same user as the daemon, so that SO_PEERCRED does not tell it from the user.
// Its user namespace does: what is started in it cannot leave it.

// An attached container is in namespaces that something else made, whose own tools (podman, conmon, netavark) are in
// the same user namespace. Some are in the daemon's network namespace, which nothing in a sandbox can come back to:
// that needs capabilities in the user namespace that it belongs to (setns(2)). Others are in a third one, as netavark
// and CNI plugins under Podman are, and in the daemon's PID namespace, which nothing can come back to either
// (pid_namespaces(7)). A sandbox that was left in that one can trace the user's processes (ptrace(2) asks for the same
// uid), so that there is nothing to keep it from by another network namespace.

// AllowPeer says why the process pid gets no answers from the API: it is in a container of this daemon that was not
// started or attached with ShareAPI.
func (d *Daemon) AllowPeer(pid int) error {
	attached := d.model.FirstName(network.AttachedClosedAnywhere) != ""
	if !attached && d.model.FirstName(network.ClosedAnywhere) == "" {
		return nil
	}
	peer, err := d.sandboxes.Namespaces(pid)
	if err == nil && attached {
		var outside bool
		outside, err = d.outside(peer)
		attached = !outside
	}
	if err != nil {
		d.log.Warn("an API client is refused: whether it is in a container cannot be told", "pid", pid, "error", err)
		return errdefs.Forbidden("whether process %d is in a container cannot be told: %w", pid, err)
	}
	for _, ns := range append(peer.User, sandbox.NamespaceID{}) { // the last one stands for the daemon's own
		name := d.model.FirstName(network.ClosedIn(network.NamespaceID(ns)))
		if name == "" && attached {
			name = d.model.FirstName(network.AttachedClosedIn(network.NamespaceID(ns)))
		}
		if name != "" {
			d.log.Warn("an API client is refused: it is in a container", "pid", pid, "container", name)
			return errdefs.Forbidden(
				"requests from within container %s are refused; start or attach it with --share-api if it is to "+
					"change networks",
				name)
		}
	}
	return nil
}

// outside says whether a process, which may be in the user namespace of attached containers, is in none of them.
func (d *Daemon) outside(peer sandbox.Namespaces) (bool, error) {
	var own sandbox.Namespaces
	for path, id := range map[string]*sandbox.NamespaceID{"/proc/self/ns/net": &own.Net,
		"/proc/self/ns/pid": &own.PID} {
		var err error
		if id.Dev, id.Ino, err = (*sandbox.Helper)(nil).Namespace(path); err != nil {
			return false, err
		}
	}
	attached := d.model.FirstName(network.InNetNS(network.NamespaceID(peer.Net))) != ""
	return peer.Net == own.Net || peer.PID == own.PID && !attached, nil
}

// userNamespaceFor is userNamespaceOf the first process of c. One that joins another's network is in that one's user
// namespace, and cannot be looked at before its command runs: what enters a sandbox shows nothing of itself.
func (d *Daemon) userNamespaceFor(c *network.Container, pid int) (network.NamespaceID, error) {
	if ref, shared := strings.CutPrefix(c.NetworkMode, "container:"); shared {
		owner, err := d.model.Container(ref)
		if err == nil && owner.NetworkMode != network.HostName {
			if owner.Status != network.Running { // that of its next run is not known yet
				return network.NamespaceID{}, errdefs.Conflict(
					"cannot join network of a non running container: %s", owner.ID)
			}
			return owner.UserNSID, nil
		}
	}
	return d.userNamespaceOf(pid)
}

// userNamespaceOf is what tells the user namespace of a sandbox's first process from all others; zero: it is the
// daemon's own.
func (d *Daemon) userNamespaceOf(pid int) (network.NamespaceID, error) {
	in, err := d.sandboxes.Namespaces(pid)
	if err != nil {
		return network.NamespaceID{}, err
	}
	// Above the daemon's own there are none for it, which ends the list; the daemon's may not be among those it sees.
	dev, ino, err := (*sandbox.Helper)(nil).Namespace("/proc/self/ns/user")
	if own := (sandbox.NamespaceID{Dev: dev, Ino: ino}); err != nil || slices.Index(in.User, own) == 0 {
		return network.NamespaceID{}, err
	}
	return network.NamespaceID(in.User[0]), nil
}
