package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/autoconf"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/vmlink"
)

// A virtual machine is a container without namespaces: its frames come by a Unix socket (package vmlink), and what is
// in it configures itself by DHCP and router advertisements, which the daemon answers on that link alone.
//
// The socket is in the state directory, one of the two places where a confined daemon may make one; who attaches the
// machine makes a link to it where the machine looks. So a daemon that is started again listens at the same place,
// and the machine's program finds it when it connects again. A machine that has connected to nobody is still one: it
// ends when it is detached, or with the process that holds it.

// attachVM makes a container of a virtual machine's socket. With a key it may be asked for again.
func (d *Daemon) attachVM(ctx context.Context, q api.AttachRequest) (*network.Container, error) {
	spec := q.Spec
	if err := checkVM(&spec); err != nil {
		return nil, err
	}
	for i := range spec.Networks {
		spec.Networks[i].Key = q.Key
		spec.Networks[i].SelfAddressed = true
	}
	if err := d.vmPathFree(q); err != nil {
		return nil, err
	}
	if q.Key != "" {
		for _, c := range d.attachedWith(q.Key) {
			have := c.VM
			have.Socket = ""
			if have == spec.VM && c.Status == network.Running && c.Holder == q.Holder {
				return c, nil
			}
			if err := d.detachKey(ctx, c, q.Key); err != nil {
				return nil, err
			}
		}
	}
	c, _, err := d.CreateContainer(ctx, spec)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*network.Container, error) {
		return nil, errors.Join(err, d.RemoveContainer(context.WithoutCancel(ctx), c.ID, true))
	}
	if !spec.VM.Connect {
		if _, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error {
			c.VM.Socket = d.vmFile(c.ID, "sock")
			return nil
		}); err != nil {
			return fail(err)
		}
	}
	if _, err := d.StartContainer(ctx, c.ID, api.Started{Holder: q.Holder}); err != nil {
		return fail(err)
	}
	return d.model.Container(c.ID)
}

// vmPathFree refuses a path that another virtual machine has: the one that came later would take the link from it, and
// its own machine would go to the other's network. A process that holds a machine with the same key, and has ended,
// gives its place to the next one.
func (d *Daemon) vmPathFree(q api.AttachRequest) error {
	for _, c := range d.model.Find(network.WithVMPath(q.Spec.VM.Path)) {
		if c.Status != network.Running || !vmAwaited(c.VM) {
			continue
		}
		again := q.Key != "" && hasKey(c, q.Key)
		held := c.Holder != 0 && c.Holder != q.Holder && sandbox.Alive(c.Holder, c.HolderStart)
		if again && !held {
			continue
		}
		return errdefs.Conflict("socket of the virtual machine: %s is that of %s: choose another path, or "+
			"`usernet detach %[2]s` first", q.Spec.VM.Path, c.Name)
	}
	return nil
}

// checkVM refuses what a virtual machine cannot have, and completes the rest.
func checkVM(spec *network.ContainerSpec) error {
	vm := &spec.VM
	switch {
	case !vmlink.Kind(vm.Kind).Valid():
		return errdefs.Invalid("socket of a virtual machine: kind %q is not known: give stream, datagram or seqpacket",
			vm.Kind)
	case !filepath.IsAbs(vm.Path) || filepath.Clean(vm.Path) != vm.Path:
		return errdefs.Invalid("socket of a virtual machine: %q is no absolute path", vm.Path)
	case vm.Connect && vmlink.Kind(vm.Kind) == vmlink.Datagram:
		return errdefs.Invalid("socket of a virtual machine: a datagram socket is not connected to; the virtual machine " +
			"sends to usernet's first")
	case spec.NetNS != "" || spec.ShareAPI || spec.DNSAddr.IsValid() || len(spec.LocalAddrs) > 0:
		return errdefs.Invalid("a virtual machine has no network namespace to put anything into")
	}
	vm.Socket = "" // the daemon's to say
	spec.Attached = true
	spec.NetNSID, spec.UserNSID = network.NamespaceID{}, network.NamespaceID{}
	if len(spec.Networks) == 0 {
		spec.Networks = []network.NamedEndpointSpec{{Network: spec.NetworkMode}}
	}
	return nil
}

// vmFile is where something about a virtual machine's socket is.
func (d *Daemon) vmFile(id, what string) string {
	return filepath.Join(d.cfg.StateDir, "vm", id[:12]+"."+what)
}

// removeVMFiles removes what is left of a virtual machine's socket.
func (d *Daemon) removeVMFiles(c *network.Container) {
	if !c.IsVM() {
		return
	}
	for _, what := range []string{"sock", "peer"} {
		if err := os.Remove(d.vmFile(c.ID, what)); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.log.Warn("file of a virtual machine left behind", "container", c.Name, "error", err)
		}
	}
}

// vmAwaited says whether a virtual machine may still come to its socket: the link to it is there.
func vmAwaited(vm network.VMSocket) bool {
	if vm.Connect {
		return true
	}
	to, err := os.Readlink(vm.Path)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || to == vm.Socket
}

// attachVMEndpoints connects the virtual machine's socket to its network. The caller holds s.mu.
func (d *Daemon) attachVMEndpoints(s *containerRuntime, c *network.Container, add []*network.Endpoint) error {
	for _, e := range add {
		n, err := d.model.Network(e.NetworkID)
		if err != nil {
			return err
		}
		b, err := d.bridgeFor(n)
		if err != nil {
			return err
		}
		p, err := d.attachVMLink(c, e, b)
		if err != nil {
			return errdefs.Internal("network of virtual machine %s: %w", c.Name, err)
		}
		s.attachments[e.ID] = p
		p.port.Start()
	}
	return nil
}

func (d *Daemon) attachVMLink(c *network.Container, e *network.Endpoint, b *bridge) (p *attachment, err error) {
	n := b.egress.Load()
	cfg, err := attachConfig(c, e, n)
	if err != nil {
		return nil, err
	}
	if cfg.Autoconf, err = d.vmAutoconf(c, e, b); err != nil {
		return nil, err
	}
	leave, err := d.joinVLAN(b, e.VLAN)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p == nil {
			leave()
		}
	}()
	at := vmlink.Config{
		Kind:    vmlink.Kind(c.VM.Kind),
		Path:    c.VM.Socket,
		Connect: c.VM.Connect,
		Logger:  d.log.With("container", c.Name),
	}
	if c.VM.Connect {
		at.Path = c.VM.Path
	} else if err := os.MkdirAll(filepath.Dir(at.Path), 0o700); err != nil {
		return nil, err
	}
	if !cfg.Unguarded {
		at.MAC = net.HardwareAddr(e.MAC[:])
	}
	if at.Kind == vmlink.Datagram {
		peer := d.vmFile(c.ID, "peer")
		at.Peer, _ = os.Readlink(peer) // none yet
		at.NewPeer = func(path string) { d.keepPeer(peer, path) }
	}
	link, err := vmlink.New(at)
	if err != nil {
		return nil, err
	}
	port, err := b.Attach(cfg, link)
	if err != nil {
		return nil, errors.Join(err, link.Close())
	}
	d.catchUp(b, n, c.ID)
	return &attachment{bridge: b, port: port, endpoint: e, leave: leave}, nil
}

// keepPeer stores where a virtual machine receives datagrams, for a daemon that is started again: the machine need
// not send first. A link holds a path of any bytes.
func (d *Daemon) keepPeer(file, path string) {
	next := file + ".next"
	_ = os.Remove(next) // of a daemon that was killed here
	if err := errors.Join(os.Symlink(path, next), os.Rename(next, file)); err != nil {
		d.log.Warn("a daemon that is started again will not reach the virtual machine before it sends", "error", err)
	}
}

// vmAutoconf is what a virtual machine is told that asks: its endpoint's addresses.
func (d *Daemon) vmAutoconf(c *network.Container, e *network.Endpoint, b *bridge) (*autoconf.Config, error) {
	cfg := &autoconf.Config{
		Search:   d.searchDomains(c),
		MTU:      b.MTU(),
		Hostname: c.Hostname,
		NoRoute:  b.record.Internal,
	}
	if strings.HasPrefix(c.ID, cfg.Hostname) { // nobody gave it one
		cfg.Hostname = c.Name
	}
	for _, p := range b.record.Pools {
		if !p.Gateway.IsValid() {
			continue
		}
		switch {
		case p.Subnet.Contains(e.IPv4.Addr()):
			cfg.Subnet4, cfg.Router4 = e.IPv4.Masked(), p.Gateway
			cfg.First4, cfg.Last4 = e.IPv4.Addr(), e.IPv4.Addr()
		case p.Subnet.Contains(e.IPv6.Addr()):
			cfg.Prefix6, cfg.Address6 = e.IPv6.Masked(), e.IPv6.Addr()
			cfg.Assigned6 = cfg.Address6 != selfMade(e)
		default:
			continue
		}
		if !b.record.IsDirect() { // there the gateway is somebody else's
			cfg.DNS = append(cfg.DNS, p.Gateway)
		}
	}
	return cfg, nil
}

// selfMade is the address that a guest makes of its prefix and MAC (RFC 4862 section 5.5.3); invalid where it makes
// none.
func selfMade(e *network.Endpoint) netip.Addr {
	if e.IPv6.Bits() != 64 {
		return netip.Addr{}
	}
	a, own := e.IPv6.Masked().Addr().As16(), vswitch.LinkLocal(e.MAC[:]).As16()
	copy(a[8:], own[8:])
	return netip.AddrFrom16(a)
}
