package forwarder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// Mapping asks for published ports. Ends of 0 mean single ports; a HostPort of 0 means a free one.
type Mapping struct {
	HostIP            netip.Addr // zero: all addresses of both families
	HostPort, HostEnd uint16
	Port, End         uint16
	Proto             string // tcp or udp
	// Interface limits the ports to what comes by this interface of the host; "": they are not.
	Interface string
	// FreeBind lets HostIP be an address that the host does not have yet.
	FreeBind bool
}

// sockets is how many host sockets a mapping needs.
func (m Mapping) sockets() int { return int(max(m.End, m.Port)-m.Port) + 1 }

// Bound is one published port as it is bound.
type Bound struct {
	Host  netip.AddrPort
	Port  uint16
	Proto string
	// Interface is the one that the port is limited to; "": it is not.
	Interface string
}

func (b Bound) key() portKey { return portKey{b.Host, b.Proto, b.Interface} }

// BindError says why a host port could not be had; its text is Docker's, and what to do.
type BindError struct {
	Host  netip.AddrPort
	Proto string
	Need  int // how many sockets the whole of what was asked for needs
	Err   error
}

// Error is the text for the user.
func (e *BindError) Error() string {
	text := fmt.Sprintf("Bind for %s failed: ", e.Host)
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return text + "port is already allocated"
	case errors.Is(e.Err, syscall.EACCES):
		return text + fmt.Sprintf("permission denied: ports below net.ipv4.ip_unprivileged_port_start are not for this user; use a higher port, "+
			"or as root: sysctl net.ipv4.ip_unprivileged_port_start=%d, or have systemd pass the daemon a socket (ListenStream=%s)", e.Host.Port(), e.Host)
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return text + "the host does not have this address"
	case errors.Is(e.Err, syscall.EMFILE):
		return text + fmt.Sprintf("the daemon may have no more than %d open files and this needs %d for ports alone: raise the hard limit "+
			"(RLIMIT_NOFILE; ulimit -Hn, LimitNOFILE= of systemd) to at least %d before the daemon starts", FileLimit(), e.Need, uint64(e.Need)+FileLimit())
	case errors.Is(e.Err, syscall.ENFILE):
		return text + "the machine has no more open files: raise the sysctl fs.file-max"
	}
	return text + e.Err.Error()
}

// Unwrap is the cause.
func (e *BindError) Unwrap() error { return e.Err }

// Publish binds all of ports for the container at in4 and in6, or with an error none.
func (f *Forwarder) Publish(ctx context.Context, in4, in6 netip.Addr, ports []Mapping) ([]Bound, error) {
	need := 0
	for _, m := range ports {
		need += m.sockets()
	}
	t := &transaction{f: f, in4: in4, in6: in6, need: need}
	for _, m := range ports {
		if err := t.add(ctx, m); err != nil {
			t.undo(0)
			return nil, err
		}
	}
	out := make([]Bound, 0, 2*len(t.made))
	for _, p := range t.made {
		out = append(out, p.bounds()...)
	}
	return out, nil
}

// transaction is what one Publish has bound so far.
type transaction struct {
	f        *Forwarder
	in4, in6 netip.Addr
	need     int
	made     []*published
	options  sockio.ListenOptions // of the mapping that is being bound, but Dual
}

// undo gives back what was bound after the first keep.
func (t *transaction) undo(keep int) {
	for _, p := range t.made[keep:] {
		t.f.unbind(p)
	}
	t.made = t.made[:keep]
}

func (t *transaction) add(ctx context.Context, m Mapping) error {
	if m.Proto == "sctp" {
		return errors.New("SCTP ports cannot be published: unprivileged host sockets cannot carry SCTP; publish TCP or UDP")
	}
	t.options = sockio.ListenOptions{Interface: m.Interface, FreeBind: m.FreeBind}
	count := int(max(m.End, m.Port)-m.Port) + 1
	hosts := int(max(m.HostEnd, m.HostPort)-m.HostPort) + 1
	for i := range count {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		port := m.Port + uint16(i)
		switch {
		case m.HostPort == 0:
			err = t.bindFree(m.HostIP, port, m.Proto)
		case count == 1 && hosts > 1:
			err = t.bindFirst(m.HostIP, m.HostPort, hosts, port, m.Proto)
		default:
			err = t.bind(m.HostIP, m.HostPort+uint16(i), port, m.Proto)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bindFirst takes the first port of a range that is free in all families.
func (t *transaction) bindFirst(hostIP netip.Addr, first uint16, count int, port uint16, proto string) error {
	var err error
	for i := range count {
		if err = t.bind(hostIP, first+uint16(i), port, proto); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return err
}

// bindFree draws host ports from net.ipv4.ip_local_port_range until one is free in all families.
func (t *transaction) bindFree(hostIP netip.Addr, port uint16, proto string) error {
	low, high := 32768, 60999 // the kernel's default (ip(7))
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(strings.TrimSpace(string(b)), &low, &high)
	}
	var err error
	for range 100 {
		if err = t.bind(hostIP, uint16(low+rand.IntN(high-low+1)), port, proto); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return err
}

// bind binds one host port on hostIP, or on all addresses of both families: with one socket where that is possible, which
// is half the descriptors.
func (t *transaction) bind(hostIP netip.Addr, hostPort, port uint16, proto string) error {
	if hostIP.IsValid() {
		return t.bindOne(hostIP, hostPort, port, proto, false)
	}
	all4, all6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	if t.f.cfg.Shared.inherits(all4, hostPort, proto) || t.f.cfg.Shared.inherits(all6, hostPort, proto) {
		keep := len(t.made)
		if err := t.bindOne(all4, hostPort, port, proto, false); err != nil {
			return err
		}
		err := t.bindOne(all6, hostPort, port, proto, false)
		if err != nil {
			t.undo(keep)
		}
		return err
	}
	err := t.bindOne(all6, hostPort, port, proto, true)
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) { // the host has no IPv6
		return t.bindOne(all4, hostPort, port, proto, false)
	}
	return err
}

func (t *transaction) bindOne(host netip.Addr, hostPort, port uint16, proto string, dual bool) error {
	p := &published{
		f:       t.f,
		bound:   Bound{netip.AddrPortFrom(host, hostPort), port, proto, t.options.Interface},
		options: t.options,
		in4:     t.in4,
		in6:     t.in6,
	}
	p.options.Dual = dual
	if err := p.open(); err != nil {
		return &BindError{p.bounds()[0].Host, proto, t.need, err}
	}
	t.made = append(t.made, p)
	return nil
}

// open makes p's socket and watches it.
func (p *published) open() error {
	fd, err := p.f.cfg.Shared.listen(p.key(), p.options)
	if err != nil {
		return err
	}
	p.sock.Open(fd)
	p.f.mu.Lock()
	closed := p.f.closed
	if !closed {
		p.f.ports[p] = struct{}{}
	}
	p.f.mu.Unlock()
	if closed {
		return errors.Join(unix.ESHUTDOWN, unix.Close(fd))
	}
	p.f.cfg.Shared.put(p)
	if p.bound.Proto == "udp" {
		sockio.MergeDatagrams(fd)
	} else if err := sockio.SetTCP(fd, p.f.cfg.Shared.keepAlive); err != nil {
		p.f.unbind(p)
		return err
	}
	if p.bound.Proto == "udp" && p.bound.Host.Addr().IsUnspecified() {
		if err := sockio.TellLocal(fd, p.bound.Host.Addr().Is6()); err != nil {
			p.f.unbind(p)
			return err
		}
	}
	if err := p.f.reactor.Add(fd, p); err != nil {
		p.f.unbind(p)
		return err
	}
	p.f.cfg.Shared.store(p, fd)
	return nil
}

func (f *Forwarder) unbind(p *published) {
	f.cfg.Shared.drop(p)
	f.cfg.Shared.unstore(p)
	f.mu.Lock()
	p.stayPaused()
	delete(f.ports, p)
	for _, in := range p.clients {
		in.endLocked()
	}
	f.mu.Unlock()
	p.sock.Close(f.reactor)
}

// Unpublish closes published ports. Connections through them go on.
func (f *Forwarder) Unpublish(list []Bound) error {
	named := map[*published]int{}
	for _, b := range list {
		if p := f.cfg.Shared.port(b.key()); p != nil && p.f == f {
			named[p]++
		}
	}
	var errs []error
	for p, n := range named {
		all := p.bounds()
		f.unbind(p)
		if n == len(all) {
			continue
		}
		for _, b := range all { // one family stays
			if !slices.Contains(list, b) {
				t := &transaction{f: f, in4: p.in4, in6: p.in6, need: 1, options: p.options}
				errs = append(errs, t.bindOne(b.Host.Addr(), b.Host.Port(), b.Port, b.Proto, false))
			}
		}
	}
	return errors.Join(errs...)
}
