package pasta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/usernet/usernet/autoconf"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/splice"
	"github.com/usernet/usernet/runtimes/standalone"
	"github.com/usernet/usernet/sandbox"
	"github.com/usernet/usernet/switch/tap"
)

// routerMAC is pasta's default for --mac-addr.
var routerMAC = net.HardwareAddr{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}

// netnsDir is where ip-netns(8) keeps namespaces by name.
const netnsDir = "/run/netns"

// session is a namespace that is connected.
type session struct {
	o    *Options
	host *host
	log  *slog.Logger
	net  connection
	// nameServer is the address of the daemon's name server in the namespace, whose ports nobody asked for; invalid:
	// there is none.
	nameServer netip.Addr
	diag       *os.File // tells what listens in the namespace; nil where nobody asks

	splices        *splice.Group // between the namespace's loopback and the host's
	onHost, inside [2]portSet    // ports that this process listens at, of TCP and UDP
	capture        *capture      // nil: none
	stopCapture    func()

	release []func() error // in the order in which it was acquired
}

// connection is the network that the namespace is on: one of this process, or the daemon's.
type connection interface {
	// PublishAll forwards host ports until they are unpublished: all of them, or with an error none.
	PublishAll(ctx context.Context, p engine.Publication) (unpublish func() error, err error)
	// Gone is closed when nothing connects the namespace any more.
	Gone() <-chan struct{}
	Close() error
}

// start joins the namespace, publishes ports and returns when traffic can flow.
func start(ctx context.Context, o *Options, log *slog.Logger) (*session, error) {
	s := &session{o: o, log: log, splices: splice.NewGroup()}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *session) start(ctx context.Context) error {
	o := s.o
	handle, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("the host's network: %w", err)
	}
	defer handle.Close()
	if s.host, err = readHost(handle, o); err != nil {
		return err
	}
	if o.PCAP != "" {
		if s.capture, err = newCapture(o.PCAP); err != nil {
			return err
		}
	}
	if len(o.Networks) > 0 {
		if s.net, err = s.join(ctx); err != nil {
			return err
		}
		return s.publish(ctx)
	}
	reply, err := s.configure(ctx)
	if err != nil {
		return err
	}
	s.diag = reply.SockDiag
	f := reply.TAPs[s.host.Interface]
	mac, err := tap.HardwareAddr(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	cfg := s.network(mac)
	if o.HostLoToNSLo {
		sockets := newLoopbackSockets(o.target())
		cfg.LoopbackSocket = sockets.get
		s.release = append(s.release, sockets.close)
		if !o.NoUDP && (o.UDP.Mode == ModeAuto || len(o.UDP.named()) > 0) {
			datagrams, err := newLoopbackDatagrams(ctx, o.target())
			if err != nil {
				return err
			}
			cfg.LoopbackDatagrams = datagrams.get
			s.release = append(s.release, datagrams.close)
		}
	}
	n, err := standalone.Start(cfg, f)
	if err != nil {
		return err
	}
	s.net = n
	if s.capture != nil {
		s.stopCapture = n.Mirror(s.capture.show)
	}
	return s.publish(ctx)
}

// target is the namespace that the options name.
func (o *Options) target() sandbox.Target {
	t := sandbox.Target{Pid: o.PID, NetNS: o.NetNS, UserNS: o.UserNS}
	if o.NetNS != "" && !strings.ContainsRune(o.NetNS, '/') {
		t.NetNS = filepath.Join(netnsDir, o.NetNS)
	}
	return t
}

// configure makes the interface in the namespace.
func (s *session) configure(ctx context.Context) (*sandbox.Reply, error) {
	o, h := s.o, s.host
	i := sandbox.Interface{Name: h.Interface, Offload: true, Given: !o.ConfigNet, Temporary: true}
	r := sandbox.Request{SockDiag: o.follows()}
	if o.ConfigNet {
		i.MAC, i.MTU, i.Addrs, i.IPv6 = o.MAC, o.MTU, h.Addrs, o.IPv6
		if i.MTU == 0 {
			i.MTU = defaultMTU
		}
		for _, w := range h.Routes {
			r.Routes = append(r.Routes, sandbox.Route{Dst: w.Dst, Via: w.Via, Interface: h.Interface})
		}
		r.Congestion = sandbox.CongestionOf(true)
	}
	r.Add = []sandbox.Interface{i}
	var none *sandbox.Helper // the process enters the namespace itself
	reply, err := none.Configure(ctx, o.target(), r)
	if err != nil {
		return nil, fmt.Errorf("interface %s in the namespace: %w", h.Interface, err)
	}
	return reply, nil
}

// network is the gateway that the namespace's traffic meets.
func (s *session) network(mac net.HardwareAddr) standalone.Config {
	o, h := s.o, s.host
	cfg := standalone.Config{
		Log: s.log,
		MTU: defaultMTU,
		MAC: routerMAC,
		Outbound: engine.Outbound{
			Addr4:      o.Outbound[v4],
			Addr6:      o.Outbound[v6],
			Interface:  o.OutboundIf[v4],
			Interface6: o.OutboundIf[v6],
		},
		Filter:    o.filter(),
		GuestMAC:  mac,
		Translate: s.translate(),
		// Not nil, also where the guest has no address: the gateway stands for everybody.
		ProxyAllBut: []netip.Addr{},
		Subnets:     []netip.Prefix{},
	}
	if o.RouterMAC != nil {
		cfg.MAC = o.RouterMAC
	}
	for _, g := range h.Gateways {
		if g.IsValid() {
			cfg.Gateways = append(cfg.Gateways, netip.PrefixFrom(g, g.BitLen()))
		}
	}
	for _, p := range h.Addrs {
		cfg.ProxyAllBut = append(cfg.ProxyAllBut, p.Addr())
		cfg.Subnets = append(cfg.Subnets, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		if o.ConfigNet {
			cfg.GuestAddrs = append(cfg.GuestAddrs, p.Addr())
		}
	}
	for _, a := range o.DNSForward {
		if a.IsValid() {
			cfg.DNS = append(cfg.DNS, a)
		}
	}
	for _, a := range o.DNSHost {
		if a.IsValid() {
			cfg.NameServers = append(cfg.NameServers, a.String())
		}
	}
	cfg.Autoconf = s.autoconf()
	return cfg
}

// autoconf is what guests are told that configure themselves; nil: nobody is told anything.
func (s *session) autoconf() *autoconf.Config {
	o, h := s.o, s.host
	cfg := &autoconf.Config{MTU: o.MTU, Hostname: o.Hostname, FQDN: o.FQDN}
	cfg.DNS, cfg.Search = o.told(h.Gateways)
	serves, has6 := false, false
	for _, p := range h.Addrs {
		switch {
		case p.Addr().Is4() && !o.NoDHCP && !cfg.Subnet4.IsValid() && h.Gateways[v4].IsValid():
			cfg.Subnet4, cfg.Router4, cfg.First4, cfg.Last4 = p.Masked(), h.Gateways[v4], p.Addr(), p.Addr()
			serves = true
		case p.Addr().Is6() && !has6:
			has6 = true
			if !o.NoRA && !o.ConfigNet {
				cfg.Prefix6 = netip.PrefixFrom(p.Addr(), 64).Masked()
			}
			if !o.NoDHCPv6 {
				cfg.Address6 = p.Addr()
			}
			serves = serves || cfg.Prefix6.IsValid() || cfg.Address6.IsValid()
		}
	}
	if !serves {
		return nil
	}
	return cfg
}

// translate says where addresses lead that stand for the host: its loopback, or the address that it has in common with
// the namespace.
func (s *session) translate() func(netip.Addr) netip.Addr {
	o, h := s.o, s.host
	table := map[netip.Addr]netip.Addr{}
	for family, loopback := range [2]netip.Addr{v4: netip.AddrFrom4([4]byte{127, 0, 0, 1}), v6: netip.IPv6Loopback()} {
		gateway, mapped := h.Gateways[family], o.MapHostLoopback[family]
		if gateway.IsValid() {
			table[gateway] = gateway // a machine like others
		}
		if !mapped.IsValid() && !o.NoMapGateway {
			mapped = gateway
		}
		if mapped.IsValid() {
			table[mapped] = loopback
		}
		if guest := o.MapGuestAddr[family]; guest.IsValid() {
			if own := hostAddr(family); own.IsValid() {
				table[guest] = own
			}
		}
	}
	return func(dst netip.Addr) netip.Addr { return table[dst] }
}

// hostAddr is a global address of the host, of a family.
func hostAddr(family int) netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() == (family == v4) && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// guest is the namespace's first address of each family.
func (s *session) guest() (in4, in6 netip.Addr) {
	for _, p := range s.host.Addrs {
		switch {
		case p.Addr().Is4() && !in4.IsValid():
			in4 = p.Addr()
		case p.Addr().Is6() && !in6.IsValid():
			in6 = p.Addr()
		}
	}
	return in4, in6
}

// close gives everything back, the last first.
func (s *session) close() error {
	var errs []error
	for i := len(s.release) - 1; i >= 0; i-- {
		errs = append(errs, s.release[i]())
	}
	s.splices.Close()
	if s.stopCapture != nil {
		s.stopCapture()
	}
	if s.net != nil {
		errs = append(errs, s.net.Close())
	}
	if s.diag != nil {
		errs = append(errs, s.diag.Close())
	}
	if s.capture != nil { // after the network, which nobody is shown any more
		lost, err := s.capture.close()
		if lost > 0 {
			s.log.Warn("frames are not in the capture, since the file is written more slowly", "frames", lost)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// writePID writes the process's own id where the options say.
func (o *Options) writePID() error {
	if o.PIDFile == "" {
		return nil
	}
	if err := os.WriteFile(o.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}
