package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// findNamespaces looks for the namespaces of attached containers whose descriptors ended with the last daemon: that was
// killed, and no service manager kept them. Nothing but a process leads to such a namespace where its path is one that
// only the client sees. It is called before the daemon confines itself.
//
// The kernel uses the numbers of namespaces again. So one counts only where it has the container's interface and
// address. Several containers may be in one, those of an engine that moves interfaces: each is one network there.
func (d *Daemon) findNamespaces(all []*network.Container) {
	lost := map[network.NamespaceID][]*network.Container{}
	for _, c := range all {
		if c.Attached && c.Status == network.Running && c.Pid == 0 && c.NetNSID != (network.NamespaceID{}) &&
			d.target(c).File == nil {
			lost[c.NetNSID] = append(lost[c.NetNSID], c)
		}
	}
	if len(lost) == 0 {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.log.Warn("network namespaces of attached containers are not looked for", "error", err)
		return
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil || len(lost) == 0 {
			continue
		}
		f, err := os.Open(filepath.Join("/proc", e.Name(), "ns/net"))
		if err != nil {
			continue // another user's, or gone
		}
		if id, err := sandbox.NetworkNamespace(f); err == nil {
			ns := network.NamespaceID(id)
			if lost[ns] = d.keepFound(f, filepath.Join("/proc", e.Name(), "net"), lost[ns]); len(lost[ns]) == 0 {
				delete(lost, ns)
			}
		}
		_ = f.Close()
	}
}

// keepFound has those of containers keep a namespace whose interfaces are in it, and returns the others. dir has the
// namespace's proc_net(5) files.
func (d *Daemon) keepFound(netns *os.File, dir string, containers []*network.Container) (others []*network.Container) {
	for _, c := range containers {
		if !hasInterfaces(dir, c) {
			others = append(others, c)
			continue
		}
		if err := d.keepNamespace(d.runtime(c.ID), netns); err != nil {
			d.log.Warn("a network namespace was found, and cannot be kept", "container", c.Name, "error", err)
		}
	}
	return others
}

// hasInterfaces says whether a namespace, whose proc_net(5) files are in dir, has the interfaces of c and its IPv4
// addresses.
func hasInterfaces(dir string, c *network.Container) bool {
	devices, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return false
	}
	addresses, err := os.ReadFile(filepath.Join(dir, "fib_trie"))
	if err != nil {
		return false
	}
	for _, e := range c.Endpoints {
		if e.Interface == "" || e.Unconfigured && !c.Moves {
			continue
		}
		if !hasField(string(devices), e.Interface+":") || e.IPv4.IsValid() &&
			!hasField(string(addresses), e.IPv4.Addr().String()) {
			return false
		}
	}
	return true
}

// hasField says whether one of text's words is field.
func hasField(text, field string) bool {
	for word := range strings.FieldsSeq(text) {
		if word == field {
			return true
		}
	}
	return false
}
