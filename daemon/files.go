package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// stubAddr is where a sandbox's resolver finds the DNS server, as in Docker. The sockets are made inside the sandbox
// and served from here, so the address works on internal and IPv6-only networks too, and outlives the gateway's.
var stubAddr = netip.MustParseAddrPort("127.0.0.11:53")

// stubAddrOf is where that is for c.
func stubAddrOf(c *network.Container) netip.AddrPort {
	if c.DNSAddr.IsValid() {
		return netip.AddrPortFrom(c.DNSAddr, stubAddr.Port())
	}
	return stubAddr
}

// localAddrs are the addresses that the loopback interface of c's sandbox has besides its own.
func localAddrs(c *network.Container) []netip.Addr {
	list := slices.Clone(c.LocalAddrs)
	if c.DNSAddr.IsValid() && !c.DNSAddr.IsLoopback() {
		list = append(list, c.DNSAddr)
	}
	return list
}

// containerDir holds what the process that started a container has of it: its log, exit status, and the socket at which
// it takes updates of hosts and resolv.conf.
func (d *Daemon) containerDir(id string) string {
	return filepath.Join(d.cfg.StateDir, "containers", id)
}

// checkOwned refuses a directory that another user owns or may write to.
func checkOwned(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case !ok || int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user; choose another state directory with --state-dir", dir)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others; run: chmod go-w %s", dir, dir)
	}
	return nil
}

// CheckSocketDir refuses a directory for the API's socket in which another user could put a socket of the same name.
func CheckSocketDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("the socket's directory: %w; make it, or choose another place with --socket", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s, where the socket is to be, is not a directory", dir)
	case !ok || int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return fmt.Errorf("%s, where the socket is to be, belongs to another user; choose another place with --socket",
			dir)
	case info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0:
		return fmt.Errorf("%s, where the socket is to be, can be written by others; run: chmod go-w %s", dir, dir)
	}
	return nil
}

// filesOf makes the texts of the container's hosts and resolv.conf.
func (d *Daemon) filesOf(c *network.Container) sandbox.Files {
	return sandbox.Files{Hosts: hostsFile(c, d.networksOf(c), d.linkTargets(c)), ResolvConf: d.resolvConf(c)}
}

// updateFiles brings hosts and resolv.conf of a running container, and of those that share its network, up to date.
// They are written by the processes that started the sandboxes, from the daemon's text: nothing that a container may
// have written is read. Each takes sandbox.SendFiles' time at most. The caller holds no lock.
func (d *Daemon) updateFiles(id string) {
	d.mu.Lock()
	s := d.runtimes[id]
	d.mu.Unlock()
	if s == nil {
		return // removed meanwhile
	}
	s.files.Lock()
	defer s.files.Unlock()
	c, err := d.model.ContainerWithoutPorts(id)
	if err != nil || d.ctx.Err() != nil {
		return
	}
	files := d.filesOf(c)
	for _, o := range append(d.model.Find(network.SharingWith(c.ID)), c) {
		if o.Status != network.Running || o.Monitor == 0 {
			continue
		}
		if err := sandbox.SendFiles(d.ctx, d.containerDir(o.ID), files); err != nil &&
			sandbox.Alive(o.Monitor, o.MonitorStart) {
			d.log.Warn("hosts and resolv.conf not written", "container", o.Name, "error", err)
		}
	}
}

// linkTarget is a container that another one on the default bridge has a link to.
type linkTarget struct {
	alias string
	c     *network.Container
	addrs []netip.Addr
}

// linkTargets finds the running containers behind c's links on the default bridge.
func (d *Daemon) linkTargets(c *network.Container) []linkTarget {
	var list []linkTarget
	for _, l := range network.ParseLinks(c.Links) {
		t, err := d.model.Container(l.Target)
		if err != nil {
			continue
		}
		for _, e := range t.Endpoints {
			if e.Network == network.BridgeName {
				list = append(list, linkTarget{l.Alias, t, endpointAddrs(e)})
			}
		}
	}
	return list
}

// hostsFile is what Docker writes, and the names at which the host is reached.
func hostsFile(c *network.Container, nets map[string]*network.Network, links []linkTarget) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	own := map[string]bool{}
	for _, h := range c.ExtraHosts {
		name, addrs, _ := extraHost(h, c, nets)
		own[name] = true
		for _, a := range addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	for _, l := range links {
		names := []string{l.alias}
		for _, n := range []string{l.c.Hostname, l.c.Name} {
			if n != "" && n != l.alias {
				names = append(names, n)
			}
		}
		for _, a := range l.addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a, strings.Join(names, " "))
		}
	}
	for _, e := range c.Endpoints {
		for _, a := range endpointAddrs(e) {
			if c.Domainname != "" {
				fmt.Fprintf(&b, "%s\t%s.%s %s\n", a, c.Hostname, c.Domainname, c.Hostname)
			} else if c.Hostname != "" {
				fmt.Fprintf(&b, "%s\t%s\n", a, c.Hostname)
			}
		}
	}
	for _, name := range hostNames {
		if own[name] {
			continue
		}
		for _, a := range hostGateways(c, nets) {
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	return b.String()
}

// resolvConf points the sandbox's resolver at its stub. Search domains are the container's own, else the host's,
// so that short names of the host's domain work as they do on the host.
func (d *Daemon) resolvConf(c *network.Container) string {
	var b strings.Builder
	b.WriteString("# Written by usernet. Names of containers are answered here, others by the host's resolvers.\n")
	if len(c.Endpoints) > 0 {
		fmt.Fprintf(&b, "nameserver %s\n", stubAddrOf(c).Addr())
	}
	search, options := d.searchDomains(c), c.DNSOptions
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	ndots := false
	for _, o := range options {
		ndots = ndots || strings.HasPrefix(o, "ndots:")
	}
	if !ndots {
		options = append([]string{"ndots:0"}, options...)
	}
	fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	return b.String()
}

// searchDomains are the domains that the resolver of c adds to names: its own, else the daemon's, else the host's. A
// dot stands for none.
func (d *Daemon) searchDomains(c *network.Container) []string {
	for _, list := range [][]string{c.DNSSearch, d.cfg.DNSSearch, d.upstream.Search()} {
		if len(list) == 0 {
			continue
		}
		if list[0] == "." {
			return nil
		}
		return list
	}
	return nil
}

// setsNdots says whether options have the resolver add its search domains before it asks for a name of one label (ndots
// in resolv.conf(5)). Such names are not forwarded then, as in Docker.
func setsNdots(options []string) bool {
	for _, o := range options {
		if text, ok := strings.CutPrefix(o, "ndots:"); ok {
			n, err := strconv.Atoi(text)
			return err == nil && n > 0
		}
	}
	return false
}
