package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox/entry"
	"github.com/usernet/usernet/switch/tap"
)

// runAgent is the agent: one request, one answer, end.
func runAgent() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("agent without a control socket: %w", err)
	}
	defer c.Close()
	if err := entry.Result(); err != nil {
		return err
	}
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	var r Request
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return err
	}
	var a answer
	files, err := carryOut(r)
	if err != nil {
		a.Error = err.Error()
		files = nil
	}
	var fds []int
	for _, f := range files {
		a.Files = append(a.Files, f.name)
		fds = append(fds, int(f.file.Fd()))
	}
	return send(c, a, fds)
}

// send sends a message and the descriptors that come with it.
func send(c *net.UnixConn, a any, fds []int) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = sockio.WriteRights(c, b, fds...)
	return err
}

type namedFile struct {
	name string
	file *os.File
}

// carryOut does what r asks for, in the network namespace this process is in.
func carryOut(r Request) (files []namedFile, err error) {
	if !r.onlyGiven() {
		if err := loopbackUp(); err != nil {
			return nil, err
		}
	}
	if err := localAddresses(r.Local, r.RemoveLocal); err != nil {
		return nil, err
	}
	for _, name := range r.Remove {
		if link, err := netlink.LinkByName(name); err == nil {
			if err := netlink.LinkDel(link); err != nil {
				return nil, fmt.Errorf("interface %s: remove: %w", name, err)
			}
		}
	}
	var made []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range made {
			if link, e := netlink.LinkByName(name); e == nil {
				_ = netlink.LinkDel(link)
			}
		}
	}()
	for _, i := range r.Add {
		_, missing := netlink.LinkByName(i.Name)
		f, err := tap.Create(i.Name, i.MAC, i.MTU, tap.Options{Offload: i.Offload, Persist: !i.Given && !i.Temporary})
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("interface %s is in use in this sandbox already, by another usernet or another tool", i.Name)
		}
		if err != nil {
			return nil, err
		}
		if missing != nil {
			made = append(made, i.Name)
		}
		if !i.Given {
			if err := setUp(i); err != nil {
				return nil, fmt.Errorf("interface %s: %w", i.Name, err)
			}
		}
		files = append(files, namedFile{i.Name, f})
	}
	if !r.onlyGiven() {
		if err := setDefaultRoutes(r.DefaultRoutes); err != nil {
			return nil, err
		}
		if err := setRoutes(r.Routes); err != nil {
			return nil, err
		}
	}
	if r.SockDiag {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
		if err != nil {
			return nil, os.NewSyscallError("socket(NETLINK_INET_DIAG)", err)
		}
		files = append(files, namedFile{fileSockDiag, os.NewFile(uintptr(fd), fileSockDiag)})
	}
	for _, at := range r.Listen {
		f, err := listenTCP(at)
		if err != nil {
			return nil, err
		}
		if f != nil {
			files = append(files, namedFile{fileListener, f})
		}
	}
	for _, at := range r.ListenPacket {
		f, err := listenUDP(at)
		if err != nil {
			return nil, err
		}
		if f != nil {
			files = append(files, namedFile{filePacket, f})
		}
	}
	if r.NoDNSStub {
		if err := removeRedirect(); err != nil {
			return nil, fmt.Errorf("DNS stub: %w", err)
		}
	}
	if r.DNSStub.IsValid() {
		stub, err := listenDNS(r.DNSStub)
		if err != nil {
			return nil, err
		}
		files = append(files, stub...)
	}
	return files, nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	return nil
}

// localAddresses gives the loopback interface addresses and takes others from it. Their scope is the host, so that nothing that
// leaves has them as its source.
func localAddresses(add, remove []netip.Addr) error {
	if len(add) == 0 && len(remove) == 0 {
		return nil
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	local := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Scope: unix.RT_SCOPE_HOST}
	}
	for _, a := range remove {
		if err := netlink.AddrDel(lo, local(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("loopback interface: address %s: %w", a, err)
		}
	}
	for _, a := range add {
		if err := netlink.AddrReplace(lo, local(a)); err != nil {
			return fmt.Errorf("loopback interface: address %s: %w", a, err)
		}
	}
	return nil
}

// setUp gives a TAP its address, MTU and MAC, and brings it up.
func setUp(i Interface) error {
	link, err := netlink.LinkByName(i.Name)
	if err != nil {
		return err
	}
	if i.MAC != nil && link.Attrs().HardwareAddr.String() != i.MAC.String() {
		if err := netlink.LinkSetHardwareAddr(link, i.MAC); err != nil {
			return fmt.Errorf("MAC %s: %w", i.MAC, err)
		}
	}
	if err := netlink.LinkSetMTU(link, i.MTU); err != nil {
		return fmt.Errorf("MTU %d: %w", i.MTU, err)
	}
	ipv6Sysctls(i)
	for _, p := range i.Addrs {
		if err := addAddress(link, p, false); err != nil {
			return err
		}
	}
	for _, a := range i.LinkLocal {
		if err := addAddress(link, netip.PrefixFrom(a, 16), true); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if err := fwmark.RouteBack(link, netlink.FAMILY_V4); err != nil {
		return err
	}
	if i.IPv6 {
		return fwmark.RouteBack(link, netlink.FAMILY_V6)
	}
	return nil
}

// isTAP says whether a link may be one of usernet's.
func isTAP(link netlink.Link) bool { return tap.IsLink(link) }

func addAddress(link netlink.Link, p netip.Prefix, linkScope bool) error {
	bits := p.Addr().BitLen()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), bits)}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // the daemon gives each address once
	}
	if linkScope {
		addr.Scope = unix.RT_SCOPE_LINK
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	return nil
}

// ipv6Sysctls keeps the interface to the addresses that it was given (Documentation/networking/ip-sysctl.rst). A kernel
// without IPv6 has none of the files, and /proc may be read-only in nested containers, where the defaults do.
func ipv6Sysctls(i Interface) {
	dir := "/proc/sys/net/ipv6/conf/" + i.Name + "/"
	values := map[string]string{"accept_ra": "0", "autoconf": "0", "addr_gen_mode": "0", "accept_dad": "0", "disable_ipv6": "0"}
	if i.Autoconf {
		values["accept_ra"], values["autoconf"] = "1", "1"
	}
	if !i.IPv6 {
		values["disable_ipv6"] = "1"
	}
	for name, v := range values {
		_ = os.WriteFile(dir+name, []byte(v), 0o644)
	}
}

// setDefaultRoutes replaces the default routes; those over interfaces that are no TAPs stay.
func setDefaultRoutes(want []Route) error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil || r.Table == fwmark.Table || !isTAP(link) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil {
			return fmt.Errorf("default route over %s: %w", link.Attrs().Name, err)
		}
	}
	return setRoutes(want)
}

func setRoutes(want []Route) error {
	for _, w := range want {
		link, err := netlink.LinkByName(w.Interface)
		if err != nil {
			return fmt.Errorf("route to %s over %s: %w", w.Dst, w.Interface, err)
		}
		r := &netlink.Route{
			LinkIndex: link.Attrs().Index,
			Priority:  w.Metric,
			Dst:       &net.IPNet{IP: w.Dst.Addr().AsSlice(), Mask: net.CIDRMask(w.Dst.Bits(), w.Dst.Addr().BitLen())},
		}
		if w.Via.IsValid() {
			r.Gw = w.Via.AsSlice()
		} else {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(r); err != nil {
			if w.Dst.Bits() == 0 {
				return fmt.Errorf("default route via %s over %s: %w", w.Via, w.Interface, err)
			}
			return fmt.Errorf("route to %s over %s: %w", w.Dst, w.Interface, err)
		}
	}
	return nil
}

// listenTCP makes a socket that listens in this network namespace, or none where the sandbox cannot have that.
func listenTCP(at netip.AddrPort) (*os.File, error) {
	var cfg net.ListenConfig
	l, err := cfg.Listen(context.Background(), "tcp", at.String())
	if cannotHave(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listening at %s: %w", at, err)
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// listenUDP makes a socket that receives in this network namespace, or none where the sandbox cannot have that.
func listenUDP(at netip.AddrPort) (*os.File, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if cannotHave(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receiving at %s: %w", at, err)
	}
	defer c.Close()
	return c.File()
}

// cannotHave says whether an address is in use, or of a family that the sandbox lacks.
func cannotHave(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}
