package daemon

import (
	"context"
	"os"

	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// keepNamespace stores a copy of a namespace's descriptor in s.
func (d *Daemon) keepNamespace(s *containerRuntime, netns *os.File) error {
	fd, err := sockio.Dup(netns)
	if err != nil {
		return err
	}
	if old := s.netns.Swap(os.NewFile(uintptr(fd), "netns")); old != nil {
		_ = old.Close()
	}
	return nil
}

// takeNamespaces takes the descriptors of network namespaces that the last daemon has handed over.
func (d *Daemon) takeNamespaces(all []*network.Container, r *received) {
	for _, c := range all {
		fd, ok := r.Take(netnsID(c.ID))
		if !ok {
			continue
		}
		f := os.NewFile(uintptr(fd), "netns")
		id, err := sandbox.NetworkNamespace(f)
		if err != nil || network.NamespaceID(id) != c.NetNSID || c.Status != network.Running {
			d.log.Warn("a network namespace that was handed over is of no use", "container", c.Name, "error", err)
			_ = f.Close()
			continue
		}
		d.runtime(c.ID).netns.Store(f)
	}
}

// dropNamespace closes the descriptor of the container's network namespace.
func (s *containerRuntime) dropNamespace() {
	if f := s.netns.Swap(nil); f != nil {
		_ = f.Close()
	}
}

// target says how the agent finds a container's namespaces.
func (d *Daemon) target(c *network.Container) sandbox.Target {
	t := sandbox.Target{Pid: c.Pid, NetNS: c.NetNS, UserNS: c.UserNS}
	d.mu.Lock()
	s := d.runtimes[c.ID]
	d.mu.Unlock()
	if s == nil {
		return t
	}
	if t.File = s.netns.Load(); t.File != nil {
		t.UserNS = "" // a path of the client's, which the descriptor makes unnecessary
	}
	return t
}

// interfacesOf are the names that a container's interfaces have in its namespace.
func interfacesOf(c *network.Container) []string {
	var names []string
	for _, e := range c.Endpoints {
		if e.Interface != "" {
			names = append(names, e.Interface)
		}
	}
	return names
}

// removeInterfaces takes interfaces of an attached container out of its namespace, which may live on.
func (d *Daemon) removeInterfaces(c *network.Container, names []string) {
	t := d.target(c)
	if t.File == nil || len(names) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
	defer cancel()
	if _, err := d.sandboxes.Configure(ctx, t, sandbox.Request{
		Remove:      names,
		RemoveLocal: localAddrs(c),
		NoDNSStub:   true,
	}); err != nil {
		d.log.Debug("interfaces left in a namespace", "container", c.Name, "error", err)
	}
}
